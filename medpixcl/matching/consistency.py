"""Landmarks found together: each where it looks right and where the others say it should be."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.matching.geometry import consensus_similarity, fit_similarity, transform
from medpixcl.matching.peaks import FLOOR, local_peaks, refine_peaks
from medpixcl.matching.search import unravel


def consistent_positions(
    maps: Float[Tensor, " k *cells"],
    centres_mm: Float[Tensor, "*cells d"],
    template_mm: Float[Tensor, "k d"],
    cell_mm: Sequence[float],
    *,
    candidates: int = 5,
    sigma_mm: float = 15.0,
    rounds: int = 4,
) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k d"]]:
    """Positions of landmarks that fit their similarity maps and a similarity transform of the template.

    A transform that most landmarks agree on is found among the best peaks of each map; then, in turns, every landmark
    is searched again in its map times a Gaussian around its prediction, and the transform is fitted again, landmarks
    far from their prediction counting little.

    Args:
        maps: Similarity of every landmark, shape (K, *cells).
        centres_mm: Position of the cells, shape (*cells, D).
        template_mm: The landmarks in the template, shape (K, D), at least two.
        cell_mm: Size of a cell along every axis.
        candidates: Peaks of every map looked at.
        sigma_mm: Standard deviation of a landmark around its prediction.
        rounds: Turns of search and fit.

    Returns:
        Cell positions in the grid of the maps, shape (K, D), and predictions in mm, shape (K, D).
    """
    index, scores = local_peaks(maps, candidates)
    logs = scores.clamp_min(FLOOR).log()
    places = centres_mm[tuple(index.unbind(-1))]
    matrix, shift = consensus_similarity(template_mm, places, logs[:, :1] - logs, sigma=sigma_mm)
    cells = index[:, 0].to(maps.dtype)
    for _ in range(rounds):
        predicted = transform(template_mm, matrix, shift)
        cells = search_near(maps, centres_mm, predicted, sigma_mm)
        found = centres_mm.flatten(0, -2)[0] + cells * cells.new_tensor(list(cell_mm))
        residual = torch.linalg.vector_norm(found - predicted, dim=1)
        scale = residual.median().clamp_min(min(cell_mm))
        matrix, shift = fit_similarity(template_mm, found, 1 / (1 + (residual / (2 * scale)).square()))
    return cells, transform(template_mm, matrix, shift)


def search_near(
    maps: Float[Tensor, " k *cells"],
    centres_mm: Float[Tensor, "*cells d"],
    predicted_mm: Float[Tensor, "k d"],
    sigma_mm: float,
) -> Float[Tensor, "k d"]:
    """Peak of every map times a Gaussian around the landmark's predicted position; cell positions (K, D)."""
    flat = centres_mm.flatten(0, -2)
    distance = torch.cdist(predicted_mm, flat).view(maps.shape)
    weighted = maps.clamp_min(FLOOR) * torch.exp(-0.5 * (distance / sigma_mm).square())
    return refine_peaks(weighted, unravel(weighted.flatten(1).argmax(dim=1), maps.shape[1:]))
