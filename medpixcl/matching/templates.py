"""Annotated images as templates: the vectors of their landmarks, and the shape that they form."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from medpixcl.landmarks.geometry import mean_shape
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.product import describe
from medpixcl.matching.reciprocity import surroundings


@dataclass(frozen=True)
class Template:
    """Level maps and landmarks of one annotated image.

    Attributes:
        levels: Level maps of the image, one (E, *cells) per level, finest first.
        strides: Number of voxels per cell at every level.
        grid: Cells of the finest level inside the image.
        voxels: Landmarks as voxel positions, shape (K, D); NaN where missing.
    """

    levels: list[Tensor]
    strides: list[int]
    grid: CellGrid
    voxels: Float[Tensor, "k d"]

    @property
    def mm(self) -> Float[Tensor, "k d"]:
        """The landmarks in mm along the array axes."""
        return self.voxels * self.voxels.new_tensor(self.grid.spacing)


class TemplateSet:
    """Vectors of the landmarks of all templates: a row for every landmark that a template has, sorted by landmark.

    Args:
        templates: At least one template; all have the same K landmarks.

    Attributes:
        there: True for landmarks that at least one template has, shape (K,). The attributes below leave out the others.
        owner: Index of each row's landmark among those that are there, shape (R,).
        source: Index of each row's template, shape (R,).
        vectors: Unit vectors of the rows, one (R, E) per level.
        around: Vectors at and around each landmark, one (R, N, E) per level.
        shape_mm: Mean shape of the templates, aligned to the first one, from the landmarks that they have.
    """

    def __init__(self, templates: Sequence[Template]) -> None:
        self.templates = list(templates)
        has = torch.stack([~template.voxels.isnan().any(dim=1) for template in templates])
        self.there = has.any(dim=0)
        landmark, self.source = has.T.nonzero().unbind(1)
        self.owner = (self.there.cumsum(0) - 1)[landmark]
        order, vectors, around = [], [], []
        for number, template in enumerate(templates):
            points = template.voxels[has[number]]
            order.append((self.source == number).nonzero().squeeze(1))
            vectors.append(describe(template.levels, template.strides, points))
            around.append(surroundings(template.levels, template.strides, points))
        back = torch.cat(order).argsort()
        self.vectors = [torch.cat(level)[back] for level in zip(*vectors, strict=True)]
        self.around = [torch.cat(level)[back] for level in zip(*around, strict=True)]
        self.shape_mm = mean_shape([template.mm for template in templates])[self.there]

    def rows_of(self, first: int, end: int) -> slice:
        """Rows of the landmarks from ``first`` to before ``end``."""
        bounds = torch.searchsorted(self.owner, torch.tensor([first, end], device=self.owner.device)).tolist()
        return slice(*bounds)

    def mean(
        self, values: Shaped[Tensor, "r ..."], rows: slice = slice(None), weights: Float[Tensor, " r"] | None = None
    ) -> Shaped[Tensor, "k ..."]:
        """Mean value of each landmark over its rows.

        Args:
            values: Values of the rows, shape (R, ...).
            rows: The rows that the values belong to, all rows of a landmark among them; by default all.
            weights: Weight of each row above 0, shape (R,); None weights all alike.
        """
        owner = self.owner[rows] - self.owner[rows][0]
        count = int(owner[-1]) + 1
        if count == len(owner):
            return values
        weights = torch.ones_like(owner, dtype=values.dtype) if weights is None else weights.to(values.dtype)
        share = weights / weights.new_zeros(count).index_add_(0, owner, weights)[owner]
        empty = values.new_zeros(count, *values.shape[1:])
        return empty.index_add_(0, owner, values * share.view(-1, *[1] * (values.ndim - 1)))
