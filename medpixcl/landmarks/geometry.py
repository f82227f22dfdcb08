"""Fits of one set of landmarks to another: similarity transforms, weighted and robust, in 2D and 3D."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

TO_IDENTITY = 1e-5
"""Weight of the pull towards no rotation, in units of the points' own variance; settles what few points leave open."""
COST_CAP = 3.0
"""Largest cost of a landmark in :func:`consensus_similarity`."""
MAX_SCALE = 1.5
"""Largest change of size, up or down, between two bodies."""
HYPOTHESES = 4096
"""Number of sets of landmarks that :func:`consensus_similarity` draws."""


def fit_similarity(
    source: Float[Tensor, "*b k d"], target: Float[Tensor, "*b k d"], weights: Float[Tensor, "*b k"]
) -> tuple[Float[Tensor, "*b d d"], Float[Tensor, "*b d"]]:
    """Fit rotation, scale and shift that bring one set of points closest to another (weighted least squares).

    If the points do not determine the rotation (all on one line, or a single point), the smallest one is chosen.

    Args:
        source: Points to move, shape (..., K, D).
        target: Points to move them to, shape (..., K, D).
        weights: Weight of each point, shape (..., K), not negative, not all zero.

    Returns:
        Matrix (..., D, D) and shift (..., D): ``target = source @ matrix.mT + shift``.

    Reference:
        Umeyama, IEEE TPAMI 13 (1991) 376-380.
    """
    share = (weights / weights.sum(dim=-1, keepdim=True))[..., None]
    centre, goal = (share * source).sum(dim=-2), (share * target).sum(dim=-2)
    inner, outer = source - centre[..., None, :], target - goal[..., None, :]
    variance = (share * inner.square()).sum(dim=(-2, -1))
    pull = TO_IDENTITY * torch.diag_embed(variance[..., None].expand(centre.shape).clamp_min(1e-12))
    covariance = (share * outer).mT @ inner
    left, _, right = torch.linalg.svd(covariance + pull)
    flip = torch.ones_like(centre)
    flip[..., -1] = torch.det(left @ right).sign()
    rotation = left @ (flip[..., None] * right)
    scale = (rotation * covariance).sum(dim=(-2, -1)) / variance.clamp_min(1e-12)
    scale = torch.where(variance > 1e-9, scale, 1)
    matrix = scale[..., None, None] * rotation
    return matrix, goal - (matrix @ centre[..., None])[..., 0]


def transform(
    points: Float[Tensor, "k d"], matrix: Float[Tensor, "*b d d"], shift: Float[Tensor, "*b d"]
) -> Float[Tensor, "*b k d"]:
    """Apply one or many linear maps with shift to points, shape (..., K, D)."""
    return points @ matrix.mT + shift[..., None, :]


