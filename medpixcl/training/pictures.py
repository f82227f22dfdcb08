"""Pictures of a pretraining run for TensorBoard."""

from typing import Any

import torch
from ignite.engine import Engine, Events

from medpixcl.coordinates import sample_at, voxel_to_cell
from medpixcl.networks.embedding import dense_embedding
from medpixcl.reports.figures import figure_to_array, matched_views, similarity_maps
from medpixcl.training.correspondence import matched_pixels
from medpixcl.training.event_files import EventWriter


class MatchedViewsPictures:
    """Draws one pair of views with matched points and some similarity maps after each validation.

    Args:
        log_dir: Folder of the TensorBoard events.
        strides: Strides of the network's levels, finest first.
        points: Number of points to draw.
        maps: Number of similarity maps to draw.
    """

    def __init__(self, log_dir: str, strides: list[int], points: int = 12, maps: int = 4) -> None:
        self.strides, self.points, self.maps = strides, points, maps
        self.events = EventWriter(log_dir)
        self.kept: tuple[Any, ...] | None = None

    def attach(self, engine: Engine) -> None:
        """Keep the first batch of a validation, and draw at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.draw)

    def keep(self, engine: Engine) -> None:
        """Keep the first item of the first batch."""
        if engine.state.iteration % engine.state.epoch_length != 1 % engine.state.epoch_length:
            return
        output = engine.state.output
        (query_levels, anchor_levels), pairs = output["pred"], output["label"]
        valid = pairs["valid"][:1]
        chosen = torch.zeros_like(valid)
        chosen[0, valid[0].nonzero()[: self.points, 0]] = True
        first = {"query": pairs["query"][:1], "positive": pairs["positive"][:1], "valid": chosen}
        views = [[level[:1] for level in query_levels], [level[:1] for level in anchor_levels]]
        images = engine.state.batch["image_query"][0, 0], engine.state.batch["image_anchor"][0, 0]
        self.kept = (views, first, images)

    def draw(self, engine: Engine) -> None:
        """Write the pictures."""
        if self.kept is None:
            return
        views, pairs, (query_image, anchor_image) = self.kept
        chosen = pairs["valid"][0]
        query, positive = pairs["query"][0, chosen], pairs["positive"][0, chosen]
        found = matched_pixels(views, pairs, self.strides)[0]
        matched = matched_views(query_image.cpu(), anchor_image.cpu(), query.cpu(), positive.cpu(), found.cpu())
        maps = self._similarity(views, query[: self.maps])
        similar = similarity_maps(anchor_image.cpu(), maps.cpu(), positive[: self.maps].cpu(), stride=self.strides[0])
        pictures = {"validation/matched_views": matched, "validation/similarity": similar}
        drawn = {name: figure_to_array(picture) for name, picture in pictures.items()}
        self.events.write(engine.state.epoch, drawn)

    def _similarity(self, views: list[list[torch.Tensor]], query: torch.Tensor) -> torch.Tensor:
        """Mean cosine over all levels between K query pixels and every cell of the anchor view, shape (K, *cells)."""
        maps, anchor = (dense_embedding(levels) for levels in views)
        vectors = sample_at(maps, voxel_to_cell(query[None].to(maps), self.strides[0]))[0]
        return torch.einsum("kc,c...->k...", vectors, anchor[0])
