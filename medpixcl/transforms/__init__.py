"""Array and dictionary transforms: the only place that meets MONAI's dictionary world."""

from medpixcl.transforms.coordinates import CoordinateMapd
from medpixcl.transforms.informativeness import LocalEntropyd
from medpixcl.transforms.intensity import RandClassIntensityd
from medpixcl.transforms.load import LoadImageMMd, WorkingSpacingd
from medpixcl.transforms.pairs import RandPixelPairsd
from medpixcl.transforms.views import RandPixelViewsd

__all__ = [
    "CoordinateMapd",
    "LoadImageMMd",
    "LocalEntropyd",
    "RandClassIntensityd",
    "RandPixelPairsd",
    "RandPixelViewsd",
    "WorkingSpacingd",
]
