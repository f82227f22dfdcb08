"""Refine landmarks found, by the grey values around them: local normalised cross-correlation with the templates.

A network tells a place from all others, in cells of several voxels. Once the place is known, the grey values of its
surroundings say best where in it the landmark lies. For a template's patch ``t`` around the landmark and the query's
grey values ``q`` moved by a step, both resampled into the pose of the first template, the correlation is

    ``sum w (t - mean t) (q - mean q) / sqrt(sum w (t - mean t)^2  sum w (q - mean q)^2)``

with Gaussian weights ``w`` that leave out voxels outside of either image. It does not change with brightness and
contrast. ``-log(1 - correlation^2)``, how much likelier the query's grey values are once the template's are known,
weighs clear surroundings much and vague ones little. By it the landmarks are placed together, each also where the
others expect it (:func:`medpixcl.matching.placement.settle`).

Reference: Padfield, Masked Object Registration in the Fourier Domain, IEEE TIP 21 (2012) 2706-2718, equation 8 (here
with weights, and summed directly).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import inside
from medpixcl.landmarks.geometry import robust_similarity, spread, transform
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.peaks import upper_half_covariance
from medpixcl.matching.placement import settle
from medpixcl.matching.shape import ShapePrior
from medpixcl.matching.templates import TemplateSet
from medpixcl.views import resample, view_positions

PATCH = 5
"""Number of voxels on each side of a landmark, along every axis, whose grey values are compared."""
WIDTH = 3.0
"""Standard deviation of the weights of a patch's voxels, in voxels."""
SEARCH = 8
"""Largest step from the position found before, along every axis, in voxels."""
LEAST_SHARE = 0.5
"""Share of a patch's weights that must lie inside both images."""
NOISE = 0.1
"""Share of the grey values' variance that no image tells of another."""
FLAT = 1e-6
"""Product of standard deviations up to which grey values are one."""
AT_ONCE = 16
"""Number of landmarks whose surroundings are in memory at a time."""


@dataclass(frozen=True)
class Crops:
    """Grey values around N positions.

    Attributes:
        values: Shape (N, C, *side); 0 outside of the image.
        inside: 1 inside of the image and 0 outside, shape (N, 1, *side).
    """

    values: Float[Tensor, "n c *side"]
    inside: Float[Tensor, "n 1 *side"]

    def __getitem__(self, rows: Tensor | slice) -> "Crops":
        """The crops of some rows."""
        return Crops(self.values[rows], self.inside[rows])


def crops_at(
    image: Float[Tensor, "1 c *s"],
    shape: Sequence[int],
    points: Float[Tensor, "n d"],
    steps: Float[Tensor, "d d"],
    reach: int,
) -> Crops:
    """Interpolate crops of ``2 * reach + 1`` voxels along every axis around positions.

    Args:
        image: The image.
        shape: Spatial shape of the image before padding at its end.
        points: Positions in voxels of the image; where NaN, a crop lies outside.
        steps: Step in voxels of the image from one voxel of the crop to the next along each axis, in columns.
        reach: Number of voxels on each side of the middle.
    """
    dims, count = len(steps), len(points)
    points, steps = (one.to(image.device, torch.float64) for one in (points, steps))
    matrices = torch.eye(dims + 1, dtype=torch.float64, device=image.device).repeat(count, 1, 1)
    matrices[:, :-1, :-1] = steps
    matrices[:, :-1, -1] = points - reach * steps.sum(dim=1)
    positions = view_positions(matrices, [2 * reach + 1] * dims)
    there = inside(positions, shape)
    positions = torch.where(there[..., None], positions, -2)
    values = resample(image, positions.flatten(0, 1)[None])[0].unflatten(1, (count, 2 * reach + 1)).movedim(1, 0)
    return Crops(values, there[:, None].to(values))


def correlate(patches: Crops, windows: Crops) -> Float[Tensor, " n *steps"]:
    """Correlation of each patch with its window at every step at which it lies in it, 0 to 1; negative ones are 0.

    Args:
        patches: Crops of the templates, of the smaller side.
        windows: Crops of the query, as many.

    Returns:
        Shape (N, *steps); 0 where too little of the patch lies inside both images, or all grey values are one.
    """
    weights = _gaussian(patches.values.shape[2:]).to(patches.values) * patches.inside
    every = tuple(range(2, weights.ndim))
    share = weights.sum(dim=every, keepdim=True)
    mean = (weights * patches.values).sum(dim=every, keepdim=True) / share.clamp_min(FLAT)  # for precision only
    ours, theirs = patches.values - mean, (windows.values - mean) * windows.inside
    left = weights[:, :, None] * torch.stack([torch.ones_like(ours), ours, ours.square()], dim=2)
    right = torch.stack([windows.inside.expand_as(theirs), theirs, theirs.square()], dim=2)
    sums = _slide(left, right)  # of the patch's power i and the window's power j at [:, :, j, i]
    known = sums[:, :, 0, 0].clamp_min(FLAT)
    product = sums[:, :, 1, 1] - sums[:, :, 0, 1] * sums[:, :, 1, 0] / known
    own = sums[:, :, 0, 2] - sums[:, :, 0, 1].square() / known
    other = sums[:, :, 2, 0] - sums[:, :, 1, 0].square() / known
    deviation = (own.sum(dim=1).clamp_min(0) * other.sum(dim=1).clamp_min(0)).sqrt()
    enough = (known[:, 0] > LEAST_SHARE) & (deviation > FLAT)
    return torch.where(enough, product.sum(dim=1) / deviation.clamp_min(FLAT), 0).clamp(0, 1)


