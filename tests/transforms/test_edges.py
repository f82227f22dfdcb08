"""Uniform edges: the box against scikit-image's, positions that stay, and images that have none."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from skimage.measure import regionprops
from torch.nn.functional import pad

from medpixcl.coordinates import mm_to_voxel, spacing_of, spatial_affine, voxel_to_mm
from medpixcl.transforms import CropUniformEdgesd
from medpixcl.transforms.edges import content_box
from tests.geometry import SHAPES, monai_affine, oblique_affine

DIMS = pytest.mark.parametrize("dims", [2, 3])


def framed(dims: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Image with black bars of different widths, noise of compression in them, a white line around all; its content."""
    content = 0.1 + 0.9 * torch.rand(1, *SHAPES[dims], generator=generator)
    widths = [0, *torch.randint(4, 9, (2 * dims - 1,), generator=generator).tolist()]
    there = pad(torch.ones_like(content), widths)
    bars = 0.01 * torch.rand(there.shape, generator=generator)
    line = [1] * len(widths)
    return pad(torch.where(there > 0, pad(content, widths), bars), line, value=1.0), pad(there, line)


def image_of(values: torch.Tensor, dims: int) -> MetaTensor:
    return MetaTensor(values, affine=monai_affine(oblique_affine(dims)))


@DIMS
def test_box_is_scikit_images(dims: int, generator: torch.Generator) -> None:
    image, content = framed(dims, generator)
    (region,) = regionprops(content[0].numpy().astype(np.uint8))
    assert content_box(image) == list(zip(region.bbox[:dims], region.bbox[dims:], strict=True))


@DIMS
@pytest.mark.parametrize("cells", [0, 2])
def test_margin_and_positions(dims: int, cells: int, generator: torch.Generator) -> None:
    """So many voxels of the edge stay, fewer where the image ends; a content voxel keeps its place in mm."""
    values, content = framed(dims, generator)
    image = image_of(values, dims)
    affine = spatial_affine(torch.as_tensor(image.affine), dims)
    mm = float(spacing_of(affine).max())
    margins = [round(cells * mm / float(size)) for size in spacing_of(affine)]
    cropped = CropUniformEdgesd("image", margin_mm=cells * mm)({"image": image})["image"]
    places = torch.nonzero(content[0])
    first, last = places.amin(dim=0).tolist(), places.amax(dim=0).tolist()
    starts = [max(0, place - margin) for place, margin in zip(first, margins, strict=True)]
    ends = [min(size, place + 1 + margin) for place, margin, size in zip(last, margins, values.shape[1:], strict=True)]
    assert list(cropped.shape[1:]) == [end - start for start, end in zip(starts, ends, strict=True)]
    place = places[len(places) // 3]
    mm_place = voxel_to_mm(place[None].double(), affine)
    (there,) = mm_to_voxel(mm_place, spatial_affine(torch.as_tensor(cropped.affine), dims))
    index = there.round().long()
    torch.testing.assert_close(there, index.double(), rtol=0, atol=1e-6)
    assert cropped[0][tuple(index.tolist())] == values[0][tuple(place.tolist())]


@DIMS
def test_without_edges(dims: int, generator: torch.Generator) -> None:
    """Noise reaches the sides of one; in a uniform one nothing tells content from edge."""
    for values in (torch.rand(1, *SHAPES[dims], generator=generator), torch.full((1, *SHAPES[dims]), 7.0)):
        image = image_of(values, dims)
        assert CropUniformEdgesd("image", margin_mm=0.0)({"image": image})["image"] is image
