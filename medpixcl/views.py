"""Views of an image: the image position of each pixel of a crop that is turned, scaled, mirrored or bent.

Sampling is kept apart from applying: :class:`ViewRanges` draws the geometry of a :class:`View`,
:func:`view_positions` maps points and :func:`resample` moves images. The sampling grid is the coordinate map, so
correspondence is exact and costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl._typing import Affine, PointsVoxel
from medpixcl.coordinates import apply_affine, inside, spacing_of, voxel_positions, voxel_to_grid

CONTROL_POINTS = 5  # per axis, of the elastic field; fewer bend smoothly, more bend in detail
LARGEST_CUBIC_WEIGHTS = 1.375  # sum of their absolute values along an axis, halfway between two control points


@dataclass(frozen=True)
class View:
    """Geometry of one view.

    Attributes:
        matrix: Homogeneous, view voxel -> image voxel, shape (D+1, D+1), float64.
        shape: Spatial shape of the view.
        displacement: Shift of the sampled position in image voxels at the points of a coarse grid over the view,
            shape (D, *control); None for an affine view, whose inverse is in closed form.
    """

    matrix: Affine
    shape: tuple[int, ...]
    displacement: Float[Tensor, " d *control"] | None = None

    def locate(self, points: PointsVoxel) -> PointsVoxel:
        """Return the view voxels of points (..., K, D) given as image voxels.

        Raises:
            ValueError: If the view is deformed: it has no closed inverse.
        """
        if self.displacement is not None:
            raise ValueError("a deformed view has no closed inverse: take correspondences from its coordinate map")
        return apply_affine(torch.linalg.inv(self.matrix), points)

    def of_part(self, start: Sequence[int]) -> "View":
        """The same view of a part of the image, ``start`` being the image voxel where the part begins."""
        matrix = self.matrix.clone()
        matrix[:-1, -1] -= torch.as_tensor(list(start))
        return replace(self, matrix=matrix)


def rotation_matrix(degrees: Sequence[float]) -> Float[Tensor, "d d"]:
    """Rotation in the plane of the first two axes (one angle), or about axes 0, 1 and 2 in turn (three angles).

    Args:
        degrees: One angle for 2D, three for 3D.
    """
    radians = torch.deg2rad(torch.as_tensor(list(degrees), dtype=torch.float64))
    dims = 2 if len(radians) == 1 else 3
    planes = [(0, 1)] if dims == 2 else [(1, 2), (2, 0), (0, 1)]
    total = torch.eye(dims, dtype=torch.float64)
    for angle, (first, second) in zip(radians, planes, strict=True):
        turn = torch.eye(dims, dtype=torch.float64)
        turn[first, first] = turn[second, second] = torch.cos(angle)
        turn[first, second], turn[second, first] = -torch.sin(angle), torch.sin(angle)
        total = turn @ total
    return total


def affine_view(
    *,
    shape: Sequence[int],
    centre: Sequence[float],
    spacing_mm: Sequence[float],
    pixel_mm: Sequence[float] | None = None,
    rotation_degrees: Sequence[float] | None = None,
    scale: float = 1.0,
    flip: Sequence[bool] | None = None,
    axes: Float[Tensor, "d d"] | None = None,
) -> View:
    """Build a view around a point of the image, rigid in mm up to a scale, whatever the spacing.

    Args:
        shape: Spatial shape of the view.
        centre: Image voxel shown at the middle of the view.
        spacing_mm: Spacing of the image, array order.
        pixel_mm: Size of a view pixel before scaling; None takes the spacing of the image.
        rotation_degrees: Angles of the rotation, see :func:`rotation_matrix`; None for none.
        scale: Enlargement; above 1 things look larger.
        flip: Whether each axis of the view is mirrored.
        axes: Directions of the view's axes along the array axes, in columns, before the rotation; None takes the array
            axes.
    """
    dims = len(shape)
    spacing = torch.as_tensor(list(spacing_mm), dtype=torch.float64)
    pixel = spacing if pixel_mm is None else torch.as_tensor(list(pixel_mm), dtype=torch.float64)
    signs = torch.tensor([-1.0 if f else 1.0 for f in (flip or [False] * dims)], dtype=torch.float64)
    turned = torch.eye(dims).double() if rotation_degrees is None else rotation_matrix(rotation_degrees)
    directions = turned if axes is None else axes.to(turned) @ turned
    linear = (directions * (pixel * signs / scale)) / spacing[:, None]
    middle = (torch.as_tensor(list(shape), dtype=torch.float64) - 1) / 2
    matrix = torch.eye(dims + 1, dtype=torch.float64)
    matrix[:dims, :dims] = linear
    matrix[:dims, dims] = torch.as_tensor(list(centre), dtype=torch.float64) - linear @ middle
    return View(matrix=matrix, shape=tuple(shape))


@dataclass(frozen=True)
class ViewRanges:
    """Ranges from which the geometry of a view is drawn: turn, scale, mirroring and bend. All lengths are in mm.

    Attributes:
        shape: Spatial shape of the view.
        rotation_degrees: Largest angle to either side, for all axes or, in 3D, one for each of array axes 0, 1, 2.
        scale_range: Least and greatest enlargement; drawn on a logarithmic scale.
        flip_probability: Probability of mirroring the view, for each axis; None draws no mirroring.
        elastic_mm: Standard deviation of the displacement at the control points of the elastic field; 0 for none.
        pixel_mm: Size of a view pixel before scaling, array order; None takes the spacing of the image.

    Raises:
        ValueError: If the scales are not positive and ascending, or the number of angles does not fit the axes.
    """

    shape: Sequence[int]
    rotation_degrees: float | Sequence[float] = 0.0
    scale_range: Sequence[float] = (1.0, 1.0)
    flip_probability: Sequence[float] | float | None = None
    elastic_mm: float = 0.0
    pixel_mm: Sequence[float] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.scale_range[0] <= self.scale_range[1]:
            raise ValueError(f"scale_range must be two positive ascending numbers, found {list(self.scale_range)}")
        given, angles = np.size(self.rotation_degrees), self.angles
        if given not in (1, angles):
            raise ValueError(
                f"rotation_degrees has {given} angles; expected one number, or {angles}, one for each axis"
            )

    @property
    def angles(self) -> int:
        """Number of angles of a rotation: one in 2D, three in 3D."""
        return 1 if len(self.shape) == 2 else 3

    def sample(
        self,
        state: np.random.RandomState,
        centre: Float[np.ndarray, " d"],
        spacing_mm: Float[np.ndarray, " d"],
        axes: Float[Tensor, "d d"] | None = None,
    ) -> View:
        """Draw the geometry of one view.

        Args:
            state: Source of the random numbers.
            centre: Image voxel shown at the middle of the view.
            spacing_mm: Spacing of the image, array order.
            axes: Directions of the view's axes before it turns, see :func:`affine_view`.
        """
        dims = len(self.shape)
        largest = np.broadcast_to(self.rotation_degrees, self.angles)
        angles = state.uniform(-largest, largest)
        low, high = np.log(self.scale_range)
        scale = float(np.exp(state.uniform(low, high)))
        flip = None
        if self.flip_probability is not None:
            flip = (state.uniform(size=dims) < np.broadcast_to(self.flip_probability, dims)).tolist()
        view = affine_view(
            shape=self.shape,
            centre=centre.tolist(),
            spacing_mm=spacing_mm.tolist(),
            pixel_mm=self.pixel_mm,
            rotation_degrees=angles.tolist(),
            scale=scale,
            flip=flip,
            axes=axes,
        )
        return view if self.elastic_mm == 0 else replace(view, displacement=self._bend(state, spacing_mm))

    def _bend(self, state: np.random.RandomState, spacing_mm: Float[np.ndarray, " d"]) -> Float[Tensor, " d *control"]:
        """Displacement at the control points in image voxels."""
        dims = len(self.shape)
        field = state.normal(size=(dims, *[CONTROL_POINTS] * dims)) * self.elastic_mm
        return torch.from_numpy(field / spacing_mm.reshape(-1, *[1] * dims)).float()


def upright_axes(affine: Affine, matrix: Float[Tensor, "d d"]) -> Float[Tensor, "d d"]:
    """Compute the ``axes`` of a view (:func:`affine_view`) that puts a turned object upright.

    Args:
        affine: Affine of the image, voxel -> mm.
        matrix: Rotation and scale from the frame of the object into that of the affine; the scale is ignored.
    """
    directions = affine[:-1, :-1] / spacing_of(affine)
    rotation = matrix / torch.det(matrix).abs() ** (1 / len(matrix))
    return torch.linalg.inv(directions) @ rotation.to(directions)


def reach(views: Sequence[View], shape: Sequence[int]) -> tuple[slice, ...]:
    """Find the part of an image that holds every voxel its views show; it may be larger, but is never empty.

    Args:
        views: Views of one image.
        shape: Spatial shape of the image.

    Returns:
        One slice for each axis.

    Example:
        >>> reach([affine_view(shape=(5, 5), centre=(20.0, 2.0), spacing_mm=(1.0, 1.0))], (50, 50))
        (slice(17, 24, None), slice(0, 6, None))
    """
    bounds = torch.stack([_bounds(view) for view in views])
    low, high = bounds[:, 0].amin(dim=0).floor(), bounds[:, 1].amax(dim=0).ceil()
    part = []
    for first, last, size in zip(low.tolist(), high.tolist(), shape, strict=True):
        start = min(max(int(first) - 1, 0), size - 1)  # one more on each side for rounding
        part.append(slice(start, min(max(int(last) + 2, start + 1), size)))
    return tuple(part)


def _bounds(view: View) -> Float[Tensor, "2 d"]:
    """Least and greatest position that a view can show along each axis, in image voxels."""
    dims = len(view.shape)
    corners = voxel_positions([2] * dims).flatten(0, -2).double() * torch.tensor([n - 1 for n in view.shape])
    shown = apply_affine(view.matrix, corners)
    bend = torch.zeros(dims)
    if view.displacement is not None:
        bend = LARGEST_CUBIC_WEIGHTS**dims * view.displacement.abs().flatten(1).amax(dim=1)
    return torch.stack([shown.amin(dim=0) - bend, shown.amax(dim=0) + bend])


def view_positions(
    matrix: Float[Tensor, "b d1 d1"],
    shape: Sequence[int],
    displacement: Float[Tensor, "b d *control"] | None = None,
) -> Float[Tensor, "b *v d"]:
    """Compute the image voxel that every pixel of a batch of views shows, float32, on the device of ``matrix``.

    Args:
        matrix: Matrices view voxel -> image voxel, shape (B, D+1, D+1).
        shape: Spatial shape of the views.
        displacement: Displacement at the control points, see :class:`View`, shape (B, D, *control); None for affine
            views.

    Returns:
        Positions, shape (B, *shape, D); in memory one axis after the other, the fastest layout to compute with.
    """
    matrix = matrix.float()
    batch, dims = matrix.shape[0], len(shape)
    terms = [matrix[:, :-1, -1].view(batch, dims, *[1] * dims)]
    for axis, size in enumerate(shape):
        steps = matrix[:, :-1, axis, None] * torch.arange(size, device=matrix.device)
        terms.append(steps.view(batch, dims, *[size if place == axis else 1 for place in range(dims)]))
    start = sum(terms[1:-1], start=terms[0])  # small: the last axis is left out
    if displacement is None:
        return (start + terms[-1]).movedim(1, -1)
    # The sums go into the field: memory for another array of its size takes longer than they do.
    return smooth_field(displacement.to(matrix), shape).add_(start).add_(terms[-1]).movedim(1, -1)


def smooth_field(control: Float[Tensor, "b c *control"], shape: Sequence[int]) -> Float[Tensor, "b c *s"]:
    """Interpolate values at control points by cubics, in any dimension; the outer points lie at the corners.

    In 2D these are the numbers of ``interpolate(mode="bicubic", align_corners=True)``; torch has no such mode in 3D.

    Args:
        control: Values at the control points, shape (B, C, *control).
        shape: Spatial shape of the field.

    Example:
        >>> smooth_field(torch.tensor([[[[0.0, 3.0]]]]), (1, 4)).shape
        torch.Size([1, 1, 1, 4])
    """
    for size in shape:  # one axis at a time; each goes to the end, so that the order is kept after the last
        points = control.shape[2]
        unit = torch.eye(points, dtype=control.dtype, device=control.device)[None, None]
        weights = F.interpolate(unit, size=(size, points), mode="bicubic", align_corners=True)[0, 0]
        control = torch.tensordot(control, weights, dims=([2], [1]))
    return control


def resample(
    image: Float[Tensor, "b c *s"], positions: Float[Tensor, "b *v d"], *, mode: str = "bilinear"
) -> Float[Tensor, "b c *v"]:
    """Sample an image at positions; outside it is zero.

    Args:
        image: Image to sample, shape (B, C, *spatial).
        positions: Image voxels, shape (B, *view, D), array order.
        mode: ``bilinear`` (linear in any dimension) or ``nearest``.
    """
    flat = positions.flatten(1, -2)
    grid = voxel_to_grid(flat, image.shape[2:]).view_as(positions)
    return F.grid_sample(image, grid.to(image.dtype), mode=mode, padding_mode="zeros", align_corners=False)


def coordinate_map(
    positions: Float[Tensor, "b *v d"], affine: Float[Tensor, "b d1 d1"], shape: Sequence[int]
) -> Float[Tensor, "b d1 *v"]:
    """Compute the coordinate map of a view: position in mm, one channel per axis, and validity as the last channel.

    Args:
        positions: Image voxels shown by the view, shape (B, *view, D).
        affine: Affines of the images, voxel -> mm, shape (B, D+1, D+1).
        shape: Spatial shape of the image; positions outside it have validity 0, because padding shows no anatomy.

    Returns:
        Shape (B, D+1, *view).
    """
    flat = positions.flatten(1, -2)
    affine = affine.to(positions)
    # Homogeneous, because the row added by that is the place of the validity: a concatenation would copy all.
    mapped = torch.baddbmm(affine[..., -1:], affine[..., :-1], flat.mT)
    mapped[:, -1] = inside(flat, shape)
    return mapped.view(positions.shape[0], -1, *positions.shape[1:-1])
