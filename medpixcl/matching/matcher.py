"""Find the landmarks of annotated images in another image."""

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import Embed
from medpixcl.coordinates import apply_affine, cell_to_voxel, pixel_for, voxel_to_cell
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.level_search import LevelSearch
from medpixcl.matching.local_correlation import PATCH, LocalCorrelation, crops_at
from medpixcl.matching.match_result import MatchResult, among_all
from medpixcl.matching.placement import ROUNDS
from medpixcl.matching.population import OWN_WEIGHT, Population, adapted, observe
from medpixcl.matching.pose import ENOUGH, PosedTemplate, shown, shrunk
from medpixcl.matching.search import cells_inside
from medpixcl.matching.templates import Template, TemplateSet
from medpixcl.views import View

LEAST_SIDE = 8


class Sight(NamedTuple):
    """What is seen of an image, shrunk where the matcher says so, when landmarks are searched in it.

    Attributes:
        levels: Level maps (E, *cells) that the matcher uses, finest first.
        grid: Cells of the finest level inside the image, or inside the view of it.
        view: View of the image in which it shows the body as the first template does; None shows it as it is.
        lost: True if too few points agree on the pose.
    """

    levels: list[Tensor]
    grid: CellGrid
    view: View | None = None
    lost: bool = False


class LandmarkMatcher:
    """Finds the landmarks of one or several annotated images (templates) in other images.

    Distances are measured in mm along the array axes. Templates and query may therefore differ in spacing, but must
    have the same orientation, unless the matcher is ``upright``.

    Args:
        mode: ``"argmax"`` finds every landmark alone at the peak of its map, as in CC2D. ``"consistent"`` finds all
            together (:func:`medpixcl.matching.place_together`), then moves each to where the query points back to the
            template (:mod:`medpixcl.matching.reciprocity`).
        levels: Indices of the levels to use, in order (0 is the finest); None uses all. The pose is found with all.
        upright: Whether every image is first turned, scaled and moved so that it shows the body as the first template
            does (:mod:`medpixcl.matching.pose`); the embedding must then know a place in any pose.
        coarse_side: Number of voxels along the longest side of the first template (of
            :func:`medpixcl.coordinates.pixel_for`) in which pose and landmarks are first searched. Images with finer
            voxels are shrunk for that, and the landmarks found are refined by the grey values around them, in the
            image's own voxels (:mod:`medpixcl.matching.local_correlation`). None searches in the images as they are,
            and refines nothing.
        exclusion_mm: Radius around the found position within which no second peak counts; None means 10 cells of the
            finest level of the query.
        min_score: Score below which a landmark is unsure.
        max_ratio: Ratio above which a landmark is unsure.
        max_cycle_mm: Cycle distance above which a landmark is unsure; None means 10 cells of the finest level.
        max_deviations: Distance from the prediction, in its standard deviations, above which a landmark is unsure.

    Raises:
        ValueError: If the mode is unknown, ``upright`` is neither true nor false, or ``coarse_side`` is too small.
    """

    def __init__(
        self,
        *,
        mode: str = "consistent",
        levels: Sequence[int] | None = None,
        upright: bool = False,
        coarse_side: int | None = None,
        exclusion_mm: float | None = None,
        min_score: float = 0.1,
        max_ratio: float = 1.0,
        max_cycle_mm: float | None = None,
        max_deviations: float = 3.0,
    ) -> None:
        if mode not in ("argmax", "consistent"):
            raise ValueError(f"mode must be 'argmax' or 'consistent', found {mode!r}")
        if not isinstance(upright, bool):
            raise ValueError(f"upright must be true or false, found {upright!r}")
        if coarse_side is not None and not (isinstance(coarse_side, int) and coarse_side >= LEAST_SIDE):
            raise ValueError(f"coarse_side is {coarse_side!r}; expected a whole number from {LEAST_SIDE} up, or None")
        self.mode, self.levels, self.upright, self.coarse_side = mode, levels, upright, coarse_side
        self.exclusion_mm, self.max_cycle_mm = exclusion_mm, max_cycle_mm
        self.min_score, self.max_ratio, self.max_deviations = min_score, max_ratio, max_deviations

    @property
    def settings(self) -> dict[str, object]:
        """All that the matcher was made with, by argument."""
        return {name: getattr(self, name) for name in inspect.signature(LandmarkMatcher).parameters}

    @torch.no_grad()
    def fit(
        self,
        embed: Embed,
        strides: Sequence[int],
        images: Tensor | Sequence[Tensor],
        landmarks: Tensor | Sequence[Tensor],
        spacing: Sequence[float] | Sequence[Sequence[float]],
    ) -> "LandmarkMatcher":
        """Compute the descriptors of the templates.

        Args:
            embed: Function that gives the level maps of an image.
            strides: Number of voxels per cell at each level that ``embed`` returns, finest first.
            images: One or more images (1, C, *spatial).
            landmarks: Voxel positions (K, D) of the landmarks of each image in array order; NaN where missing.
            spacing: Size of a voxel in mm along the array axes: one for all images, or one for each.

        Returns:
            The matcher itself.

        Raises:
            ValueError: If images, landmarks, spacings or levels do not fit each other, or no landmark is given.
        """
        images = [images] if isinstance(images, Tensor) else list(images)
        landmarks = [landmarks] if isinstance(landmarks, Tensor) else list(landmarks)
        spacings = _per_image(spacing, len(images))
        _check_templates(images, landmarks, spacings)
        chosen = list(range(len(strides))) if self.levels is None else list(self.levels)
        if not chosen or not all(number in range(len(strides)) for number in chosen):
            raise ValueError(f"the network has levels 0 to {len(strides) - 1}, found levels={chosen}")
        self.embed, self.chosen = embed, chosen
        self.strides = [strides[number] for number in chosen]
        self.spacing, self.shrinkage = spacings[0], 1.0
        if self.coarse_side is not None:
            self.shrinkage = max(1.0, pixel_for(images[0].shape[2:], self.coarse_side))
        self.posed: PosedTemplate | None = None
        templates, patches = [], []
        for image, points, steps in zip(images, landmarks, spacings, strict=True):
            small, (shape, small_steps) = shrunk(image, self.shrinkage), self._coarse(image.shape[2:], steps)
            given = self.embed(small) if self.posed is None else small
            sight = self._seen(given, shape, small_steps)
            device, places = sight.levels[0].device, voxel_to_cell(points.double(), self.shrinkage)
            if self.coarse_side is not None:
                around = points.double(), self._steps(sight, steps)
                patches.append(crops_at(image.to(device), image.shape[2:], *around, PATCH))
            if sight.view is not None:
                places = apply_affine(torch.linalg.inv(sight.view.matrix), places)
            elif self.upright:
                every = self._every_level(given)
                self.posed = PosedTemplate(small.to(device), small_steps, every, self._every_level, strides)
            templates.append(Template(sight.levels, self.strides, sight.grid, places.to(sight.levels[0])))
        self.templates = self.annotated = TemplateSet(templates)
        self.local = None
        if patches:
            self.local = LocalCorrelation(self.annotated, patches, self.spacing, templates[0].grid.cell_mm)
        return self

    @torch.no_grad()
    def learn(self, images: Iterable[tuple[Tensor | Sequence[Tensor], Sequence[int], Sequence[float]]]) -> Population:
        """Learn how the landmarks look in unlabelled images; use the result with :meth:`adapt`.

        Args:
            images: Arguments of :meth:`match` for each image, one image in memory at a time. Bring the images to the
                template's spacing, because the surroundings of landmarks are compared cell by cell.

        Raises:
            ValueError: If there is no image.
        """
        population = None
        for query, shape, spacing in images:
            sight = self._seen_coarsely(query, shape, spacing)
            seen = observe(sight.levels, self.strides, self._searched(sight), sight.grid.cell_mm)
            population = seen if population is None else population + seen
        if population is None:
            raise ValueError("found no image to learn from; give at least one beside the template")
        return population

    def adapt(self, population: Population, *, own_weight: float = OWN_WEIGHT) -> "LandmarkMatcher":
        """Match with the mean of the templates' vectors and a population's, until the next :meth:`fit` or ``adapt``.

        Args:
            population: Population of the same landmarks, learnt with the same network.
            own_weight: Number of certain matches for which a template counts.

        Returns:
            The matcher itself.

        Raises:
            ValueError: If the population does not fit.
        """
        self.templates = adapted(self.annotated, population, own_weight)
        return self

    @torch.no_grad()
    def match(
        self,
        query: Tensor | Sequence[Tensor],
        shape: Sequence[int] | None = None,
        spacing: Sequence[float] | None = None,
    ) -> MatchResult:
        """Find the landmarks in a query image.

        Args:
            query: Image (1, C, *spatial), or the level maps that ``embed`` returned for it; the image alone if the
                matcher is ``upright`` or has a ``coarse_side``.
            shape: Shape of the image in voxels before padding at its end; landmarks are searched inside it. By default
                the whole image.
            spacing: Size of a voxel in mm along the array axes; by default that of the first template.

        Returns:
            The landmarks' positions and how sure they are.

        Raises:
            ValueError: If the query has other dimensions than the templates, or is given as level maps where the image
                is needed.
        """
        if shape is None and isinstance(query, Tensor):
            shape = query.shape[2:]
        step = self.spacing if spacing is None else spacing
        sight = self._seen_coarsely(query, shape, step)
        result = self._searched(sight)
        if sight.view is not None:
            own = self.templates.templates[0].grid.spacing
            result = result.outside(sight.view, self._coarse(shape, step)[1], own)
        return self._refined_locally(query, shape, step, sight, result)

    def search(self, levels: list[Tensor], grid: CellGrid) -> MatchResult:
        """Find the landmarks as :meth:`match` does, in level maps that are chosen and checked already.

        Args:
            levels: Maps (E, *cells) of the levels that the matcher uses, finest first.
            grid: Cells of the finest level inside the image.
        """
        search = LevelSearch(
            self.templates,
            self.strides,
            self.mode,
            exclusion_mm=self.exclusion_mm,
            min_score=self.min_score,
            max_ratio=self.max_ratio,
            max_cycle_mm=self.max_cycle_mm,
            max_deviations=self.max_deviations,
        )
        return search(levels, grid)

    def _seen_coarsely(
        self, query: Tensor | Sequence[Tensor], shape: Sequence[int] | None, spacing: Sequence[float]
    ) -> Sight:
        """Where the landmarks of a query are searched, after it was shrunk if need be."""
        if isinstance(query, Tensor):
            query = shrunk(query, self.shrinkage)
        elif self.coarse_side is not None:
            raise ValueError("a matcher that refines looks at the image, and found level maps; give the image itself")
        return self._seen(query, *self._coarse(shape, spacing))

    def _coarse(
        self, shape: Sequence[int] | None, spacing: Sequence[float]
    ) -> tuple[Sequence[int] | None, Sequence[float]]:
        """Shape and spacing of an image after it was shrunk."""
        small = None if shape is None else [max(1, int(size / self.shrinkage)) for size in shape]
        return small, [step * self.shrinkage for step in spacing]

    def _seen(self, query: Tensor | Sequence[Tensor], shape: Sequence[int] | None, spacing: Sequence[float]) -> Sight:
        """Where the landmarks of a query are searched."""
        levels = self._every_level(query)
        if self.posed is None:
            chosen = self._chosen(levels)
            return Sight(chosen, self._grid(chosen, shape, spacing))
        if not isinstance(query, Tensor):
            raise ValueError("an upright matcher turns the image, and found level maps; give the image itself")
        query = query.to(levels[0].device)
        pose = self.posed.find(query, levels, shape, spacing)
        view = self.posed.view(pose, spacing)
        seen = self._chosen(self._every_level(shown(query, view)))
        return Sight(seen, self._grid(seen, view.shape, self.posed.spacing), view, pose.support < ENOUGH)

    def _searched(self, sight: Sight) -> MatchResult:
        """Landmarks found in what is seen of a query; none is sure where the pose is not."""
        result = self.search(sight.levels, sight.grid)
        if not sight.lost:
            return result
        return replace(result, flags=tuple(flag if flag == "missing" else "unsure" for flag in result.flags))

    def _steps(self, sight: Sight, spacing: Sequence[float]) -> Float[Tensor, "d d"]:
        """Step in voxels of an image from one voxel of the first template to the next, in columns, float64."""
        if sight.view is not None:
            return sight.view.matrix[:-1, :-1]
        own, other = (torch.tensor(list(steps), dtype=torch.float64) for steps in (self.spacing, spacing))
        return torch.diag(own / other)

    def _refined_locally(
        self,
        query: Tensor | Sequence[Tensor],
        shape: Sequence[int] | None,
        spacing: Sequence[float],
        sight: Sight,
        result: MatchResult,
    ) -> MatchResult:
        """Result in the query, from that in the shrunk one: refined by the grey values unless the pose is lost."""
        if self.local is None or not isinstance(query, Tensor):
            return result
        result = replace(result, voxels=cell_to_voxel(result.voxels, self.shrinkage))
        if sight.lost:
            return result
        there, steps = self.templates.there, self._steps(sight, spacing)
        image, inside = query.to(result.voxels.device), query.shape[2:] if shape is None else shape
        rounds = ROUNDS if self.mode == "consistent" else 1
        voxels, spread, seen = self.local.refine(image, inside, result.voxels[there], steps, rounds)
        own, other = (steps.new_tensor(list(sizes)) for sizes in (self.spacing, spacing))
        turn = (other[:, None] * steps / own).to(spread)
        spread = torch.where(seen[:, None, None], turn @ spread @ turn.mT, result.covariance_mm2[there])
        return replace(result, voxels=among_all(there, voxels), covariance_mm2=among_all(there, spread))

    def _every_level(self, image: Tensor | Sequence[Tensor]) -> list[Tensor]:
        """Level maps (E, *cells) of an image or of all its levels."""
        return [level[0] for level in (self.embed(image) if isinstance(image, Tensor) else image)]

    def _chosen(self, levels: list[Tensor]) -> list[Tensor]:
        return [levels[number] for number in self.chosen]

    def _grid(self, levels: list[Tensor], shape: Sequence[int] | None, spacing: Sequence[float]) -> CellGrid:
        """The finest level's cells inside an image."""
        cells = levels[0].shape[1:]
        if len(cells) != len(spacing):
            raise ValueError(f"the image has {len(cells)} axes, but the spacing {list(spacing)} mm has {len(spacing)}")
        return CellGrid(tuple(cells_inside(cells, self.strides[0], shape)), self.strides[0], tuple(spacing))


