"""Read NIfTI-1 and NIfTI-2 files: one pass over the bytes, whatever the compression and the name."""

import math
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from medpixcl.data.claims import check_voxels, open_binary
from medpixcl.data.nifti_placement import nifti_placement
from medpixcl.data.pixels import ImageFileError, Pixels, SpacingMM
from medpixcl.data.placement import placed_pixels, volume_shape

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"
_LARGEST_HEADER, _LARGEST_OFFSET = 540, 2**28
_PACKED, _PIECE = 2**17, 2**20
"""Bytes that are read, and that are unpacked, at a time."""


def read_nifti(path: Path, spacing_mm: SpacingMM | None = None) -> Pixels:
    """Read a NIfTI volume as (i, j, k), or one slice as (row, column); scale factors and unit of length are applied.

    The memory keeps the order of the file (i runs fastest); a change of order would cost as much as all the rest.

    Args:
        path: File to read; gzip is recognised by content.
        spacing_mm: Voxel size in mm for axes whose size the file does not state.

    Raises:
        ImageFileError: If the file is damaged, holds colours, complex numbers or several volumes.
    """
    with open_binary(path) as file:
        header = _header(path, bytes(_first_bytes(path, file, _LARGEST_HEADER)))
    kind = header.get_data_dtype()
    if not np.issubdtype(kind, np.number):
        raise ImageFileError(path, "holds colours; expected one grey value per voxel.")
    if np.issubdtype(kind, np.complexfloating):
        raise ImageFileError(path, "holds complex numbers; save their magnitude.")
    try:
        placement = nifti_placement(header)
    except ValueError as error:
        raise ImageFileError(path, str(error)) from None
    return placed_pixels(path, _values(path, header), placement, spacing_mm, flat=int(header["dim"][0]) == 2)


def _header(path: Path, start: bytes) -> Any:
    """The header as nibabel reads it, in either byte order."""
    import nibabel

    sizes = {int.from_bytes(start[:4], order) for order in ("little", "big")}
    kinds = {348: nibabel.Nifti1Header, 540: nibabel.Nifti2Header}
    kind = next((kinds[size] for size in sizes if size in kinds), None)
    if kind is None or len(start) < kind.template_dtype.itemsize:
        raise ImageFileError(path, "has no NIfTI header (damaged or cut off); export it again.")
    header = kind(start[: kind.template_dtype.itemsize], check=False)
    if bytes(header["magic"])[:3] not in (b"n+1", b"n+2"):
        raise ImageFileError(path, "is not a NIfTI file in one piece; convert it to .nii.gz.")
    if not 1 <= int(header["dim"][0]) <= 7 or min(header.get_data_shape()) < 0:
        raise ImageFileError(path, f"has the dimensions {header['dim'].tolist()} in its header (damaged).")
    try:
        header.get_data_dtype()
    except Exception:  # an unknown code of the data type
        reason = (
            f"has voxels of the NIfTI data type {int(header['datatype'])}, which is not read here; save them as int16."
        )
        raise ImageFileError(path, reason) from None
    return header


def _values(path: Path, header: Any) -> Float32[np.ndarray, "i j k"]:
    shape = volume_shape(path, tuple(map(int, header.get_data_shape())))
    check_voxels(path, shape)
    kind, offset = header.get_data_dtype(), float(header["vox_offset"])
    count, smallest = math.prod(shape), header.template_dtype.itemsize
    if not smallest <= offset <= _LARGEST_OFFSET:
        raise ImageFileError(path, f"announces its voxels at byte {offset:g} of the file (damaged header).")
    end = int(offset) + count * kind.itemsize
    with open_binary(path) as file:
        data = _first_bytes(path, file, end, to_the_end=True)
    if len(data) < end:
        raise ImageFileError(path, f"is cut off: it holds {len(data)} bytes, and its header announces {end}.")
    stored = np.frombuffer(data, dtype=kind, count=count, offset=int(offset)).reshape(shape, order="F")
    slope, inter = _scaling(header)
    with np.errstate(over="ignore", invalid="ignore"):
        values = stored.astype(np.float32, order="K")
        if (slope, inter) != (1.0, 0.0):
            values *= np.float32(slope)
            values += np.float32(inter)
    return values


def _scaling(header: Any) -> tuple[float, float]:
    """Scale factor and offset; a factor of 0 or one that is not finite means none (NIfTI-1 standard)."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not np.isfinite(slope):
        return 1.0, 0.0
    return slope, inter if np.isfinite(inter) else 0.0


def _first_bytes(path: Path, file: BufferedReader, size: int, *, to_the_end: bool = False) -> np.ndarray:
    """At most ``size`` bytes of a file, decompressed if it is gzip (of one or several members), as an array.

    With ``to_the_end``, the checksum that follows these bytes is compared too.
    """
    found, data = 0, np.empty(size, np.uint8)  # a page of it takes memory once it is written to
    packed = file.read(len(_GZIP)) == _GZIP
    file.seek(0)
    if not packed:
        return data[: file.readinto(data.data)]
    pieces = _inflated(path, file)
    while found < size and (piece := next(pieces, None)) is not None:
        piece = piece[: size - found]
        data[found : found + len(piece)] = np.frombuffer(piece, np.uint8)
        found += len(piece)
    if to_the_end:
        next(pieces, None)
    return data[:found]


def _inflated(path: Path, file: BufferedReader) -> Iterator[bytes]:
    """Pieces of the decompressed file, an empty one at the end of a member, whose checksum is then right."""
    zlib, packed = _zlib(), file.read(_PACKED)
    while packed.startswith(_GZIP):
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            packed = packed or file.read(_PACKED)
            try:
                piece = stream.decompress(packed, _PIECE)
            except zlib.error:
                raise ImageFileError(path, "has damaged gzip data; export it again.") from None
            if not (piece or packed or stream.eof):
                raise ImageFileError(path, "is cut off: its gzip data have no end; copy or export it again.")
            packed = stream.unconsumed_tail
            if piece:
                yield piece
        yield b""
        packed = stream.unused_data
        if len(packed) < len(_GZIP):
            packed += file.read(_PACKED)


def _zlib() -> Any:
    """The module isal where it is installed, which inflates twice as fast, else Python's own."""
    try:
        from isal import isal_zlib
    except ModuleNotFoundError:
        import zlib

        return zlib
    return isal_zlib
