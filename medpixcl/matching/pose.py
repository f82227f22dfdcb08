"""Turn, size and place of the body in an image, relative to a template: found from many points of the template.

The points are drawn at informative places of the template. Each is searched in the whole image; the few best places of
every point vote for one similarity transform. Unlike the landmarks, the points are many, so most may be wrong. An
embedding knows a place again in a body that is turned a little. If too few points agree, the image is therefore shown
coarsely in all turns by right angles (4 in 2D, 24 in 3D; no pose is farther than 63 degrees from one of them), and the
best few are compared in detail. The image, resampled into the frame of the template, shows the body as the template
does.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.blur import gaussian_blur
from medpixcl.informativeness import local_entropy
from medpixcl.landmarks.geometry import consensus_similarity, fit_similarity, possible_scale, robust_weights, transform
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.key_points import draw_key_points
from medpixcl.matching.peaks import FLOOR, local_peaks
from medpixcl.matching.product import LevelMaps, ProductMap, describe
from medpixcl.matching.search import cells_inside
from medpixcl.views import View, affine_view, resample, view_positions

POINTS = 256
"""Number of points drawn in the template."""
PLACES = 4
"""Number of places that each point may choose from."""
DISTANCE_CELLS = 2.0
"""Least distance of two points, and standard deviation of a point around its prediction, in cells."""
ENTROPY_RADIUS = 3.0
"""Radius in voxels of the window that tells how informative a place is."""
SHARPNESS = 4.0
"""Weight of the logarithm of the similarity against the distance from the prediction."""
ENOUGH = 0.5
"""Share of the points that must agree on a pose; below it other turns are tried, and no landmark is sure."""
COARSE_SIDE = 48
"""Voxels along the longest side of the template where turns are tried."""
KEPT_TURNS = 4
"""Number of turns that are looked at in all detail."""
ROUNDS = 2
"""Number of times that the pose is found again in the image turned upright."""
POINTS_AT_ONCE = 32
REFITS = 10

Embedding = Callable[[Tensor], list[Tensor]]
"""From an image (1, C, *spatial) to its level maps (E, *cells), finest first."""


@dataclass(frozen=True)
class Pose:
    """Similarity transform from a template to an image, in mm along the array axes of both.

    Attributes:
        matrix: Turn and scale, shape (D, D): ``image = template @ matrix.mT + shift``.
        shift: Shift in mm, shape (D,).
        support: Share of the template's points that lie near their prediction, 0 to 1.
    """

    matrix: Float[Tensor, "d d"]
    shift: Float[Tensor, " d"]
    support: float

    def outside(self, view: View, spacing: Sequence[float], pixel_mm: Sequence[float]) -> "Pose":
        """Convert a pose found in a view of an image to the image.

        Args:
            view: The view.
            spacing: Size of a voxel of the image in mm.
            pixel_mm: Size of a voxel of the view in mm with which the pose was found.
        """
        matrix, shift = view_in_mm(view, spacing, pixel_mm)
        turn, moved = matrix.to(self.matrix), shift.to(self.shift)
        return Pose(turn @ self.matrix, turn @ self.shift + moved, self.support)


def view_in_mm(view: View, spacing: Sequence[float], pixel_mm: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Matrix (D, D) and shift (D,) from mm in a view to mm in its image, both along the array axes, float64.

    Args:
        view: The view.
        spacing: Size of a voxel of the image in mm.
        pixel_mm: Size of a voxel of the view in mm.
    """
    mm, view_mm = (torch.tensor(list(steps), dtype=torch.float64) for steps in (spacing, pixel_mm))
    matrix = view.matrix.double().cpu()
    return mm[:, None] * matrix[:-1, :-1] / view_mm, mm * matrix[:-1, -1]


