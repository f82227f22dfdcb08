"""Networks that give every pixel an embedding, over MONAI backbones."""

from medpixcl.networks.backbones import build_backbone
from medpixcl.networks.classifier import ClassifierNet, EncoderNet
from medpixcl.networks.contrast import InstanceContrastNet
from medpixcl.networks.efficientnet_lite import EfficientNetLiteEncoder
from medpixcl.networks.embedding import BackboneNet, PixelEmbeddingNet, SiameseNet
from medpixcl.networks.landmark import LandmarkNet
from medpixcl.networks.mixup import DenseOpacityNet, MixUpNet
from medpixcl.networks.precision import MixedPrecision
from medpixcl.networks.weights import TransferReport, load_weights, transfer_weights

__all__ = [
    "BackboneNet",
    "ClassifierNet",
    "DenseOpacityNet",
    "EfficientNetLiteEncoder",
    "EncoderNet",
    "InstanceContrastNet",
    "LandmarkNet",
    "MixUpNet",
    "MixedPrecision",
    "PixelEmbeddingNet",
    "SiameseNet",
    "TransferReport",
    "build_backbone",
    "load_weights",
    "transfer_weights",
]
