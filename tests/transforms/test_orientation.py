"""Common axes against nibabel, and the way of labels and results through turned grids."""

import itertools
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from medpixcl.coordinates import image_affine
from medpixcl.data.images import read_image
from medpixcl.transforms import ExogenousGridd, LoadLabeld, OriginalGridd, WorkingSpacingd
from medpixcl.transforms.orientation import in_common_axes

SHAPE = (6, 5, 4)
AFFINE = np.eye(4)
AFFINE[:3, :3] = Rotation.from_euler("xyz", (10, -15, 20), degrees=True).as_matrix() * (1.0, 2.0, 3.0)
AFFINE[:3, 3] = (-9.0, 4.0, 7.0)
CODES = [
    "".join(code) for axes in itertools.permutations(("RL", "AP", "SI")) for code in itertools.product(*axes)
]  # fmt: skip


def volume(values: np.ndarray, code: str) -> nibabel.Nifti1Image:
    image = nibabel.Nifti1Image(values, AFFINE)
    return image.as_reoriented(ornt_transform(io_orientation(AFFINE), axcodes2ornt(code)))


@pytest.mark.parametrize("code", CODES)
def test_volumes_become_what_nibabel_calls_canonical(code: str) -> None:
    values = np.random.default_rng(0).random(SHAPE, dtype=np.float32)
    own = volume(values, code)
    image = in_common_axes(MetaTensor(torch.tensor(own.get_fdata()[None]), affine=torch.from_numpy(own.affine)))
    canonical = nibabel.as_closest_canonical(own)
    np.testing.assert_array_equal(image[0], canonical.get_fdata())
    np.testing.assert_array_equal(image[0], values)
    np.testing.assert_allclose(image.affine, canonical.affine, atol=1e-12)


@pytest.mark.parametrize("rows_first", [True, False])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_pictures_become_upright(signs: tuple[int, int], rows_first: bool) -> None:
    """A picture whose rows and columns run along any axes of the plane becomes as :func:`image_affine` has it."""
    axes = (1, 0) if rows_first else (0, 1)
    affine = np.eye(4)
    affine[:2, :2] = 0
    affine[axes[0], 0], affine[axes[1], 1] = 0.5 * signs[0], 0.25 * signs[1]
    values = torch.arange(12.0).reshape(1, 3, 4)
    image = in_common_axes(MetaTensor(values, affine=torch.from_numpy(affine)))
    sizes = (0.5, 0.25) if rows_first else (0.25, 0.5)
    torch.testing.assert_close(torch.as_tensor(image.affine)[:2, :2], image_affine(sizes)[:2, :2])
    for row, column in itertools.product(range(image.shape[1]), range(image.shape[2])):  # each value where it was
        place = np.linalg.inv(affine) @ image.affine.numpy() @ [row, column, 0, 1]
        own = tuple(np.rint(place[:2]).astype(int))
        assert image[0, row, column] == values[(0, *own)]


@pytest.mark.parametrize("code", ["LPS", "PIR", "SLA", "IRP"])
def test_labels_and_results_follow_the_image(tmp_path: Path, code: str) -> None:
    """Axes in another order, voxels of three sizes: labels go to the common grid, results back to that of the file."""
    values = np.random.default_rng(1).random(SHAPE, dtype=np.float32)
    labels = np.zeros(SHAPE, dtype=np.uint8)
    labels[1:4, 1:3, 2:] = 1
    grids = {}
    for name in ("RAS", code):
        nibabel.save(volume(values, name), tmp_path / "image.nii")
        nibabel.save(volume(labels, name), tmp_path / "label.nii")
        item = {"image": read_image(tmp_path / "image.nii"), "label": str(tmp_path / "label.nii")}
        item = LoadLabeld("label", classes=["organ"])(item)
        item["depth"] = MetaTensor(torch.cat([item["image"], torch.ones(1, *item["image"].shape[1:])]))
        item["depth"].affine = item["image"].affine
        item = WorkingSpacingd("image", [4.1, 2.1, 3.1])(item)
        grids[name] = ExogenousGridd(["label", "depth"], nearest_keys=["label"])(item)
    for key in ("label", "depth"):
        found, expected = grids[code][key], grids["RAS"][key]
        torch.testing.assert_close(found.affine, expected.affine, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.as_tensor(), expected.as_tensor(), atol=1e-5, rtol=0)
    item = {"image": in_common_axes(read_image(tmp_path / "image.nii"))}
    item["pred"] = item["image"].clone()
    back = OriginalGridd("pred")(item)["pred"]
    own = nibabel.load(tmp_path / "image.nii")
    np.testing.assert_allclose(back[0], own.get_fdata(), atol=1e-5)
    np.testing.assert_allclose(back.affine, own.affine, atol=1e-6)
