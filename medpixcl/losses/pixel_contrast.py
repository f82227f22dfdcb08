"""Contrast of two views of a batch at every level of a pixel-embedding network."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from medpixcl.coordinates import sample_at, voxel_positions, voxel_to_cell
from medpixcl.losses.gathering import first_row, gather_counts, gather_keys, own_rank
from medpixcl.losses.info_nce import pixel_info_nce

InfoNCE = Callable[..., Tensor]


class PixelContrastLoss(nn.Module):
    """Sum over levels of the pixel InfoNCE between two views (:func:`medpixcl.losses.pixel_info_nce`).

    At each level the query view is sampled at the query pixels and the anchor view at their positives, linearly. Keys
    are the positives of the valid pairs of the batch or of the image; or all cells of the anchor view of the image,
    the positive being the nearest cell, as in CC2D. Each level is the mean over the valid pairs.

    Args:
        strides: Voxels per cell of each level, in the order of the network's levels; one number per level, or one for
            each axis.
        temperature: Number that divides the cosine.
        level_weights: Factor of each level; 1 by default.
        exclusion_radius: Distance from the positive, in cells of each level, below which keys of the same image are no
            negatives; 0 in CC2D.
        window: Half width, in cells of each level, of the local negative window; None for all keys.
        distance_slope: Growth of the logit with distance, in cosine per cell.
        distance_cap: Largest shift of the logit by distance, in cosine.
        clamp: Clamp the cosine to [0, 1].
        keys: Keys that an anchor is compared with. ``batch``: the positives of the whole batch. ``image``: the
            positives of its own image, so that the same anatomy of another patient is never pushed away. ``cells``: all
            cells of the anchor view of its image.
        gather: If torch.distributed is initialised, share the keys and the number of pairs of all processes, so that
            the gradient that DistributedDataParallel averages is that of one process with the whole batch. Every
            process must then call the loss; the mean of the processes' losses is the loss of the one process.

    Raises:
        ValueError: If there is not one weight for each stride, or ``keys`` is unknown.

    Example:
        >>> level = torch.eye(4).view(1, 4, 2, 2)
        >>> corners = torch.tensor([[[0.5, 0.5], [2.5, 2.5]]])
        >>> pairs = {"query": corners, "positive": corners, "valid": torch.tensor([[True, True]])}
        >>> PixelContrastLoss(strides=[2], temperature=1.0, exclusion_radius=0.0)(([level], [level]), pairs)
        tensor(0.3133)
    """

    def __init__(
        self,
        *,
        strides: Sequence[int | Sequence[int]],
        temperature: float = 0.07,
        level_weights: Sequence[float] | None = None,
        exclusion_radius: float = 2.0,
        window: int | None = None,
        distance_slope: float = 0.0,
        distance_cap: float = 0.0,
        clamp: bool = False,
        keys: Literal["batch", "image", "cells"] = "batch",
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.level_weights = (1.0,) * len(self.strides) if level_weights is None else tuple(level_weights)
        self._check_levels("level_weights", len(self.level_weights))
        if keys not in ("batch", "image", "cells"):
            raise ValueError(f"keys is {keys!r}; expected 'batch', 'image' or 'cells'.")
        self.keys = keys
        self.gather = gather
        self.info_nce = partial(
            pixel_info_nce,
            temperature=temperature,
            exclusion_radius=exclusion_radius,
            window=window,
            distance_slope=distance_slope,
            distance_cap=distance_cap,
            clamp=clamp,
        )

    def forward(self, views: Sequence[Sequence[torch.Tensor]], pairs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Weighted sum of the losses of all levels.

        Args:
            views: Levels of the query view and levels of the anchor view, each level of shape (B, C, *cells).
            pairs: ``query`` and ``positive`` (B, N, D), voxel indices in array order in the query and in the anchor
                view; ``valid`` (B, N), bool. Pairs that are not valid are neither anchors nor keys.

        Returns:
            Scalar; exactly 0, with a gradient, when no pair is valid.
        """
        levels = self.losses(views, pairs)
        return torch.stack([weight * loss for weight, loss in zip(self.level_weights, levels, strict=True)]).sum()

    def losses(self, views: Sequence[Sequence[torch.Tensor]], pairs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Loss of each level, without its weight, in the order of ``strides``; for arguments see :meth:`forward`."""
        flat = _flatten(pairs, gather=self.gather, share_keys=self.keys == "batch")
        factor = len(flat.counts) / max(sum(flat.counts), 1)
        return [factor * terms.sum() for terms in self._levels(views, flat, reduction="sum")]

    @torch.no_grad()
    def pair_losses(self, views: Sequence[Sequence[torch.Tensor]], pairs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Loss of every pair, the weighted sum over levels, without a gradient; for arguments see :meth:`forward`.

        The mean over the valid pairs is the loss. Where torch.distributed is initialised with ``gather``, every process
        must call it.

        Returns:
            Shape (B, N), float32 or wider; 0 where not valid.
        """
        flat = _flatten(pairs, gather=self.gather, share_keys=self.keys == "batch")
        levels = self._levels(views, flat, reduction="none")
        total = torch.stack([weight * terms for weight, terms in zip(self.level_weights, levels, strict=True)]).sum(0)
        return total.new_zeros(flat.valid.shape).masked_scatter(flat.valid, total)

    def _levels(
        self, views: Sequence[Sequence[Tensor]], flat: "_FlatPairs", *, reduction: Literal["sum", "none"]
    ) -> list[Tensor]:
        """Losses of the valid pairs at each level in order, or their sums."""
        queries, anchors = views
        self._check_levels("the query view", len(queries))
        self._check_levels("the anchor view", len(anchors))
        level = {"batch": self._sampled, "image": self._within, "cells": self._dense}[self.keys]
        info_nce = partial(self.info_nce, reduction=reduction)
        return [
            level(info_nce, query, anchor, stride, flat)
            for query, anchor, stride in zip(queries, anchors, self.strides, strict=True)
        ]

    def _check_levels(self, name: str, count: int) -> None:
        if count != len(self.strides):
            raise ValueError(f"{name} has {count} levels and strides {len(self.strides)}; give one for each level.")

    def _sampled(
        self, info_nce: InfoNCE, query: Tensor, anchor: Tensor, stride: int | Sequence[int], pairs: "_FlatPairs"
    ) -> Tensor:
        """The positives of the batch as keys."""
        keys = _sample(anchor, voxel_to_cell(pairs.positive, stride))[pairs.valid]
        return info_nce(
            _sample(query, voxel_to_cell(pairs.query, stride))[pairs.valid],
            gather_keys(keys, pairs.counts),
            pairs.targets,
            key_positions=voxel_to_cell(pairs.key_voxels, stride),
            key_images=pairs.key_images,
        )

    def _within(
        self, info_nce: InfoNCE, query: Tensor, anchor: Tensor, stride: int | Sequence[int], pairs: "_FlatPairs"
    ) -> Tensor:
        """The positives of the same image as keys."""
        positions = voxel_to_cell(pairs.positive, stride)
        vectors, keys = _sample(query, voxel_to_cell(pairs.query, stride)), _sample(anchor, positions)
        return torch.cat(
            [
                info_nce(
                    vectors[image, valid],
                    keys[image, valid],
                    torch.arange(int(valid.sum()), device=valid.device),
                    key_positions=positions[image, valid],
                ).reshape(-1)
                for image, valid in enumerate(pairs.valid)
            ]
        )

    def _dense(
        self, info_nce: InfoNCE, query: Tensor, anchor: Tensor, stride: int | Sequence[int], pairs: "_FlatPairs"
    ) -> Tensor:
        """All cells of the same image as keys."""
        positions = voxel_positions(anchor.shape[2:], device=anchor.device)
        nearest = _nearest(voxel_to_cell(pairs.positive, stride), anchor.shape[2:])
        sampled = _sample(query, voxel_to_cell(pairs.query, stride))
        cells, places = anchor.flatten(2).mT, positions.flatten(0, -2)
        return torch.cat(
            [
                info_nce(sampled[image, valid], cells[image], nearest[image, valid], key_positions=places).reshape(-1)
                for image, valid in enumerate(pairs.valid)
            ]
        )


class _FlatPairs(NamedTuple):
    """Pairs of this process, with where the keys of all processes lie.

    ``query``, ``positive`` (B, N, D) and ``valid`` (B, N) as given, but 0 where not valid; ``targets`` (n,) of the
    valid pairs among the keys; ``key_voxels`` (m, D), ``key_images`` (m,); ``counts``, valid pairs of every process.
    """

    query: Tensor
    positive: Tensor
    valid: Tensor
    targets: Tensor
    key_voxels: Tensor
    key_images: Tensor
    counts: list[int]


def _flatten(pairs: Mapping[str, Tensor], *, gather: bool, share_keys: bool) -> _FlatPairs:
    valid = pairs["valid"]
    query, positive = (pairs[name].masked_fill(~valid.unsqueeze(-1), 0.0) for name in ("query", "positive"))
    images = valid.nonzero()[:, 0]
    counts = gather_counts(len(images), valid.device) if gather else [len(images)]
    targets = torch.arange(len(images), device=valid.device) + first_row(counts)
    key_voxels = positive[valid]
    if share_keys:
        # Numbers that no other process gives to an image of its own.
        images = gather_keys(images * len(counts) + own_rank(counts), counts)
        key_voxels = gather_keys(key_voxels, counts)
    return _FlatPairs(query, positive, valid, targets, key_voxels, images, counts)


def _sample(level: Tensor, cells: Tensor) -> Tensor:
    """Vectors (B, N, C) at cell positions; in float32 or wider, since half precision cannot resolve the cells."""
    return sample_at(level.to(torch.promote_types(level.dtype, torch.float32)), cells)


def _nearest(cells: Tensor, shape: Sequence[int]) -> Tensor:
    """Flat index (B, N) of the cell nearest to each position (B, N, D) in a grid of this shape."""
    flat = torch.zeros_like(cells[..., 0], dtype=torch.long)
    for position, size in zip(cells.unbind(-1), shape, strict=True):
        flat = flat * size + position.round().long().clamp(0, size - 1)
    return flat
