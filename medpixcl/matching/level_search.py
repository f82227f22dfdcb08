"""Search of landmarks in the level maps of one image: where, how alike, and how sure."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel
from medpixcl.landmarks.heatmaps import refine_peaks
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.match_result import MatchResult, among_all
from medpixcl.matching.peaks import FLOOR, local_peaks, second_peaks, upper_half_covariance
from medpixcl.matching.placement import Placement, peak_near, place_together, similarity_weight
from medpixcl.matching.product import ProductMap, describe
from medpixcl.matching.reciprocity import reciprocal_windows, refinement_window
from medpixcl.matching.search import product_match
from medpixcl.matching.templates import TemplateSet

PEAKS = 8
"""Number of peaks kept for every landmark."""
PEAK_RADIUS = 3
"""Number of cells around a peak that hold no other peak."""
VALUES_AT_ONCE = 2**25
"""Largest number of similarities in memory."""


@dataclass(frozen=True)
class LevelSearch:
    """Finds the landmarks of templates in level maps; the settings are those of :class:`LandmarkMatcher`.

    Args:
        templates: Templates, with vectors of the landmarks at each level.
        strides: Number of voxels per cell at each level, finest first.
        mode: ``"argmax"`` or ``"consistent"``.
        exclusion_mm: Radius around the found position within which no second peak counts; None means 10 cells.
        min_score: Score below which a landmark is unsure.
        max_ratio: Ratio above which a landmark is unsure.
        max_cycle_mm: Cycle distance above which a landmark is unsure; None means 10 cells.
        max_deviations: Distance from the prediction, in its standard deviations, above which a landmark is unsure.
    """

    templates: TemplateSet
    strides: Sequence[int]
    mode: str
    exclusion_mm: float | None
    min_score: float
    max_ratio: float
    max_cycle_mm: float | None
    max_deviations: float

    def __call__(self, levels: list[Tensor], grid: CellGrid) -> MatchResult:
        """Find the landmarks.

        Args:
            levels: Maps (E, *cells) of the levels that the matcher uses, finest first.
            grid: Cells of the finest level inside the image.
        """
        templates = self.templates
        product = ProductMap(templates.vectors, levels, self.strides)
        peaks, peak_scores = self._peaks(product, grid)
        placement = self._place(product, peaks, peak_scores, levels, grid)
        found = grid.to_mm(placement.cells)
        scores = self._values(product, placement.cells.round().long(), [1] * len(grid.shape)).flatten()
        second = second_peaks(grid.to_mm(peaks), peak_scores, found, self._exclusion(grid))
        voxels = cell_to_voxel(placement.cells, self.strides[0])
        residual = torch.linalg.vector_norm(found - placement.predicted_mm, dim=1)
        ratios, cycle = second / scores.clamp_min(FLOOR), self._cycle(levels, voxels)
        doubtful = ~(scores >= self.min_score) | (ratios > self.max_ratio) | (cycle > self._longest_cycle(grid))
        doubtful |= residual > self.max_deviations * placement.deviation_mm
        spread = self._spread(product, placement.cells, grid)
        voxels, scores, ratios, cycle, residual, spread = (
            among_all(templates.there, column) for column in (voxels, scores, ratios, cycle, residual, spread)
        )
        return MatchResult(voxels, scores, ratios, cycle, residual, self._flags(doubtful), spread)

    def _exclusion(self, grid: CellGrid) -> float:
        return 10 * grid.cell_mm if self.exclusion_mm is None else self.exclusion_mm

    def _peaks(self, product: ProductMap, grid: CellGrid) -> tuple[Tensor, Tensor]:
        """Best cells of each landmark's map (K, M, D), and the values there (K, M)."""
        inside = (slice(None), *[slice(n) for n in grid.shape])
        count = len(self.templates.shape_mm)
        at_once = max(1, VALUES_AT_ONCE * count // (len(product.queries[0]) * torch.Size(product.cells).numel()))
        found = []
        for first in range(0, count, at_once):
            rows = self.templates.rows_of(first, first + at_once)
            maps = self.templates.mean(product.full(rows)[inside], rows)
            found.append(local_peaks(maps, PEAKS, radius=PEAK_RADIUS))
        peaks, scores = zip(*found, strict=True)
        return torch.cat(peaks), torch.cat(scores)

    def _values(self, product: ProductMap, starts: Tensor, size: Sequence[int]) -> Tensor:
        """Similarity of each landmark in its window, shape (K, *size)."""
        templates = self.templates
        rows = torch.arange(len(templates.owner), device=starts.device)
        return templates.mean(product.windows(rows, starts[templates.owner], size))

    def _spread(self, product: ProductMap, cells: Tensor, grid: CellGrid) -> Tensor:
        """Covariance in mm^2 of the upper half of the similarity in a window."""
        values = self._values(product, *refinement_window(grid, cells))
        return upper_half_covariance(values, stride=grid.stride, spacing_mm=grid.spacing)

    def _place(
        self, product: ProductMap, peaks: Tensor, scores: Tensor, levels: list[Tensor], grid: CellGrid
    ) -> Placement:
        """The landmarks' places by the matcher's mode."""
        first = peaks[:, 0]
        nowhere = torch.full_like(grid.to_mm(first), torch.nan)
        anywhere = torch.full_like(nowhere[:, 0], torch.inf)
        if self.mode == "argmax":
            size = [min(3, n) for n in grid.shape]
            starts = grid.clamped_starts(first.float(), size)
            logs = self._values(product, starts, size).clamp_min(FLOOR).log()
            return Placement(starts + refine_peaks(logs, first - starts), nowhere, anywhere)
        lead = second_peaks(grid.to_mm(peaks), scores, grid.to_mm(first), self._exclusion(grid))
        weight = similarity_weight(lead / scores[:, 0].clamp_min(FLOOR))
        if len(first) == 1:
            place = Placement(first.float(), nowhere, anywhere)
        else:
            place = place_together(
                self.templates.shape_mm,
                peaks,
                scores,
                lambda starts, size: self._values(product, starts, size),
                grid,
                weight=weight,
            )
        expected = grid.to_mm(first) if len(first) == 1 else place.predicted_mm
        refined = self._refined(levels, grid, Placement(place.cells, expected, place.deviation_mm), weight)
        rows = torch.arange(len(refined), device=refined.device)
        scores = product.windows(rows, refined.round().long(), [1] * len(grid.shape)).flatten()
        cells = self.templates.mean(refined, weights=scores.clamp_min(FLOOR).square())
        return Placement(cells, place.predicted_mm, place.deviation_mm)

    def _refined(self, levels: list[Tensor], grid: CellGrid, place: Placement, weight: float) -> Float[Tensor, "r d"]:
        """Cell position that each row of the templates finds near its landmark's place, in both directions."""
        owner = self.templates.owner
        starts, size = refinement_window(grid, place.cells)
        logs = reciprocal_windows(self.templates.around, owner, levels, self.strides, starts, size)
        return peak_near(logs, starts[owner], grid, place.predicted_mm[owner], place.deviation_mm[owner], weight)

    def _cycle(self, levels: list[Tensor], voxels: Tensor) -> Tensor:
        """Distance in mm from each landmark to where its template looks most like the found place; the least of all."""
        templates = self.templates
        vectors = describe(levels, self.strides, voxels)
        least = torch.full_like(voxels[:, 0], torch.inf)
        for number, template in enumerate(templates.templates):
            rows = templates.owner[templates.source == number]
            queries = [level[rows] for level in vectors]
            extent = [n * template.grid.stride for n in template.grid.shape]
            index, _ = product_match(queries, template.levels, self.strides, extent)
            distance = torch.linalg.vector_norm(
                template.grid.to_mm(index) - template.mm[templates.there.nonzero().squeeze(1)[rows]], dim=1
            )
            least[rows] = torch.minimum(least[rows], distance)
        return least

    def _longest_cycle(self, grid: CellGrid) -> float:
        return 10 * grid.cell_mm if self.max_cycle_mm is None else self.max_cycle_mm

    def _flags(self, doubtful: Bool[Tensor, " n"]) -> tuple[str, ...]:
        """Word for every landmark, from those that a template has and whether they are in doubt."""
        sure = "no geometry" if self.mode == "consistent" and len(doubtful) == 1 else ""
        words = iter(["unsure" if unsure else sure for unsure in doubtful.tolist()])
        return tuple(next(words) if there else "missing" for there in self.templates.there.tolist())
