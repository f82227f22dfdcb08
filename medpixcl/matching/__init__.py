"""One-shot landmark matching: the landmarks of an annotated template, found in other images by their embeddings."""

from medpixcl.landmarks.geometry import fit_similarity
from medpixcl.matching.consistency import place_together
from medpixcl.matching.matcher import LandmarkMatcher, MatchResult
from medpixcl.matching.population import Population
from medpixcl.matching.search import best_match, product_match
from medpixcl.matching.similarity import ProductMap, describe

__all__ = [
    "LandmarkMatcher",
    "MatchResult",
    "Population",
    "ProductMap",
    "best_match",
    "describe",
    "fit_similarity",
    "place_together",
    "product_match",
]
