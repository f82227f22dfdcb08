from .annotations import AnnotatedLandmarksd as AnnotatedLandmarksd, PseudoLandmarksd as PseudoLandmarksd
from .body import BodyCoordinatesd as BodyCoordinatesd, BodyDistanceMapd as BodyDistanceMapd
from .classes import ClassifyViewsd as ClassifyViewsd, PixelClasses as PixelClasses
from .coordinates import CoordinateMapd as CoordinateMapd
from .edges import CropUniformEdgesd as CropUniformEdgesd
from .exogenous import (
    ExogenousGridd as ExogenousGridd,
    LoadExogenousd as LoadExogenousd,
    MissingAsNaNd as MissingAsNaNd,
    ScaleExogenousd as ScaleExogenousd,
    ShuffledExogenousd as ShuffledExogenousd,
)
from .informativeness import LocalEntropyd as LocalEntropyd
from .intensity import RandClassIntensityd as RandClassIntensityd, RandIntensityd as RandIntensityd
from .labels import LoadLabeld as LoadLabeld, OriginalGridd as OriginalGridd
from .landmarks import (
    LandmarkVoxelsd as LandmarkVoxelsd,
    RandLandmarkViewd as RandLandmarkViewd,
    mean_landmarks as mean_landmarks,
)
from .load import (
    LoadImageMMd as LoadImageMMd,
    WorkingSpacingd as WorkingSpacingd,
    working_spacing_for as working_spacing_for,
)
from .masking import RandMaskedCellsd as RandMaskedCellsd
from .mixup import RandCrossDomainMixUp as RandCrossDomainMixUp, RandCrossDomainMixUpd as RandCrossDomainMixUpd
from .pairs import RandPixelPairsd as RandPixelPairsd
from .scaling import LongestSided as LongestSided, UnitIntensityd as UnitIntensityd
from .two_views import RandContrastViewsd as RandContrastViewsd, RandTwoViewsd as RandTwoViewsd
from .view import RandViewd as RandViewd
from .views import RandPixelViewsd as RandPixelViewsd
