"""Read TIFF pictures of more than 8 bits, or with channels apart, which Pillow reads wrong, in part or not at all.

Pillow parses the directory and unpacks the bytes; their order, sign, predictor and channels are followed here (TIFF 6.0
and Adobe's Technical Notes 2 and 3).
"""

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from medpixcl.data.claims import check_voxels
from medpixcl.data.pixels import ImageFileError

LUMINANCE = (0.299, 0.587, 0.114)
_KINDS = {1: "u", 2: "i", 3: "f"}
_SIZES = {"u": (8, 16, 32, 64), "i": (8, 16, 32, 64), "f": (16, 32, 64)}
_PLAIN, _DEFLATE, _BY_LIBTIFF = 1, (8, 32946), (5, 32773, 34925, 50000)
_DIFFERENCE, _FLOAT_DIFFERENCE = 2, 3
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2
_ASSOCIATED, _ALPHA = 1, 2
_WIDTH, _PHOTOMETRIC = 256, 262
_SEPARATE = 2
_SIMPLE = 8
"""Bits of a sample up to which Pillow reads all that has its channels together."""
_BIG_ENDIAN_BIGTIFF = b"MM\0+"


@dataclass(frozen=True)
class _Layout:
    """How a TIFF stores its samples.

    Attributes:
        order: ``<`` or ``>``.
        kind: ``u``, ``i`` or ``f``.
        bits: Bits of each sample.
        rows: Rows of the picture.
        columns: Columns of the picture.
        samples: Number of samples of a pixel.
        separate: Whether the samples lie in planes of their own.
        compression: Number of the method.
        predictor: 1 none, 2 differences, 3 differences of the bytes of floats.
        photometric: 0 WhiteIsZero, 1 BlackIsZero, 2 RGB.
        extra: Meaning of the samples beyond grey or RGB: 0 unknown, 1 alpha that is multiplied in, 2 alpha.
        orientation: Value of the tag Orientation.
    """

    order: str
    kind: str
    bits: int
    rows: int
    columns: int
    samples: int
    separate: bool
    compression: int
    predictor: int
    photometric: int
    extra: tuple[int, ...]
    orientation: int

    @property
    def stored(self) -> np.dtype:
        """Type of a sample in the file."""
        return np.dtype(f"{self.order}{self.kind}{self.bits // 8}")


def read_tiff(path: Path, file: BinaryIO) -> tuple[Float32[np.ndarray, "rows columns"], int] | None:
    """Read the grey values of a TIFF, and the value of its tag Orientation, which is not followed.

    Colours are converted to luminance (ITU-R 601), transparent pixels laid over black, WhiteIsZero inverted.

    Args:
        path: File, for messages.
        file: Its content.

    Returns:
        None for what Pillow reads right: up to 8 bits, palettes, JPEG, fax.

    Raises:
        ImageFileError: If the samples are of a kind that is not read here, or the file is cut off.
    """
    file.seek(0)
    if file.read(4) == _BIG_ENDIAN_BIGTIFF:
        raise ImageFileError(path, "is a BigTIFF in big-endian byte order, which is not read here; save it as TIFF.")
    found = _directory(file)
    if found is None:
        return None
    tags, order = found
    if _WIDTH in tags and _PHOTOMETRIC not in tags:
        raise ImageFileError(
            path, "has no PhotometricInterpretation, so that black and white are unknown; save it as a grey PNG."
        )
    layout = _layout(tags, order)
    if layout is None and max(_numbers(tags, 258, 1)) > _SIMPLE:
        raise ImageFileError(path, "stores more than 8 bits in a way that is not read here; save it as a grey PNG.")
    if layout is None or (layout.bits <= _SIMPLE and not layout.separate):
        return None
    if layout.rows * layout.columns > 2 * (Image.MAX_IMAGE_PIXELS or np.inf):
        raise Image.DecompressionBombError
    check_voxels(path, (layout.rows, layout.columns, layout.samples))
    return _grey(path, layout, _samples(path, file, tags, layout)), layout.orientation


def _directory(file: BinaryIO) -> tuple[ImageFileDirectory_v2, str] | None:
    """The first directory, if it is the only one and Pillow can parse it."""
    file.seek(0)
    start = file.read(8)
    try:
        start += file.read(8) if start[2] == 43 else b""
        tags = ImageFileDirectory_v2(start)
        file.seek(tags.next)
        tags.load(file)
    except Exception:  # damaged in one of many ways; Pillow's own message is as good
        return None
    return None if tags.next else (tags, "<" if start[:2] == b"II" else ">")


def _layout(tags: ImageFileDirectory_v2, order: str) -> _Layout | None:
    bits, kinds = set(_numbers(tags, 258, 1)), set(_numbers(tags, 339, 1))
    compression, photometric = _numbers(tags, 259, 1)[0], _numbers(tags, _PHOTOMETRIC)[0]
    kind = _KINDS.get(next(iter(kinds))) if len(kinds) == 1 else None
    known = compression in (_PLAIN, *_DEFLATE, *_BY_LIBTIFF) and photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB)
    if kind is None or len(bits) != 1 or (bit := bits.pop()) not in _SIZES[kind] or not known:
        return None
    if _numbers(tags, 266, 1) != (1,):  # bits in the other order
        return None
    samples = _numbers(tags, 277, 1)[0]
    return _Layout(
        order, kind, bit, _numbers(tags, 257, 0)[0], _numbers(tags, 256, 0)[0], samples,
        samples > 1 and _numbers(tags, 284, 1)[0] == _SEPARATE, compression, _numbers(tags, 317, 1)[0], photometric,
        _numbers(tags, 338), _numbers(tags, 274, 1)[0],
    )  # fmt: skip


