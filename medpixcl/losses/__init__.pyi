from .gathering import gather_counts as gather_counts, gather_keys as gather_keys
from .heatmap import LandmarkLoss as LandmarkLoss
from .info_nce import pixel_info_nce as pixel_info_nce
from .instance import InstanceContrastLoss as InstanceContrastLoss
from .mixup import MixUpObjective as MixUpObjective
from .pixel_contrast import PixelContrastLoss as PixelContrastLoss
from .pixpro import PixProLoss as PixProLoss
