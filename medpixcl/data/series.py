"""Read the DICOM slices of one series as one volume, and refuse slices that do not form one."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medpixcl._typing import Number
from medpixcl.data.claims import check_voxels
from medpixcl.data.dicom import is_slice, slice_header, why_unusable
from medpixcl.data.dicom_elements import Elements, read_elements
from medpixcl.data.dicom_geometry import SliceGeometry, in_slice_order, series_affine, slice_geometry, why_irregular
from medpixcl.data.dicom_groups import why_mixed
from medpixcl.data.dicom_header import Header, is_dicom, read_header, read_whole
from medpixcl.data.dicom_pixel_bytes import check_compressed, is_compressed, native_layout, pixel_element
from medpixcl.data.dicom_pixels import modality_values, stored_values
from medpixcl.data.padding import VolumePadding
from medpixcl.data.pixels import ImageFileError, Pixels

_BLOCK = 48
"""Slices that are transposed together: more mean fewer passes over the volume, and a larger buffer beside it."""


def read_series(files: Sequence[Path], *, tilted: bool = False, tolerance_mm: Number | None = None) -> Pixels:
    """Read the slices of one series as a volume (i, j, k) after rescale (HU for CT).

    Padding (PixelPaddingValue) that lies outside of all other values becomes the lowest of these.

    Args:
        files: Slices in any order.
        tilted: Accept slices of a tilted gantry; the third column of the affine is then oblique to the others.
        tolerance_mm: How far in mm a slice may lie from its place on the grid, see
            :func:`medpixcl.data.dicom_geometry.why_irregular`.

    Raises:
        ImageFileError: If a file is not a slice, cannot be decoded, or the slices do not form one regular volume.
    """
    elements = {path: read_elements(path) for path in files}
    headers = {path: read_whole(path) if one is None else one.header for path, one in elements.items()}
    slices = in_slice_order([_slice_of(header) for header in headers.values()])
    reason = why_mixed(slices) or why_irregular(slices, tilted=tilted, tolerance_mm=tolerance_mm)
    if reason is not None:
        raise ImageFileError(slices[0].path.parent, f"series of {len(slices)} slice(s): {reason}")
    rows, columns = slices[0].size
    check_voxels(slices[0].path.parent, (columns, rows, len(slices)))
    values = np.empty((columns, rows, len(slices)), dtype=np.float32)
    block, padding = np.empty((_BLOCK, rows, columns), dtype=np.float32), VolumePadding()
    for start in range(0, len(slices), _BLOCK):
        part = slices[start : start + _BLOCK]
        for place, one in enumerate(part):
            header, native = headers.pop(one.path), _native_pixels(elements[one.path])
            stored = stored_values(header, native)[0]
            modality_values(slice_header(header), stored, out=block[place])
            padding.note(start + place, header, stored, block[place])
        for row in range(rows):
            values[:, row, start : start + len(part)] = block[: len(part), row].T
    padding.fill(values)
    return Pixels(values, series_affine(slices), "file", slices[0].modality)


def series_geometry(files: Sequence[Path]) -> list[SliceGeometry]:
    """Geometry of the slices of one series, in slice order, from their headers.

    Raises:
        ImageFileError: If a file is not a slice.
    """
    return in_slice_order([_slice_of(read_header(path)) for path in files])


def dicom_files(folder: Path) -> list[Path]:
    """List the DICOM files of a folder (not of its subfolders), sorted, without hidden ones."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    return [path for path in files if is_dicom(path)]


def files_of_image(image: str | Sequence[str]) -> tuple[Path, ...]:
    """All files of the image of an item: its file, the files of its series, or those in its folder of slices."""
    if not isinstance(image, str):
        return tuple(Path(file) for file in image)
    return tuple(dicom_files(Path(image))) if Path(image).is_dir() else (Path(image),)


def check_size(path: Path) -> None:
    """Check that a DICOM file holds as many pixels as its header states, without decoding them.

    Raises:
        ImageFileError: If it does not.
    """
    if (elements := read_elements(path)) is not None:
        native_layout(elements.header, min(elements.length, path.stat().st_size - elements.pixels))
        return
    header = read_whole(path)
    keyword, data = pixel_element(header)
    if is_compressed(header, keyword, data):
        check_compressed(header, data)
    else:
        native_layout(header, len(data), keyword)


def _native_pixels(elements: Elements | None) -> bytes | None:
    if elements is None:
        return None
    with elements.header.path.open("rb") as file:
        file.seek(elements.pixels)
        return file.read(elements.length)


def _slice_of(header: Header) -> SliceGeometry:
    if (reason := why_unusable(header)) is not None:
        raise ImageFileError(header.path, reason)
    if not is_slice(header):
        raise ImageFileError(header.path, "is a DICOM picture, not a slice; give the file itself, not its folder.")
    return slice_geometry(slice_header(header))
