"""Appearance of landmarks in many images, learnt from their matches in unlabelled images.

One annotated image shows how a landmark looks in that image. Its certain matches in other images show how it looks
there. The mean of the matches' vectors, weighted by certainty, and the template's own vector depends less on what is
peculiar to the template. The same mean is taken for the surroundings of each landmark, which compete with it in the
refinement (:mod:`medpixcl.matching.reciprocity`); most of the gain comes from them.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.matching.product import LevelMaps, describe
from medpixcl.matching.reciprocity import surroundings
from medpixcl.matching.templates import TemplateSet
from medpixcl.matching.trust import MatchCertainty, match_weights

OWN_WEIGHT = 5.0
"""Number of matches of weight 1 for which the template counts."""
CELL_TOLERANCE = 0.05
"""Relative difference allowed between the cells of template and population: spacings are rounded to whole voxels."""


@runtime_checkable
class FoundLandmarks(MatchCertainty, Protocol):
    """Positions of K found landmarks and their certainty, see :class:`medpixcl.matching.MatchResult`."""

    @property
    def voxels(self) -> Tensor: ...  # noqa: D102


@dataclass(frozen=True)
class Population:
    """Sums over images of the unit vectors of K landmarks, multiplied by the weights of their matches.

    Attributes:
        vectors: Sums at each landmark, one (K, E) per level, finest first.
        around: Sums at and around each landmark, one (K, N, E) per level, see
            :func:`medpixcl.matching.reciprocity.surroundings`.
        weights: Sum of the weights, shape (K,); 0 for a landmark that was never found with certainty.
        images: Number of images learnt from.
        cell_mm: Size of a cell of the finest level in mm.
    """

    vectors: tuple[Float[Tensor, "k _"], ...]
    around: tuple[Float[Tensor, "k n _"], ...]
    weights: Float[Tensor, " k"]
    images: int
    cell_mm: float

    def __add__(self, other: "Population") -> "Population":
        """Add the sums of two populations."""
        return Population(
            tuple(one + two for one, two in zip(self.vectors, other.vectors, strict=True)),
            tuple(one + two for one, two in zip(self.around, other.around, strict=True)),
            self.weights + other.weights,
            self.images + other.images,
            self.cell_mm,
        )


def observe(levels: LevelMaps, strides: Sequence[int], result: FoundLandmarks, cell_mm: float) -> Population:
    """Collect the landmarks of one image, weighted by certainty (:func:`medpixcl.matching.trust.match_weights`).

    Args:
        levels: Level maps of the image, (E, *cells), finest first.
        strides: Number of voxels per cell at every level.
        result: Landmarks found in the image.
        cell_mm: Size of a cell of the finest level in mm.
    """
    weights = match_weights(result, cell_mm)
    voxels = result.voxels.nan_to_num(0)  # a missing one has no weight
    vectors = [rows * weights[:, None] for rows in describe(levels, strides, voxels)]
    around = [rows * weights[:, None, None] for rows in surroundings(levels, strides, voxels)]
    return Population(tuple(vectors), tuple(around), weights, 1, cell_mm)


def adapted(templates: TemplateSet, population: Population, own_weight: float = OWN_WEIGHT) -> TemplateSet:
    """Average the vectors of templates with those of a population.

    Args:
        templates: Templates, which stay unchanged.
        population: Population of the same landmarks.
        own_weight: Number of matches of weight 1 for which the template counts.

    Raises:
        ValueError: If the population was learnt for other landmarks, or with another network or spacing.
    """
    _check(templates, population)
    rows = templates.there.nonzero().squeeze(1)[templates.owner]
    made = copy.copy(templates)
    made.vectors, made.around = (
        [F.normalize(own_weight * one + all_of.to(one)[rows], dim=-1) for one, all_of in zip(own, sums, strict=True)]
        for own, sums in ((templates.vectors, population.vectors), (templates.around, population.around))
    )
    return made


def _check(templates: TemplateSet, population: Population) -> None:
    """One sentence for what does not fit."""
    if len(population.weights) != len(templates.there):
        raise ValueError(
            f"the population has {len(population.weights)} landmarks, the template {len(templates.there)}: learn it "
            "again with this template"
        )
    lengths, expected = ([rows.shape[1] for rows in level] for level in (population.vectors, templates.vectors))
    if lengths != expected or [r.shape[1:] for r in population.around] != [r.shape[1:] for r in templates.around]:
        raise ValueError(
            f"the population's vectors have lengths {lengths}, those of the network's levels {expected}, in "
            f"{templates.templates[0].voxels.shape[1]} dimensions: learn it again with this network"
        )
    cell_mm = templates.templates[0].grid.cell_mm
    if not math.isclose(cell_mm, population.cell_mm, rel_tol=CELL_TOLERANCE):
        raise ValueError(
            f"the population was learnt at cells of {population.cell_mm:g} mm, the template has {cell_mm:g} mm: use "
            "the same working spacing"
        )
