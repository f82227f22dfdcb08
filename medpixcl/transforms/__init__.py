"""Array and dictionary transforms: the only place that meets MONAI's dictionary world."""

from medpixcl.transforms.body import BodyCoordinatesd, BodyDistanceMapd
from medpixcl.transforms.classes import ClassifyViewsd, PixelClasses
from medpixcl.transforms.coordinates import CoordinateMapd
from medpixcl.transforms.drr import DRRd
from medpixcl.transforms.exogenous import (
    ExogenousGridd,
    LoadExogenousd,
    MissingAsNaNd,
    ScaleExogenousd,
    ShuffledExogenousd,
)
from medpixcl.transforms.informativeness import LocalEntropyd
from medpixcl.transforms.intensity import RandClassIntensityd
from medpixcl.transforms.labels import LoadLabeld, OriginalGridd
from medpixcl.transforms.landmarks import LandmarkVoxelsd, RandIntensityd, RandLandmarkViewd
from medpixcl.transforms.load import LoadImageMMd, WorkingSpacingd
from medpixcl.transforms.mixup import RandCrossDomainMixUp, RandCrossDomainMixUpd
from medpixcl.transforms.pairs import RandPixelPairsd
from medpixcl.transforms.pseudo import PseudoLandmarksd
from medpixcl.transforms.view import RandViewd
from medpixcl.transforms.views import RandPixelViewsd

__all__ = [
    "BodyCoordinatesd",
    "BodyDistanceMapd",
    "ClassifyViewsd",
    "CoordinateMapd",
    "DRRd",
    "ExogenousGridd",
    "LandmarkVoxelsd",
    "LoadExogenousd",
    "LoadImageMMd",
    "LoadLabeld",
    "LocalEntropyd",
    "MissingAsNaNd",
    "OriginalGridd",
    "PixelClasses",
    "PseudoLandmarksd",
    "RandClassIntensityd",
    "RandCrossDomainMixUp",
    "RandCrossDomainMixUpd",
    "RandIntensityd",
    "RandLandmarkViewd",
    "RandPixelPairsd",
    "RandPixelViewsd",
    "RandViewd",
    "ScaleExogenousd",
    "ShuffledExogenousd",
    "WorkingSpacingd",
]
