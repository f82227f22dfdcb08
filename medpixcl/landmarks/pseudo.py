"""Pseudo-landmarks of unlabelled images: positions found by a method, each with a weight of trust."""

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
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

    def place(self, images: Iterable[str]) -> None:
        """Give the landmarks that a state was restored with to its images, wherever their common folder lies now.

        Their order stays, on which :meth:`trusted_mm` depends.

        Args:
            images: Paths of all images of the training.
        """
        paths = {mark: path for path, mark in _marks(images).items()}
        self._points, self._weights = (
            {paths.get(mark, mark): value for mark, value in stored.items()} for stored in (self._points, self._weights)
        )

    def missing_among(self, images: Iterable[str]) -> list[str]:
        """Return the images that have no landmarks yet."""
        return [image for image in images if image not in self._points]

    def state_dict(self) -> dict[str, Any]:
        """Return all landmarks and weights; a digest stands for the path of an image, which may name a person."""
        marks = _marks(self._points)
        points, weights = (
            {marks[image]: value for image, value in stored.items()} for stored in (self._points, self._weights)
        )
        return {"round": self.round, "points": points, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore landmarks and weights; :meth:`place` gives them to their images."""
        self.round = state["round"]
        self._points, self._weights = dict(state["points"]), dict(state["weights"])


def _marks(images: Iterable[str]) -> dict[str, str]:
    """A digest for each image of its path within the folder that all of them have in common.

    What is no absolute path stays as it is.
    """
    images = list(images)
    paths = [Path(image) for image in images if os.path.isabs(image)]  # noqa: PTH117 - thousands of times
    base = Path(os.path.commonpath([path.parent for path in paths])) if paths else Path()
    digests = {str(path): _digest(path.relative_to(base)) for path in paths}
    return {image: digests.get(image, image) for image in images}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.as_posix().encode("utf-8", "surrogateescape")).hexdigest()[:32]