def _check_templates(images: list[Tensor], landmarks: list[Tensor], spacings: list[list[float]]) -> None:
    """One sentence for what does not fit."""
    if not len(images) == len(landmarks) == len(spacings) > 0:
        raise ValueError(
            f"found {len(images)} template images, {len(landmarks)} sets of landmarks and {len(spacings)} "
            "spacings; expected equal numbers"
        )
    counts = {tuple(points.shape) for points in landmarks}
    if len(counts) > 1:
        raise ValueError(
            f"all templates must have the same landmarks (NaN where missing), found shapes {sorted(counts)}"
        )
    if landmarks[0].shape[1] != images[0].ndim - 2:
        raise ValueError(
            f"the template image has {images[0].ndim - 2} axes, but its landmarks {landmarks[0].shape[1]} coordinates"
        )
    if all(bool(points.isnan().any(dim=1).all()) for points in landmarks):
        raise ValueError("no template has a landmark with a position; mark at least one")


def _per_image(spacing: Sequence[float] | Sequence[Sequence[float]], count: int) -> list[list[float]]:
    """The spacing of every image, from one for all or one for each."""
    rows = [list(row) for row in spacing if isinstance(row, Sequence)]
    return rows or [[float(step) for step in spacing if not isinstance(step, Sequence)]] * count