def _numbers(tags: ImageFileDirectory_v2, tag: int, *absent: int) -> tuple[int, ...]:
    value = tags.get(tag, absent)
    return tuple(map(int, value)) if isinstance(value, tuple) else (int(value),)


def _grey(path: Path, layout: _Layout, samples: np.ndarray) -> Float32[np.ndarray, "rows columns"]:
    """Grey values of (rows, columns, samples)."""
    colours = 3 if layout.photometric == _RGB else 1
    extra = samples.shape[2] - colours
    if extra not in (0, 1) or (extra == 1 and colours == 1 and layout.extra[:1] not in ((_ASSOCIATED,), (_ALPHA,))):
        raise ImageFileError(
            path, f"holds {samples.shape[2]} channels; expected grey or RGB, alone or with alpha: save one of them."
        )
    if layout.photometric == _WHITE_IS_ZERO:
        if layout.kind != "u":
            reason = "is WhiteIsZero with values that are signed or no integers; save it as BlackIsZero."
            raise ImageFileError(path, reason)
        samples[..., 0] = np.iinfo(samples.dtype).max - samples[..., 0]
    values = samples[..., 0] if colours == 1 else samples[..., :3].astype(np.float64) @ np.array(LUMINANCE)
    if extra and layout.extra[:1] == (_ALPHA,):
        values = values * (samples[..., -1].astype(np.float64) / _opaque(samples.dtype))
    return values.astype(np.float32)


def _opaque(kind: np.dtype) -> float:
    """Value of alpha where nothing shines through."""
    return 1.0 if kind.kind == "f" else float(np.iinfo(kind).max)


def _samples(path: Path, file: BinaryIO, tags: ImageFileDirectory_v2, layout: _Layout) -> np.ndarray:
    """All samples, (rows, columns, samples), in the byte order of this machine."""
    samples = np.empty((layout.rows, layout.columns, layout.samples), layout.stored.newbyteorder("="))
    for chunk, height, (row, column), (first, last) in _chunks(path, file, tags, layout):
        rows, columns = min(height, layout.rows - row), min(chunk.shape[1], layout.columns - column)
        samples[row : row + rows, column : column + columns, first:last] = chunk[:rows, :columns]
    return samples


def _chunks(
    path: Path, file: BinaryIO, tags: ImageFileDirectory_v2, layout: _Layout
) -> Iterator[tuple[np.ndarray, int, tuple[int, int], tuple[int, int]]]:
    """Strips or tiles: samples, number of rows, place (row, column) in the picture, first and last sample."""
    tiled = 322 in tags
    width = _numbers(tags, 322)[0] if tiled else layout.columns
    height = _numbers(tags, 323)[0] if tiled else min(_numbers(tags, 278, layout.rows)[0], layout.rows)
    offsets, sizes = (_numbers(tags, tag) for tag in ((324, 325) if tiled else (273, 279)))
    needed = -(-layout.rows // height) * -(-layout.columns // width) * (layout.samples if layout.separate else 1)
    if not len(offsets) == len(sizes) == needed:
        what = f"names {len(offsets)} parts of {height} x {width} pixels, and its size needs {needed}; export it again."
        raise ImageFileError(path, what)
    places = [(row, column) for row in range(0, layout.rows, height) for column in range(0, layout.columns, width)]
    planes = [(n, n + 1) for n in range(layout.samples)] if layout.separate else [(0, layout.samples)]
    every = [(place, plane) for plane in planes for place in places]
    for offset, size, (place, plane) in zip(offsets, sizes, every, strict=True):
        rows = height if tiled else min(height, layout.rows - place[0])
        file.seek(offset)
        shape = (rows, width, plane[1] - plane[0])
        yield _chunk(path, file.read(size), layout, shape), rows, place, plane


def _chunk(path: Path, packed: bytes, layout: _Layout, shape: tuple[int, int, int]) -> np.ndarray:
    length = int(np.prod(shape)) * layout.stored.itemsize
    data = _unpacked(packed, layout.compression, shape[0], length // shape[0])
    if len(data) < length:
        raise ImageFileError(path, f"is cut off: a part of it holds {len(data)} bytes, expected {length}.")
    if layout.predictor == _FLOAT_DIFFERENCE:
        steps = np.frombuffer(data, np.uint8, length).reshape(shape[0], -1, shape[2])
        planes = np.cumsum(steps, axis=1, dtype=np.uint8).reshape(shape[0], layout.stored.itemsize, -1)
        return np.ascontiguousarray(planes.transpose(0, 2, 1)).view(f">f{layout.stored.itemsize}").reshape(shape)
    values = np.frombuffer(data, layout.stored, int(np.prod(shape))).reshape(shape)
    if layout.predictor == _DIFFERENCE:
        whole = np.dtype(f"u{layout.stored.itemsize}")
        words = values.astype(layout.stored.newbyteorder("=")).view(whole)
        return np.cumsum(words, axis=1, dtype=whole).view(layout.stored.newbyteorder("="))
    return values


def _unpacked(packed: bytes, compression: int, rows: int, row_bytes: int) -> bytes:
    """Bytes of a strip or tile; libtiff unpacks them as if they were a picture of 8 bits, so that it turns none."""
    if compression == _PLAIN:
        return packed
    if compression in _DEFLATE:
        return zlib.decompressobj().decompress(packed, rows * row_bytes)
    entries = ((256, row_bytes), (257, rows), (258, 8), (259, compression), (262, 1), (273, 122), (277, 1), (278, rows),
               (279, len(packed)))  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries)
    content = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + directory + struct.pack("<I", 0) + packed
    with Image.open(io.BytesIO(content), formats=("TIFF",)) as picture:
        return picture.tobytes()
