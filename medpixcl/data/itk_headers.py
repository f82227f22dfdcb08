"""Facts of NRRD and MetaImage headers that ITK does not tell: stated voxel sizes, their unit, the files of the voxels.

ITK takes 1 mm where a size is missing and reads every unit as mm.
"""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

import numpy as np
from jaxtyping import Float64

from medpixcl.data.claims import open_binary
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.text import quoted

METAIMAGE_SUFFIXES = (".mha", ".mhd")
NRRD_SUFFIXES = (".nrrd", ".nhdr")
_HEADER_BYTES = 1_000_000
_LONGEST_LINE = 400
"""Number of bytes of a line of a NRRD header up to which ITK's reader is safe: it quotes the line in an error message
of 512 bytes, and writes beyond that over its own memory."""
_MM_PER_UNIT = {
    "nm": 1e-6, "nanometer": 1e-6,
    "um": 1e-3, "µm": 1e-3, "μm": 1e-3, "micron": 1e-3, "micrometer": 1e-3,
    "mm": 1.0, "millimeter": 1.0,
    "cm": 10.0, "centimeter": 10.0,
    "m": 1000.0, "meter": 1000.0,
}  # fmt: skip
_LONGEST_NAME = 255
"""Number of characters of the longest name of a file."""
_AXES = re.compile(r"\s*[=:]\s*[1-9]\s*$")
"""What may follow NDims in a MetaImage: ITK's reader has room for ten axes, and does not count."""
_NRRD_FIELDS = frozenset((
    b"content", b"number", b"type", b"block size", b"blocksize", b"dimension", b"space", b"space dimension", b"sizes",
    b"spacings", b"thicknesses", b"axis mins", b"axismins", b"axis maxs", b"axismaxs", b"space directions", b"centers",
    b"centerings", b"kinds", b"labels", b"units", b"min", b"max", b"old min", b"oldmin", b"old max", b"oldmax",
    b"endian", b"encoding", b"line skip", b"lineskip", b"byte skip", b"byteskip", b"sample units", b"sampleunits",
    b"space units", b"space origin", b"measurement frame", b"data file", b"datafile",
))  # fmt: skip
"""Fields of NRRD; before ``:=``, any other word is a key of free text."""
_SPATIAL_KINDS = ("domain", "space", "time", "none", "???")
"""Kinds of axes that ITK takes as axes of the image; along the others lie the values of one voxel."""


@dataclass(frozen=True)
class ItkHeader:
    """Facts of a NRRD or MetaImage header.

    Attributes:
        sizes: Voxel size along each axis of the image as the file states it, in its unit; NaN where it states none.
        mm_per_unit: Length in mm of the unit along each axis of space.
        data_file: Path of the file that holds the voxels, relative to the folder of this one; None if it is this file.
    """

    sizes: Float64[np.ndarray, " n"]
    mm_per_unit: Float64[np.ndarray, " n"]
    data_file: str | None


def read_itk_header(path: Path) -> ItkHeader:
    """Read the header of a NRRD or MetaImage file.

    Raises:
        ImageFileError: If it spreads its voxels over several files or names one outside of its folder or several times,
            has a header without end, or has an axis of length 0 or an unknown unit.
    """
    with open_binary(path) as file:
        text = file.read(_HEADER_BYTES)
    if path.suffix.lower() in METAIMAGE_SUFFIXES:
        return _metaimage(path, text.decode("latin-1"))
    header, *voxels = re.split(rb"\r\n\r\n|\n\n", text, maxsplit=1)
    if not voxels and len(text) == _HEADER_BYTES:
        raise ImageFileError(path, f"has a header of more than {_HEADER_BYTES} bytes; export it again.")
    _check_lines(path, header)
    return _nrrd(path, header.decode("utf-8", "replace"))


def _check_lines(path: Path, header: bytes) -> None:
    """Refuse a line of a NRRD header that ITK cannot hold; comments and free text may be long."""
    for line in header.split(b"\n"):
        key, free, _ = line.partition(b":=")
        is_text = line.startswith((b"#", b"content:")) or (free and key.lower() not in _NRRD_FIELDS)
        if len(line) > _LONGEST_LINE and not is_text:
            raise ImageFileError(
                path, f"has a line of {len(line)} bytes in its NRRD header (damaged); save the image again."
            )


