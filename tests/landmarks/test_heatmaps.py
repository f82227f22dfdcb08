"""Landmarks survive the way into heatmaps and back, between the cells, in 2D and 3D."""

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass

from medpixcl.landmarks.heatmaps import (
    activate_heatmaps,
    decode_heatmaps,
    encode_heatmaps,
    heatmap_covariance,
    on_grid,
    refine_peaks,
)
from medpixcl.landmarks.pseudo import PseudoLandmarks
from tests.reference.heatmaps import covariance, gaussian

GRIDS = [((40, 52), [0.5, 0.8]), ((24, 20, 28), [0.5, 0.8, 1.4])]


def inner_points(cells: tuple[int, ...], stride: int, number: int, margin: int) -> torch.Tensor:
    """Voxels at least ``margin`` cells inside the grid, (2, number, D) float64."""
    state = np.random.default_rng(0)
    low, high = margin * stride, (np.array(cells) - margin) * stride
    return torch.from_numpy(state.uniform(low, high, (2, number, len(cells))))


@pytest.mark.parametrize("method", ["quadratic", "expectation"])
@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize(("cells", "spacing"), GRIDS)
def test_encode_then_decode(cells, spacing, stride, method):
    """Below 0.02 voxels for random points between the voxels, whatever the spacing; the quadratic one is exact."""
    points = inner_points(cells, stride, 30, 8).float()
    sigma = stride * 0.9  # mm: 0.64 to 1.8 cells
    maps = encode_heatmaps(points, cells, stride=stride, sigma_mm=sigma, spacing_mm=spacing)
    found, mass = decode_heatmaps(maps, stride=stride, radius=9, method=method)
    assert (found - points).abs().max() < 0.02
    assert mass.min() > 0.99


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("cells", "spacing"), [((7, 9), [0.5, 0.8]), ((5, 4, 6), [0.5, 0.8, 1.4])])
def test_values_of_the_equation(cells, spacing, normalise):
    points = torch.from_numpy(np.random.default_rng(1).uniform(0, 7, (2, 3, len(cells))))
    maps = encode_heatmaps(points, cells, stride=2, sigma_mm=1.7, spacing_mm=spacing, normalise=normalise)
    for image in range(2):
        for landmark in range(3):
            wanted = gaussian(points[image, landmark].tolist(), cells, 2, 1.7, spacing)
            wanted = wanted / wanted.sum() if normalise else wanted
            torch.testing.assert_close(maps[image, landmark], wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("cells", "spacing"), [((64, 90), [0.5, 0.8]), ((34, 40, 38), [0.5, 0.8, 1.4])])
def test_a_window_holds_all_that_is_not_zero(cells, spacing, dtype):
    """Narrow Gaussians on a large grid, also at its corners: as the equation says, to the last cell."""
    ends = [
        [-0.5] * len(cells),
        [n - 0.5 for n in cells],
        [0.4 * n for n in cells],
        [0.0, *[n - 1.3 for n in cells[1:]]],
    ]
    points = torch.tensor([ends], dtype=dtype)
    maps = encode_heatmaps(points, cells, stride=1, sigma_mm=0.4, spacing_mm=spacing, normalise=False)
    tiny = torch.finfo(dtype).tiny
    for number, point in enumerate(points[0].tolist()):
        wanted = gaussian(point, cells, 1, 0.4, spacing).to(dtype)
        torch.testing.assert_close(maps[0, number], wanted, rtol=1e-4 if dtype == torch.float32 else 1e-11, atol=tiny)
        assert (maps[0, number] == 0).double().mean() > 0.5


@pytest.mark.parametrize("dims", [2, 3])
def test_maps_tell_the_point_where_to_go(dims):
    """The derivative by the point is that of the equation."""
    points = torch.full((1, 1, dims), 3.2, dtype=torch.float64, requires_grad=True)
    options = {"stride": 1, "sigma_mm": 1.1, "spacing_mm": [0.9] * dims}
    for normalise in (True, False):
        assert torch.autograd.gradcheck(
            lambda p, n=normalise: encode_heatmaps(p, [8] * dims, normalise=n, **options), points
        )


