from .build import build_backbone as build_backbone
from .classifier import ClassifierNet as ClassifierNet, EncoderNet as EncoderNet
from .coarse_to_fine import CoarseToFineInferer as CoarseToFineInferer
from .contrast import InstanceContrastNet as InstanceContrastNet
from .efficientnet_lite import EfficientNetLiteEncoder as EfficientNetLiteEncoder
from .embedding import BackboneNet as BackboneNet, PixelEmbeddingNet as PixelEmbeddingNet, SiameseNet as SiameseNet
from .finetuning import parameter_groups as parameter_groups
from .inferers import LandmarkInferer as LandmarkInferer, LevelsInferer as LevelsInferer
from .landmark import LandmarkNet as LandmarkNet
from .mixup import DenseOpacityNet as DenseOpacityNet, MixUpNet as MixUpNet
from .pixpro import PixProNet as PixProNet
from .precision import MixedPrecision as MixedPrecision
from .segmentation import SegmentationNet as SegmentationNet
from .weights import (
    TransferReport as TransferReport,
    load_network as load_network,
    load_weights as load_weights,
    transfer_weights as transfer_weights,
)
