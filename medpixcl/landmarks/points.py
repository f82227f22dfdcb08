"""Named points of one image."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

OFF_PLANE_MM = 1.0
"""Largest distance in mm of a picture's point from the plane of the picture."""


@dataclass(frozen=True)
class LandmarkSet:
    """Landmarks of one image, in voxels.

    Attributes:
        names: Unique names of the K landmarks.
        voxels: Voxel indices in array order, shape (K, D), float64; a row of NaN is a missing landmark.
        scores: Confidence of each landmark, shape (K,), or None.
        flags: Short remark on each landmark (empty for none), or None.

    Raises:
        ValueError: If the lengths differ, a name is used twice, or points are neither 2D nor 3D.

    Example:
        >>> points = LandmarkSet(("sella", "nasion"), torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]]))
        >>> points.missing
        tensor([False,  True])
    """

    names: tuple[str, ...]
    voxels: Float[Tensor, "k d"]
    scores: Float[Tensor, " n"] | None = None
    flags: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "voxels", self.voxels.to(torch.float64))
        count, dims = self.voxels.shape
        if dims not in (2, 3):
            raise ValueError(f"landmarks have {dims} coordinates; expected 2 or 3.")
        if len(set(self.names)) != len(self.names):
            raise ValueError("a landmark name is used twice in one image; give every landmark its own name.")
        for what, values in (("names", self.names), ("scores", self.scores), ("flags", self.flags)):
            if values is not None and len(values) != count:
                raise ValueError(f"{count} landmarks come with {len(values)} {what}; expected one each.")

    @property
    def dims(self) -> int:
        """Number of coordinates, 2 or 3."""
        return self.voxels.shape[1]

    @property
    def missing(self) -> Bool[Tensor, " k"]:
        """True where a landmark has no position."""
        return self.voxels.isnan().any(dim=1)


def outside_image(voxels: Float[Tensor, "k d"], shape: Sequence[int]) -> Bool[Tensor, " k"]:
    """Which points lie outside of all voxels of an image; missing ones (NaN) do not.

    Example:
        >>> outside_image(torch.tensor([[0.0, 3.4], [0.0, 4.0], [torch.nan, torch.nan]]), (4, 4))
        tensor([False,  True, False])
    """
    size = torch.tensor(list(shape), dtype=torch.float64)
    return ((voxels < -0.501) | (voxels > size - 0.499)).any(dim=1)


def in_plane(point: Sequence[float], dims: int) -> Sequence[float]:
    """Drop the third coordinate of a 2D image's point: 3D Slicer writes a picture's points with z = 0.

    Args:
        point: Position in mm, 2 or 3 coordinates.
        dims: Number of coordinates of the other points; 3 leaves the point as it is.

    Returns:
        The first two coordinates, or the whole point if it lies further than ``OFF_PLANE_MM`` from the plane.

    Example:
        >>> in_plane((3.0, 4.0, 0.0), 2), in_plane((3.0, 4.0, 7.0), 2)
        ((3.0, 4.0), (3.0, 4.0, 7.0))
    """
    return point[:2] if dims == 2 and len(point) == 3 and abs(point[2]) <= OFF_PLANE_MM else point


def rows_by_name(places: Float[Tensor, "k d"], own: Sequence[str], names: Sequence[str]) -> Float[Tensor, "n d"]:
    """Return the rows of named places in another order; NaN for a name that is not among them.

    Args:
        places: Positions, shape (K, D).
        own: Names of the positions.
        names: Names of the N rows of the result.

    Example:
        >>> rows_by_name(torch.tensor([[1.0, 2.0]]), ["sella"], ["nasion", "sella"])
        tensor([[nan, nan],
                [1., 2.]])
    """
    row_of = {name: number for number, name in enumerate(own)}
    nowhere = places.new_full((1, places.shape[1]), torch.nan)
    return torch.cat([places, nowhere])[[row_of.get(name, len(places)) for name in names]]
