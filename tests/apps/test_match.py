"""Inferer, template, and the way between the file's voxels and those of the working image."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from PIL import Image

from medpixcl.coordinates import original_voxels, spacing_of, spatial_affine, working_voxels
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.networks import PixelEmbeddingNet
from medpixcl.networks.inferers import LevelsInferer
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd
from tests.tiny import NETWORK


def preprocessing(spacing_mm: list[float]) -> Compose:
    return Compose([LoadImageMMd(keys="image"), WorkingSpacingd(keys="image", spacing_mm=spacing_mm)])


def blob(shape: tuple[int, ...], centre: list[float], sigma: list[float]) -> np.ndarray:
    """A Gaussian, 1 at its centre, which lies between voxels."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    return np.exp(-0.5 * sum(((axis - c) / s) ** 2 for axis, c, s in zip(axes, centre, sigma, strict=True)))


def centroid(image: torch.Tensor) -> torch.Tensor:
    """Centre of mass of an image (*spatial)."""
    values = image.double().clamp(min=0)
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in image.shape], indexing="ij")
    return torch.stack([(axis * values).sum() / values.sum() for axis in axes])


@pytest.mark.parametrize("centre", [[120.3, 201.8], [333.75, 90.25]])
@pytest.mark.parametrize("shape", [(403, 517), (400, 500)])
def test_a_point_of_a_picture_of_a_tenth_mm(shape: tuple[int, int], centre: list[float], tmp_path: Path) -> None:
    """What is seen at half a mm lies, in the file's pixels, where it was drawn: to 0.02 mm."""
    path = tmp_path / "native.png"
    Image.fromarray(np.round(255 * blob(shape, centre, [15, 15])).astype(np.uint8)).save(path)
    image = preprocessing([0.5, 0.5])({"image": str(path), "spacing_mm": 0.1})["image"]
    assert spacing_of(spatial_affine(torch.as_tensor(image.affine), 2)).tolist() == pytest.approx([0.5, 0.5])
    seen = centroid(image.as_tensor()[0])[None]
    drawn = torch.tensor([centre], dtype=torch.float64)
    assert (original_voxels(seen, image) - drawn).abs().max() * 0.1 < 0.02
    assert (working_voxels(drawn, image) - seen).abs().max() * 0.5 < 0.02


def test_a_point_of_an_oblique_volume(tmp_path: Path) -> None:
    """The same with three different spacings, turned axes and one of them mirrored."""
    spacing, centre = np.array([0.4, 0.5, 0.8]), [40.6, 30.2, 21.3]
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3] = turn * spacing * [1, -1, 1]
    affine[:3, 3] = [-30, 12, 7]
    volume = blob((80, 66, 44), centre, [6, 5, 4]).astype(np.float32)
    path = tmp_path / "native.nii.gz"
    nibabel.save(nibabel.Nifti1Image(volume, affine), path)
    image = preprocessing([1.0, 1.0, 1.0])({"image": str(path)})["image"]
    assert spacing_of(spatial_affine(torch.as_tensor(image.affine), 3)).tolist() == pytest.approx([1, 1, 1], abs=1e-6)
    drawn = torch.tensor([centre], dtype=torch.float64)
    miss = original_voxels(centroid(image.as_tensor()[0])[None], image) - drawn
    assert (miss * torch.from_numpy(spacing)).abs().max() < 0.02
    torch.testing.assert_close(original_voxels(working_voxels(drawn, image), image), drawn, rtol=0, atol=1e-9)


def test_missing_points_stay_missing(tmp_path: Path) -> None:
    path = tmp_path / "native.png"
    Image.fromarray(np.zeros((40, 40), dtype=np.uint8)).save(path)
    image = preprocessing([0.5, 0.5])({"image": str(path), "spacing_mm": 0.1})["image"]
    points = torch.tensor([[torch.nan, torch.nan], [2.0, 2.0]], dtype=torch.float64)
    assert working_voxels(points, image).isnan().tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("shape", [(32, 40), (33, 41), (3, 100), (8, 16, 9)])
def test_inferer_pads_at_the_end(shape: tuple[int, ...]) -> None:
    """Whole cells at every level; the image with zeros written behind it by hand gives the same."""
    network = PixelEmbeddingNet(spatial_dims=len(shape), **NETWORK).eval()
    image = torch.rand(2, 1, *shape)
    whole = [-(-n // 4) * 4 for n in shape]  # the coarsest stride is 4
    padded = torch.zeros(2, 1, *whole)
    padded[(..., *[slice(n) for n in shape])] = image
    with torch.no_grad():
        levels = LevelsInferer()(MetaTensor(image), network)
        expected = network.levels(padded)
    assert [list(level.shape[2:]) for level in levels] == [[n // stride for n in whole] for stride in (1, 2, 4)]
    for level, wanted in zip(levels, expected, strict=True):
        assert type(level) is torch.Tensor
        torch.testing.assert_close(level, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(4, 3), (2, 4, 4)])
def test_inferer_refuses_what_fits_into_one_coarse_cell(shape: tuple[int, ...]) -> None:
    """Instance normalization of a single cell leaves nothing; its own error speaks of training."""
    network = PixelEmbeddingNet(spatial_dims=len(shape), **NETWORK).eval()
    sizes = " x ".join(map(str, shape))
    with pytest.raises(ValueError, match=f"the image has {sizes} voxels .* needs more than 4 along an axis"):
        LevelsInferer()(torch.rand(1, 1, *shape), network)


def test_template_at_the_working_spacing(tmp_path: Path) -> None:
    """Pixel (x, y) = (12, 25) lies 12 and 25 tenths of a mm from the first one, so 2.4 and 5 working pixels."""
    Image.fromarray(np.zeros((60, 50), dtype=np.uint8)).save(tmp_path / "native.png")
    table = tmp_path / "landmarks.csv"
    table.write_text("image,landmark,x_px,y_px\nnative.png,sella,12,25\nnative.png,nasion,,\n")
    template = AnnotatedImage(
        {"image": str(tmp_path / "native.png"), "spacing_mm": 0.1}, str(table), preprocessing([0.5, 0.5])
    )
    assert template.points.names == ("sella", "nasion")
    row, column = template.voxels[0].tolist()
    origin = working_voxels(torch.zeros(1, 2), template.image)[0].tolist()
    assert (row - origin[0], column - origin[1]) == pytest.approx((25 / 5, 12 / 5))
    assert template.voxels[1].isnan().all()


def test_template_without_a_position(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 50), dtype=np.uint8)).save(tmp_path / "native.png")
    table = tmp_path / "landmarks.csv"
    table.write_text("image,landmark,x_px,y_px\nnative.png,sella,,\nother.png,sella,1,1\n")
    item = {"image": str(tmp_path / "native.png"), "spacing_mm": 0.1}
    with pytest.raises(ValueError, match=r"has no landmark with a position in native\.png; mark at least one"):
        AnnotatedImage(item, str(table), preprocessing([0.5, 0.5]))
