"""Templates as a Python caller gives them: paths, items or arrays, with landmark files or positions."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from medpixcl._typing import AnyPath, Array
from medpixcl.apps.loaded_images import loaded_image, not_finite
from medpixcl.apps.results import Landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.templates import listed_item, template_items
from medpixcl.landmarks.points import LandmarkSet

SingleImage: TypeAlias = AnyPath | Array | Mapping[str, Any]
Marks: TypeAlias = AnyPath | LandmarkSet | Landmarks | Mapping[str, Sequence[float | int] | Tensor | np.ndarray]


def given_templates(
    images: SingleImage | Sequence[SingleImage],
    landmarks: Marks | Sequence[Marks],
    *,
    spacing_mm: SpacingMM | None,
    manifest: AnyPath | Manifest | None,
) -> list[tuple[dict[str, Any], str | LandmarkSet]]:
    """List templates and their landmarks as :class:`medpixcl.matching.AnnotatedImage` takes them.

    Args:
        images: One or several annotated images, see :meth:`medpixcl.apps.match.Matcher.fit`.
        landmarks: One landmark file for all images, or the landmarks of each.
        spacing_mm: Voxel size in mm of arrays along their axes, or of images whose file does not state it.
        manifest: Manifest that gives the pixel size of images whose file does not state it.

    Returns:
        Item of each template, with ``image`` and how to read it, and its landmark file or landmarks.

    Raises:
        ValueError: If images and landmarks differ in number, or one is of another kind.
    """
    pictures, listed = _each(images), _listed(manifest)
    if isinstance(landmarks, str | PathLike) and all(isinstance(one, str | PathLike) for one in pictures):
        items = template_items(pictures, landmarks, spacing_mm=spacing_mm, listed=listed)
        return [(item, str(landmarks)) for item in items]
    marks = [landmarks] * len(pictures) if isinstance(landmarks, str | PathLike) else _each(landmarks)
    if len(pictures) != len(marks) or not pictures:
        raise ValueError(f"found {len(pictures)} templates and landmarks of {len(marks)}; give one for each template")
    pairs = [(picture, _marks(points)) for picture, points in zip(pictures, marks, strict=True)]
    return [(item, points) for one, points in pairs for item in _template_items(one, points, spacing_mm, listed)]


def _listed(manifest: AnyPath | Manifest | None) -> list[dict[str, Any]]:
    """All entries of a manifest, if there is one."""
    if manifest is None:
        return []
    known = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    return [entry for _, entry in known.listed()]


def _template_items(
    image: SingleImage, marks: str | LandmarkSet, spacing_mm: SpacingMM | None, listed: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Items to read of one template, or of the folder or manifest of several."""
    if isinstance(image, str | PathLike):
        file = marks if isinstance(marks, str) else None
        return template_items(image, file, spacing_mm=spacing_mm, listed=listed)
    if isinstance(image, Mapping):
        if not isinstance(image.get("image"), str | list | tuple):
            raise ValueError("a template is a mapping without the path of an image in 'image'; give the path itself")
        return [listed_item(image, listed, spacing_mm)]
    loaded = loaded_image(image, spacing_mm=spacing_mm)
    if reason := not_finite(loaded):
        raise ValueError(f"{loaded.meta['filename_or_obj']} {reason}")
    return [{"image": loaded}]


def _marks(landmarks: Marks) -> str | LandmarkSet:
    """Convert landmarks into the form that :class:`AnnotatedImage` takes."""
    if isinstance(landmarks, LandmarkSet):
        return landmarks
    if isinstance(landmarks, Landmarks):
        return landmarks.points
    if isinstance(landmarks, str | PathLike):
        return str(landmarks)
    if not isinstance(landmarks, Mapping):
        raise ValueError(
            f"the landmarks of a template are a {type(landmarks).__name__}; give a landmark file, or a mapping of "
            "names to positions"
        )
    try:
        places = [torch.as_tensor(place, dtype=torch.float64) for place in landmarks.values()]
    except (TypeError, ValueError):
        places = []
    if not places or {tuple(place.shape) for place in places} not in ({(2,)}, {(3,)}):
        raise ValueError("the landmarks given have no positions of two or of three voxel indices each; give such ones")
    return LandmarkSet(tuple(map(str, landmarks)), torch.stack(places))


def _each(one_or_several: Any) -> list[Any]:
    return list(one_or_several) if isinstance(one_or_several, list | tuple) else [one_or_several]
