"""Find landmarks together: each where it looks right and where the others expect it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from medpixcl.landmarks.geometry import consensus_similarity, robust_weights, spread, transform
from medpixcl.landmarks.heatmaps import refine_peaks
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.peaks import FLOOR
from medpixcl.matching.search import unravel
from medpixcl.matching.shape import ShapePrior

START = 0.22
"""Standard deviation of a landmark around the first fit, in units of the template's spread."""
SHARPNESS = 8.0
"""Weight of the log similarity per unit of the landmarks' median lead over their second peak."""
WEIGHTS = (1.0, 40.0)
"""Least and greatest weight."""
ROUNDS = 6
WINDOW_CELLS = {2: 61, 3: 31}
"""Largest side of the window around the first prediction in which a landmark is searched, in 2D and 3D."""

Windows = Callable[[Tensor, Sequence[int]], Tensor]
"""Similarity of the K landmarks in windows of cells: first cells (K, D) and size to values (K, *size)."""


@dataclass(frozen=True)
class Placement:
    """Positions of K landmarks.

    Attributes:
        cells: Cell positions, shape (K, D).
        predicted_mm: Positions that the other landmarks predict, shape (K, D).
        deviation_mm: Standard deviation of the predicted positions along an axis, shape (K,).
    """

    cells: Float[Tensor, "k d"]
    predicted_mm: Float[Tensor, "k d"]
    deviation_mm: Float[Tensor, " k"]


def similarity_weight(ratios: Float[Tensor, " k"]) -> float:
    """Weight of the appearance against the shape; it is larger where the best peaks stand out.

    Embeddings differ in how well they distinguish places. With features that were not trained for matching, a second
    peak is often nearly as high, so the shape has to decide; a trained embedding needs the shape only where it fails.

    Args:
        ratios: Highest peak elsewhere divided by the best one, for every landmark.
    """
    least, greatest = WEIGHTS
    lead = -ratios.clamp(math.exp(-8), 1).log()
    return float((SHARPNESS * lead.median()).clamp(least, greatest))


def place_together(
    template_mm: Float[Tensor, "k d"],
    peaks: Int[Tensor, "k m d"],
    scores: Float[Tensor, "k m"],
    windows: Windows,
    grid: CellGrid,
    *,
    weight: float,
) -> Placement:
    """Find positions of landmarks that fit their similarity maps and, together, the template's shape.

    First the peaks give a similarity transform on which most landmarks agree. Then two steps alternate: every landmark
    is searched near its prediction, where ``weight * log(similarity) - |position - prediction|^2 / (2 sd^2)`` is
    largest; and it is predicted from the positions of all the others (:class:`medpixcl.matching.shape.ShapePrior`), of
    which those far from their own prediction count little.

    Args:
        template_mm: Landmarks of the template in mm, shape (K, D), at least two.
        peaks: Best cells of every landmark's map, best first, shape (K, M, D).
        scores: Values at the peaks, shape (K, M).
        windows: Function that gives the maps near the predictions.
        grid: Grid of the cells that are searched.
        weight: Weight of the logarithm of the similarity, see :func:`similarity_weight`.
    """
    start_mm = float(START * spread(template_mm).clamp_min(4 * grid.cell_mm))
    logs = scores.clamp_min(FLOOR).log()
    costs = weight * (logs[:, :1] - logs)
    expected = transform(template_mm, *consensus_similarity(template_mm, grid.to_mm(peaks), costs, sigma=start_mm))
    side = min(WINDOW_CELLS[len(grid.shape)], 2 * math.ceil(3 * start_mm / grid.cell_mm) + 1)
    size = [min(side, cells) for cells in grid.shape]
    starts = grid.clamped_starts(grid.to_cells(expected), size)
    maps = windows(starts, size).clamp_min(FLOOR).log()
    deviation = torch.full_like(expected[:, 0], start_mm)
    return settle(maps, starts, grid, ShapePrior(expected, grid.cell_mm), expected, deviation, weight)


def settle(
    logs: Float[Tensor, "k ..."],
    starts: Float[Tensor, "k d"] | Int[Tensor, "k d"],
    grid: CellGrid,
    prior: ShapePrior,
    predicted_mm: Float[Tensor, "k d"],
    deviation_mm: Float[Tensor, " k"],
    weight: float,
    rounds: int = ROUNDS,
) -> Placement:
    """Place every landmark near its prediction, and predict it from all the others, in turns.

    Args:
        logs: Logarithms of the landmarks' maps in windows of cells, shape (K, *size).
        starts: First cell of every window, shape (K, D).
        grid: Grid of the cells.
        prior: Prediction of each landmark by the others.
        predicted_mm: First predictions, shape (K, D).
        deviation_mm: Standard deviation of each along an axis, shape (K,).
        weight: Weight of the logarithms.
        rounds: Number of turns; with one, every landmark is placed alone.
    """
    trust = torch.ones_like(deviation_mm)
    for _ in range(rounds):
        cells = peak_near(logs, starts, grid, predicted_mm, deviation_mm, weight)
        found = grid.to_mm(cells)
        predicted_mm, deviation_mm = prior.leave_one_out(found, trust)
        trust = robust_weights(found - predicted_mm, deviation_mm)
    return Placement(cells, predicted_mm, deviation_mm)


def peak_near(
    logs: Float[Tensor, "k ..."],
    starts: Float[Tensor, "k d"] | Int[Tensor, "k d"],
    grid: CellGrid,
    predicted_mm: Float[Tensor, "k d"],
    deviation_mm: Float[Tensor, " k"],
    weight: float,
) -> Float[Tensor, "k d"]:
    """Cell positions (K, D) where a window of log similarities, weighted, plus a Gaussian log prior is largest."""
    total = weight * logs
    for axis, length in enumerate(logs.shape[1:]):
        steps = torch.arange(length, device=logs.device)
        axis_mm = grid.axis_mm(starts[:, axis, None] + steps, axis)
        square = ((axis_mm - predicted_mm[:, axis, None]) / deviation_mm[:, None]).square()
        view = [len(logs)] + [1] * (logs.ndim - 1)
        view[axis + 1] = length
        total = total - square.view(view) / 2
    index = unravel(total.flatten(1).argmax(dim=1), logs.shape[1:])
    return starts + refine_peaks(total, index)
