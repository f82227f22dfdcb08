"""The metric against levels made by hand, whose shift is known."""

import pytest
import torch
from ignite.engine import Engine
from ignite.exceptions import NotComputableError
from monai.handlers import from_engine
from torch.nn import functional as F

from medpixcl.training.correspondence import PixelCorrespondence, matched_pixels

STRIDE = 2
CELLS = {2: (4, 5), 3: (3, 4, 2)}


def shifted_views(dims: int) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Every cell has a vector of its own at the fine level; in the anchor view all lie one cell further down.

    The coarse level is the same everywhere, so it only adds a constant to each cosine.
    """
    cells = CELLS[dims]
    count = int(torch.tensor(cells).prod())
    query = torch.eye(count).view(1, count, *cells)
    flat = F.normalize(torch.ones(1, count, *[-(-n // 2) for n in cells]), dim=1)
    return [query, flat], [query.roll(1, dims=2), flat]


def pairs(dims: int, errors: list[float], valid: list[bool] | None = None) -> dict[str, torch.Tensor]:
    """Centres of cells in the query view; the true place in the anchor view misses the found one by these pixels."""
    query = torch.full((1, len(errors), dims), 0.5)
    query[0, :, 1] += STRIDE * torch.arange(len(errors)) % (STRIDE * CELLS[dims][1])
    positive = query.clone()
    positive[..., 0] += STRIDE
    positive[..., 1] += torch.tensor(errors)
    return {"query": query, "positive": positive, "valid": torch.tensor([valid or [True] * len(errors)])}


@pytest.mark.parametrize("dims", [2, 3])
def test_found_one_cell_further_down(dims: int) -> None:
    case = pairs(dims, [0.0, 0.0, 0.0])
    (found,) = matched_pixels(shifted_views(dims), case, [STRIDE, 2 * STRIDE])
    assert torch.equal(found, case["positive"][0])


@pytest.mark.parametrize("dims", [2, 3])
def test_mean_distance_and_share(dims: int) -> None:
    case = pairs(dims, [0.0, -3.0, 4.0])
    mean, near = PixelCorrespondence([STRIDE, 4]), PixelCorrespondence([STRIDE, 4], within=3.0)
    for metric in (mean, near):
        metric.update((shifted_views(dims), case))
    assert mean.compute() == pytest.approx(7 / 3)
    assert near.compute() == pytest.approx(1 / 3), "a distance of exactly 3 is not below 3"


def test_average_over_pairs_not_over_batches() -> None:
    metric = PixelCorrespondence([STRIDE, 4])
    metric.update((shifted_views(2), pairs(2, [6.0])))
    metric.update((shifted_views(2), pairs(2, [0.0, 0.0], valid=[True, True])))
    metric.update((shifted_views(2), pairs(2, [9.0, 3.0], valid=[False, True])))
    assert metric.compute() == pytest.approx((6 + 0 + 0 + 3) / 4)
    metric.reset()
    metric.update((shifted_views(2), pairs(2, [1.0])))
    assert metric.compute() == pytest.approx(1.0)


def test_nothing_to_measure_is_an_error() -> None:
    metric = PixelCorrespondence([STRIDE, 4])
    metric.update((shifted_views(2), pairs(2, [1.0], valid=[False])))
    with pytest.raises(NotComputableError, match="no validation pair is visible in both views"):
        metric.compute()


def test_attached_to_an_engine() -> None:
    engine = Engine(lambda engine, batch: {"pred": shifted_views(2), "label": batch})
    PixelCorrespondence([STRIDE, 4], output_transform=from_engine(["pred", "label"])).attach(engine, "error")
    engine.run([pairs(2, [2.0]), pairs(2, [4.0])])
    assert engine.state.metrics["error"] == pytest.approx(3.0)