def _metaimage(path: Path, text: str) -> ItkHeader:
    """MetaIO: lines ``Key = Value``, the last of them ``ElementDataFile``."""
    header, *rest = text.split("ElementDataFile")
    if len(rest) != 1:  # ITK may take another one than is found here
        raise ImageFileError(path, f"names its ElementDataFile {len(rest)} times; expected once, at the header's end.")
    found = {key.strip(): value.strip() for key, _, value in (line.partition("=") for line in header.splitlines())}
    dims = _numbers(found.get("DimSize", ""))
    _check_axes(path, dims)
    if not all(_AXES.match(number) for number in re.findall(r"NDims(.*)", header)):
        raise ImageFileError(path, "states no number of axes from 1 to 9 (NDims, damaged); export it again.")
    sizes = _stated(_numbers(found.get("ElementSpacing") or found.get("ElementSize") or ""), len(dims))
    unit = found.get("DistanceUnits", "mm")
    place = re.sub(r"\A[ \t]*[=:]", "", rest[0]).split("\n", 1)[:1]
    return ItkHeader(sizes, np.full(len(dims), _mm(path, unit)), _one_data_file(path, place[0] if place else ""))


def _nrrd(path: Path, text: str) -> ItkHeader:
    """NRRD 4 and 5: lines ``field: value``; ``space directions`` or ``spacings`` state the size of a voxel."""
    fields = [line.partition(":") for line in text.split("\n") if not line.startswith("#")]
    named = [(key.strip().lower().replace(" ", ""), value.strip()) for key, _, value in fields if value[:1] != "="]
    found = dict(named)
    if sum(key == "datafile" for key, _ in named) > 1:  # ITK may take another one than is found here
        raise ImageFileError(path, "names its data file several times; expected once.")
    dims = _numbers(found.get("sizes", ""))
    _check_axes(path, dims)
    kinds = [*found.get("kinds", "").split(), *["domain"] * len(dims)][: len(dims)]
    spatial = np.array([kind.lower() in _SPATIAL_KINDS for kind in kinds])
    vectors = re.findall(r"none|\([^)]*\)", found.get("spacedirections", ""))
    if vectors:
        sizes = _stated([float(np.linalg.norm(_numbers(one) or [np.nan])) for one in vectors], len(dims))
        units = re.findall(r'"([^"]*)"', found.get("spaceunits", ""))
    else:
        sizes = _stated(_numbers(found.get("spacings", "")), len(dims))
        units = re.findall(r'"([^"]*)"', found.get("units", ""))
        units = [one for one, kept in zip(units, spatial, strict=False) if kept]
    factors = [_mm(path, unit) for unit in [*units, *["mm"] * len(dims)][: spatial.sum()]]
    return ItkHeader(
        sizes[spatial], np.array(factors, dtype=np.float64), _one_data_file(path, found.get("datafile", ""))
    )


def _numbers(text: str) -> list[float]:
    return [float(number) for number in re.findall(r"nan|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", text)]


def _stated(sizes: list[float], dims: int) -> Float64[np.ndarray, " n"]:
    """Sizes above 0, NaN for all others and for axes without one."""
    padded = np.array([*sizes, *[np.nan] * dims][:dims], dtype=np.float64)
    return np.where(np.isfinite(padded) & (padded != 0), np.abs(padded), np.nan)


def _check_axes(path: Path, dims: list[float]) -> None:
    if not dims:
        raise ImageFileError(path, "has a header without the size of its axes (damaged or cut off).")
    if 0 in dims:
        shown = " x ".join(f"{size:g}" for size in dims)
        raise ImageFileError(path, f"has an axis of length 0 ({shown}); export it again.")


def _mm(path: Path, unit: str) -> float:
    name = unit.strip().lower()
    factor = _MM_PER_UNIT.get(name, _MM_PER_UNIT.get(name.removesuffix("s").replace("metre", "meter")))
    if factor is None and name not in ("", "?"):
        raise ImageFileError(path, f"has lengths in {quoted(unit)}; expected mm, um, cm or m: export it in mm.")
    return 1.0 if factor is None else factor


def _one_data_file(path: Path, place: str) -> str | None:
    """Name of the data file; None for ``LOCAL`` or an empty entry. A pattern or a list stands for several files."""
    place = place.strip()
    if not place or place.upper() == "LOCAL":
        return None
    if len(place) > _LONGEST_NAME or "\0" in place:
        raise ImageFileError(path, f"names {quoted(place)} as the file of its voxels, which no file can be called.")
    if place.upper().split()[0] == "LIST" or re.search(r"%\d*d", place):
        raise ImageFileError(path, f"spreads its voxels over several files ({place}); save it as one .nii.gz or .nrrd.")
    for kind in (PurePosixPath, PureWindowsPath):
        if (named := kind(place)).drive or named.root or ".." in named.parts:
            raise ImageFileError(
                path,
                f"is a header whose file of voxels, {place}, lies outside of its folder; put it beside the header.",
            )
    return place
