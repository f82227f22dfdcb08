"""Pseudo-landmarks of unlabelled images: positions found by a method, each with a weight of trust."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor


class PseudoLandmarks:
    """Landmarks of many images in mm, with weights; they change in every round and are part of the training's state.

    Args:
        names: Names of the K landmarks.

    Attributes:
        round: Number of rounds in which the landmarks were found anew; 0 for those of the matching.

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
        """Set the landmarks (K, D) of an image in mm, in the frame of its affine, NaN where missing, and weights (K,).

        Raises:
            ValueError: If the number of points or weights is not K.
        """
        if not len(points) == len(weights) == len(self.names):
            raise ValueError(f"found {len(points)} points and {len(weights)} weights for {len(self.names)} landmarks")
        self._points[image] = points.detach().cpu().double()
        self._weights[image] = torch.where(points.isnan().any(dim=1), 0, weights).detach().cpu().float()

    def points(self, image: str, dims: int) -> Float[Tensor, "k d"]:
        """Return the landmarks of an image in mm, shape (K, D); NaN if the image has none."""
        return self._points.get(image, torch.full((len(self.names), dims), torch.nan))

    def weights(self, image: str) -> Float[Tensor, " k"]:
        """Return the weights of an image's landmarks, shape (K,); 0 if the image has none."""
        return self._weights.get(image, torch.zeros(len(self.names)))

    def trusted_mm(self) -> Float[Tensor, "n k d"]:
        """Return the landmarks of all N images in mm, shape (N, K, D); NaN where missing or of weight 0."""
        places = [
            torch.where(self._weights[one][:, None] > 0, points, torch.nan) for one, points in self._points.items()
        ]
        return torch.stack(places)

    @property
    def images(self) -> list[str]:
        """Images that have landmarks."""
        return list(self._points)

    def missing_among(self, images: Iterable[str]) -> list[str]:
        """Return the images that have no landmarks yet."""
        return [image for image in images if image not in self._points]

    def state_dict(self) -> dict[str, Any]:
        """Return all landmarks and weights."""
        return {"round": self.round, "points": dict(self._points), "weights": dict(self._weights)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore landmarks and weights."""
        self.round = state["round"]
        self._points, self._weights = dict(state["points"]), dict(state["weights"])
