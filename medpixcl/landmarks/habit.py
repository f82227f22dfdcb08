"""The reading habit of a clinic: a constant offset per landmark between where it is found and where a reader puts it.

A finder puts a landmark where its template or its training readers had put it; a clinic may mark porion on the ear rod
and gonion by another construction. A few corrected images show the difference, which is then taken off everywhere.

The offset of landmark k in corrected image n is ``b_k + e_nk``. The errors ``e_nk`` scatter around 0, each landmark's
with a variance of its own; they are drawn from a Student t distribution, so that one odd correction counts little. The
habit ``b_k`` is drawn from one around 0, too, in units of the landmark's scatter: most habits are small, but some, such
as another construction of a point, are large and must not be drawn to 0. Both variances of a landmark are unknown; the
posterior mean of ``b_k`` is computed over a grid of them. The average scatter of the landmarks follows from all.

Offsets are kept in the frame of a reference shape, turned and scaled with the anatomy: a construction of the reader
(the lowest point of a contour, the middle between two shadows) turns and grows with the head, and a wrong pixel size
does no harm.

Reference: Gelman et al., Bayesian Data Analysis, third edition (2013), sections 5.4 (hierarchical normal model) and
17.2 (Student t as a mixture of normals); Lange et al., JASA 84 (1989) 881-896 (weights of outlying values).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.landmarks.geometry import NOISE, fit_similarity, mean_shape, robust_weights, spread

SCATTER = 0.026
"""Expected scatter of a landmark along an axis, in units of the landmarks' spread (1.2 mm on a cephalogram)."""
SCATTER_FREEDOM = 4.0
"""Degrees of freedom of the landmarks' variances around their average: the fewer, the more landmarks differ."""
HABIT = 0.3
"""Typical variance of a habit in units of the variance of its landmark."""
HABIT_FREEDOM = 4.0
"""Degrees of freedom of the habits: the fewer, the more of them are large."""
ERROR_FREEDOM = 5.0
"""Degrees of freedom of the errors: the fewer, the less an outlying correction counts."""
POOLED_WEIGHT = 30.0
"""Number of corrections for which :data:`SCATTER` counts in the average scatter of the landmarks. This and the numbers
above were chosen on cephalograms; others near them change the mean error by a few hundredths of a mm."""
ROUNDS = 6
"""Rounds in which the average scatter and the weights of the corrections follow from the offsets."""
RATIOS = torch.logspace(-2, 2, 15, dtype=torch.float64)
VARIANCES = torch.logspace(-1.3, 1.3, 11, dtype=torch.float64)
"""Grids of the variances of habits and of errors, in units of what is expected."""
FRAME_ROUNDS = (4.0, 2.0, 1.0, 1.0, 1.0, 1.0)
"""Tolerances, in units of the usual noise of found landmarks, of the fits that give the frame of an image."""


