from .annotated_image import AnnotatedImage as AnnotatedImage, annotated_images as annotated_images
from .inferer import MatchingInferer as MatchingInferer
from .match_result import MatchResult as MatchResult
from .matcher import LandmarkMatcher as LandmarkMatcher
from .placement import place_together as place_together
from .population import Population as Population
from .product import ProductMap as ProductMap, describe as describe
from .search import best_match as best_match, product_match as product_match
from .shape_statistics import ShapeStatistics as ShapeStatistics, read_shape as read_shape
