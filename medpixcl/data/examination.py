"""Read one image completely, as training will read it, and note what a manifest needs to know of it."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from medpixcl._typing import Number
from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.data.claims import open_binary
from medpixcl.data.duplicates import Fingerprint, image_fingerprint
from medpixcl.data.exogenous import Grid, read_exogenous
from medpixcl.data.images import read_image
from medpixcl.data.pixels import ImageFileError, SpacingMM
from medpixcl.data.sources import Source
from medpixcl.data.unusable import Unusable, unusable


@dataclass(frozen=True)
class MapFile:
    """A file on the grid of an image: exogenous channel or label map.

    Attributes:
        name: Name of the channel or class.
        path: Its file.
        kind: ``continuous`` or ``categorical``.
    """

    name: str
    path: Path
    kind: str


@dataclass(frozen=True)
class Examination:
    """An image to read.

    Attributes:
        source: Its files.
        spacing_mm: Pixel size in mm of a 2D image whose file has none.
        tolerance_mm: How far in mm a slice may lie from its place, see :func:`medpixcl.data.images.read_image`.
        maps: Files that must lie on its grid.
    """

    source: Source
    spacing_mm: SpacingMM | None = None
    maps: tuple[MapFile, ...] = ()
    tolerance_mm: Number | None = None


@dataclass(frozen=True)
class Usable:
    """An image that can be used.

    Attributes:
        shape: Spatial shape, array order.
        affine: Matrix from voxels to mm, RAS+, 4 x 4, in rows.
        spacing_source: What says the size of a voxel, see :func:`medpixcl.data.images.read_image`.
        modality: DICOM modality, or None.
        notice: Sentences about how the image was read, empty as a rule.
        sha256: Checksum of its files (:func:`content_sha256`).
        fingerprint: Summary by which its repeats are found.
    """

    shape: tuple[int, ...]
    affine: tuple[tuple[float, ...], ...]
    spacing_source: str
    modality: str | None
    notice: str
    sha256: str
    fingerprint: Fingerprint

    @property
    def spacing_mm(self) -> list[float]:
        """Size of a voxel in mm along each array axis."""
        affine = torch.tensor(self.affine, dtype=torch.float64)
        return [round(size, 6) for size in spacing_of(spatial_affine(affine, len(self.shape))).tolist()]


def examine(task: Examination) -> Usable | Unusable:
    """Read an image and its maps; whatever goes wrong is a reason to leave out this image, never to end the scan."""
    try:
        return _usable(task)
    except Exception as error:  # damaged files make the readers raise any kind of error
        return unusable(task.source.place, error)


def content_sha256(files: Sequence[Path]) -> str:
    """Compute the checksum of one file, or of the listing that ``sha256sum *`` prints for several, sorted by name."""
    digests = []
    for path in sorted(files, key=lambda one: one.name):
        with open_binary(path) as file:
            digests.append((hashlib.file_digest(file, "sha256").hexdigest(), path.name))
    if len(digests) == 1:
        return digests[0][0]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in digests).encode()).hexdigest()


def _usable(task: Examination) -> Usable:
    image = read_image(task.source.image, spacing_mm=task.spacing_mm, tolerance_mm=task.tolerance_mm)
    values, affine = image[0].numpy(), torch.as_tensor(image.affine, dtype=torch.float64)
    if not values.size:
        raise ImageFileError(task.source.place, f"has the shape {values.shape}, so it holds no voxel.")
    if values.ndim == 2 and values.min() == values.max():
        raise ImageFileError(task.source.place, f"shows nothing: all of its pixels have the value {values.min():g}.")
    for one in task.maps:
        _check_map(task.source.place, one, Grid(tuple(values.shape), affine))
    return Usable(
        tuple(values.shape),
        tuple(map(tuple, affine.tolist())),
        image.meta["spacing_source"],
        image.meta["modality"] or None,
        image.meta["notice"],
        content_sha256(task.source.files),
        image_fingerprint(np.asarray(values)),
    )


def _check_map(image: Path, one: MapFile, grid: Grid) -> None:
    try:
        read_exogenous(one.path, grid, kind=one.kind)
    except ImageFileError as error:
        raise ImageFileError(image, f"has a {one.name} file that does not fit: {error}") from error
