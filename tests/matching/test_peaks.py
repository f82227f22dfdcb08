"""Peaks: which there are, where between the cells they lie, and the second best."""

import pytest
import torch

from medpixcl.landmarks.heatmaps import refine_peaks
from medpixcl.matching.peaks import local_peaks, second_peaks


def gaussian(cells: tuple[int, ...], centre: list[float], sigma: float) -> torch.Tensor:
    axes = torch.meshgrid(*[torch.arange(n, dtype=torch.float64) for n in cells], indexing="ij")
    return sum(-0.5 * ((axis - c) / sigma) ** 2 for axis, c in zip(axes, centre, strict=True))


@pytest.mark.parametrize(("cells", "centre"), [((12, 15), [4.3, 9.8]), ((8, 9, 10), [3.3, 4.0, 5.6])])
def test_a_gaussian_is_found_between_the_cells(cells: tuple[int, ...], centre: list[float]) -> None:
    logs = gaussian(cells, centre, 1.7)[None]
    index = torch.tensor([[round(c) for c in centre]])
    torch.testing.assert_close(refine_peaks(logs, index), torch.tensor([centre], dtype=torch.float64))


def test_a_peak_at_the_border_stays_along_that_axis() -> None:
    logs = gaussian((9, 9), [-0.4, 3.2], 2.0)[None]
    found = refine_peaks(logs, torch.tensor([[0, 3]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, 3.2]], dtype=torch.float64))


def test_a_plateau_stays_on_its_cell() -> None:
    assert refine_peaks(torch.zeros(1, 5, 5), torch.tensor([[2, 2]])).tolist() == [[2.0, 2.0]]


@pytest.mark.parametrize("cells", [(30, 40), (20, 22, 24)])
def test_local_peaks_equal_a_search_of_neighbourhoods(cells: tuple[int, ...], generator: torch.Generator) -> None:
    values = torch.rand(2, *cells, generator=generator)
    index, scores = local_peaks(values, 5, radius=2)
    for landmark in range(2):
        peaks = []
        for cell in torch.cartesian_prod(*[torch.arange(n) for n in cells]).tolist():
            around = tuple(slice(max(0, c - 2), c + 3) for c in cell)
            if values[landmark][tuple(cell)] == values[landmark][around].max():
                peaks.append((values[landmark][tuple(cell)].item(), cell))
        best = sorted(peaks, reverse=True)[:5]
        assert index[landmark].tolist() == [cell for _, cell in best]
        assert scores[landmark].tolist() == [value for value, _ in best]


def test_second_peak_is_looked_for_outside_the_radius() -> None:
    places = torch.tensor([[[0.0, 0.0], [0.0, 3.0], [0.0, 9.0]]])
    scores = torch.tensor([[0.9, 0.8, 0.5]])
    assert second_peaks(places, scores, torch.zeros(1, 2), 5.0).tolist() == [0.5]
    assert second_peaks(places, scores, torch.zeros(1, 2), 20.0).tolist() == [0.0]
