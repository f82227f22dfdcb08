"""Slices through the landmarks that were found in one volume, to check each of them by eye."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.coordinates import flip_ras_lps, mm_to_voxel, working_affine, working_voxels
from medpixcl.landmarks.regions import balls
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.reports.cuts import MarkedVolume
from medpixcl.reports.planes import landmark_planes

if TYPE_CHECKING:
    import matplotlib.figure

    from medpixcl.apps.results import Landmarks


def draw_planes(
    one: "Landmarks",
    image: MetaTensor,
    *,
    reference: Mapping[str, tuple[float, ...]],
    templates: Sequence[AnnotatedImage] = (),
) -> "matplotlib.figure.Figure":
    """Draw axial, coronal and sagittal slices through every landmark of a volume, beside those of the templates.

    Args:
        one: Landmarks of the volume.
        image: The prepared volume, (1, i, j, k), at any spacing.
        reference: True position of each landmark that has one, LPS+ mm.
        templates: Annotated images that were matched.
    """
    regions = one.regions_along(image)
    if regions is None and one.radii_mm is not None:
        regions = balls(one.radii_mm, 3)
    return landmark_planes(
        _marked(image, working_voxels(one.voxels, image)),
        one.names,
        flags=one.flags,
        reference=_reference_voxels(one.names, image, reference),
        regions_mm2=regions,
        templates=[_marked(template.image, template.voxels_of(one.names)) for template in templates],
    )


def _marked(image: MetaTensor, voxels: Float[Tensor, "k 3"]) -> MarkedVolume:
    return MarkedVolume(image=image.as_tensor()[0].cpu(), points=voxels, affine=working_affine(image))


def _reference_voxels(
    names: Sequence[str], image: MetaTensor, reference: Mapping[str, tuple[float, ...]]
) -> Float[Tensor, "k 3"]:
    """The reference in voxels of a prepared image, NaN where it has none."""
    nowhere = (torch.nan,) * 3
    mm = torch.tensor([reference.get(name, nowhere) for name in names], dtype=torch.float64)
    return mm_to_voxel(flip_ras_lps(mm), working_affine(image))
