"""Losses of pixel embeddings: they take embeddings and pairs, never images."""

from medpixcl.losses.gathering import gather_counts, gather_keys
from medpixcl.losses.heatmap import LandmarkLoss
from medpixcl.losses.info_nce import pixel_info_nce
from medpixcl.losses.instance import InstanceContrastLoss
from medpixcl.losses.mixup import MixUpObjective
from medpixcl.losses.pixel_contrast import PixelContrastLoss

__all__ = [
    "InstanceContrastLoss",
    "LandmarkLoss",
    "MixUpObjective",
    "PixelContrastLoss",
    "gather_counts",
    "gather_keys",
    "pixel_info_nce",
]
