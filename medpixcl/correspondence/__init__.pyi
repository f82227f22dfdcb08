from .cells import (
    Cells as Cells,
    cells_of_affine as cells_of_affine,
    cells_of_boxes as cells_of_boxes,
    cells_of_map as cells_of_map,
    draw_cells as draw_cells,
)
from .exogenous import (
    ExogenousChannel as ExogenousChannel,
    channel_weights as channel_weights,
    exogenous_difference as exogenous_difference,
)
from .pixels import (
    PixelPairs as PixelPairs,
    correspond as correspond,
    draw_pixels as draw_pixels,
    overlap as overlap,
)
from .pooling import PooledExogenous as PooledExogenous, pool_exogenous as pool_exogenous
from .spatial import positive_mask as positive_mask, threshold_3d as threshold_3d
from .weights import (
    Positives as Positives,
    permute_positives as permute_positives,
    positive_statistics as positive_statistics,
    positive_weights as positive_weights,
)