def test_missing_and_outside_are_empty():
    """On a grid of 4 x 4 cells of 2 voxels, voxels from -0.5 to 7.5 are on it."""
    nan = float("nan")
    points = torch.tensor([[[3.0, 3.0], [nan, nan], [-0.6, 3.0], [-0.4, 7.4], [3.0, 7.6]]])
    assert on_grid(points, [4, 4], 2).tolist() == [[True, False, False, True, False]]
    maps = encode_heatmaps(points, [4, 4], stride=2, sigma_mm=1.0, spacing_mm=[1.0, 1.0])
    torch.testing.assert_close(maps.flatten(2).sum(dim=2), torch.tensor([[1.0, 0, 0, 1.0, 0]]))
    found, mass = decode_heatmaps(maps, stride=2)
    assert found.isnan().any(dim=2).tolist() == [[False, True, True, False, True]]
    assert mass[0, [1, 2, 4]].tolist() == [0, 0, 0]


def test_expectation_is_the_centre_of_mass_of_the_window():
    values = np.random.default_rng(0).uniform(0, 1, (11, 9))
    values[5, 4] = 2
    found, mass = decode_heatmaps(torch.from_numpy(values)[None, None], stride=1, radius=2)
    window = values[3:8, 2:7]
    assert found[0, 0].tolist() == pytest.approx(np.add(center_of_mass(window), [3, 2]).tolist())
    assert float(mass) == pytest.approx(window.sum() / values.sum())


def test_window_at_the_border_counts_no_cell_twice():
    values = torch.zeros(1, 1, 3, 3)
    values[0, 0, 0, 0], values[0, 0, 1, 0] = 3.0, 1.0
    found, mass = decode_heatmaps(values, stride=1, radius=2)
    assert found[0, 0].tolist() == pytest.approx([0.25, 0.0])
    assert float(mass) == 1.0


@pytest.mark.parametrize("radius", [1, 3])
@pytest.mark.parametrize(("cells", "spacing"), [((11, 9), [0.5, 0.8]), ((6, 7, 5), [0.5, 0.8, 1.4])])
def test_covariance_of_the_equation(cells, spacing, radius):
    """Random maps, one with its peak at a corner."""
    maps = torch.from_numpy(np.random.default_rng(0).uniform(0, 1, (1, 2, *cells)))
    corner = tuple(n - 1 for n in cells)
    maps[(0, 0, *corner)], maps[(0, 1, *[3] * len(cells))] = 2.0, 2.0
    found = heatmap_covariance(maps, stride=4, spacing_mm=spacing, radius=radius)
    for number, peak in enumerate([corner, (3,) * len(cells)]):
        torch.testing.assert_close(found[0, number], covariance(maps[0, number], peak, radius, 4, spacing))


@pytest.mark.parametrize(("cells", "spacing"), [((40, 52), [0.5, 0.8]), ((24, 20, 28), [0.5, 0.8, 1.4])])
def test_covariance_of_a_tilted_gaussian(cells, spacing):
    """It comes back in mm^2, whatever the spacing and the stride."""
    dims, stride = len(cells), 2
    state = np.random.default_rng(3)
    mixing = torch.from_numpy(state.normal(size=(dims, dims)))
    true = mixing @ mixing.T / 4 + 2 * torch.eye(dims, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in cells], indexing="ij"), dim=-1)
    step = stride * torch.tensor(spacing, dtype=torch.float64)
    away = (grid - torch.tensor([n / 2 + 0.3 for n in cells])) * step
    maps = torch.einsum("...d,de,...e->...", away, true.inverse(), away).div(-2).exp()[None, None]
    found = heatmap_covariance(maps, stride=stride, spacing_mm=spacing, radius=max(cells))
    torch.testing.assert_close(found[0, 0], true, rtol=0.01, atol=0.01)


def test_covariance_of_what_is_not_spread_or_not_there():
    maps = torch.zeros(1, 3, 5, 5)
    maps[0, 0, 2, 2] = 1
    maps[0, 2] = torch.nan
    found = heatmap_covariance(maps, stride=1, spacing_mm=[1.0, 1.0])
    assert found[0, 0].abs().max() == 0
    assert found[0, 1:].isnan().all()


def test_a_map_of_nan_is_missing():
    maps = torch.full((1, 1, 4, 4), torch.nan)
    for method in ("expectation", "quadratic", "argmax"):
        found, share = decode_heatmaps(maps, stride=1, method=method)
        assert found.isnan().all()
        assert share.tolist() == [[0.0]]


@pytest.mark.parametrize("cells", [(9, 7), (5, 6, 4)])
def test_argmax_is_the_centre_of_the_greatest_cell(cells):
    values = np.random.default_rng(0).uniform(0, 1, (1, 3, *cells))
    found, _ = decode_heatmaps(torch.from_numpy(values), stride=2, method="argmax")
    for number, value in enumerate(values[0]):
        cell = np.unravel_index(value.argmax(), cells)
        assert found[0, number].tolist() == [2 * c + 0.5 for c in cell]


