from .classify import PredictionWriter as PredictionWriter
from .detect import LandmarkDetectionHandler as LandmarkDetectionHandler
from .embed import EmbeddingWriter as EmbeddingWriter, VectorWriter as VectorWriter
from .few_shot import start_name as start_name
from .images import ImageList as ImageList
from .match import LandmarkMatchHandler as LandmarkMatchHandler
from .regions import RegionHandler as RegionHandler
from .segment import SegmentationWriter as SegmentationWriter
from .unlabelled import UnlabelledImages as UnlabelledImages
