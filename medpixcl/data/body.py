"""Find the body in an image, the depth of each voxel below the skin, and its relative position in the body's box.

These exogenous channels are computed from the image alone, for images without a measured depth: in CT and MR the
distance to the skin plays the role of depth in a photograph.
"""

from collections.abc import Sequence

import numpy as np
import SimpleITK
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl._typing import Affine
from medpixcl.coordinates import spacing_of, voxel_positions, voxel_to_mm

SKIN_HU = -300.0
"""Value between air and fat."""


def body_mask(
    image: Float[Tensor, "*s"],
    affine: Affine,
    *,
    threshold: float | None = SKIN_HU,
    fill_holes: bool = True,
    opening_mm: float = 0.0,
) -> Bool[Tensor, "*s"]:
    """Find the largest connected region brighter than a threshold.

    Args:
        image: Image without channel axis, shape (rows, columns) or (i, j, k).
        affine: Matrix from voxels to RAS+ mm, (D+1, D+1).
        threshold: Least value of the body in units of the image (HU for CT); None uses Otsu's threshold.
        fill_holes: Include enclosed cavities such as the lungs. In a volume, holes are filled slice by slice across the
            feet-head axis, so that a lung cut off by the end of the volume still counts as enclosed.
        opening_mm: Radius in mm of an opening that first removes thin objects (table, blanket); 0 removes nothing.

    Raises:
        ValueError: If nothing, or everything, is brighter than the threshold.
    """
    values = image.detach().as_subclass(Tensor).cpu().float()
    bright = _otsu(values) if threshold is None else values > threshold
    mask = SimpleITK.GetImageFromArray(bright.numpy().astype(np.uint8))
    if opening_mm > 0:
        # SimpleITK's axes are x, y, z: the array's reversed.
        radius = [max(1, round(opening_mm / step)) for step in spacing_of(affine).flip(0).tolist()]
        mask = SimpleITK.BinaryMorphologicalOpening(mask, radius)
    parts = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(mask))
    body = SimpleITK.GetArrayFromImage(parts) == 1
    if fill_holes:
        body = _filled(body, _long_axis(affine))
    if not body.any() or body.all():
        found = "all of the image" if body.any() else "nothing"
        level = "Otsu's threshold" if threshold is None else f"the threshold {threshold:g}"
        raise ValueError(f"{found} is brighter than {level}, so the body has no surface; give another threshold.")
    return torch.from_numpy(body)


def _otsu(values: Float[Tensor, "*s"]) -> Bool[Tensor, "*s"]:
    dark = SimpleITK.OtsuThreshold(SimpleITK.GetImageFromArray(values.numpy()))
    return torch.from_numpy(SimpleITK.GetArrayFromImage(dark)) == 0


def _long_axis(affine: Affine) -> int | None:
    """Array axis nearest to feet-head; None in 2D."""
    dims = affine.shape[-1] - 1
    return None if dims == 2 else int((affine[2, :3].abs() / spacing_of(affine)).argmax())


def _filled(body: Bool[np.ndarray, "*s"], axis: int | None) -> Bool[np.ndarray, "*s"]:
    """Holes filled, in each slice across an axis."""
    if axis is None:
        filled = SimpleITK.BinaryFillhole(SimpleITK.GetImageFromArray(body.astype(np.uint8)), foregroundValue=1)
        return SimpleITK.GetArrayFromImage(filled) == 1
    return np.stack([_filled(layer, None) for layer in np.moveaxis(body, axis, 0)], axis=axis)


def body_distance(
    body: Bool[Tensor, "*s"], spacing_mm: Sequence[float], *, signed: bool = False
) -> Float[Tensor, "*s"]:
    """Distance in mm from each voxel of the body to the nearest voxel outside, centre to centre; 0 outside.

    Only the border between body and air is a surface; the end of the image is none.

    Args:
        body: True inside the body, shape (rows, columns) or (i, j, k).
        spacing_mm: Size of a voxel in mm along each array axis.
        signed: Outside the body, return the negative distance to its nearest voxel instead of 0.

    Raises:
        ValueError: If a spacing is not positive, or the body is empty or fills the image.

    Example:
        >>> body_distance(torch.tensor([[False, True, True, True]]), [1.0, 2.0])
        tensor([[0., 2., 4., 6.]])
    """
    steps = [float(step) for step in spacing_mm]
    if len(steps) != body.ndim or not all(0 < step < float("inf") for step in steps):
        raise ValueError(f"spacing_mm is {steps}; expected {body.ndim} positive numbers in mm, one for each axis.")
    if not body.any() or body.all():
        raise ValueError("the body is empty or fills the image, so it has no surface; choose another threshold.")
    inside = body.as_subclass(Tensor).cpu()
    depth = _distance_to(~inside, steps)
    return depth - _distance_to(inside, steps) if signed else depth


def _distance_to(target: Bool[Tensor, "*s"], steps: Sequence[float]) -> Float[Tensor, "*s"]:
    """Distance in mm to the nearest voxel of a target, 0 inside it (Maurer et al., IEEE TPAMI 25(2), 2003)."""
    image = SimpleITK.GetImageFromArray(target.numpy().astype(np.uint8))
    image.SetSpacing([*reversed(steps)])
    found = SimpleITK.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    return torch.where(target, 0.0, torch.from_numpy(SimpleITK.GetArrayFromImage(found)).float())


def body_coordinates(body: Bool[Tensor, "*s"], affine: Affine) -> Float[Tensor, " d *s"]:
    """Relative position of every voxel in the body's box: 0 to 1 from right to left, back to front, feet to head.

    The box has the axes of the affine's frame, so two orientations of one array get the same numbers. A body cut by the
    image ends where the image ends. The two axes of a 2D image follow its affine.

    Args:
        body: True inside the body, shape (rows, columns) or (i, j, k).
        affine: Matrix from voxels to RAS+ mm, (D+1, D+1).

    Returns:
        Coordinates of shape (D, *spatial); outside the body's box they are below 0 or above 1.
    """
    mm = voxel_to_mm(voxel_positions(body.shape).double().flatten(0, -2), affine.double())
    within = mm[body.as_subclass(Tensor).flatten()]
    if not len(within):
        raise ValueError("the body is empty, so it has no box; choose another threshold.")
    low, high = within.amin(dim=0), within.amax(dim=0)
    return ((mm - low) / (high - low).clamp_min(1e-6)).T.reshape(-1, *body.shape).float()
