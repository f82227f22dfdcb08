from .apps.adapt import adapt as adapt
from .apps.detect import Detector as Detector
from .apps.evaluate import evaluate as evaluate
from .apps.match import Matcher as Matcher
from .apps.measure import measure as measure
from .apps.results import Landmarks as Landmarks, Results as Results
from .data.images import read_image as read_image
from .data.landmarks.reading import read_landmarks as read_landmarks
from .data.manifest import Manifest as Manifest
from .data.scan import scan as scan

__version__: str
