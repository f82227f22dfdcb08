"""Views of an image with its landmarks: a landmark stays on what it marks."""

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scipy.spatial.transform import Rotation

from medpixcl.coordinates import apply_affine, inside, sample_at, spatial_affine, voxel_positions
from medpixcl.landmarks.pseudo import PseudoLandmarks
from medpixcl.transforms import LandmarkVoxelsd, PseudoLandmarksd, RandIntensityd, RandLandmarkViewd
from medpixcl.transforms.landmarks import locate, mean_landmarks
from medpixcl.views import view_positions
from tests.geometry import SHAPES, random_image, random_points

VIEWS = {2: [32, 40], 3: [20, 24, 16]}


def item_of(dims: int, number: int = 12):
    """An oblique anisotropic image that shows its own voxel indices, with landmarks in mm."""
    image = random_image(SHAPES[dims])
    indices = voxel_positions(SHAPES[dims]).movedim(-1, 0)
    image = MetaTensor(indices.clone(), meta=image.meta)
    voxels = random_points(SHAPES[dims], number)
    affine = spatial_affine(torch.as_tensor(image.affine), dims)
    return {"image": image, "points": apply_affine(affine, voxels), "weights": torch.ones(number)}, voxels


@pytest.mark.parametrize("elastic_mm", [0.0, 0.5])
@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_landmarks_move_together(dims, elastic_mm):
    """The view, read at a landmark's place, shows the voxel index where the landmark was: to 0.02 voxels."""
    item, voxels = item_of(dims)
    transform = RandLandmarkViewd(keys="image", view_shape=VIEWS[dims], elastic_mm=elastic_mm, shift_mm=3.0)
    checked = 0
    for seed in range(6):
        view = transform.set_random_state(seed)(item)
        assert view["image"].shape == (dims, *VIEWS[dims])
        assert view["points"].dtype == view["weights"].dtype == torch.float32
        seen = sample_at(view["image"].as_tensor()[None], view["points"][None])[0]
        inner = inside(voxels - 1, [n - 2 for n in SHAPES[dims]]) & (view["weights"] > 0)
        assert (seen - voxels)[inner].abs().max() < 0.02
        checked += int(inner.sum())
    assert checked > 12


@pytest.mark.parametrize("dims", [2, 3])
def test_weight_tells_what_is_in_view(dims):
    item, _ = item_of(dims)
    item["weights"] = torch.linspace(0.1, 1, 12)
    item["points"][3] = torch.nan
    view = RandLandmarkViewd(keys="image", view_shape=VIEWS[dims]).set_random_state(0)(item)
    there = inside(view["points"], VIEWS[dims])
    assert not there[3]
    assert 0 < int(there.sum()) < 11
    torch.testing.assert_close(view["weights"], torch.where(there, item["weights"], 0))


def own_angles(view: MetaTensor) -> list[float]:
    """How far a view of an image of its own indices turns about axes 0, 1 and 2 (small for all but the last)."""
    middle = view.as_tensor()[:, 2:-2, 2:-2, 2:-2]
    steps = np.stack([np.diff(middle.numpy(), axis=axis + 1).mean(axis=(1, 2, 3)) for axis in range(3)], axis=1)
    return np.abs(Rotation.from_matrix(steps).as_euler("xyz", degrees=True)).tolist()


def test_an_angle_for_each_axis():
    """The view's axes in the image, read off an image of its own indices, against scipy's Euler angles."""
    image = MetaTensor(voxel_positions((48, 48, 48)).movedim(-1, 0).clone(), affine=torch.eye(4))
    item = {"image": image, "points": torch.full((1, 3), 24.0), "weights": torch.ones(1)}
    view = RandLandmarkViewd(
        keys="image",
        view_shape=[8, 8, 8],
        rotation_degrees=[0.0, 5.0, 90.0],
        scale_range=(1.0, 1.0),
        shift_mm=0.0,
        elastic_mm=0.0,
        centred=True,
    )
    angles = np.array([own_angles(view.set_random_state(seed)(item)["image"]) for seed in range(30)])
    assert angles[:, 0].max() < 0.01
    assert 3 < angles[:, 1].max() < 5.01
    assert 50 < angles[:, 2].max() < 90.01


@pytest.mark.parametrize("dims", [2, 3])
def test_views_stand_as_the_shape_does(dims):
    """Landmarks that are the shape, turned, enlarged and shifted: a view that does not turn further shows the shape."""
    item, voxels = item_of(dims, number=6)
    affine = spatial_affine(torch.as_tensor(item["image"].affine), dims)
    mm = apply_affine(affine, voxels)
    turn = Rotation.from_euler("xyz", [0, 0, 70] if dims == 2 else [20, -50, 130], degrees=True).as_matrix()
    rotation = torch.from_numpy(turn[:dims, :dims])
    shape = 0.8 * (mm - mm.mean(dim=0)) @ rotation + 5  # turned back
    shape[5] = torch.nan  # no item had the last one
    item["weights"][4], item["points"][4] = 0, torch.nan
    view = RandLandmarkViewd(
        keys="image",
        view_shape=VIEWS[dims],
        rotation_degrees=0.0,
        scale_range=(1.0, 1.0),
        shift_mm=0.0,
        elastic_mm=0.0,
        centred=True,
        shape_mm=shape.tolist(),
    )
    spacing = torch.linalg.vector_norm(affine[:dims, :dims], dim=0)
    for seed in range(3):
        shown = view.set_random_state(seed)(item)["points"][:4].double() * spacing
        assert (shown - shown[0] - (shape[:4] - shape[0]) / 0.8).abs().max() < 0.01