@dataclass(frozen=True)
class Habit:
    """Offsets from found landmarks to where a reader puts them.

    Attributes:
        names: Names of the K landmarks.
        offsets_mm: Offset of each landmark in mm of the reference shape and along its axes, shape (K, D), float64.
        deviations_mm: Standard deviation of each offset along an axis, in mm of the reference shape, shape (K,).
        corrections: Number of corrections of each landmark.
        reference_mm: Shape whose frame the offsets refer to, shape (K, D), in mm, LPS+; NaN where unknown.
    """

    names: tuple[str, ...]
    offsets_mm: Float[Tensor, "k d"]
    deviations_mm: Float[Tensor, " k"]
    corrections: tuple[int, ...]
    reference_mm: Float[Tensor, "k d"]

    def of(self, names: Sequence[str]) -> "Habit":
        """Return the habit of these landmarks in this order; those that it does not know stay where they are found."""
        dims = self.offsets_mm.shape[1]
        nothing = torch.zeros(1, dims, dtype=torch.float64)
        rows = [self.names.index(name) if name in self.names else -1 for name in names]
        return Habit(
            tuple(names),
            torch.cat([self.offsets_mm, nothing])[rows],
            torch.cat([self.deviations_mm, nothing[:, 0]])[rows],
            tuple((*self.corrections, 0)[row] for row in rows),
            torch.cat([self.reference_mm, nothing * torch.nan])[rows],
        )

    def apply(self, found_mm: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n k d"]:
        """Move found landmarks to where the reader would put them.

        Args:
            found_mm: Landmarks of one or several images in mm, LPS+, shape (..., K, D), NaN where missing.

        Returns:
            Positions of the same shape, float64.
        """
        found = found_mm.double()
        return found + self.offsets_mm @ local_frames(self.reference_mm, found).mT


def learn_habit(names: Sequence[str], found_mm: Float[Tensor, "n k d"], corrected_mm: Float[Tensor, "n k d"]) -> Habit:
    """Learn a reader's habit from corrected images.

    A landmark that is corrected nowhere gets the offset 0. Landmarks that the reader left in place are corrections too.

    Args:
        names: Names of the K landmarks.
        found_mm: Positions that the finder gave, in mm, LPS+, shape (N, K, D), NaN where missing.
        corrected_mm: Positions that the reader gave, NaN where none, shape (N, K, D).

    Raises:
        ValueError: If no landmark was both found and corrected.
    """
    found, corrected = found_mm.double(), corrected_mm.double()
    there = ~(found - corrected).isnan().any(dim=2)
    if not bool(there.any()):
        raise ValueError("no corrected landmark was found in its image; expected at least one to learn the offset from")
    reference = mean_shape(list(torch.where(corrected.isnan(), found, corrected)))
    away = torch.linalg.solve(local_frames(reference, found), (corrected - found).mT).mT
    offsets, deviations = posterior_offsets(away, _expected_scatter(reference, away))
    return Habit(tuple(names), offsets, deviations, tuple(there.sum(dim=0).tolist()), reference)


def left_out_errors(found_mm: Float[Tensor, "n k d"], corrected_mm: Float[Tensor, "n k d"]) -> Float[Tensor, "n k d"]:
    """Measure in every corrected image what is left after the habit that the other corrected images give.

    So the corrected images say how far off the landmarks of all others are, although the habit is fitted to them.

    Args:
        found_mm: Positions that the finder gave, in mm, LPS+, shape (N, K, D), NaN where missing.
        corrected_mm: Positions that the reader gave, NaN where none, shape (N, K, D).

    Returns:
        The reader's less the moved positions in mm, shape (N, K, D), float64; NaN where either is missing.
    """
    found, corrected = found_mm.double(), corrected_mm.double()
    moved = found.clone()
    names = tuple(map(str, range(found.shape[1])))
    for image in range(len(found)):
        others = torch.arange(len(found)) != image
        if not bool((found[others] - corrected[others]).isnan().any(dim=2).all()):
            moved[image] = learn_habit(names, found[others], corrected[others]).apply(found[image])
    return corrected - moved


def local_frames(reference_mm: Float[Tensor, "k d"], found_mm: Float[Tensor, "*n k d"]) -> Float[Tensor, "*n d d"]:
    """Fit the turn and the scale from a reference shape to found landmarks, robust to a few wrong ones.

    With fewer landmarks than axes plus one in common, the frame is that of the image: no turn, scale 1.

    Args:
        reference_mm: Landmarks of the reference shape, shape (K, D), NaN where unknown.
        found_mm: Landmarks of one or several images, shape (..., K, D), NaN where missing.

    Returns:
        Matrices (..., D, D): ``offset_in_image = matrix @ offset``.
    """
    dims = reference_mm.shape[1]
    there = ~(reference_mm.isnan().any(dim=1) | found_mm.isnan().any(dim=-1))
    enough = there.sum(dim=-1) > dims
    shape = reference_mm.nan_to_num(0).expand(found_mm.shape)
    found = torch.where(there[..., None], found_mm, 0)
    known = (there & enough[..., None]).double() + (~enough[..., None]).double()  # any points where there are too few
    size = spread(reference_mm[~reference_mm.isnan().any(dim=1)]) if bool(enough.any()) else torch.ones(())
    weights = known
    for tolerance in FRAME_ROUNDS:
        matrix, shift = fit_similarity(shape, found, weights)
        residuals = found - (shape @ matrix.mT + shift[..., None, :])
        weights = known * robust_weights(residuals, (tolerance * NOISE * size).to(found))
    matrix, _ = fit_similarity(shape, found, weights)
    return torch.where(enough[..., None, None], matrix, torch.eye(dims).to(matrix))


def posterior_offsets(away: Float[Tensor, "n k d"], scatter: float) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"]]:
    """Estimate the constant offset of each landmark from a few examples, small ones drawn towards 0.

    Args:
        away: Corrected less found positions in one frame, shape (N, K, D), float64, NaN where there is none.
        scatter: Expected standard deviation of ``away`` along an axis, in the same unit.

    Returns:
        Offsets (K, D) and their standard deviations along an axis (K,).
    """
    there = ~away.isnan().any(dim=2)
    away, count, dims = away.nan_to_num(0), there.sum(dim=0), away.shape[2]
    weights, pooled = there.to(away), away.new_tensor(scatter**2)
    for _ in range(ROUNDS):
        total = weights.sum(dim=0).clamp_min(1e-9)
        mean = (weights[..., None] * away).sum(dim=0) / total[:, None]
        inner = (weights * (away - mean).square().sum(dim=2)).sum(dim=0)
        variance = pooled * VARIANCES
        chance, share = _variance_chances(mean, inner, total, count, variance)
        offsets = (chance * share).sum(dim=(1, 2))[:, None] * mean
        within = (chance * share * variance).sum(dim=(1, 2)) / total
        between = (chance * share.square()).sum(dim=(1, 2)) * mean.square().sum(dim=1) - offsets.square().sum(dim=1)
        spread_of_offset = within + between.clamp_min(0) / dims
        squares = (away - offsets).square().sum(dim=2) / dims + spread_of_offset
        typical = (chance * variance.log()).sum(dim=(1, 2)).exp()
        weights = there * (ERROR_FREEDOM + dims) / (ERROR_FREEDOM + dims * squares / typical)
        sure = 1 / (chance / variance).sum(dim=(1, 2))
        pooled = (POOLED_WEIGHT * scatter**2 + (count * sure).sum()) / (POOLED_WEIGHT + count.sum())
    return offsets, spread_of_offset.sqrt()


def _variance_chances(
    mean: Float[Tensor, "k d"],
    inner: Float[Tensor, " k"],
    total: Float[Tensor, " k"],
    count: Int[Tensor, " k"],
    variance: Float[Tensor, " h"],
) -> tuple[Float[Tensor, "k g h"], Float[Tensor, "k g h"]]:
    """Posterior of the variances of each landmark's habit and errors on a grid.

    Args:
        mean: Weighted mean offset of each landmark, shape (K, D).
        inner: Weighted sum of squared distances of the offsets from their mean, shape (K,).
        total: Sum of the weights of the offsets, shape (K,).
        count: Number of offsets, shape (K,).
        variance: Variances of the errors that are considered, shape (H,).

    Returns:
        Chance of every pair of variances (K, G, H), and the share of the mean offset that is the habit's then.
    """
    dims, known = mean.shape[1], (count > 0)[:, None, None]
    habit = HABIT * RATIOS[:, None] * variance
    noise = variance / total[:, None, None]
    whole = habit + noise
    prior = _log_chance(RATIOS, HABIT_FREEDOM)[:, None] + _log_chance(VARIANCES, SCATTER_FREEDOM)
    fit = dims * ((count - 1)[:, None, None] * variance.log() + whole.log()) + inner[:, None, None] / variance
    fit = fit + mean.square().sum(dim=1)[:, None, None] / whole
    chance = (prior - torch.where(known, fit, 0) / 2).flatten(1).softmax(dim=1).view(whole.shape)
    return chance, habit / whole


def _log_chance(ratios: Float[Tensor, " g"], freedom: float) -> Float[Tensor, " g"]:
    """Log density of a scaled inverse chi-squared distribution around 1, over the logarithm of its variable."""
    return -freedom / 2 * (ratios.log() + 1 / ratios)


def _expected_scatter(reference: Float[Tensor, "k d"], away: Float[Tensor, "n k d"]) -> float:
    """Expected scatter in mm: a share of the shape's size; of too few landmarks, the size of the corrections."""
    known = reference[~reference.isnan().any(dim=1)]
    size = SCATTER * spread(known) if len(known) > reference.shape[1] else away.square().nanmean().sqrt()
    return max(float(size), torch.finfo(torch.float32).eps)
