"""Accuracy of pixel matching between two views of one image, the validation metric of pretraining."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import cell_to_voxel, sample_at, voxel_to_cell
from medpixcl.matching import best_match
from medpixcl.networks.embedding import dense_embedding
from medpixcl.training.ratio import RatioOfSums


def matched_pixels(
    views: Sequence[Sequence[Tensor]], pairs: Mapping[str, Tensor], strides: Sequence[int]
) -> list[Float[Tensor, "m d"]]:
    """Match each valid query pixel in the anchor view by the mean cosine of all levels; one tensor per image.

    Args:
        views: Level maps of the query view and of the anchor view, finest first.
        pairs: Pixel pairs: ``query``, ``positive`` (B, N, D) and ``valid`` (B, N).
        strides: Strides of the levels, finest first.

    Returns:
        Matched voxels of the anchor view (centres of cells of the finest level).
    """
    query, anchor = (dense_embedding(list(levels)) for levels in views)
    vectors = sample_at(query, voxel_to_cell(pairs["query"].to(query), strides[0]))
    found = []
    for image, valid in enumerate(pairs["valid"]):
        cells, _ = best_match(vectors[image, valid].float(), anchor[image].float())
        found.append(cell_to_voxel(cells.to(vectors.dtype), strides[0]))
    return found


class PixelCorrespondence(RatioOfSums):
    """Distance in pixels between the matched and the true position of query pixels in the anchor view.

    Args:
        strides: Strides of the network's levels, finest first.
        within: Distance in pixels for the share of pairs matched within it (PCK); None for the mean distance.
        output_transform: Function from the engine's output to (views, pairs), such as MONAI's
            ``from_engine(["pred", "label"])``.
    """

    def __init__(
        self,
        strides: Sequence[int],
        within: float | None = None,
        output_transform: Callable = lambda output: output,
    ) -> None:
        self.strides, self.within = tuple(strides), within
        super().__init__("no validation pair is visible in both views: make the views overlap more", output_transform)

    def quantities(self, output: tuple[Any, Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Sums of the pairs' distances, or number of those that are small enough, and number of pairs, by image."""
        views, pairs = output
        sums, counts = [], []
        for image, found in enumerate(matched_pixels(views, pairs, self.strides)):
            distance = torch.linalg.vector_norm(found - pairs["positive"][image, pairs["valid"][image]], dim=-1)
            values = distance if self.within is None else (distance < self.within).to(distance)
            sums.append(values.sum().double())
            counts.append(len(values))
        return torch.stack(sums), torch.tensor(counts)
