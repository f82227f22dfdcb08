"""PixPro's losses between two views, with positives filtered by exogenous channels, over several scales.

The losses of one scale are PixPro's and PixContrast's (:mod:`medpixcl.losses.consistency`). The paper on depth (arXiv
2211.10177) has a multi-scale loss whose form was not available; the sum over levels and thresholds of
:class:`PixProLoss` is our reading of it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from medpixcl.correspondence import (
    Cells,
    ExogenousChannel,
    PooledExogenous,
    Positives,
    cells_of_map,
    permute_positives,
    pool_exogenous,
    positive_statistics,
    positive_weights,
)
from medpixcl.losses.consistency import (
    Average,
    instance_consistency,
    pixel_consistency,
    pixel_contrast_multi_positive,
    vector_spread,
)

VIEWS = ("query", "anchor")


class PixProLoss(nn.Module):
    """PixPro or PixContrast of two views in both directions, over feature levels and thresholds.

    ``sum_s w_s L_s / sum_s w_s`` over s = (level, scale); L_s is the sum of both directions. The weights and the scales
    are ours. Both readings of the paper's multi-scale loss: several ``scales`` at one stride, or several strides.

    Args:
        strides: Voxels per cell of each level, in the order of the network's levels.
        scales: Pairs (T, factor) of the spatial threshold and the factor of every exogenous threshold T_e there. PixPro
            is ``[[0.7, 1]]``; in 3D see :func:`medpixcl.correspondence.threshold_3d`.
        level_weights: Weight of each level; 1 by default.
        scale_weights: Weight of each scale; 1 by default. w_s is the product of level and scale weight.
        exogenous: Exogenous channels, each a :class:`medpixcl.correspondence.ExogenousChannel` or its arguments; none
            in PixPro. Channels can only remove positives.
        combine: Rule for combining several channels, see :func:`medpixcl.correspondence.positive_weights`.
        metric: Unit of the spatial distance, see :func:`medpixcl.correspondence.positive_mask`.
        objective: ``consistency`` (PixPro) or ``contrast`` (PixContrast; the network then has no propagation).
        temperature: Number that divides the cosine in PixContrast.
        removed: Role in ``contrast`` of a spatial positive that the filter removes: ``negative``, or ``left_out`` of
            the denominator. Cells of padding are never negatives.
        average: Averaging over the pairs of views, see :func:`pixel_consistency`.
        instance_weight: Factor of the instance branch's loss; 0 in the published scripts, 1 in the paper.
        random_deletion: Control experiment: shuffle the filter's weights among the spatial positives, so that as many
            are removed whatever the channel says.

    Attributes:
        latest: Statistics of the last call's positives by stride and T, such as ``kill_rate_stride8_T0.7``, query view
            to anchor view, see :func:`medpixcl.correspondence.positive_statistics`; and by stride the
            :func:`vector_spread` of the keys. Scalars on the device.

    Raises:
        ValueError: If there is not one weight for each level and scale, or a choice is unknown.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int | Sequence[int]],
        scales: Sequence[Sequence[float | int]] = ((0.7, 1.0),),
        level_weights: Sequence[float | int] | None = None,
        scale_weights: Sequence[float | int] | None = None,
        exogenous: Sequence[ExogenousChannel | Mapping[str, Any]] = (),
        combine: Literal["product", "min", "mean"] = "product",
        metric: Literal["mm", "bins"] = "mm",
        objective: Literal["consistency", "contrast"] = "consistency",
        temperature: float | int = 0.3,
        removed: Literal["negative", "left_out"] = "negative",
        average: Average = "contributing",
        instance_weight: float | int = 0.0,
        random_deletion: bool = False,
    ) -> None:
        super().__init__()
        self.strides, self.scales = list(strides), [(float(t), float(factor)) for t, factor in scales]
        self.level_weights = _weights("level_weights", level_weights, len(self.strides))
        self.scale_weights = _weights("scale_weights", scale_weights, len(self.scales))
        self.channels = [c if isinstance(c, ExogenousChannel) else ExogenousChannel(**c) for c in exogenous]
        _check_choice("objective", objective, ("consistency", "contrast"))
        _check_choice("removed", removed, ("negative", "left_out"))
        _check_choice("average", average, ("contributing", "batch"))
        self.combine, self.metric, self.average = combine, metric, average
        self.objective, self.temperature, self.removed = objective, temperature, removed
        self.instance_weight, self.random_deletion = instance_weight, random_deletion
        self.latest: dict[str, Tensor] = {}

    def forward(self, views: Mapping[str, Mapping[str, Any]], target: Mapping[str, Any]) -> Tensor:
        """Compute the loss.

        Args:
            views: ``query`` and ``anchor`` as :class:`medpixcl.networks.pixpro.PixProNet` gives them, each with
                ``online`` (levels (B, C, N)), ``keys`` (levels (B, C, M)) and, with an instance branch,
                ``instance_online`` and ``instance_keys`` (B, C). N are the cells drawn, M all cells, in array order.
            target: For each view ``v``: ``coords_v`` (B, D+1, *view), coordinate map in mm with validity; ``affine_v``
                (B, D+1, D+1); for every exogenous channel ``<key>_v`` (B, C, *view), NaN where missing; where cells
                were drawn, ``cells_v``, their index (B, N) at each level.

        Returns:
            Scalar; exactly 0, with a gradient, when no pair of views has a positive.

        Raises:
            ValueError: If an exogenous channel is absent or of another size, or the levels do not fit the strides.
        """
        self.latest = {}
        seeds = target["item_seed"].tolist() if "item_seed" in target else range(len(target["coords_query"]))
        generators = [torch.Generator().manual_seed(int(seed)) for seed in seeds]
        levels = [self._level(level, views, target, generators) for level in range(len(self.strides))]
        factors = torch.outer(torch.tensor(self.level_weights), torch.tensor(self.scale_weights))
        losses = torch.stack([torch.stack(scales) for scales in levels])
        return (losses * (factors / factors.sum()).to(losses)).sum() + self._instance(views)

    def positives(self, target: Mapping[str, Any], *, level: int = 0, scale: int = 0) -> Positives:
        """Positives of all cells of the query view among all of the anchor view, filtered, at one level and scale."""
        query, anchor = (self._grid(view, target, self.strides[level]) for view in VIEWS)
        generators = [torch.Generator().manual_seed(0) for _ in target["coords_query"]]
        return self._positives(query, anchor, *self.scales[scale], generators)

    def _level(
        self,
        level: int,
        views: Mapping[str, Mapping[str, Any]],
        target: Mapping[str, Any],
        generators: Sequence[torch.Generator],
    ) -> list[Tensor]:
        """Loss of every scale at one level, both directions."""
        whole = {view: self._grid(view, target, self.strides[level]) for view in VIEWS}
        drawn = whole
        if "cells_query" in target:
            drawn = {view: grid.at(target[f"cells_{view}"][level]) for view, grid in whole.items()}
        self.latest[f"spread_stride{_stride_name(self.strides[level])}"] = vector_spread(views["anchor"]["keys"][level])
        losses = []
        for threshold, factor in self.scales:
            directions = []
            for one, other in (VIEWS, VIEWS[::-1]):
                queries, keys = views[one]["online"][level], views[other]["keys"][level]
                self._check_cells(queries, drawn[one].cells, level)
                self._check_cells(keys, whole[other].cells, level)
                positives = self._positives(drawn[one], whole[other], threshold, factor, generators)
                directions.append(self._objective(queries, keys, positives, whole[other].cells.valid))
                if one == "query":
                    name = _tag(self.strides[level], threshold, factor)
                    self.latest |= {f"{key}_{name}": value for key, value in positive_statistics(positives).items()}
            losses.append(directions[0] + directions[1])
        return losses

    def _positives(
        self, own: "_Grid", other: "_Grid", threshold: float, factor: float, generators: Sequence[torch.Generator]
    ) -> Positives:
        positives = positive_weights(
            own.cells,
            other.cells,
            threshold=threshold,
            metric=self.metric,
            channels=self.channels,
            query_exogenous=own.exogenous,
            key_exogenous=other.exogenous,
            combine=self.combine,
            factor=factor,
        )
        return permute_positives(positives, generator=generators) if self.random_deletion else positives

    def _objective(self, queries: Tensor, keys: Tensor, positives: Positives, valid: Tensor) -> Tensor:
        if self.objective == "consistency":
            return pixel_consistency(queries, keys, positives.weights, average=self.average)
        candidates = valid[:, None].expand_as(positives.spatial)
        if self.removed == "left_out":
            candidates = candidates & ~(positives.spatial & (positives.weights == 0))
        return pixel_contrast_multi_positive(
            queries,
            keys,
            positives.weights,
            temperature=self.temperature,
            candidates=candidates,
            average=self.average,
        )

    def _instance(self, views: Mapping[str, Mapping[str, Any]]) -> Tensor | float:
        if self.instance_weight == 0:
            return 0.0
        if "instance_online" not in views["query"]:
            raise ValueError("instance_weight is not 0 but the network has no instance branch: build it with one.")
        first, second = views["query"], views["anchor"]
        there = instance_consistency(first["instance_online"], second["instance_keys"])
        back = instance_consistency(second["instance_online"], first["instance_keys"])
        return self.instance_weight * (there + back)

    def _grid(self, view: str, target: Mapping[str, Any], stride: int | Sequence[int]) -> "_Grid":
        """Compute the cells of a view, and the values of every channel there."""
        coords = target[f"coords_{view}"]
        shown = coords[:, -1:] >= 0.5
        pooled = []
        for channel in self.channels:
            name = f"{channel.key}_{view}"
            if name not in target:
                raise ValueError(f"the exogenous channel {channel.key!r} is absent: the batch has no {name!r}; add it.")
            values = target[name]
            if values.shape[2:] != coords.shape[2:]:
                found, expected = tuple(values.shape[2:]), tuple(coords.shape[2:])
                raise ValueError(f"{name!r} has the size {found}; expected that of the view, {expected}.")
            pooled.append(
                pool_exogenous(
                    values, stride, valid=shown, kind=channel.kind, period=channel.period, classes=channel.classes
                )
            )
        return _Grid(cells_of_map(coords, target[f"affine_{view}"], stride), pooled)

    def _check_cells(self, vectors: Tensor, cells: Cells, level: int) -> None:
        if vectors.shape[2] != cells.positions.shape[1]:
            raise ValueError(
                f"level {level} has {vectors.shape[2]} cells, a view at stride {self.strides[level]} "
                f"{cells.positions.shape[1]}; give the loss the strides of the network."
            )


class _Grid(NamedTuple):
    """Cells of a view, and the values of every exogenous channel there."""

    cells: Cells
    exogenous: list[PooledExogenous]

    def at(self, index: Tensor) -> "_Grid":
        """The chosen cells, index of shape (B, A)."""
        return _Grid(self.cells.at(index), [pooled.at(index) for pooled in self.exogenous])


def _stride_name(stride: int | Sequence[int]) -> str:
    return str(stride) if isinstance(stride, int) else "x".join(map(str, stride))


def _tag(stride: int | Sequence[int], threshold: float, factor: float) -> str:
    return f"stride{_stride_name(stride)}_T{threshold:g}" + ("" if factor == 1 else f"_x{factor:g}")


def _weights(name: str, given: Sequence[float | int] | None, number: int) -> list[float]:
    weights = [1.0] * number if given is None else [float(weight) for weight in given]
    if len(weights) != number or min(weights) < 0 or sum(weights) <= 0:
        raise ValueError(f"{name} is {weights}; expected {number} numbers that are not negative nor all 0.")
    return weights


def _check_choice(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}; expected {' or '.join(map(repr, known))}.")
