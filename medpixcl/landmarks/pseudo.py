"""Pseudo-landmarks of unlabelled images: positions that a method found, each with how much it is to be trusted."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class PseudoLandmarks:
    """Landmarks of many images in mm, with weights; changed from round to round of a training, and part of its state.

    Args:
        names: Of the K landmarks.

    Attributes:
        round: How often the landmarks have been found anew; 0 for those of the matching.

    Example:
        >>> labels = PseudoLandmarks(["sella"])
        >>> labels.set("1.png", torch.tensor([[1.0, 2.0]]), torch.tensor([0.5]))
        >>> labels.weights("1.png"), labels.points("2.png", dims=2)
        (tensor([0.5000]), tensor([[nan, nan]]))
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.round = tuple(names), 0
        self._points: dict[str, Tensor] = {}
        self._weights: dict[str, Tensor] = {}

    def set(self, image: str, points: Float[Tensor, "k d"], weights: Float[Tensor, " k"]) -> None:
        """Landmarks (K, D) of an image in mm, in the frame of its affine, NaN where missing, and their weights (K,).

        Raises:
            ValueError: If they are not as many as the names.
        """
        if not len(points) == len(weights) == len(self.names):
            raise ValueError(f"found {len(points)} points and {len(weights)} weights for {len(self.names)} landmarks")
        self._points[image] = points.detach().cpu().double()
        self._weights[image] = torch.where(points.isnan().any(dim=1), 0, weights).detach().cpu().float()

    def points(self, image: str, dims: int) -> Float[Tensor, "k d"]:
        """Landmarks of an image in mm (K, D); NaN for an image without any."""
        return self._points.get(image, torch.full((len(self.names), dims), torch.nan))

    def weights(self, image: str) -> Float[Tensor, " k"]:
        """Weights of an image's landmarks (K,); 0 for an image without any."""
        return self._weights.get(image, torch.zeros(len(self.names)))

    @property
    def images(self) -> list[str]:
        """Images that have landmarks."""
        return list(self._points)

    def missing_among(self, images: Iterable[str]) -> list[str]:
        """Those of some images that have no landmarks yet."""
        return [image for image in images if image not in self._points]

    def state_dict(self) -> dict[str, Any]:
        """All landmarks and weights."""
        return {"round": self.round, "points": dict(self._points), "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put them back."""
        self.round = state["round"]
        self._points, self._weights = dict(state["points"]), dict(state["weights"])
