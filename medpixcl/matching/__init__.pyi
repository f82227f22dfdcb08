from .annotated_image import AnnotatedImage as AnnotatedImage
from .consistency import place_together as place_together
from .inferer import MatchingInferer as MatchingInferer
from .matcher import LandmarkMatcher as LandmarkMatcher, MatchResult as MatchResult
from .population import Population as Population
from .search import best_match as best_match, product_match as product_match
from .similarity import ProductMap as ProductMap, describe as describe
