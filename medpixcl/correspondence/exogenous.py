"""Filter of positives by an exogenous channel such as depth: our reconstruction of the depth-guided method."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._typing import Number
from medpixcl.correspondence.pooling import Kind, PooledExogenous
from medpixcl.correspondence.spatial import distances, wide


@dataclass(frozen=True)
class ExogenousChannel:
    """An exogenous channel and the way it filters positives.

    Two cells stay positives where ``|e_i - e'_j| / scale < threshold`` (strictly), or get the weight
    ``exp(-(|e_i - e'_j| / (scale * threshold))^2)``. The published abstract says only that depth filters; equation,
    threshold and everything else here are ours.

    Attributes:
        key: Name of the channel in the batch.
        kind: Type of values: ``continuous`` (one number), ``vector`` (Euclidean distance of several), ``cyclic``
            (difference on a circle), ``categorical`` (labels; the agreement is the scalar product of the cells' label
            histograms).
        threshold: Threshold T_e; for a categorical channel the least agreement, from 0 to 1.
        quantile: Quantile, from 0 to 1, of the differences among the spatial positives of each pair of views, used as
            T_e instead of a threshold; a difference equal to it stays.
        soft: Whether to weight pairs instead of thresholding them; a categorical channel then uses the agreement
            itself and needs no threshold.
        scale: Divisor of the differences, such as a noise level; 1 by default.
        period: Period of a cyclic channel.
        classes: Number of labels of a categorical channel.
        missing: Policy for pairs with a missing value: ``ignore`` applies only the spatial test, ``drop`` removes the
            pair.
        max_spread: Largest spread within a cell (:class:`PooledExogenous`); cells above it count as missing; None sets
            no limit.

    Raises:
        ValueError: If a number is missing, out of its range or does not go with the kind.
    """

    key: str
    kind: Kind = "continuous"
    threshold: Number | None = None
    quantile: Number | None = None
    soft: bool = False
    scale: Number = 1.0
    period: Number | None = None
    classes: int | None = None
    missing: Literal["ignore", "drop"] = "ignore"
    max_spread: Number | None = None

    def __post_init__(self) -> None:
        name = f"the exogenous channel {self.key!r}"
        if self.kind not in ("continuous", "vector", "cyclic", "categorical"):
            raise ValueError(f"{name} has kind {self.kind!r}; expected continuous, vector, cyclic or categorical.")
        if self.missing not in ("ignore", "drop"):
            raise ValueError(f"{name} has missing={self.missing!r}; expected 'ignore' or 'drop'.")
        if not self.scale > 0:
            raise ValueError(f"{name} has scale {self.scale}; expected a positive number.")
        if (self.kind == "cyclic") != (self.period is not None):
            raise ValueError(f"{name} of kind {self.kind} has period={self.period}; give one to a cyclic channel only.")
        if (self.kind == "categorical") != (self.classes is not None):
            raise ValueError(f"{name} of kind {self.kind} has classes={self.classes}; give it if categorical, only.")
        self._check_limit(name)

    def _check_limit(self, name: str) -> None:
        given = (self.threshold is not None) + (self.quantile is not None)
        if self.kind == "categorical":
            if self.quantile is not None or given != (not self.soft):
                raise ValueError(f"{name} is categorical; give it a threshold, or soft=True without one.")
        elif given != 1:
            raise ValueError(f"{name} has threshold={self.threshold}, quantile={self.quantile}; give one of them.")
        if self.threshold is not None and not self.threshold > 0:
            raise ValueError(f"{name} has threshold {self.threshold}; expected a positive number.")
        if self.quantile is not None and not 0 <= self.quantile <= 1:
            raise ValueError(f"{name} has quantile {self.quantile}; expected 0 to 1.")


@torch.no_grad()
def exogenous_difference(
    query: Float[Tensor, "b c n"],
    key: Float[Tensor, "b c m"],
    *,
    kind: Kind = "continuous",
    period: Number | None = None,
) -> Float[Tensor, "b n m"]:
    """Compute the difference of every two cells, shape (B, N, M); for categorical channels one minus their agreement.

    Args:
        query: Values of the query view, shape (B, C, N).
        key: Values of the key view, shape (B, C, M).
        kind: Type of values, see :class:`ExogenousChannel`.
        period: Period of a cyclic channel.

    Example:
        >>> exogenous_difference(torch.tensor([[[350.0]]]), torch.tensor([[[20.0]]]), kind="cyclic", period=360.0)
        tensor([[[30.]]])
    """
    first, second = wide(query).mT.contiguous(), wide(key).mT.contiguous()
    with torch.autocast(query.device.type, enabled=False):
        if kind == "categorical":
            return 1 - first @ second.mT
        difference = distances(first, second)
    if kind != "cyclic":
        return difference
    assert period is not None
    wrapped = torch.remainder(difference, period)
    return torch.minimum(wrapped, period - wrapped)


@torch.no_grad()
def channel_weights(
    channel: ExogenousChannel,
    query: PooledExogenous,
    key: PooledExogenous,
    spatial: Bool[Tensor, "b n m"],
    *,
    factor: Number = 1.0,
) -> tuple[Float[Tensor, "b n m"], Bool[Tensor, "b n m"]]:
    """Compute the weight of every pair by one channel, also for pairs that are not spatial positives.

    Args:
        channel: Channel that gives the weights.
        query: Values of the channel at the cells of the query view.
        key: Values of the channel at the cells of the key view.
        spatial: Spatial positives, among which a quantile is taken.
        factor: Factor on T_e; the agreement of a categorical channel is not multiplied.

    Returns:
        Weights from 0 to 1, 1 where missing, shape (B, N, M); and a mask of the pairs with known values.
    """
    known = _usable(channel, query)[:, :, None] & _usable(channel, key)[:, None]
    difference = exogenous_difference(query.values, key.values, kind=channel.kind, period=channel.period)
    if channel.kind == "categorical":
        agreement = 1 - difference
        # Agreements are sums of shares, rounded; one that equals the threshold passes.
        weights = agreement if channel.threshold is None else (agreement >= channel.threshold - 1e-6).float()
    else:
        weights = _limited(channel, difference / channel.scale, spatial & known, factor)
    return torch.where(known, weights.float(), 1.0), known


def _limited(channel: ExogenousChannel, difference: Tensor, counted: Tensor, factor: Number) -> Tensor:
    if channel.threshold is not None:
        limit = torch.tensor(factor * channel.threshold, dtype=difference.dtype, device=difference.device)
        passed = difference < limit
    else:
        assert channel.quantile is not None
        limit = factor * _quantiles(difference, counted, channel.quantile)[:, None, None]
        passed = difference <= limit
    if not channel.soft:
        return passed.float()
    return torch.exp(-(difference / limit.clamp_min(torch.finfo(difference.dtype).tiny)).square())


def _quantiles(difference: Tensor, counted: Tensor, quantile: Number) -> Tensor:
    """The quantile of each pair's counted differences, the next greater one of them; 0 where nothing counts."""
    found = []
    for one, mask in zip(difference, counted, strict=True):
        values = one[mask]
        rank = max(1, -int(-quantile * len(values) // 1))
        found.append(values.kthvalue(rank).values if len(values) else one.new_zeros(()))
    return torch.stack(found)


def _usable(channel: ExogenousChannel, pooled: PooledExogenous) -> Tensor:
    return pooled.valid if channel.max_spread is None else pooled.valid & (pooled.spread <= channel.max_spread)
