"""Spatial test and exogenous filters in one weight for every pair of cells, and what became of the positives."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from medpixcl._typing import Number
from medpixcl.correspondence.cells import Cells
from medpixcl.correspondence.exogenous import ExogenousChannel, channel_weights
from medpixcl.correspondence.pooling import PooledExogenous
from medpixcl.correspondence.spatial import positive_mask


class Positives(NamedTuple):
    """Positives between the cells of two views of every image of a batch.

    Attributes:
        weights: 0 to 1, shape (B, N, M), float32; zero where not positive.
        spatial: PixPro's positives, before any exogenous filter, shape (B, N, M).
    """

    weights: Tensor
    spatial: Tensor


@torch.no_grad()
def positive_weights(
    query: Cells,
    key: Cells,
    *,
    threshold: Number,
    metric: Literal["mm", "bins"] = "mm",
    channels: Sequence[ExogenousChannel] = (),
    query_exogenous: Sequence[PooledExogenous] = (),
    key_exogenous: Sequence[PooledExogenous] = (),
    combine: Literal["product", "min", "mean"] = "product",
    factor: Number = 1.0,
) -> Positives:
    """Spatial positives, weighed by every exogenous channel: ``M_ij = M_ij(T) * combine_c w_c(e_i, e'_j)``.

    Without channels it is PixPro's mask. The filter is our reconstruction, see :class:`ExogenousChannel`.

    Args:
        query: Cells of the query view (all, or those drawn).
        key: Cells of the key view.
        threshold: T, see :func:`positive_mask`.
        metric: See :func:`positive_mask`.
        channels: Exogenous channels.
        query_exogenous: Of each channel its values at the query cells.
        key_exogenous: Of each channel its values at the key cells.
        combine: Of several channels: the product, the least or the mean of their weights. One that is missing and
            ignored counts as 1; one that is missing and dropped leaves no pair, whatever the others say.
        factor: Multiplies every channel's T_e.

    Raises:
        ValueError: If ``combine`` is unknown.
    """
    if combine not in ("product", "min", "mean"):
        raise ValueError(f"combine is {combine!r}; expected 'product', 'min' or 'mean'.")
    spatial = positive_mask(
        query.positions,
        key.positions,
        query.edges,
        key.edges,
        threshold=threshold,
        metric=metric,
        query_valid=query.valid,
        key_valid=key.valid,
    )
    kept, every = spatial, []
    for channel, own, other in zip(channels, query_exogenous, key_exogenous, strict=True):
        weights, known = channel_weights(channel, own, other, spatial, factor=factor)
        every.append(weights)
        if channel.missing == "drop":
            kept = kept & known
    return Positives(kept.float() if not every else _combined(every, combine) * kept, spatial)


def _combined(weights: list[Tensor], combine: str) -> Tensor:
    stacked = torch.stack(weights)
    if combine == "min":
        return stacked.amin(0)
    return stacked.mean(0) if combine == "mean" else stacked.prod(0)


@torch.no_grad()
def permute_positives(positives: Positives, *, generator: torch.Generator | None = None) -> Positives:
    """Control: the weights of every pair of views dealt out anew among its spatial positives.

    As many are removed as by the filter, but at random; what a filter gains over this is due to its channel.

    Args:
        positives: With the filter.
        generator: Source of randomness, on the CPU.
    """
    weights = torch.zeros_like(positives.weights)
    for pair, (spatial, old) in enumerate(zip(positives.spatial, positives.weights, strict=True)):
        values = old[spatial]
        order = torch.randperm(len(values), generator=generator)
        weights[pair, spatial] = values[order.to(values.device)]
    return Positives(weights, positives.spatial)


@torch.no_grad()
def positive_statistics(positives: Positives) -> dict[str, Tensor]:
    """How many positives there are, and what the filter took; scalars on the device.

    Returns:
        ``positives``: sum of the weights per pair of views. ``spatial_positives``: the same before the filter.
        ``kill_rate``: share of the spatial positives that the filter took (of their weight, where soft); 0 without any.
        ``empty_pairs``: share of the pairs of views without a positive. ``emptied_pairs``: of those that the filter
        emptied.
    """
    weights, spatial = positives.weights.sum((1, 2)), positives.spatial.sum((1, 2)).to(positives.weights)
    return {
        "positives": weights.mean(),
        "spatial_positives": spatial.mean(),
        "kill_rate": 1 - weights.sum() / spatial.sum() if spatial.sum() > 0 else torch.zeros_like(weights.sum()),
        "empty_pairs": (weights == 0).float().mean(),
        "emptied_pairs": ((weights == 0) & (spatial > 0)).float().mean(),
    }
