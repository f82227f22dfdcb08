"""Losses of pixel embeddings: they take embeddings and pairs, never images."""

from medpixcl.losses.info_nce import pixel_info_nce
from medpixcl.losses.pixel_contrast import PixelContrastLoss

__all__ = ["PixelContrastLoss", "pixel_info_nce"]
