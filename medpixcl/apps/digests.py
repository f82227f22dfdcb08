"""Digests of what a run is made from, by which its beginning and its continuation are compared."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medpixcl._typing import AnyPath
from medpixcl.coordinates import affines_of
from medpixcl.data.examination import content_sha256
from medpixcl.data.volumes import with_detached_data
from medpixcl.matching.annotated_image import AnnotatedImage, templates_digest


def value_digest(*values: Any) -> str:
    """Digest of plain values: numbers, texts, and lists and dictionaries of these in their order."""
    return hashlib.sha256(repr(values).encode("utf-8", "backslashreplace")).hexdigest()


def path_digest(path: AnyPath | None) -> str:
    """Digest of the content of a file, or of the names and the content of all files of a folder; empty for None."""
    if path is None:
        return ""
    path = Path(path)
    if path.is_file():
        return content_sha256(with_detached_data([path]))
    files = sorted(one for one in path.rglob("*") if one.is_file() and one.name[0] != ".")
    return value_digest([(one.relative_to(path).as_posix(), content_sha256([one])) for one in files])


def annotated_digest(templates: Sequence[AnnotatedImage]) -> str:
    """Digest of annotated images: files, or pixels in memory, where they lie, and their landmarks; empty for none."""
    if not templates:
        return ""
    affines = [affine for one in templates for affine in affines_of(one.image)]
    places = [[f"{value:.6g}" for value in affine.flatten().tolist()] for affine in affines]
    return value_digest(templates_digest(templates), list(map(_content_digest, templates)), places)


def _content_digest(one: AnnotatedImage) -> str:
    """Digest of the files of an annotated image, or of its pixels if it was given in memory."""
    if one.files:
        return content_sha256(with_detached_data(one.files))
    return hashlib.sha256(one.image.as_tensor().cpu().contiguous().numpy().tobytes()).hexdigest()