def test_a_shape_without_the_known_landmarks_turns_nothing():
    item, _ = item_of(2, number=3)
    item["weights"][0] = 0
    options = {"keys": "image", "view_shape": VIEWS[2]}
    nothing_shared = [[1.0, 2.0], [float("nan")] * 2, [float("nan")] * 2]
    shown = RandLandmarkViewd(**options, shape_mm=nothing_shared).set_random_state(0)(item)["image"]
    assert torch.equal(shown, RandLandmarkViewd(**options).set_random_state(0)(item)["image"])


def test_angles_that_fit_no_axes():
    with pytest.raises(ValueError, match="rotation_degrees has 2 angles; expected one number, or 3, one for each axis"):
        RandLandmarkViewd(keys="image", view_shape=[8, 8, 8], rotation_degrees=[10.0, 20.0])


def test_mean_landmarks():
    """Two items that are one shape, differently placed; a point that one of them misses comes from the other."""
    shape = torch.tensor([[0.0, 0], [4, 0], [0, 3], [5, 5]], dtype=torch.float64)
    quarter = torch.tensor([[0.0, 1], [-1, 0]], dtype=torch.float64)
    items = {"one": shape.clone(), "other": 2 * shape @ quarter + 7}
    items["one"][3] = torch.nan
    mean = mean_landmarks([{"name": name} for name in items], lambda item: {"points": items[item["name"]]})
    torch.testing.assert_close(torch.tensor(mean, dtype=torch.float64), shape, atol=1e-3, rtol=0)


@pytest.mark.parametrize("dims", [2, 3])
def test_locate_is_the_inverse_of_the_sampling_grid(dims):
    """The centre of every pixel of a deformed view is found from the image voxel that it shows."""
    image = random_image(SHAPES[dims])
    view = RandLandmarkViewd(keys="image", view_shape=[21] * dims, elastic_mm=0.3).set_random_state(1).randomize(image)
    shown = view_positions(view.matrix[None], view.shape, view.displacement[None])[0]
    found = locate(view, shown.flatten(0, -2).double())
    torch.testing.assert_close(found, voxel_positions(view.shape).flatten(0, -2).double(), rtol=0, atol=1e-3)


def test_a_folded_view_gives_no_wrong_place():
    """A displacement of many pixels per pixel: every place that is given is right."""
    image = random_image(SHAPES[2])
    view = RandLandmarkViewd(keys="image", view_shape=[31, 31], elastic_mm=1.5).set_random_state(0).randomize(image)
    points = random_points(SHAPES[2], 200)
    found = locate(view, points)
    positions = view_positions(view.matrix[None], view.shape, view.displacement[None]).movedim(-1, 1)
    seen = inside(found, view.shape)
    assert seen.any()
    shown = sample_at(positions.double(), found[None])[0]
    assert (shown - points)[seen].abs().max() < 0.11


def test_same_seed_same_view():
    item, _ = item_of(2)
    transform = RandLandmarkViewd(keys="image", view_shape=VIEWS[2])
    one, two, other = (transform.set_random_state(seed)(item) for seed in (5, 5, 6))
    assert torch.equal(one["image"], two["image"])
    assert not torch.equal(one["image"], other["image"])
    with pytest.raises(ValueError, match="scale_range must be two positive ascending numbers"):
        RandLandmarkViewd(keys="image", view_shape=[8, 8], scale_range=[1.2, 0.8])


def test_landmarks_as_they_are_known_now():
    """Voxels of the image from mm; a change of the labels shows in the next item."""
    item, voxels = item_of(2, number=2)
    item["image"].meta["filename_or_obj"] = "a.png"
    labels = PseudoLandmarks(["one", "two"])
    transform = PseudoLandmarksd(labels)
    assert transform(item)["points"].isnan().all()
    assert transform(item)["weights"].tolist() == [0, 0]
    labels.set("a.png", item["points"], torch.tensor([0.25, 1.0]))
    found = LandmarkVoxelsd(keys="image")(transform(item))
    torch.testing.assert_close(found["points"], voxels.float(), rtol=0, atol=1e-4)
    assert found["weights"].tolist() == [0.25, 1.0]


def test_intensity():
    image = MetaTensor(torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0)))
    never = RandIntensityd("image", {"brightness": (2.0, 2.0)}, probability=0.0).set_random_state(0)
    assert torch.equal(never({"image": image})["image"], image)
    always = RandIntensityd("image", {"brightness": (0.5, 0.5)}).set_random_state(0)({"image": image})["image"]
    np.testing.assert_allclose(always.numpy(), 0.5 * image.numpy(), rtol=1e-6)
