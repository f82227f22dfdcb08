"""Shadows that the structures of a CT's label map cast in its radiographs."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Integer
from torch import Tensor

from medpixcl.data.drr import AIR_HU, ConeBeam, Poses, render_drr


@torch.no_grad()
def project_labels(
    labels: Integer[Tensor, "1 1 i j k"],
    affine: Float[Tensor, "4 4"],
    geometry: ConeBeam,
    poses: Poses,
    structures: Sequence[Sequence[int]],
    *,
    step_mm: float = 2.0,
    minimum_mm: float = 5.0,
) -> Bool[Tensor, "b c h w"]:
    """Project labelled structures: the pixels whose ray runs through a structure for ``minimum_mm`` or more.

    Shadows overlap, like the organs in a radiograph. The geometry is that of :func:`render_drr`.

    Args:
        labels: Label map, shape (1, 1, I, J, K).
        affine: Matrix from voxel (i, j, k) to RAS+ mm, (4, 4).
        geometry: X-ray source and detector.
        poses: B poses of the patient.
        structures: Labels of each of the C structures.
        step_mm: Longest step along a ray.
        minimum_mm: Least length of a ray inside a structure; shorter paths (its rim, a thin sheet) give no shadow.
    """
    shadows = []
    for numbers in structures:
        inside_hu = torch.isin(labels, torch.tensor(list(numbers), dtype=labels.dtype)).float() * -AIR_HU + AIR_HU
        # Water inside and air outside, with an attenuation of 1 per mm: the line integral is the way in mm.
        way = render_drr(inside_hu, affine, geometry, poses, step_mm=step_mm, water_per_mm=1.0).image
        shadows.append(way >= minimum_mm)
    return torch.cat(shadows, dim=1)
