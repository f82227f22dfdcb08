"""Read NIfTI-1 and NIfTI-2 files: one pass over the bytes, whatever the compression and the name."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from medpixcl.data.nifti_placement import nifti_placement
from medpixcl.data.pixels import ImageFileError, Pixels, SpacingMM
from medpixcl.data.placement import placed_pixels, volume_shape

NIFTI_SUFFIXES = (".nii", ".nii.gz")
_GZIP = b"\x1f\x8b"
_START, _LARGEST_HEADER = 65536, 540


def read_nifti(path: Path, spacing_mm: SpacingMM | None = None) -> Pixels:
    """Read a NIfTI volume as (i, j, k), or one slice as (row, column); scale factors and unit of length are applied.

    The memory keeps the order of the file (i runs fastest); a change of order would cost as much as all the rest.

    Args:
        path: File to read; gzip is recognised by content.
        spacing_mm: Voxel size in mm for axes whose size the file does not state.

    Raises:
        ImageFileError: If the file is damaged, holds colours, complex numbers or several volumes.
    """
    content = path.read_bytes()
    header = _header(path, _unpacked(path, content[:_START], _LARGEST_HEADER))
    kind = header.get_data_dtype()
    if not np.issubdtype(kind, np.number):
        raise ImageFileError(path, "holds colours; expected one grey value per voxel.")
    if np.issubdtype(kind, np.complexfloating):
        raise ImageFileError(path, "holds complex numbers; save their magnitude.")
    try:
        placement = nifti_placement(header)
    except ValueError as error:
        raise ImageFileError(path, str(error)) from None
    return placed_pixels(path, _values(path, header, content), placement, spacing_mm, flat=int(header["dim"][0]) == 2)


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


def _values(path: Path, header: Any, content: bytes) -> Float32[np.ndarray, "i j k"]:
    shape = volume_shape(path, tuple(map(int, header.get_data_shape())))
    kind, offset = header.get_data_dtype(), float(header["vox_offset"])
    count, smallest = math.prod(shape), header.template_dtype.itemsize
    if not smallest <= offset < 2**40:
        raise ImageFileError(path, f"announces its voxels at byte {offset:g} of the file (damaged header).")
    end = int(offset) + count * kind.itemsize
    data = _unpacked(path, content, end, to_the_end=True)
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


def _unpacked(path: Path, content: bytes, size: int, *, to_the_end: bool = False) -> bytes:
    """The first ``size`` bytes of a file, decompressed if it is gzip (of one or several members).

    With ``to_the_end``, the checksum that follows these bytes is compared too.
    """
    if not content.startswith(_GZIP):
        return content
    zlib = _zlib()
    parts: list[bytes] = []
    found = 0
    while content.startswith(_GZIP) and found < size:
        stream = zlib.decompressobj(wbits=31)
        try:
            parts.append(stream.decompress(content, size - found))
            more = stream.decompress(stream.unconsumed_tail, 1) if to_the_end else b""
        except zlib.error:
            raise ImageFileError(path, "has damaged gzip data; export it again.") from None
        if to_the_end and not stream.eof and not more:
            raise ImageFileError(path, "is cut off: its gzip data have no end; copy or export it again.")
        found += len(parts[-1])
        content = stream.unused_data
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _zlib() -> Any:
    """The module isal where it is installed, which inflates twice as fast, else Python's own."""
    try:
        from isal import isal_zlib
    except ModuleNotFoundError:
        import zlib

        return zlib
    return isal_zlib
