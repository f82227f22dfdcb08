"""Landmarks of an image as plain data, in full precision: what a run keeps so that nothing is computed twice."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from medpixcl.apps.images import Images
from medpixcl.apps.results import Landmarks, named
from medpixcl.apps.run_folder import RunFolder
from medpixcl.landmarks.points import LandmarkSet

_OF_IMAGES = {"image", "stem", "source", "files"}
"""Fields that the list of images gives; paths of folders, which name people, are not kept."""
_WHOLE = {"flags", "names", "shape", "extras"}
"""Fields that are tuples; JSON has lists."""


class Kept:
    """The landmarks that one search of a run has found, in the folder of the run.

    Args:
        folder: Folder of the run; None keeps nothing.
        step: Name of the search among those of the run.
        images: Images of the run.
        names: Names of the landmarks that are searched for.
    """

    def __init__(self, folder: RunFolder | None, step: str, images: Images, names: Sequence[str]) -> None:
        self._folder, self._step, self._images, self._names = folder, step, images, tuple(names)
        self._found = {} if folder is None else folder.lines.found.pop(step, {})

    def landmarks(self, source: str) -> Landmarks | None:
        """Landmarks of an image as they were found before an interruption; None if they must be found.

        Args:
            source: The image in the list, see :func:`medpixcl.apps.images.source_of`.
        """
        data = self._found.get(self._images.name(source))
        try:
            one = None if data is None else from_data(data, self._images, source)
            return one if one is None or one.names == self._names else None
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError):
            return None

    def add(self, one: Landmarks) -> None:
        """Keep the landmarks of an image."""
        if self._folder is not None:
            self._folder.lines.keep({"search": self._step, "image": one.image, "landmarks": to_data(one)})


def to_data(one: Landmarks) -> dict[str, Any]:
    """Everything of some landmarks that the list of images does not know, for JSON."""
    return _data_of(one, leave_out=_OF_IMAGES)


def from_data(data: Mapping[str, Any], images: Images, source: str) -> Landmarks:
    """Landmarks from the data that :func:`to_data` made of them.

    Args:
        data: The data.
        images: Images of the run.
        source: The image in the list, see :func:`medpixcl.apps.images.source_of`.

    Raises:
        ValueError, TypeError, KeyError: If the data are of something else.
    """
    known = _fields_of(data) | {"points": LandmarkSet(**_fields_of(data["points"]))}
    one = Landmarks(image="", source=source, **known)
    _require_whole(one)
    return named(one, images)


def _require_whole(one: Landmarks) -> None:
    """Check that all parts are of the same landmarks.

    Raises:
        ValueError: If they are not.
    """
    count, dims = one.voxels.shape
    several, each = (count, dims, dims), (count,)
    shapes = {"affine": (4, 4), "covariance_mm2": several, "regions_mm2": several, "radii_mm": each, "deviations": each}
    for name, shape in shapes.items():
        value = getattr(one, name)
        if value is not None and tuple(value.shape) != shape:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}; expected {shape}")
    if not bool(one.affine.isfinite().all()):
        raise ValueError("the affine holds values that are not finite")
    columns = {tuple(extra) for extra in one.extras}
    texts = [*one.names, *one.flags, *(cell for extra in one.extras for pair in extra.items() for cell in pair)]
    if len(one.extras) not in (0, count) or len(columns) > 1 or not all(isinstance(text, str) for text in texts):
        raise ValueError("names, flags or extras are not those of the landmarks")
    if len(one.shape) != dims or not all(isinstance(size, int) for size in one.shape):
        raise ValueError(f"the image has the shape {one.shape}; expected {dims} whole numbers")


def _data_of(one: Landmarks | LandmarkSet, leave_out: set[str] | frozenset[str] = frozenset()) -> dict[str, Any]:
    return {
        part.name: _plain(getattr(one, part.name))
        for part in fields(one)
        if part.name not in leave_out and getattr(one, part.name) is not None
    }


def _fields_of(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _tensor(value) if _is_tensor(value) else tuple(value) if name in _WHOLE else value
        for name, value in data.items()
        if name != "points"
    }


def _plain(value: Any) -> Any:
    if isinstance(value, LandmarkSet):
        return _data_of(value)
    if isinstance(value, Tensor):
        flat = [number if math.isfinite(number) else str(number) for number in value.flatten().tolist()]
        return {"type": str(value.dtype).removeprefix("torch."), "size": list(value.shape), "values": flat}
    return value


def _is_tensor(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"type", "size", "values"}


def _tensor(value: Mapping[str, Any]) -> Tensor:
    kind = {"float32": torch.float32, "float64": torch.float64}[value["type"]]
    return torch.tensor([float(number) for number in value["values"]], dtype=kind).reshape(value["size"])
