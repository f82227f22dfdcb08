"""Trust in found landmarks as training targets, and new pseudo-landmarks after a round of training."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.matching.point_distribution import PointDistribution

HALF_CYCLE_CELLS = 1.5
"""Cycle distance at which a match counts half."""
HALF_RESIDUAL_CELLS = 3.5
"""Distance from the position that the other landmarks predict at which a match counts half."""
HALF_SPREAD_CELLS = 1.0
"""Spread over the views of an image at which a prediction counts half."""
HALF_CHANGE_CELLS = 4.0
"""Distance from a fully trusted landmark of the round before at which a prediction counts half."""


@runtime_checkable
class MatchCertainty(Protocol):
    """Certainty of a match, see :class:`medpixcl.matching.MatchResult`."""

    @property
    def cycle_mm(self) -> Tensor: ...  # noqa: D102

    @property
    def residual_mm(self) -> Tensor: ...  # noqa: D102

    @property
    def flags(self) -> tuple[str, ...]: ...  # noqa: D102


@dataclass(frozen=True)
class Relabelled:
    """Landmarks of N images after a round.

    Attributes:
        points: Landmarks in mm, shape (N, K, D).
        weights: Trust in each landmark, 0 to 1, shape (N, K).
    """

    points: Float[Tensor, "n k d"]
    weights: Float[Tensor, "n k"]


def half_at(distance: Float[Tensor, "*n"], half: float) -> Float[Tensor, "*n"]:
    """Weight that falls with a distance: 1 at 0, one half at ``half``, then with the inverse square."""
    return 1 / (1 + (distance / half).square())


def match_weights(result: MatchCertainty, cell_mm: float) -> Float[Tensor, " k"]:
    """Weights (K,) of matched landmarks: 0 where flagged as unsure or missing, else by cycle distance and residual.

    On cephalograms both reveal errors: the fifth of the matches with the longest cycle distance has about 1.5 times the
    mean error of the rest, and the same holds for the residual. Score and ratio reveal little.

    Args:
        result: Result of the matching.
        cell_mm: Size of a cell of the finest level in mm, the unit of the tolerances.
    """
    sure = torch.tensor([flag in ("", "no geometry") for flag in result.flags], device=result.cycle_mm.device)
    weights = half_at(result.cycle_mm, HALF_CYCLE_CELLS * cell_mm)
    weights = weights * half_at(result.residual_mm.nan_to_num(0), HALF_RESIDUAL_CELLS * cell_mm)
    return torch.where(sure, weights, 0).nan_to_num(0).float()


def relabel(
    found: Float[Tensor, "n k d"],
    confidence: Float[Tensor, "n k"],
    spread_mm: Float[Tensor, "n k"],
    before: Relabelled,
    template: Float[Tensor, "k d"],
    cell_mm: float,
) -> Relabelled:
    """Compute new pseudo-landmarks from the network's detections, the previous round and the shape of all images.

    A new landmark is a weighted mean of the found one (weight: its confidence) and the previous one (weight: its own
    times its agreement with the found one). Two estimates that agree are better than either; if they contradict each
    other, the network's estimate stays.

    The new weight is a product: the squared confidence, the previous weight halved plus one half, the agreement of the
    views of the image (spread), the agreement with the prediction by the other landmarks, and the agreement with the
    previous landmark as far as that was trusted. If the network contradicts a trusted landmark, it stays in doubt for a
    round.

    The shape (:class:`medpixcl.matching.point_distribution.PointDistribution`) is learnt from all images; a landmark
    farther than three standard deviations from its prediction does not count. The shape moves no landmark, because on
    cephalograms that made them worse.

    Args:
        found: Positions in mm, shape (N, K, D); NaN where nothing was found.
        confidence: Confidence of the network, 0 to 1, shape (N, K).
        spread_mm: Root mean square distance of the views' positions from ``found``, shape (N, K).
        before: Landmarks and weights of the previous round.
        template: Landmarks of the annotated image in mm, shape (K, D), none missing.
        cell_mm: Size of a cell of the network's output in mm.

    Returns:
        Positions and weights.
    """
    found = found.double()
    there = ~found.isnan().any(dim=2)
    known = torch.where(there[..., None], found, template.to(found))
    change = torch.linalg.vector_norm(known - before.points, dim=2).nan_to_num(torch.inf)
    agreeing = half_at(change, HALF_CHANGE_CELLS * cell_mm)
    sure = torch.where(there, confidence.clamp(0, 1), 0).double()
    stable = half_at(spread_mm.nan_to_num(torch.inf), HALF_SPREAD_CELLS * cell_mm)
    weights = sure.square() * stable * (1 + before.weights) / 2
    weights = weights * (1 - before.weights * (1 - agreeing))
    if known.shape[1] > 1:
        shape = PointDistribution(known, weights, template)
        weights = weights * shape.trust(known, shape.judge(known, weights))
    share = (before.weights * agreeing).double()
    total = (share + sure).clamp_min(1e-9)[..., None]
    points = (share[..., None] * before.points.nan_to_num(0) + sure[..., None] * known) / total
    return Relabelled(torch.where(there[..., None], points, found), weights.float())
