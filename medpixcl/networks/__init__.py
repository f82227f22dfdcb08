"""Networks that give every pixel an embedding, over MONAI backbones."""

from medpixcl.networks.backbones import build_backbone
from medpixcl.networks.efficientnet_lite import EfficientNetLiteEncoder
from medpixcl.networks.embedding import EncoderEmbeddingNet, PixelEmbeddingNet, SiameseNet
from medpixcl.networks.landmark import LandmarkNet, MixedPrecision
from medpixcl.networks.weights import TransferReport, load_weights

__all__ = [
    "EfficientNetLiteEncoder",
    "EncoderEmbeddingNet",
    "LandmarkNet",
    "MixedPrecision",
    "PixelEmbeddingNet",
    "SiameseNet",
    "TransferReport",
    "build_backbone",
    "load_weights",
]
