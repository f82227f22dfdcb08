"""The bytes that hold the pixels of a DICOM file: in which element they are, and whether there are as many as it says.

Nothing is decoded here: frames of compressed data are counted by their fragments (PS3.5 A.4).
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from medpixcl._typing import Number
from medpixcl.data.dicom_codestream import stated_size
from medpixcl.data.dicom_header import Header
from medpixcl.data.pixels import ImageFileError

PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
"""Elements of which one holds the pixels; compressed ones are in the first."""
_FLOATS = {"FloatPixelData": "f4", "DoubleFloatPixelData": "f8"}
_SIGNED = 1
_WITHOUT_PIXELS = "has no pixel data: it is cut off, or was exported without them."
_ITEM = b"\xfe\xff\x00\xe0"
_ITEM_HEADER = 8
_LONGEST_HEADER = 2**17
"""Bytes that hold the header of a frame; a shorter fragment may hold a part of it."""
_FRAME_BY_FRAME = re.compile(r"(High-Throughput )?JPEG(?! 2000 Part 2)|RLE")
"""Names of transfer syntaxes that pack each frame for itself; a video, or Part 2 of JPEG 2000, packs several as one."""
_FRAME_START = re.compile(
    rb"\xff\xd8"  # JPEG, JPEG-LS
    rb"|\xff\x4f\xff\x51|\0\0\0\x0cjP  "  # JPEG 2000: a code stream, a file
    rb"|[\x01-\x0f]\0\0\0\x40\0\0\0"  # RLE: number of segments, place of the first one
)


def frame_count(header: Header) -> int:
    """Number of frames that the header states, one where it states none."""
    frames = header.whole("NumberOfFrames")
    if frames is not None and frames < 0:
        raise ImageFileError(header.path, f"has NumberOfFrames {frames}; expected a positive number.")
    return frames or 1


def frame_shape(header: Header) -> tuple[int, int, int]:
    """Number of frames, rows and columns."""
    return frame_count(header), header.whole("Rows") or 0, header.whole("Columns") or 0


def pixel_element(header: Header) -> tuple[str, bytes]:
    """Keyword and value of the element that holds the pixels; the value is empty where there are none."""
    found = ((keyword, header.raw_bytes(keyword) or b"") for keyword in PIXELS if keyword in header)
    return next((one for one in found if one[1]), (PIXELS[0], b""))


def is_compressed(header: Header, keyword: str, data: bytes) -> bool:
    """True for pixels that a decoder has to unpack.

    Args:
        header: Header of the file.
        keyword: Element that holds the pixels.
        data: Its value.

    Raises:
        ImageFileError: If the transfer syntax says that they are compressed and they are not, or the other way round.
    """
    syntax = header.dataset.file_meta.TransferSyntaxUID
    stated = keyword == PIXELS[0] and syntax.is_encapsulated
    if data and stated != (data.startswith(_ITEM) if stated else header.dataset[keyword].is_undefined_length):
        raise ImageFileError(
            header.path,
            f"states the transfer syntax {syntax.name}, but its pixel data are {'not ' if stated else ''}compressed; "
            "correct its TransferSyntaxUID.",
        )
    return stated


def native_layout(header: Header, size: int, keyword: str = PIXELS[0]) -> tuple[tuple[int, int, int], np.dtype]:
    """Shape (frames, rows, columns) of uncompressed pixels, and their type in the byte order of the file.

    Args:
        header: Header of the file.
        size: Number of bytes found.
        keyword: Element that holds them.

    Raises:
        ImageFileError: If there are no bytes, or too few for the frames of the header, or it does not say what a pixel
            is.
    """
    if not size:
        raise ImageFileError(header.path, _WITHOUT_PIXELS)
    shape, kind = frame_shape(header), _sample_type(header, keyword)
    expected = math.prod(shape) * kind.itemsize
    if size < expected:
        raise ImageFileError(
            header.path, f"has pixel data that cannot be decoded: {size} bytes, expected {expected}; it is cut off."
        )
    return shape, kind


def check_compressed(header: Header, data: bytes) -> None:
    """Check number and size of the frames of compressed pixel data, as far as they can be told without decoding them.

    Args:
        header: Header of the file.
        data: Value of PixelData.

    Raises:
        ImageFileError: If there are none, fewer, more or other ones than the header states.
    """
    fragments, stated = _fragments(data), frame_count(header)
    if not fragments:
        raise ImageFileError(header.path, _WITHOUT_PIXELS)
    if not _FRAME_BY_FRAME.match(header.dataset.file_meta.TransferSyntaxUID.name):
        return
    starts = sum(_FRAME_START.match(one) is not None for one in fragments)
    _check_frame_sizes(header, fragments)
    if starts > stated:
        raise another_size(header, starts)
    if (found := starts or len(fragments)) < stated:
        raise ImageFileError(
            header.path, f"has the pixel data of {found} of the {stated} frames that its header states; it is cut off."
        )


def _check_frame_sizes(header: Header, fragments: Sequence[bytes]) -> None:
    expected = header.whole("Rows"), header.whole("Columns")
    for number, one in enumerate(fragments):
        size = stated_size(_start_of_frame(fragments, number)) if _FRAME_START.match(one) else None
        if size not in (None, expected):
            found, stated = (" x ".join(map(str, sizes)) for sizes in (size, expected))
            reason = f"holds a compressed picture of {found} pixels, and its header states {stated}; export it again."
            raise ImageFileError(header.path, reason)


def _start_of_frame(fragments: Sequence[bytes], number: int) -> bytes:
    """The frame that begins with a fragment, at least up to the end of its header."""
    start = fragments[number]
    while len(start) < _LONGEST_HEADER and (number := number + 1) < len(fragments):
        start += fragments[number]
    return start


def another_size(header: Header, found: Number) -> ImageFileError:
    """Error for pixel data of another number of frames than the header states."""
    return ImageFileError(
        header.path,
        f"is a multi-frame DICOM image: its pixel data hold {found:.6g} frames of {header.whole('Rows')} x "
        f"{header.whole('Columns')}, and its header states {frame_count(header)}; correct NumberOfFrames, or split it.",
    )


def _fragments(data: bytes) -> list[bytes]:
    """Fragments that are not empty, without the table of offsets before them."""
    found, at = [], 0
    while data.startswith(_ITEM, at):
        start = at + _ITEM_HEADER
        at = start + int.from_bytes(data[at + 4 : start], "little")
        found.append(data[start:at])
    return [one for number, one in enumerate(found) if one and (number or _FRAME_START.match(one))]


def _sample_type(header: Header, keyword: str) -> np.dtype:
    order = "<" if header.dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    if keyword in _FLOATS:
        return np.dtype(f"{order}{_FLOATS[keyword]}")
    allocated = header.whole("BitsAllocated")
    if allocated not in (8, 16, 32):
        raise ImageFileError(header.path, f"has BitsAllocated {allocated}; expected 8, 16 or 32 bits for a grey value.")
    representation = header.whole("PixelRepresentation") or 0
    if representation not in (0, _SIGNED):
        raise ImageFileError(header.path, f"has PixelRepresentation {representation}; expected 0, or 1 for signed.")
    return np.dtype(f"{order}{'i' if representation == _SIGNED else 'u'}{allocated // 8}")
