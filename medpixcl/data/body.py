"""Where the body lies in an image, how deep a voxel lies in it, and its place in the body's box.

These are exogenous channels made of the image alone, where no depth was measured: in CT and MR the distance to the skin
takes the part that depth has in a photograph.
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
"""Between air and fat."""


def body_mask(
    image: Float[Tensor, "*s"],
    affine: Affine,
    *,
    threshold: float | None = SKIN_HU,
    fill_holes: bool = True,
    opening_mm: float = 0.0,
) -> Bool[Tensor, "*s"]:
    """The largest connected thing brighter than a threshold.

    Args:
        image: Shape (rows, columns) or (i, j, k).
        affine: Voxel to RAS+ mm, (D+1, D+1).
        threshold: In units of the image, HU for CT; None for Otsu's.
        fill_holes: Take in what the body encloses, as the lungs; in a volume slice by slice across its long axis (feet
            to head), where a lung cut off by the end of the volume is enclosed still.
        opening_mm: First remove what is thinner than twice this (table, blanket); 0 leaves everything.

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

    Only the border between body and air counts: where the image cuts through the body there is no surface.

    Args:
        body: True inside, shape (rows, columns) or (i, j, k).
        spacing_mm: Along each array axis.
        signed: Outside, minus the distance to the nearest voxel of the body instead of 0.

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
    """Place of every voxel in the body's box: 0 to 1 from right to left, back to front, feet to head.

    The box has the axes of the affine's frame, so two orientations of one array get the same numbers. A body cut by the
    image ends where the image ends. Of a picture the two axes run as its affine says.

    Args:
        body: True inside, shape (rows, columns) or (i, j, k).
        affine: Voxel to RAS+ mm, (D+1, D+1).

    Returns:
        Shape (D, *spatial); outside the body the numbers go on below 0 and above 1.
    """
    mm = voxel_to_mm(voxel_positions(body.shape).double().flatten(0, -2), affine.double())
    within = mm[body.as_subclass(Tensor).flatten()]
    if not len(within):
        raise ValueError("the body is empty, so it has no box; choose another threshold.")
    low, high = within.amin(dim=0), within.amax(dim=0)
    return ((mm - low) / (high - low).clamp_min(1e-6)).T.reshape(-1, *body.shape).float()
