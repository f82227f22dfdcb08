"""Turn a collated batch of two views into inputs and targets of PixPro's network and loss."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.engines import PrepareBatch

from medpixcl.coordinates import spatial_affine
from medpixcl.correspondence import cells_of_map, draw_cells
from medpixcl.losses.pixpro import VIEWS
from medpixcl.training.batches import plain_tensor


class PixProPrepareBatch(PrepareBatch):
    """The query view as input, the anchor view as second argument; coordinates and exogenous channels as target.

    Args:
        strides: Strides of the network's levels, finest first.
        exogenous: Keys of the exogenous channels, which ``RandPixelViewsd`` transforms with the image.
        cells: Number of cells drawn as queries at each level, preferring those that both views show; None takes all.
            All cells are keys. Limit it for large grids: 512 of 24^3 cells keep a mask at 28 MB per image.
        image_key: Prefix of the views' batch keys, ``image_key + "_query"`` and ``"_anchor"``. The batch also holds
            their maps ``coords_...`` (from ``RandPixelViewsd``) and, to draw the same cells again, ``item_seed``.

    The network is called as ``network(query, anchor)``, or with ``query_cells`` and ``anchor_cells``, one index
    (B, N) per level. For the target see :meth:`medpixcl.losses.pixpro.PixProLoss.forward`.

    Raises:
        ValueError: On a call, if an exogenous channel is missing.
    """

    def __init__(
        self,
        strides: Sequence[int | Sequence[int]],
        exogenous: Sequence[str] = (),
        cells: int | None = None,
        image_key: str = "image",
    ) -> None:
        self.strides, self.exogenous, self.cells, self.image_key = list(strides), tuple(exogenous), cells, image_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any], tuple[torch.Tensor], dict[str, Any]]:
        """Move the required tensors to the device and draw the cells."""
        target: dict[str, Any] = {}
        for view in VIEWS:
            image = batchdata[f"{self.image_key}_{view}"]
            coords = plain_tensor(batchdata[f"coords_{self.image_key}_{view}"], device, non_blocking)
            dims = coords.ndim - 2
            affines = torch.stack([spatial_affine(matrix, dims) for matrix in torch.as_tensor(image.affine)])
            target[f"coords_{view}"], target[f"affine_{view}"] = coords, affines.to(coords)
            for key in self.exogenous:
                target[f"{key}_{view}"] = plain_tensor(self._channel(batchdata, key, view), device, non_blocking)
        if "item_seed" in batchdata:
            target["item_seed"] = torch.as_tensor(batchdata["item_seed"])
        drawn = self._draw(target)
        target |= {f"cells_{view}": drawn[f"{view}_cells"] for view in VIEWS if drawn}
        query, anchor = (plain_tensor(batchdata[f"{self.image_key}_{view}"], device, non_blocking) for view in VIEWS)
        return query, target, (anchor,), drawn

    def _channel(self, batchdata: Mapping[str, Any], key: str, view: str) -> torch.Tensor:
        if f"{key}_{view}" not in batchdata:
            raise ValueError(
                f"the exogenous channel {key!r} is absent: the batch has no '{key}_{view}'; give {key!r} to the items "
                "and to the keys of RandPixelViewsd."
            )
        return batchdata[f"{key}_{view}"]

    def _draw(self, target: Mapping[str, Any]) -> dict[str, Any]:
        if self.cells is None:
            return {}
        generators = None
        if "item_seed" in target:
            generators = [torch.Generator().manual_seed(int(seed)) for seed in target["item_seed"]]
        drawn: dict[str, Any] = {f"{view}_cells": [] for view in VIEWS}
        for stride in self.strides:
            query, anchor = (cells_of_map(target[f"coords_{v}"], target[f"affine_{v}"], stride) for v in VIEWS)
            drawn["query_cells"].append(draw_cells(query, anchor, self.cells, generator=generators))
            drawn["anchor_cells"].append(draw_cells(anchor, query, self.cells, generator=generators))
        return drawn