class PosedTemplate:
    """A template whose pose is searched in other images.

    Args:
        image: Image of the template, shape (1, C, *spatial); the first channel tells how informative a place is.
        spacing: Size of its voxels in mm along the array axes.
        levels: Its level maps.
        embed: Embedding of images.
        strides: Number of voxels per cell at every level of the embedding.
        seed: Random seed of the points.

    Raises:
        ValueError: If no place of the template is informative.
    """

    def __init__(
        self,
        image: Tensor,
        spacing: Sequence[float],
        levels: LevelMaps,
        embed: Embedding,
        strides: Sequence[int],
        *,
        seed: int = 0,
    ) -> None:
        self.image, self.spacing, self.embed, self.strides = image, tuple(spacing), embed, list(strides)
        self.shape = tuple(image.shape[2:])
        self.points = draw_key_points(
            local_entropy(image[:, :1].cpu(), radius=ENTROPY_RADIUS)[0, 0],
            POINTS,
            spacing=self.spacing,
            min_distance_mm=DISTANCE_CELLS * self.strides[0] * min(self.spacing),
            generator=torch.Generator().manual_seed(seed),
        ).to(image.device)
        if len(self.points) == 0:
            raise ValueError("the first template is of one grey value, so no pose can be found; give another image")
        self.points_mm = self.points * self.points.new_tensor(self.spacing)
        self.fine = describe(levels, self.strides, self.points)

    @cached_property
    def coarse_mm(self) -> list[float]:
        """Size of the voxels in which turns are tried."""
        longest = max(size * step for size, step in zip(self.shape, self.spacing, strict=True))
        return [max(longest / COARSE_SIDE, *self.spacing)] * len(self.shape)

    @cached_property
    def coarse(self) -> list[Tensor]:
        """Vectors of the points in the coarse image of the template, (N, E) per level."""
        view = _whole(self.shape, self.spacing, self.coarse_mm)
        places = view.locate(self.points.double()).to(self.points)
        return describe(self.embed(shown(self.image, view)), self.strides, places)

    def view(self, pose: Pose, spacing: Sequence[float]) -> View:
        """View of an image with this spacing that shows the body as the template does, on the template's grid."""
        own, other = (torch.tensor(list(steps), dtype=torch.float64) for steps in (self.spacing, spacing))
        matrix = torch.eye(len(own) + 1, dtype=torch.float64)
        matrix[:-1, :-1] = pose.matrix.double().cpu() * own / other[:, None]
        matrix[:-1, -1] = pose.shift.double().cpu() / other
        return View(matrix=matrix, shape=self.shape)

    def find(self, image: Tensor, levels: LevelMaps, shape: Sequence[int] | None, spacing: Sequence[float]) -> Pose:
        """Find the pose of the body in an image.

        Args:
            image: The image (1, C, *spatial).
            levels: Its level maps.
            shape: Shape of the image in voxels before padding at its end; None takes the whole image.
            spacing: Size of its voxels in mm along the array axes.
        """
        inside = image.shape[2:] if shape is None else shape
        pose = self._vote(self.fine, levels, _grid(inside, self.strides[0], spacing))
        if pose.support < ENOUGH:
            turns = [self._turned(image, spacing, axes) for axes in right_angle_turns(len(spacing))]
            best = sorted([pose, *turns], key=lambda one: one.support)[-KEPT_TURNS:]
            pose = max((self._again(image, spacing, one) for one in best), key=lambda one: one.support)
        for _ in range(ROUNDS):
            pose = self._again(image, spacing, pose)
        return pose

    def _again(self, image: Tensor, spacing: Sequence[float], pose: Pose) -> Pose:
        """Pose found in the image turned by a pose: a body that is nearly upright looks more like the template."""
        view = self.view(pose, spacing)
        grid = _grid(self.shape, self.strides[0], self.spacing)
        return self._vote(self.fine, self.embed(shown(image, view)), grid).outside(view, spacing, self.spacing)

    def _turned(self, image: Tensor, spacing: Sequence[float], axes: Tensor) -> Pose:
        """Pose found in a coarse view of the whole image whose axes point in other directions."""
        view = _whole(image.shape[2:], spacing, self.coarse_mm, axes)
        grid = _grid(view.shape, self.strides[0], self.coarse_mm)
        return self._vote(self.coarse, self.embed(shown(image, view)), grid).outside(view, spacing, self.coarse_mm)

    def _vote(self, vectors: list[Tensor], levels: LevelMaps, grid: CellGrid) -> Pose:
        """Transform that most points agree on, each choosing among its best places."""
        cells, scores = self._places(vectors, levels, grid)
        places, logs, sigma = grid.to_mm(cells), scores.clamp_min(FLOOR).log(), DISTANCE_CELLS * grid.cell_mm
        costs = SHARPNESS * (logs[:, :1] - logs)
        matrix, shift = consensus_similarity(self.points_mm, places, costs, sigma=sigma)
        rows, deviations = torch.arange(len(places), device=places.device), torch.full_like(logs[:, 0], sigma)
        for _ in range(REFITS):
            predicted = transform(self.points_mm, matrix, shift)
            away = (places - predicted[:, None]).square().sum(dim=-1)
            found = places[rows, (costs + away / (2 * sigma**2)).argmin(dim=1)]
            fit = fit_similarity(self.points_mm, found, robust_weights(found - predicted, deviations))
            if not possible_scale(fit[0]):  # where nothing fits, all points would end in one place
                break
            matrix, shift = fit
        near = torch.linalg.vector_norm(found - transform(self.points_mm, matrix, shift), dim=1) < sigma
        return Pose(matrix, shift, float(near.double().mean()))

    def _places(self, vectors: list[Tensor], levels: LevelMaps, grid: CellGrid) -> tuple[Tensor, Tensor]:
        """Best cells of each point (N, M, D), and the similarity there (N, M)."""
        inside = (slice(None), *[slice(n) for n in grid.shape])
        product = ProductMap(vectors, levels, self.strides)
        rows = [slice(first, first + POINTS_AT_ONCE) for first in range(0, len(self.points), POINTS_AT_ONCE)]
        found = [local_peaks(product.full(part)[inside], PLACES) for part in rows]
        cells, scores = zip(*found, strict=True)
        return torch.cat(cells), torch.cat(scores)


