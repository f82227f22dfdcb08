"""Which cells of two views are positives: near in space (PixPro), and alike in exogenous channels (our extension).

Everything here is without gradient and in float32 or wider, also under autocast: a mask in half precision is wrong.
What is PixPro's: the spatial mask (arXiv 2011.10043, and its published code). What is the depth-guided paper's (arXiv
2211.10177): that a channel beside the image filters the positives further; its equation was not available. The form
given to the filter here, its kinds, policies and combinations are a reconstruction of this package.
"""

from medpixcl.positives.cells import Cells, cells_of_affine, cells_of_boxes, cells_of_map, draw_cells, unit_boxes
from medpixcl.positives.exogenous import ExogenousChannel, channel_weights, exogenous_difference
from medpixcl.positives.pooling import PooledExogenous, pool_exogenous
from medpixcl.positives.spatial import positive_mask, threshold_3d
from medpixcl.positives.weights import Positives, permute_positives, positive_statistics, positive_weights

__all__ = [
    "Cells",
    "ExogenousChannel",
    "PooledExogenous",
    "Positives",
    "cells_of_affine",
    "cells_of_boxes",
    "cells_of_map",
    "channel_weights",
    "draw_cells",
    "exogenous_difference",
    "permute_positives",
    "pool_exogenous",
    "positive_mask",
    "positive_statistics",
    "positive_weights",
    "threshold_3d",
    "unit_boxes",
]
