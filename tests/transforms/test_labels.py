"""Labels move with their image: nearest values at the same place in mm, and results come back to the file's grid."""

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from scipy import ndimage

from medpixcl.coordinates import image_affine, voxel_positions
from medpixcl.data.phantoms import write_organ_phantoms
from medpixcl.transforms import (
    ExogenousGridd,
    LoadImageMMd,
    LoadLabeld,
    OriginalGridd,
    RandViewd,
    WorkingSpacingd,
)
from medpixcl.views import view_positions

SHAPES = {2: (40, 30), 3: (20, 24, 16)}
EACH_DIM = pytest.mark.parametrize("dims", [2, 3])


def prepared(item: dict, dims: int, overlapping: bool, spacing: float) -> dict:
    names = ["a", "b", "c"]
    return Compose(
        [
            LoadImageMMd("image"),
            LoadLabeld("label", names, overlapping),
            WorkingSpacingd("image", [spacing] * dims),
            ExogenousGridd("label", nearest_keys=["label"]),
        ]
    )(item)


@EACH_DIM
@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("spacing", [0.7, 1.6])
def test_label_is_resampled_to_the_image_without_new_values(
    dims: int, overlapping: bool, spacing: float, tmp_path: Path
) -> None:
    """At every new voxel the value of the old voxel whose centre is nearest in mm."""
    (item,) = write_organ_phantoms(tmp_path, 1, SHAPES[dims], overlapping=overlapping)
    plain = LoadLabeld("label", ["a", "b", "c"], overlapping)(LoadImageMMd("image")(item))
    found = prepared(item, dims, overlapping, spacing)
    assert found["label"].shape[1:] == found["image"].shape[1:]
    places = voxel_positions(found["image"].shape[1:]).numpy() @ np.eye(dims)
    step = np.linalg.inv(plain["image"].affine.numpy()) @ found["image"].affine.numpy()
    keep = [*range(dims), 3]
    step = step[np.ix_(keep, keep)]
    places = np.moveaxis(places @ step[:dims, :dims].T + step[:dims, dims], -1, 0)
    near = np.abs(places - np.floor(places) - 0.5) < 1e-3  # a tie may go either way
    for channel, source in zip(found["label"].numpy(), plain["label"].numpy(), strict=True):
        expected = ndimage.map_coordinates(source, places, order=0, mode="constant")
        sure = ~near.any(axis=0)
        np.testing.assert_array_equal(channel[sure], expected[sure])
        assert set(np.unique(channel)) <= set(np.unique(source)) | {0.0}


@EACH_DIM
def test_view_shows_image_and_label_at_the_same_place(dims: int) -> None:
    """A label that is the image itself stays so where the image is flat; each is sampled as it should be."""
    shape = SHAPES[dims]
    image = torch.zeros(1, *shape)
    image[(0, *[slice(n // 3, 2 * n // 3) for n in shape])] = 1
    affine = image_affine((1.0, 1.0)) if dims == 2 else torch.eye(4, dtype=torch.float64)
    item = {"image": MetaTensor(image, affine=affine), "label": MetaTensor(image.clone(), affine=affine)}
    view = RandViewd(["image", "label"], [24] * dims, elastic_mm=1.0, nearest_keys=["label"])
    view.set_random_state(seed=3)
    found = view(item)
    view.set_random_state(seed=3)
    geometry = view.randomize(item["image"])
    positions = view_positions(geometry.matrix[None], geometry.shape, geometry.displacement[None])[0].numpy()
    expected = ndimage.map_coordinates(image[0].numpy(), np.moveaxis(positions, -1, 0), order=1, mode="constant")
    assert 0.02 < expected.mean() < 0.9
    flat = (expected == 0) | (expected == 1)
    np.testing.assert_array_equal(found["label"][0].numpy()[flat], expected[flat])
    assert set(found["label"].unique().tolist()) == {0.0, 1.0}
    inner = (positions > 0).all(-1) & (positions < np.array(shape) - 1).all(-1)
    np.testing.assert_allclose(found["image"][0].numpy()[inner], expected[inner], atol=1e-4)


@EACH_DIM
def test_original_grid_undoes_the_working_spacing(dims: int, tmp_path: Path) -> None:
    """A map that is linear in mm has the same value at the same place on both grids."""
    (item,) = write_organ_phantoms(tmp_path, 1, SHAPES[dims])
    original = LoadImageMMd("image")(item)["image"]
    working = WorkingSpacingd("image", [1.7] * dims)({"image": original})["image"]

    def ramp(image: MetaTensor) -> torch.Tensor:
        voxels = voxel_positions(image.shape[1:]).double()
        affine = torch.as_tensor(image.affine, dtype=torch.float64)
        return (voxels @ affine[:dims, :dims].T + affine[:dims, 3]).sum(-1)[None].float()

    found = OriginalGridd("pred")({"image": working, "pred": ramp(working)})["pred"]
    assert found.shape == original.shape
    assert np.allclose(found.affine, original.affine)
    inside = (slice(None), *[slice(2, -2)] * dims)  # at the rim the border is held
    torch.testing.assert_close(found.as_tensor()[inside], ramp(original)[inside], atol=1e-3, rtol=0)


def test_no_label_is_said() -> None:
    image = MetaTensor(torch.zeros(1, 4, 4), meta={"filename_or_obj": "a.png"})
    load = LoadLabeld("label", ["a"])
    with pytest.raises(ValueError, match=r"a.png: the manifest has no label; give the path"):
        load({"image": image})
    with pytest.raises(ValueError, match=r"a.png: the manifest has the label 3; give the path"):
        load({"image": image, "label": 3})
