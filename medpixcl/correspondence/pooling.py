"""Pool an exogenous channel to a feature grid, leaving out missing values."""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Shaped
from monai.networks.layers.factories import Pool
from torch import Tensor
from torch.nn import functional as F

from medpixcl._typing import Number

Kind = Literal["continuous", "vector", "cyclic", "categorical"]


class PooledExogenous(NamedTuple):
    """An exogenous channel at the cells of a feature grid, in array order.

    Attributes:
        values: Mean values, shape (B, C, N), float32, or the share of every label of a categorical channel; 0 where not
            valid.
        valid: True where at least half of the cell is known, shape (B, N).
        spread: Standard deviation within the cell in the unit of the values (root of the sum over channels), shape
            (B, N); for a categorical channel the share of all labels but the most frequent.
    """

    values: Tensor
    valid: Tensor
    spread: Tensor

    def at(self, index: Tensor) -> "PooledExogenous":
        """Select cells by an index of shape (B, A)."""
        chosen = index.unsqueeze(1).expand(-1, self.values.shape[1], -1)
        return PooledExogenous(self.values.gather(2, chosen), self.valid.gather(1, index), self.spread.gather(1, index))


@torch.no_grad()
def pool_exogenous(
    values: Shaped[Tensor, "b c *v"],
    stride: int | Sequence[int],
    *,
    valid: Bool[Tensor, "b 1 *v"] | None = None,
    kind: Kind = "continuous",
    period: Number | None = None,
    classes: int | None = None,
) -> PooledExogenous:
    """Average the known values in every cell, ``sum(v e) / sum(v)``; ours, the paper's resampling is not known.

    At an edge, a mean is a value that neither side has; ``spread`` reveals such cells.

    Args:
        values: Channel of a view, shape (B, C, *view); NaN or infinite where missing. Labels of a categorical channel
            are whole numbers from 0, missing where negative, in one channel; a cyclic channel has one, too.
        stride: Voxels per cell.
        valid: Mask that is False where values are missing for another reason (padding), shape (B, 1, *view).
        kind: Type of values: ``continuous``, ``vector``, ``cyclic`` (mean on the circle), ``categorical`` (histogram of
            labels).
        period: Period of a cyclic channel.
        classes: Number of labels of a categorical channel.

    Raises:
        ValueError: If a categorical channel has a label of ``classes`` or above.

    Example:
        >>> depth = torch.tensor([[[[1.0, 3.0, float("nan"), 5.0]]]])
        >>> pooled = pool_exogenous(depth, (1, 2))
        >>> pooled.values, pooled.valid, pooled.spread
        (tensor([[[2., 5.]]]), tensor([[True, True]]), tensor([[1., 0.]]))
    """
    known = torch.isfinite(values).all(1, keepdim=True)
    if valid is not None:
        known = known & valid
    filled = torch.where(known, values.float(), 0.0)
    if kind == "categorical":
        return _labels(filled, known & (filled >= 0), stride, classes)
    if kind == "cyclic":
        return _angles(filled, known, stride, period)
    weighted, share = _average(filled * known, stride), _average(known.float(), stride)
    mean = weighted / share.clamp_min(1e-12)
    deviation = ((filled - _spread_out(mean, stride, values.shape[2:])) * known).square().sum(1, keepdim=True)
    return _flat(mean, share, (_average(deviation, stride) / share.clamp_min(1e-12)).sqrt())


def _labels(labels: Tensor, known: Tensor, stride: int | Sequence[int], classes: int | None) -> PooledExogenous:
    if classes is None or labels.shape[1] != 1:
        raise ValueError(
            f"a categorical channel has {labels.shape[1]} channels and classes={classes}; expected one and a number."
        )
    if int(labels.max()) >= classes:
        raise ValueError(f"a categorical channel has the label {int(labels.max())}; expected 0 to {classes - 1}.")
    one_hot = F.one_hot(labels[:, 0].clamp_min(0).long(), classes).movedim(-1, 1).float()
    share = _average(known.float(), stride)
    histogram = _average(one_hot * known, stride) / share.clamp_min(1e-12)
    return _flat(histogram, share, 1 - histogram.amax(1, keepdim=True))


def _angles(values: Tensor, known: Tensor, stride: int | Sequence[int], period: Number | None) -> PooledExogenous:
    if period is None or values.shape[1] != 1:
        raise ValueError(
            f"a cyclic channel has {values.shape[1]} channels, period={period}; expected one and a number."
        )
    turn = period / (2 * math.pi)
    circle = torch.cat([torch.cos(values / turn), torch.sin(values / turn)], dim=1)
    share = _average(known.float(), stride)
    mean = _average(circle * known, stride) / share.clamp_min(1e-12)
    length = torch.linalg.vector_norm(mean, dim=1, keepdim=True).clamp(1e-12, 1)
    angle = torch.atan2(mean[:, 1:], mean[:, :1]) * turn
    return _flat(torch.remainder(angle, period), share, (-2 * length.log()).sqrt() * turn)


def _flat(values: Tensor, share: Tensor, spread: Tensor) -> PooledExogenous:
    valid = share.flatten(1) >= 0.5
    return PooledExogenous(
        values.flatten(2).masked_fill(~valid[:, None], 0.0), valid, spread.flatten(1).masked_fill(~valid, 0.0)
    )


def _average(values: Tensor, stride: int | Sequence[int]) -> Tensor:
    kernel = stride if isinstance(stride, int) else tuple(stride)
    return Pool[Pool.AVG, values.ndim - 2](kernel, kernel, ceil_mode=True)(values)


def _spread_out(means: Tensor, stride: int | Sequence[int], shape: Sequence[int]) -> Tensor:
    """The mean of its cell at every voxel."""
    steps = [stride] * len(shape) if isinstance(stride, int) else list(stride)
    for axis, (step, size) in enumerate(zip(steps, shape, strict=True), start=2):
        means = means.repeat_interleave(step, dim=axis).narrow(axis, 0, size)
    return means
