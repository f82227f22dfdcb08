from .adapt import Adapted as Adapted
from .bundle_search import bundle_weights as bundle_weights
from .classify import PredictionWriter as PredictionWriter
from .detect import Detector as Detector
from .embed import EmbeddingWriter as EmbeddingWriter, VectorWriter as VectorWriter
from .few_shot import start_name as start_name
from .images import ImageList as ImageList
from .match import Matcher as Matcher, TemplateFitting as TemplateFitting
from .output import Output as Output
from .regions import Regions as Regions
from .register import Registration as Registration
from .results import Landmarks as Landmarks, Results as Results
from .segment import SegmentationWriter as SegmentationWriter
from .writer import LandmarkWriter as LandmarkWriter