def consensus_similarity(
    points: Float[Tensor, "k d"],
    candidates: Float[Tensor, "k m d"],
    costs: Float[Tensor, "k m"],
    *,
    sigma: float,
    seed: int = 0,
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """Find the similarity transform that most landmarks agree on, each choosing among its candidate positions.

    Draws small sets of landmarks with one candidate each, fits a transform to every set, and keeps the one with the
    least sum over landmarks of ``min_m(cost_m + |candidate_m - prediction|^2 / (2 sigma^2))``, each capped.

    Args:
        points: Landmarks in the template, shape (K, D), mm.
        candidates: Positions in the query, shape (K, M, D), mm.
        costs: Cost of choosing each candidate, shape (K, M), 0 for the best.
        sigma: Standard deviation in mm of a landmark around its prediction.
        seed: Random seed for drawing the sets.

    Returns:
        Matrix (D, D) and shift (D).
    """
    count, dims = points.shape
    generator = torch.Generator().manual_seed(seed)
    drawn = min(dims, count)
    chosen = torch.rand(HYPOTHESES, count, generator=generator).topk(drawn, dim=1).indices
    # Better candidates more often: the cost is that of the sum above.
    odds = (-costs.cpu()).exp()[chosen].flatten(0, 1)
    picks = torch.multinomial(odds.double(), 1, generator=generator).view(HYPOTHESES, drawn)
    chosen, picks = chosen.to(points.device), picks.to(points.device)
    matrix, shift = fit_similarity(points[chosen], candidates[chosen, picks], torch.ones_like(points[chosen][..., 0]))
    distance = torch.cdist(transform(points, matrix, shift).movedim(0, 1), candidates).movedim(0, 1)
    total = (costs + distance.square() / (2 * sigma**2)).amin(dim=-1).clamp_max(COST_CAP).sum(dim=-1)
    best = torch.where(possible_scale(matrix), total, torch.inf).argmin()
    return matrix[best], shift[best]


def possible_scale(matrix: Float[Tensor, "*b d d"]) -> Bool[Tensor, "*b"]:
    """True for similarity transforms that change sizes by less than ``MAX_SCALE``, up or down, shape (...)."""
    scale = torch.linalg.vector_norm(matrix, dim=-2).mean(dim=-1)
    return (scale < MAX_SCALE) & (scale > 1 / MAX_SCALE)


def mean_shape(shapes: Sequence[Float[Tensor, "k d"]]) -> Float[Tensor, "k d"]:
    """Average shapes after moving each to the first by a similarity transform; NaN for landmarks that all lack.

    Raises:
        ValueError: If a shape shares no point with the first.
    """
    first = shapes[0]
    aligned = [first]
    for number, shape in enumerate(shapes[1:], start=2):
        both = ~(shape.isnan() | first.isnan()).any(dim=1)
        if not both.any():
            raise ValueError(f"annotated image {number} shares no landmark with the first one; expected at least one")
        matrix, shift = fit_similarity(shape[both], first[both], torch.ones_like(first[both][:, 0]))
        aligned.append(transform(shape, matrix, shift))
    return torch.stack(aligned).nanmean(dim=0)


NOISE = 0.045
"""Standard deviation of found positions in units of the landmarks' spread. Chosen on cephalograms; half or twice the
value hardly changes the result."""


FREEDOM = 2.0
"""Degrees of freedom of the residuals; the fewer, the less outlying landmarks count."""
REFITS = 10
"""Number of fits of :func:`robust_similarity`, each with weights from the one before."""


def spread(points: Float[Tensor, "k d"]) -> Float[Tensor, ""]:
    """Compute the root mean square distance of points from their centre."""
    return (points - points.mean(dim=0)).square().sum(dim=1).mean().sqrt()


def robust_weights(residuals: Float[Tensor, "*n k d"], deviations: Float[Tensor, "*k"]) -> Float[Tensor, "*n k"]:
    """Weigh landmarks by their residuals: 1 near the prediction, less further away; shape (..., K)."""
    squares = residuals.square().sum(dim=-1) / deviations.square()
    return ((FREEDOM + residuals.shape[-1]) / (FREEDOM + squares)).clamp_max(1)


def robust_similarity(
    shape: Float[Tensor, "k d"], found: Float[Tensor, "k d"]
) -> tuple[Float[Tensor, "d d"], Float[Tensor, " d"]]:
    """Fit a shape to found landmarks by a similarity transform, robust to a few wrong landmarks.

    Starts from the transform that most landmarks agree on (:func:`consensus_similarity`) and fits it again with less
    weight for landmarks that lie further from it.

    Args:
        shape: Landmarks of the shape in mm, shape (K, D).
        found: Found landmarks in mm, shape (K, D).

    Returns:
        Matrix (D, D) and shift (D), as in :func:`fit_similarity`.
    """
    sigma = NOISE * spread(shape)
    matrix, shift = consensus_similarity(shape, found[:, None], torch.zeros_like(found[:, :1]), sigma=float(sigma))
    for _ in range(REFITS):
        residuals = found - transform(shape, matrix, shift)
        matrix, shift = fit_similarity(shape, found, robust_weights(residuals, sigma.expand(len(shape))))
    return matrix, shift