def test_activations():
    output = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(activate_heatmaps(output, "softmax").sum(dim=(2, 3)), torch.ones(2, 3))
    torch.testing.assert_close(activate_heatmaps(output, "sigmoid"), 1 / (1 + (-output).exp()))
    assert torch.equal(activate_heatmaps(output, "none"), torch.where(output < 0, 0, output))
    with pytest.raises(ValueError, match="activation is 'tanh'; expected one of softmax, sigmoid, none"):
        activate_heatmaps(output, "tanh")


@pytest.mark.parametrize(("cells", "spacing"), GRIDS)
def test_offsets_point_to_the_landmark(cells, spacing):
    """With offsets that are right, the place is exact, though the map is one cell."""
    points = inner_points(cells, 2, 10, 5)
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in cells], indexing="ij"))
    offsets = ((points + 0.5) / 2 - 0.5)[(..., *[None] * len(cells))] - grid
    maps = encode_heatmaps(points, cells, stride=2, sigma_mm=0.3, spacing_mm=spacing)
    found, _ = decode_heatmaps(maps, stride=2, radius=1, offsets=offsets)
    torch.testing.assert_close(found, points, rtol=0, atol=1e-9)


def test_bad_arguments():
    points = torch.zeros(1, 1, 2)
    with pytest.raises(ValueError, match="points have 2 coordinates, the grid 3 axes and the spacing 2"):
        encode_heatmaps(points, [4, 4, 4], stride=1, sigma_mm=1.0, spacing_mm=[1.0, 1.0])
    with pytest.raises(ValueError, match=r"sigma_mm is 0\.0; expected a positive width"):
        encode_heatmaps(points, [4, 4], stride=1, sigma_mm=0.0, spacing_mm=[1.0, 1.0])
    with pytest.raises(ValueError, match="method is 'quadratic'; expected"):
        decode_heatmaps(torch.ones(1, 1, 2, 2), stride=1, method="quadratic", offsets=torch.zeros(1, 1, 2, 2, 2))
    with pytest.raises(ValueError, match="the maps have 2 axes and the spacing 1; expected the same number"):
        heatmap_covariance(torch.ones(1, 1, 2, 2), stride=1, spacing_mm=[1.0])


def test_peak_at_the_border_stays():
    logs = torch.tensor([[3.0, 1.0, 0.0]])
    assert refine_peaks(logs, torch.tensor([[0]])).tolist() == [[0.0]]


def test_pseudo_landmarks_come_back(tmp_path):
    labels = PseudoLandmarks(["a", "b"])
    points = torch.tensor([[1.0, 2.0], [torch.nan, torch.nan]])
    labels.set("one.png", points, torch.tensor([0.5, 0.9]))
    labels.round = 3
    torch.save(labels.state_dict(), tmp_path / "state.pt")
    other = PseudoLandmarks(["a", "b"])
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert other.round == 3
    assert other.weights("one.png").tolist() == [0.5, 0.0], "what is missing has no weight"
    torch.testing.assert_close(other.points("one.png", 2), points.double(), equal_nan=True)
    assert other.missing_among(["one.png", "two.png"]) == ["two.png"]
    with pytest.raises(ValueError, match="found 1 points and 1 weights for 2 landmarks"):
        labels.set("two.png", points[:1], torch.ones(1))


def test_pseudo_landmarks_name_no_folder_of_a_person(tmp_path):
    """Images of one name in several folders; the state finds them again wherever their common folder has gone."""
    folder, moved = "/data/Doe_Jane", "/mnt/x"
    images = ["x/001.png", "001.png", "y/001.png"]
    labels = PseudoLandmarks(["a"])
    for number, image in enumerate(images):
        labels.set(f"{folder}/{image}", torch.full((1, 2), float(number)), torch.ones(1))
    torch.save(labels.state_dict(), tmp_path / "state.pt")
    assert b"Doe" not in (tmp_path / "state.pt").read_bytes()
    assert b"001" not in (tmp_path / "state.pt").read_bytes().replace(b"\x00", b"")
    other = PseudoLandmarks(["a"])
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    other.place([f"{moved}/{image}" for image in images])
    assert [float(other.points(f"{moved}/{image}", 2)[0, 0]) for image in images] == [0.0, 1.0, 2.0]
    assert other.missing_among([f"{moved}/{image}" for image in images]) == []
    assert other.state_dict()["points"].keys() == labels.state_dict()["points"].keys()
