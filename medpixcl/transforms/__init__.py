"""Array and dictionary transforms: the only place that meets MONAI's dictionary world."""

from medpixcl.transforms.classes import ClassifyViewsd, PixelClasses
from medpixcl.transforms.coordinates import CoordinateMapd
from medpixcl.transforms.informativeness import LocalEntropyd
from medpixcl.transforms.intensity import RandClassIntensityd
from medpixcl.transforms.landmarks import LandmarkVoxelsd, RandIntensityd, RandLandmarkViewd
from medpixcl.transforms.load import LoadImageMMd, WorkingSpacingd
from medpixcl.transforms.pairs import RandPixelPairsd
from medpixcl.transforms.pseudo import PseudoLandmarksd
from medpixcl.transforms.views import RandPixelViewsd

__all__ = [
    "ClassifyViewsd",
    "CoordinateMapd",
    "LandmarkVoxelsd",
    "LoadImageMMd",
    "LocalEntropyd",
    "PixelClasses",
    "PseudoLandmarksd",
    "RandClassIntensityd",
    "RandIntensityd",
    "RandLandmarkViewd",
    "RandPixelPairsd",
    "RandPixelViewsd",
    "WorkingSpacingd",
]
