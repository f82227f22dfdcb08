"""From an annotated image to landmarks in another one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel, voxel_positions
from medpixcl.matching.consistency import consistent_positions
from medpixcl.matching.peaks import local_peaks, refine_peaks
from medpixcl.matching.search import cells_inside, product_match
from medpixcl.matching.similarity import ProductMap, describe

Embed = Callable[[Tensor], list[Tensor]]
"""Image (1, C, *spatial) to level maps (1, E, *cells), finest first."""


@dataclass(frozen=True)
class MatchResult:
    """Landmarks found in one image, K of them; what is missing in the template is NaN here.

    Attributes:
        voxels: Shape (K, D), voxel positions in the query, in array order, between the voxels.
        scores: Shape (K,), similarity at the position, 0 to 1.
        ratios: Shape (K,), the highest similarity farther away than the exclusion radius, divided by the score: small
            is certain, 1 and more means that another place looks as good.
        cycle_mm: Shape (K,), distance in the template between the landmark and the best match of what was found.
        residual_mm: Shape (K,), distance from the place that the other landmarks predict; NaN without geometry.
        flags: For each landmark ``""``, ``"unsure"``, ``"no geometry"`` or ``"missing"``.
    """

    voxels: Float[Tensor, "k d"]
    scores: Float[Tensor, " k"]
    ratios: Float[Tensor, " k"]
    cycle_mm: Float[Tensor, " k"]
    residual_mm: Float[Tensor, " k"]
    flags: tuple[str, ...]


class LandmarkMatcher:
    """Finds the landmarks of one or several annotated images (templates) in other images.

    Distances are measured in mm along the array axes, so that templates and query may differ in spacing, but must have
    the same orientation.

    Args:
        mode: ``"argmax"``: every landmark alone, at the peak of its map; ``"consistent"``: all together, see
            :func:`medpixcl.matching.consistent_positions`.
        levels: Numbers of the levels that are used, finest first (0 is the finest); all when None.
        sigma_mm: Standard deviation of a landmark around the place that the others predict.
        candidates: Peaks per landmark that the first fit may choose from.
        exclusion_mm: Radius around the found place within which no second peak is looked for.
        min_score: A lower score is unsure.
        max_ratio: A higher ratio is unsure.
        max_cycle_mm: A longer cycle distance is unsure.
        max_residual_mm: A larger residual is unsure.

    Raises:
        ValueError: If the mode is unknown.
    """

    def __init__(
        self,
        *,
        mode: Literal["argmax", "consistent"] = "consistent",
        levels: Sequence[int] | None = None,
        sigma_mm: float = 15.0,
        candidates: int = 5,
        exclusion_mm: float = 10.0,
        min_score: float = 0.1,
        max_ratio: float = 1.0,
        max_cycle_mm: float = 10.0,
        max_residual_mm: float = 15.0,
    ) -> None:
        if mode not in ("argmax", "consistent"):
            raise ValueError(f"mode must be 'argmax' or 'consistent', found {mode!r}")
        self.mode = mode
        self.levels = levels
        self.sigma_mm = sigma_mm
        self.candidates = candidates
        self.exclusion_mm = exclusion_mm
        self.limits = {"score": min_score, "ratio": max_ratio, "cycle": max_cycle_mm, "residual": max_residual_mm}

    def fit(
        self,
        embed: Embed,
        strides: Sequence[int],
        images: Tensor | Sequence[Tensor],
        landmarks: Tensor | Sequence[Tensor],
        spacing: Sequence[float] | Sequence[Sequence[float]],
    ) -> "LandmarkMatcher":
        """Take the templates' descriptors.

        Args:
            embed: Gives the level maps of an image.
            strides: Voxels per cell of all the levels that ``embed`` returns, finest first.
            images: One or several images (1, C, *spatial).
            landmarks: For each image, voxel positions (K, D) in array order; NaN where missing.
            spacing: Size of a voxel in mm along the array axes; one for all, or one per image.

        Returns:
            The matcher itself.

        Raises:
            ValueError: If the numbers of images, landmarks and spacings differ.
        """
        images = [images] if isinstance(images, Tensor) else list(images)
        landmarks = [landmarks] if isinstance(landmarks, Tensor) else list(landmarks)
        spacings = _per_image(spacing, len(images))
        if not len(images) == len(landmarks) == len(spacings):
            raise ValueError(
                f"found {len(images)} template images, {len(landmarks)} sets of landmarks and {len(spacings)} "
                "spacings; expected equal numbers"
            )
        self.embed = embed
        self.chosen = list(range(len(strides))) if self.levels is None else list(self.levels)
        self.strides = [strides[number] for number in self.chosen]
        self.template_levels = [self._levels(image) for image in images]
        self.template_shapes = [list(image.shape[2:]) for image in images]
        self.template_spacings = spacings
        self.template_voxels = [points.float() for points in landmarks]
        return self

    def match(
        self,
        query: Tensor | Sequence[Tensor],
        shape: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> MatchResult:
        """Find the landmarks in a query image.

        Args:
            query: Image (1, C, *spatial), or the level maps that ``embed`` returned for it.
            shape: Voxels of the image before padding at its end; the landmarks are searched inside it. By default all.
            spacing: Size of a voxel in mm along the array axes; that of the first template by default.

        Returns:
            The landmarks' positions and how sure they are.
        """
        levels = self._levels(query)
        spacing = list(self.template_spacings[0] if spacing is None else spacing)
        points = self.template_voxels[0]
        there = ~points.isnan().any(dim=1)
        template_mm = points[there] * points.new_tensor(self.template_spacings[0])
        vectors = describe(self.template_levels[0], self.strides, points[there])
        product = ProductMap(vectors, levels, self.strides)
        searched = cells_inside(product.cells, self.strides[0], shape)
        maps = product.full()[(slice(None), *[slice(n) for n in searched])]
        size = points.new_tensor(spacing)
        centres = cell_to_voxel(voxel_positions(searched), self.strides[0]) * size
        geometry = self.mode == "consistent" and len(template_mm) > 1
        if geometry:
            cell_mm = [self.strides[0] * s for s in spacing]
            cells, predicted = consistent_positions(
                maps, centres, template_mm, cell_mm, candidates=self.candidates, sigma_mm=self.sigma_mm
            )
        else:
            cells = refine_peaks(maps, local_peaks(maps, 1)[0][:, 0])
            predicted = torch.full_like(template_mm, torch.nan)
        voxels = cell_to_voxel(cells, self.strides[0])
        residual = torch.linalg.vector_norm(voxels * size - predicted, dim=1)
        scores, ratios = self._certainty(maps, cells, centres, voxels * size)
        cycle = self._cycle(levels, voxels, template_mm)
        columns = (scores, ratios, cycle, residual)
        flags = iter([self._flag(*row.tolist(), geometry=geometry) for row in torch.stack(columns, dim=1)])
        words = tuple(next(flags) if is_there else "missing" for is_there in there.tolist())
        scores, ratios, cycle, residual = (_with_missing(there, column) for column in columns)
        return MatchResult(_with_missing(there, voxels), scores, ratios, cycle, residual, words)

    def _levels(self, image: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Chosen level maps (E, *cells) of an image or of all its levels."""
        levels = self.embed(image) if isinstance(image, Tensor) else list(image)
        return [levels[number][0] for number in self.chosen]

    def _certainty(self, maps: Tensor, cells: Tensor, centres: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        """Score at the found place, and the best score away from it in relation to it."""
        index = cells.round().long()
        scores = maps[(torch.arange(len(maps)), *index.unbind(1))]
        far = torch.cdist(found, centres.flatten(0, -2)) > self.exclusion_mm
        second = torch.where(far, maps.flatten(1), 0).amax(dim=1)
        return scores, second / scores.clamp_min(1e-6)

    def _cycle(self, levels: list[Tensor], voxels: Tensor, template_mm: Tensor) -> Tensor:
        """Distance in mm from the landmark to where the template looks most like the found place."""
        vectors = describe(levels, self.strides, voxels)
        index, _ = product_match(vectors, self.template_levels[0], self.strides, self.template_shapes[0])
        back = cell_to_voxel(index.float(), self.strides[0]) * voxels.new_tensor(self.template_spacings[0])
        return torch.linalg.vector_norm(back - template_mm, dim=1)

    def _flag(self, score: float, ratio: float, cycle: float, residual: float, *, geometry: bool) -> str:
        """Word for one landmark."""
        limits = self.limits
        if score < limits["score"] or ratio > limits["ratio"]:
            return "unsure"
        if cycle > limits["cycle"] or residual > limits["residual"]:
            return "unsure"
        return "" if geometry or self.mode == "argmax" else "no geometry"


def _per_image(spacing: Sequence[float] | Sequence[Sequence[float]], count: int) -> list[list[float]]:
    """The spacing of every image, from one for all or one for each."""
    rows = [list(row) for row in spacing if isinstance(row, Sequence)]
    return rows or [[float(step) for step in spacing if not isinstance(step, Sequence)]] * count


def _with_missing(there: Tensor, values: Tensor) -> Tensor:
    """Values of the landmarks that the template has, in rows among all; NaN in the others."""
    rows = values.new_full((len(there), *values.shape[1:]), torch.nan)
    rows[there] = values
    return rows