def right_angle_turns(dims: int) -> list[Float[Tensor, "d d"]]:
    """All turns by right angles, without mirroring: 4 matrices in 2D, 24 in 3D; the first one turns nothing.

    Example:
        >>> len(right_angle_turns(2)), len(right_angle_turns(3))
        (4, 24)
    """
    turns = []
    for order in itertools.permutations(range(dims)):
        for signs in itertools.product((1.0, -1.0), repeat=dims):
            matrix = torch.zeros(dims, dims, dtype=torch.float64)
            matrix[range(dims), list(order)] = torch.tensor(signs, dtype=torch.float64)
            if torch.det(matrix) > 0:
                turns.append(matrix)
    return turns


def shown(image: Tensor, view: View) -> Tensor:
    """Resample an image (1, C, *spatial) to a view."""
    return resample(image, view_positions(view.matrix[None].to(image.device), view.shape))


def shrunk(image: Tensor, factor: float) -> Tensor:
    """Shrink an image (1, C, *spatial), smoothed first, to cells of ``factor`` voxels, as the cells of a network lie.

    A factor of 1 leaves it as it is.

    Example:
        >>> shrunk(torch.arange(6.0).view(1, 1, 6, 1).expand(1, 1, 6, 6), 2.0)[0, 0, 1]
        tensor([2.5000, 2.5000, 2.5000])
    """
    if factor == 1:
        return image
    dims = image.ndim - 2
    matrix = torch.eye(dims + 1, dtype=torch.float64)
    matrix[:-1, :-1] *= factor
    matrix[:-1, -1] = (factor - 1) / 2
    view = View(matrix=matrix, shape=tuple(max(1, int(size / factor)) for size in image.shape[2:]))
    return shown(gaussian_blur(image[0], [(factor - 1) / 2] * dims)[None], view)


def _whole(
    shape: Sequence[int], spacing: Sequence[float], pixel_mm: Sequence[float], axes: Tensor | None = None
) -> View:
    """View of a whole image with voxels of another size, and axes in other directions."""
    extent = torch.tensor([size * step for size, step in zip(shape, spacing, strict=True)], dtype=torch.float64)
    turned = extent if axes is None else axes.mT.abs() @ extent
    size = [max(1, round(length / step)) for length, step in zip(turned.tolist(), pixel_mm, strict=True)]
    centre = [(size - 1) / 2 for size in shape]
    return affine_view(shape=size, centre=centre, spacing_mm=spacing, pixel_mm=pixel_mm, axes=axes)


def _grid(shape: Sequence[int], stride: int, spacing: Sequence[float]) -> CellGrid:
    """The finest level's cells inside an image."""
    return CellGrid(tuple(cells_inside(shape, stride, shape)), stride, tuple(spacing))
