"""The score that looks both ways, against the sum written out."""

import math

import pytest
import torch

from medpixcl.matching.grid import CellGrid
from medpixcl.matching.product import describe
from medpixcl.matching.reciprocity import reciprocal_windows, refinement_window, surroundings
from tests.matching.fields import WaveField


def written_out(around: list[torch.Tensor], row: int, place: list[torch.Tensor]) -> float:
    """s + 2 (s - 0.1 log sum_cells exp(s_cell / 0.1)), s the sum over levels of log cosines of at least 0.001."""
    cells = []
    for cell in range(around[0].shape[1]):
        cosines = [float(level[row, cell] @ vector) for level, vector in zip(around, place, strict=True)]
        cells.append(sum(math.log(max(cosine, 1e-3)) for cosine in cosines))
    here = cells[len(cells) // 2]
    top = max(cells)
    soft = top + 0.1 * math.log(sum(math.exp((cell - top) / 0.1) for cell in cells))
    return here + 2 * (here - soft)


@pytest.mark.parametrize("shape", [(40, 48), (20, 24, 22)])
def test_equals_the_sum_written_out(shape: tuple[int, ...], generator: torch.Generator) -> None:
    strides = [2, 4]
    field = WaveField(len(shape), strides)
    levels = [level[0] for level in field.levels(shape, [1.0] * len(shape))]
    points = torch.rand(3, len(shape), generator=generator) * (torch.tensor(shape) - 1)
    around = surroundings(levels, strides, points)
    starts = torch.tensor([[3, 4, 2][: len(shape)], [0, 0, 0][: len(shape)]])
    owner = torch.tensor([0, 1, 1])
    scores = reciprocal_windows(around, owner, levels, strides, starts, [3] * len(shape))
    for row in range(3):
        for step in ([0] * len(shape), [2, 1, 0][: len(shape)]):
            cell = starts[owner[row]] + torch.tensor(step)
            place = [vector[0] for vector in describe(levels, strides, ((cell + 0.5) * 2 - 0.5)[None])]
            assert scores[row][tuple(step)].item() == pytest.approx(written_out(around, row, place), abs=1e-3)


def test_the_centre_of_the_surroundings_is_the_landmark(generator: torch.Generator) -> None:
    strides = [2, 4]
    levels = [level[0] for level in WaveField(2, strides).levels((40, 48), [1.0, 1.0])]
    points = torch.rand(3, 2, generator=generator) * 39
    for around, vectors in zip(surroundings(levels, strides, points), describe(levels, strides, points), strict=True):
        torch.testing.assert_close(around[:, around.shape[1] // 2], vectors)


def test_windows_lie_inside_the_grid() -> None:
    grid = CellGrid((20, 7), 2, (1.0, 1.0))
    starts, size = refinement_window(grid, torch.tensor([[0.0, 0.0], [19.0, 6.0], [10.2, 4.0]]))
    assert size == [9, 7]
    assert starts.tolist() == [[0, 0], [11, 0], [6, 0]]
