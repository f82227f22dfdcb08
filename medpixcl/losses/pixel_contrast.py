"""Contrast of two views at several levels of a pixel-embedding network."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from medpixcl.coordinates import sample_at, voxel_positions, voxel_to_cell
from medpixcl.losses.gathering import gather_counts, gather_keys, global_count, rank, world_size
from medpixcl.losses.info_nce import pixel_info_nce


class _Pairs(NamedTuple):
    """The valid pairs of a batch, flat, on this process; and the keys they share with other processes."""

    query: Tensor
    positive: Tensor
    valid: Tensor
    images: Tensor
    targets: Tensor
    key_voxels: Tensor
    key_images: Tensor
    counts: list[int]


class PixelContrastLoss(nn.Module):
    """Sum over levels of the pixel InfoNCE between two views (:func:`medpixcl.losses.pixel_info_nce`).

    At each level the query view is sampled at the query pixels and the anchor view at their positives, both linearly.
    Keys are the positives of all pairs of the batch (of all processes with ``gather``), or, with ``dense_keys``, all
    cells of the anchor view of the same image, the form of CC2D, whose positive is the nearest cell.

    Args:
        temperature: Divides the cosine.
        strides: Voxels per cell of each level, in the order of the levels that the network gives.
        level_weights: Factor of each level; 1 by default.
        exclusion_radius: Keys of the same image nearer than this to the positive are no negatives, in cells of each
            level. 0 is the paper's form.
        window: Half width in cells of the local negative window; None for all keys.
        distance_slope: Growth of the logit with distance, in cosine per cell.
        distance_cap: Largest such growth.
        clamp: Clamp the cosine to [0, 1].
        dense_keys: Take all cells of the anchor view as keys instead of the positives of the batch.
        gather: Share keys and count pairs over all processes of torch.distributed, if it is initialised.
    """

    def __init__(
        self,
        *,
        strides: Sequence[int],
        temperature: float = 0.07,
        level_weights: Sequence[float] | None = None,
        exclusion_radius: float = 2.0,
        window: int | None = None,
        distance_slope: float = 0.0,
        distance_cap: float = 0.0,
        clamp: bool = False,
        dense_keys: bool = False,
        gather: bool = True,
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        self.level_weights = tuple(level_weights) if level_weights is not None else (1.0,) * len(self.strides)
        if len(self.level_weights) != len(self.strides):
            raise ValueError(
                f"level_weights has {len(self.level_weights)} numbers and strides {len(self.strides)}; "
                "give one weight for each level."
            )
        self.dense_keys = dense_keys
        self.gather = gather
        self.info_nce = partial(
            pixel_info_nce,
            temperature=temperature,
            exclusion_radius=exclusion_radius,
            window=window,
            distance_slope=distance_slope,
            distance_cap=distance_cap,
            clamp=clamp,
            reduction="sum",
        )

    def forward(self, views: Sequence[Sequence[torch.Tensor]], pairs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Weighted sum of the losses of all levels.

        Args:
            views: Levels of the query view and levels of the anchor view, each level of shape (B, C, *cells).
            pairs: ``query`` and ``positive`` (B, N, D), voxel indices in array order in the query and in the anchor
                view; ``valid`` (B, N), bool.
        """
        levels = self.losses(views, pairs)
        return torch.stack([weight * loss for weight, loss in zip(self.level_weights, levels, strict=True)]).sum()

    def losses(self, views: Sequence[Sequence[torch.Tensor]], pairs: Mapping[str, torch.Tensor]) -> list[torch.Tensor]:
        """Loss of each level, not weighted, in the order of ``strides``."""
        queries, anchors = views
        shared = self.gather and world_size() > 1
        flat = _flatten(pairs, shared=shared and not self.dense_keys)
        count = len(flat.images)
        total = global_count(count, flat.images.device) if shared else count
        factor = (world_size() if shared else 1) / max(total, 1)
        level = self._dense if self.dense_keys else self._sampled
        return [
            factor * level(query, anchor, stride, flat)
            for query, anchor, stride in zip(queries, anchors, self.strides, strict=True)
        ]

    def _sampled(self, query: Tensor, anchor: Tensor, stride: int, pairs: _Pairs) -> Tensor:
        """Sum over pairs with the positives of the batch as keys."""
        keys = sample_at(anchor, voxel_to_cell(pairs.positive, stride))[pairs.valid]
        keys = gather_keys(keys, pairs.counts) if pairs.counts else keys
        return self.info_nce(
            sample_at(query, voxel_to_cell(pairs.query, stride))[pairs.valid],
            keys,
            pairs.targets,
            key_positions=voxel_to_cell(pairs.key_voxels, stride),
            key_images=pairs.key_images,
        )

    def _dense(self, query: Tensor, anchor: Tensor, stride: int, pairs: _Pairs) -> Tensor:
        """Sum over pairs with all cells of the same image as keys."""
        shape = anchor.shape[2:]
        positions = voxel_positions(shape, device=anchor.device).flatten(0, -2)
        sampled = sample_at(query, voxel_to_cell(pairs.query, stride))
        last = torch.tensor(shape, device=anchor.device) - 1
        steps = torch.tensor(positions.new_ones(shape).stride(), device=anchor.device)
        nearest = voxel_to_cell(pairs.positive, stride).round().nan_to_num().long().clamp(min=last * 0, max=last)
        targets = (nearest * steps).sum(dim=-1)
        sums = [
            self.info_nce(
                sampled[image],
                anchor[image].flatten(1).T,
                targets[image],
                key_positions=positions,
                valid=pairs.valid[image],
            )
            for image in range(len(anchor))
        ]
        return torch.stack(sums).sum()


def _flatten(pairs: Mapping[str, Tensor], *, shared: bool) -> _Pairs:
    """Valid pairs of this process, and the places of the keys of all processes if they are shared."""
    valid = pairs["valid"]
    images = valid.nonzero()[:, 0]
    targets = torch.arange(len(images), device=images.device)
    key_voxels, key_images, counts = pairs["positive"][valid], images, []
    if shared:
        counts = gather_counts(len(images), images.device)
        targets = targets + sum(counts[: rank()])
        images = images * world_size() + rank()
        key_voxels, key_images = gather_keys(key_voxels, counts), gather_keys(images, counts)
    return _Pairs(pairs["query"], pairs["positive"], valid, images, targets, key_voxels, key_images, counts)
