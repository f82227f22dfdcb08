"""One order and direction of axes for all images, so that a network sees bodies the same way round."""

import numpy as np
import torch
from monai.data import MetaTensor

from medpixcl.coordinates import working_affine

_COMMON_AXES = {3: ((0, 1), (1, 1), (2, 1)), 2: ((1, -1), (0, -1))}
"""For each array axis the axis of RAS+ and the direction: i, j, k of a volume run to the right, front and head; rows of
a picture run to the back and columns to the left, as on a screen (:func:`medpixcl.coordinates.image_affine`)."""


def in_common_axes(image: MetaTensor) -> MetaTensor:
    """Permute and reverse the axes of an image so that they run as closely as possible to the common ones.

    No value is interpolated: an oblique volume stays oblique. ``meta`` keeps the grid of the file.

    Args:
        image: Image (C, *spatial) of two or three spatial axes, with an affine to mm, RAS+.

    Returns:
        The image with its axes in the order and direction RAS (a volume), or of a picture on a screen.
    """
    from nibabel.orientations import inv_ornt_aff, io_orientation, ornt_transform

    affine, dims = working_affine(image), image.ndim - 1
    if dims not in _COMMON_AXES:
        return image
    change = ornt_transform(io_orientation(affine.cpu().numpy()), np.array(_COMMON_AXES[dims])).astype(int)
    if (change == [[axis, 1] for axis in range(dims)]).all():
        return image
    order = np.argsort(change[:, 0])
    values = image.as_tensor().permute(0, *(1 + int(axis) for axis in order))
    values = values.flip([1 + int(target) for target, direction in change if direction < 0])
    moved = torch.as_tensor(image.affine, dtype=torch.float64).clone()
    keep = [*range(dims), moved.shape[0] - 1]
    moved[np.ix_(keep, keep)] = affine @ torch.from_numpy(inv_ornt_aff(change, tuple(image.shape[1:])))
    return MetaTensor(values, meta={**image.meta, "affine": moved})
