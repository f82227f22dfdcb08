"""Landmarks survive the way into heatmaps and back, between the cells, in 2D and 3D."""

import numpy as np
import pytest
import torch
from scipy.ndimage import center_of_mass

from medpixcl.landmarks.heatmaps import decode_heatmaps, encode_heatmaps, on_grid, refine_peaks
from medpixcl.landmarks.pseudo import PseudoLandmarks
from tests.reference.heatmaps import gaussian

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
