"""Weights of pairs of cells from the spatial test and the exogenous filters, with statistics and a control."""

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
        weights: Weights from 0 to 1, shape (B, N, M), float32; zero where not positive.
        spatial: Mask of PixPro's positives, before any exogenous filter, shape (B, N, M).
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
    """Weight the spatial positives by every exogenous channel: ``M_ij = M_ij(T) * combine_c w_c(e_i, e'_j)``.

    Without channels the result is PixPro's mask. The filter is our reconstruction, see :class:`ExogenousChannel`.

    Args:
        query: Cells of the query view (all, or those drawn).
        key: Cells of the key view.
        threshold: Threshold T of the spatial test, see :func:`positive_mask`.
        metric: Unit of the spatial distance, see :func:`positive_mask`.
        channels: Exogenous channels.
        query_exogenous: Values of each channel at the query cells.
        key_exogenous: Values of each channel at the key cells.
        combine: Combination of the weights of several channels: ``product``, ``min`` or ``mean``. A missing value
            counts as 1 if the channel ignores it, and removes the pair if the channel drops it.
        factor: Factor on every channel's T_e.

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
def permute_positives(
    positives: Positives, *, generator: torch.Generator | Sequence[torch.Generator] | None = None
) -> Positives:
    """Shuffle the weights of every pair of views among its spatial positives, as a control.

    As many positives are removed as by the filter, but at random; a gain of the filter over this control is due to its
    channel.

    Args:
        positives: Positives after the filter.
        generator: Source of random numbers, on the CPU, or one for each pair of views.
    """
    weights = torch.zeros_like(positives.weights)
    for pair, (spatial, old) in enumerate(zip(positives.spatial, positives.weights, strict=True)):
        values = old[spatial]
        source = generator[pair] if isinstance(generator, Sequence) else generator
        order = torch.randperm(len(values), generator=source)
        weights[pair, spatial] = values[order.to(values.device)]
    return Positives(weights, positives.spatial)


@torch.no_grad()
def positive_statistics(positives: Positives) -> dict[str, Tensor]:
    """Count the positives and those removed by the filter; scalars on the device.

    Returns:
        ``positives``: sum of the weights per pair of views. ``spatial_positives``: number of positives before the
        filter. ``kill_rate``: share of the spatial positives (or of their weight) that the filter removed; 0 without
        any. ``empty_pairs``: share of the pairs of views without a positive. ``emptied_pairs``: share of the pairs of
        views whose positives were all removed by the filter.
    """
    weights, spatial = positives.weights.sum((1, 2)), positives.spatial.sum((1, 2)).to(positives.weights)
    return {
        "positives": weights.mean(),
        "spatial_positives": spatial.mean(),
        "kill_rate": 1 - weights.sum() / spatial.sum() if spatial.sum() > 0 else torch.zeros_like(weights.sum()),
        "empty_pairs": (weights == 0).float().mean(),
        "emptied_pairs": ((weights == 0) & (spatial > 0)).float().mean(),
    }
