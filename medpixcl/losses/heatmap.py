"""Losses of landmark networks: a softmax over the cells against a Gaussian, and offsets from the cells to the landmark.

Every landmark has a weight: 0 where it is missing, outside the view or not to be trusted.
"""

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl._typing import Heatmaps
from medpixcl.coordinates import cell_to_voxel, voxel_positions
from medpixcl.landmarks.heatmaps import encode_heatmaps, on_grid


def heatmap_cross_entropy(logits: Heatmaps, target: Heatmaps, weights: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean over landmarks, by weight, of ``-sum_c target_c log softmax(logits)_c`` over the cells c.

    Args:
        logits: Shape (B, K, *cells).
        target: Each map sums up to one, or is all zero, shape (B, K, *cells).
        weights: Not negative, shape (B, K).

    Returns:
        A number, 0 where all weights are 0.
    """
    each = -(target.flatten(2) * logits.flatten(2).log_softmax(dim=2)).sum(dim=2)
    return _weighted_mean(each, weights)


def offset_loss(
    offsets: Float[Tensor, "b k d *s"],
    points: Float[Tensor, "b k d"],
    weights: Float[Tensor, "b k"],
    *,
    stride: int,
    radius_mm: float,
    spacing_mm: Sequence[float],
) -> Float[Tensor, ""]:
    """Smooth L1 distance, along each axis and in cells, between offsets and the true way to the landmark.

    For each landmark the mean over the cells whose centre is nearer than ``radius_mm``, then over landmarks by weight;
    one without such a cell does not count.

    Args:
        offsets: Predicted way from the centre of each cell to the landmark, in cells, shape (B, K, D, *cells).
        points: Voxel indices in array order, shape (B, K, D); NaN where missing (the weight is then ignored).
        weights: Not negative, shape (B, K).
        stride: Voxels per cell.
        radius_mm: See above.
        spacing_mm: Size of a voxel along each array axis.

    Returns:
        A number, 0 where nothing counts.

    Reference: Yao et al., One-Shot Medical Landmark Detection, MICCAI 2021, arXiv 2103.04527 (offsets of stage 2).
    """
    dims, cells = points.shape[-1], offsets.shape[3:]
    known = torch.where(points.isnan(), torch.inf, points)
    centres = cell_to_voxel(voxel_positions(cells, device=points.device).to(points), stride)
    way = known[(slice(None), slice(None), *[None] * dims)] - centres
    near = torch.linalg.vector_norm(way * way.new_tensor(list(spacing_mm)), dim=-1) < radius_mm
    true = torch.where(near[..., None], way / stride, 0).movedim(-1, 2)
    each = F.smooth_l1_loss(offsets, true.to(offsets), reduction="none").mean(dim=2) * near
    count = near.flatten(2).sum(dim=2)
    return _weighted_mean(each.flatten(2).sum(dim=2) / count.clamp_min(1), weights * (count > 0))


def _weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    return (weights * values).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)


class LandmarkLoss(nn.Module):
    """Loss of a :class:`medpixcl.networks.LandmarkNet`: cross-entropy of the heatmaps, and the offsets'.

    Args:
        spacing_mm: Size of a voxel of the network's input along each array axis.
        stride: Voxels per cell of the network's output.
        sigma_mm: Standard deviation of the target.
        radius_mm: Around the landmark, within which offsets count.
        offset_weight: Of the offsets' loss; 0 leaves it out.
    """

    def __init__(
        self,
        spacing_mm: Sequence[float],
        stride: int = 2,
        sigma_mm: float = 2.0,
        radius_mm: float = 4.0,
        offset_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.spacing_mm, self.stride = tuple(spacing_mm), stride
        self.sigma_mm, self.radius_mm, self.offset_weight = sigma_mm, radius_mm, offset_weight

    def forward(self, output: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            output: K heatmaps, then D offsets of each landmark: shape (B, K * (1 + D), *cells).
            target: ``points`` (B, K, D), voxels of the input, and ``weights`` (B, K).
        """
        points = target["points"].float()
        count, dims = points.shape[1:]
        cells = output.shape[2:]
        logits, offsets = output[:, :count].float(), output[:, count:].float().unflatten(1, (count, dims))
        weights = target["weights"].float() * on_grid(points, cells, self.stride)
        heatmaps = encode_heatmaps(
            points, cells, stride=self.stride, sigma_mm=self.sigma_mm, spacing_mm=self.spacing_mm
        )
        loss = heatmap_cross_entropy(logits, heatmaps, weights)
        if self.offset_weight > 0:
            ways = offset_loss(
                offsets, points, weights, stride=self.stride, radius_mm=self.radius_mm, spacing_mm=self.spacing_mm
            )
            loss = loss + self.offset_weight * ways
        return loss
