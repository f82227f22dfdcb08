"""Losses of landmark networks: heatmaps against Gaussians, expected positions and offsets against the landmark.

Every landmark has a weight: 0 where it is missing, outside the view or not to be trusted. A loss is the mean over the
landmarks by weight, and over the cells where it has a value for each of them.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl._typing import Heatmaps
from medpixcl.coordinates import cell_to_voxel, voxel_positions
from medpixcl.landmarks.heatmaps import TINY, activate_heatmaps, encode_heatmaps, expected_positions, on_grid
from medpixcl.losses.gathering import divisor_over_processes


def heatmap_cross_entropy(logits: Heatmaps, target: Heatmaps, weights: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean over landmarks, by weight, of ``-sum_c target_c log softmax(logits)_c`` over the cells c.

    Args:
        logits: Logits of the heatmaps, shape (B, K, *cells).
        target: Target maps, each summing to one or all zero, shape (B, K, *cells).
        weights: Weight of every landmark, not negative, shape (B, K).

    Returns:
        A number, 0 where all weights are 0.
    """
    each = -(target.flatten(2) * logits.flatten(2).log_softmax(dim=2)).sum(dim=2)
    return _weighted_mean(each, weights)


def heatmap_mse(output: Heatmaps, target: Heatmaps, weights: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean squared difference between predicted and target heatmaps.

    Args:
        output: Predicted maps, shape (B, K, *cells).
        target: Target maps, each with a peak of one or all zero, shape (B, K, *cells).
        weights: Weight of every landmark, not negative, shape (B, K).

    Returns:
        A number, 0 where all weights are 0.
    """
    return _weighted_mean((output - target).square().flatten(2).mean(dim=2), weights)


def heatmap_bce(logits: Heatmaps, target: Heatmaps, weights: Float[Tensor, "b k"]) -> Float[Tensor, ""]:
    """Mean binary cross-entropy between the sigmoid of logits and the target; see :func:`heatmap_mse`."""
    each = F.binary_cross_entropy_with_logits(logits, target.to(logits), reduction="none")
    return _weighted_mean(each.flatten(2).mean(dim=2), weights)


def adaptive_wing(
    output: Heatmaps,
    target: Heatmaps,
    weights: Float[Tensor, "b k"],
    *,
    alpha: float = 2.1,
    omega: float = 14.0,
    epsilon: float = 1.0,
    theta: float = 0.5,
    foreground: float = 10.0,
) -> Float[Tensor, ""]:
    """Adaptive wing loss with its weighted loss map: strict where the target is high, like a square where it is low.

    For a target ``y`` and a difference ``d = |y - output|``, with ``p = alpha - y``, it is
    ``omega * log(1 + (d / epsilon)^p)`` below ``theta``, and the tangent there above; times ``1 + foreground`` in cells
    in or beside which the target is at least 0.2.

    Args:
        output: Predicted maps, shape (B, K, *cells).
        target: Target maps, each with a peak of one or all zero, shape (B, K, *cells).
        weights: Weight of every landmark, not negative, shape (B, K).
        alpha: Exponent at a target of 0; at least 1 above the largest target, so that the loss is smooth at 0.
        omega: Height of the curve.
        epsilon: Width of the steep part of the curve.
        theta: Difference above which the curve continues as its tangent.
        foreground: Additional weight of cells near the landmark; 0 for none.

    Returns:
        A number, 0 where all weights are 0.

    Reference: Wang et al., Adaptive Wing Loss for Robust Face Alignment via Heatmap Regression, ICCV 2019, arXiv
    1904.07399 (the loss and its weighted loss map; the defaults are theirs).
    """
    power = alpha - target
    away = (output - target).abs()
    border = (theta / epsilon) ** power
    slope = omega * power / epsilon * (theta / epsilon) ** (power - 1) / (1 + border)
    near = omega * torch.log1p((away / epsilon) ** power)
    far = slope * (away - theta) + omega * torch.log1p(border)
    pool = F.max_pool2d if target.ndim == 4 else F.max_pool3d
    emphasis = 1 + foreground * (pool(target, 3, stride=1, padding=1) >= 0.2)
    each = torch.where(away < theta, near, far) * emphasis
    return _weighted_mean(each.flatten(2).mean(dim=2), weights)


def coordinate_loss(
    maps: Heatmaps,
    points: Float[Tensor, "b k d"],
    weights: Float[Tensor, "b k"],
    *,
    stride: int,
    spacing_mm: Sequence[float],
) -> Float[Tensor, ""]:
    """Distance in mm between the expected position of every map and the landmark.

    Args:
        maps: Heatmaps, not negative, shape (B, K, *cells); an empty one does not count.
        points: Landmarks as voxel indices in array order, shape (B, K, D); NaN where missing, whose weight is ignored.
        weights: Weight of every landmark, not negative, shape (B, K).
        stride: Voxels per cell.
        spacing_mm: Size of a voxel along each array axis.

    Returns:
        A number, 0 where nothing counts.

    Reference: Nibali et al., arXiv 1801.07372 (the Euclidean loss; no regularisation of the maps' shape, for
    which a loss of the heatmaps stands beside it).
    """
    there = ~points.isnan().any(dim=2) & (maps.flatten(2).sum(dim=2) > TINY)
    away = expected_positions(maps, stride=stride) - points
    away = torch.where(there[..., None], away, 0) * away.new_tensor(list(spacing_mm))
    return _weighted_mean(torch.linalg.vector_norm(away, dim=2), weights * there)


def offset_loss(
    offsets: Float[Tensor, "b k d *s"],
    points: Float[Tensor, "b k d"],
    weights: Float[Tensor, "b k"],
    *,
    stride: int,
    radius_mm: float,
    spacing_mm: Sequence[float],
) -> Float[Tensor, ""]:
    """Smooth L1 distance, along each axis and in cells, between predicted and true offsets to the landmark.

    The loss is the mean over the cells whose centre is nearer than ``radius_mm``, then over landmarks by weight. A
    landmark without such a cell does not count.

    Args:
        offsets: Predicted offset from the centre of each cell to the landmark, in cells, shape (B, K, D, *cells).
        points: Landmarks as voxel indices in array order, shape (B, K, D); NaN where missing, whose weight is ignored.
        weights: Weight of every landmark, not negative, shape (B, K).
        stride: Voxels per cell.
        radius_mm: Distance from the landmark up to which cells count.
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
    total = divisor_over_processes(weights.sum())
    return (weights * values).sum() / total.clamp_min(torch.finfo(weights.dtype).tiny)


HEATMAP_LOSSES: dict[str, tuple[Callable[[Tensor, Tensor, Tensor], Tensor], str]] = {
    "cross_entropy": (heatmap_cross_entropy, "softmax"),
    "bce": (heatmap_bce, "sigmoid"),
    "mse": (heatmap_mse, "none"),
    "adaptive_wing": (adaptive_wing, "none"),
}
"""Losses of heatmaps by name, and how a network trained with each is read: see
:func:`medpixcl.landmarks.heatmaps.activate_heatmaps`."""


class LandmarkLoss(nn.Module):
    """Loss of a :class:`medpixcl.networks.LandmarkNet`: of the heatmaps, of their expected positions, of the offsets.

    Args:
        spacing_mm: Size of a voxel of the network's input along each array axis.
        stride: Voxels per cell of the network's output.
        sigma_mm: Standard deviation of the Gaussian target.
        radius_mm: Distance from the landmark up to which offsets count.
        offset_weight: Weight of the offsets' loss; 0 leaves it out.
        heatmap: Loss of the heatmaps: ``cross_entropy`` (a softmax over the cells), ``bce``, ``mse`` or
            ``adaptive_wing``. The last two regress the map itself.
        heatmap_weight: Weight of the heatmaps' loss; 0 leaves it out. The mean over many cells of ``mse`` is small:
            start with 100 to 1000.
        coordinate_weight: Weight per mm of the expected positions' loss; 0 leaves it out.
        landmark_weights: Weight of every landmark, multiplied by that of the target; None for equal weights.

    Attributes:
        activation: Activation by which the heatmaps must be read.

    Raises:
        ValueError: If there is no such loss, or a batch has another number of landmarks than there are weights.
    """

    def __init__(
        self,
        spacing_mm: Sequence[float],
        stride: int = 2,
        sigma_mm: float = 2.0,
        radius_mm: float = 4.0,
        offset_weight: float = 1.0,
        heatmap: str = "cross_entropy",
        heatmap_weight: float = 1.0,
        coordinate_weight: float = 0.0,
        landmark_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        if heatmap not in HEATMAP_LOSSES:
            raise ValueError(f"heatmap is {heatmap!r}; expected one of {', '.join(HEATMAP_LOSSES)}")
        self.spacing_mm, self.stride = tuple(spacing_mm), stride
        self.sigma_mm, self.radius_mm, self.offset_weight = sigma_mm, radius_mm, offset_weight
        self.heatmap, self.heatmap_weight, self.coordinate_weight = heatmap, heatmap_weight, coordinate_weight
        self.landmark_weights = None if landmark_weights is None else tuple(landmark_weights)
        self.activation = HEATMAP_LOSSES[heatmap][1]

    def forward(self, output: Tensor, target: Mapping[str, Tensor]) -> Tensor:
        """Loss of a batch.

        Args:
            output: K heatmaps, then D offsets of each landmark: shape (B, K * (1 + D), *cells).
            target: ``points`` (B, K, D), voxels of the input, and ``weights`` (B, K).
        """
        points = target["points"].float()
        count, dims = points.shape[1:]
        heatmaps, offsets = output[:, :count].float(), output[:, count:].float()
        weights = self._weights(target["weights"].float() * on_grid(points, output.shape[2:], self.stride))
        stride, spacing = self.stride, self.spacing_mm
        loss = output.new_zeros((), dtype=torch.float32)
        if self.heatmap_weight > 0:
            loss = loss + self.heatmap_weight * self._of_heatmaps(heatmaps, points, weights)
        if self.coordinate_weight > 0:
            maps = activate_heatmaps(heatmaps, self.activation)
            loss = loss + self.coordinate_weight * coordinate_loss(
                maps, points, weights, stride=stride, spacing_mm=spacing
            )
        if self.offset_weight > 0:
            offsets = offsets.unflatten(1, (count, dims))
            ways = offset_loss(offsets, points, weights, stride=stride, radius_mm=self.radius_mm, spacing_mm=spacing)
            loss = loss + self.offset_weight * ways
        return loss

    def _weights(self, weights: Tensor) -> Tensor:
        if self.landmark_weights is None:
            return weights
        if len(self.landmark_weights) != weights.shape[1]:
            raise ValueError(
                f"landmark_weights has {len(self.landmark_weights)} values for {weights.shape[1]} landmarks; "
                "give one for each, or None"
            )
        return weights * weights.new_tensor(self.landmark_weights)

    def _of_heatmaps(self, heatmaps: Tensor, points: Tensor, weights: Tensor) -> Tensor:
        target = encode_heatmaps(
            points,
            heatmaps.shape[2:],
            stride=self.stride,
            sigma_mm=self.sigma_mm,
            spacing_mm=self.spacing_mm,
            normalise=self.activation == "softmax",
        )
        return HEATMAP_LOSSES[self.heatmap][0](heatmaps, target, weights)