class LocalCorrelation:
    """Refines the landmarks of templates in images by the grey values around them.

    Args:
        templates: The templates.
        patches: Crops of each template around its K landmarks, with :data:`PATCH` as their reach.
        spacing: Size of a voxel of the crops in mm.
        cell_mm: Size of the cells in which the landmarks are found before, in mm.
    """

    def __init__(
        self, templates: TemplateSet, patches: Sequence[Crops], spacing: Sequence[float], cell_mm: float
    ) -> None:
        landmark = templates.there.nonzero().squeeze(1)[templates.owner]
        values, there = (torch.stack([getattr(one, name) for one in patches]) for name in ("values", "inside"))
        self.patches = Crops(values[templates.source, landmark], there[templates.source, landmark])
        self.templates, self.spacing, self.cell_mm = templates, tuple(spacing), cell_mm

    def refine(
        self,
        image: Tensor,
        shape: Sequence[int],
        found: Float[Tensor, "k d"],
        steps: Float[Tensor, "d d"],
        rounds: int,
    ) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d d"], Bool[Tensor, " k"]]:
        """Refine the positions of the landmarks in an image.

        Args:
            image: Image (1, C, *spatial).
            shape: Its spatial shape before padding at its end.
            found: Positions found before in voxels, of all landmarks that a template has.
            steps: Step in voxels of the image from one voxel of the first template to the next, in columns.
            rounds: Number of rounds of :func:`medpixcl.matching.placement.settle`.

        Returns:
            Voxels (K, D); the covariance along the axes of the first template, in mm^2, of the upper half of the
            correlation (K, D, D); and whether there was anything to compare, else the position stays (K,).
        """
        maps = torch.cat([self._maps(image, shape, found, steps, first) for first in range(0, len(found), AT_ONCE)])
        upright, grid = steps.to(found), CellGrid(tuple(maps.shape[1:]), 1, self.spacing)
        cells = found @ torch.linalg.inv(upright).mT
        place = grid.to_mm(cells)
        expected = place
        shape_mm = self.templates.shape_mm
        if float(spread(shape_mm)) > 0:
            expected = transform(shape_mm, *robust_similarity(shape_mm, place))
        prior, deviation = ShapePrior(expected, self.cell_mm), torch.full_like(place[:, 0], self.cell_mm)
        logs = -(1 + NOISE - maps.square()).log()
        settled = settle(logs, cells - SEARCH, grid, prior, place, deviation, 1.0, rounds).cells
        seen = maps.flatten(1).amax(dim=1) > 0
        covariance = upper_half_covariance(maps, stride=1, spacing_mm=self.spacing)
        return torch.where(seen[:, None], settled @ upright.mT, found), covariance, seen

    def _maps(self, image: Tensor, shape: Sequence[int], found: Tensor, steps: Tensor, first: int) -> Tensor:
        """Correlation of some landmarks at every step, the mean over their templates."""
        rows = self.templates.rows_of(first, first + AT_ONCE)
        windows = crops_at(image, shape, found[first : first + AT_ONCE], steps, PATCH + SEARCH)
        owner = self.templates.owner[rows] - first
        return self.templates.mean(correlate(self.patches[rows], windows[owner]), rows)


def _gaussian(side: Sequence[int]) -> Tensor:
    """Weights of a patch's voxels, their sum one."""
    weights = torch.ones([1] * len(side))
    for axis, size in enumerate(side):
        away = torch.arange(size) - (size - 1) / 2
        factor = (-away.square() / (2 * WIDTH**2)).softmax(dim=0)
        weights = weights * factor.view([size if other == axis else 1 for other in range(len(side))])
    return weights


def _slide(patches: Float[Tensor, "n c i *s"], windows: Float[Tensor, "n c j *w"]) -> Float[Tensor, "n c j i *steps"]:
    """Sum of products of patches and windows, of every pair (i, j), at every step."""
    convolve = F.conv2d if patches.ndim == 5 else F.conv3d
    pairs = zip(patches.flatten(0, 1), windows.flatten(0, 1), strict=True)
    sums = torch.stack([convolve(window[:, None], patch[:, None]) for patch, window in pairs])
    return sums.unflatten(0, patches.shape[:2])
