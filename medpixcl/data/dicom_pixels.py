"""Decode the pixel data of DICOM files, and bring them to their physical values."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float32

from medpixcl.data.claims import check_voxels
from medpixcl.data.dicom_header import Header, readable
from medpixcl.data.dicom_pixel_bytes import (
    PIXELS,
    another_size,
    check_compressed,
    frame_shape,
    is_compressed,
    native_layout,
    pixel_element,
)
from medpixcl.data.pixels import ImageFileError

_RLE = "1.2.840.10008.1.2.5"
"""Transfer syntax that packs the bytes as they stand, with all bits of a pixel where they were."""
_EXACT_BITS = 16
"""float32 holds products of integers up to this size without a loss that matters."""


def stored_values(header: Header, native: bytes | None = None) -> np.ndarray:
    """Decode the pixels as stored, shape (frames, rows, columns).

    Bits outside of BitsStored, such as old overlays, are cleared, and data beyond the last pixel are ignored (PS3.5
    8.1.1), unless they hold something that looks like more frames than the header states.

    Args:
        header: Header of the file, with its pixel data unless these are given.
        native: Uncompressed pixel data as they stand in the file.

    Raises:
        ImageFileError: If a decoder is missing, or the pixel data are absent, cut off or of another size.
    """
    check_voxels(header.path, frame_shape(header))
    keyword, data = pixel_element(header) if native is None else (PIXELS[0], native)
    if native is not None or not is_compressed(header, keyword, data):
        values, aligned = _native(header, keyword, data), False
    else:
        check_compressed(header, data)
        values, aligned = _decoded(header), header.dataset.file_meta.TransferSyntaxUID != _RLE
    return values if values.dtype.kind == "f" else _stored_bits(header, values, aligned=aligned)


def modality_values(
    header: Header, stored: np.ndarray, out: Float32[np.ndarray, "*s"] | None = None
) -> Float32[np.ndarray, "*s"]:
    """Apply the Modality LUT, or rescale slope and intercept, to stored values: HU for CT.

    Args:
        header: Header of the file.
        stored: Values as :func:`stored_values` gives them, any shape.
        out: Array of that shape to write the result to; a new one by default.

    Raises:
        ImageFileError: If slope or intercept is no number, the slope is 0, or the table is damaged.
    """
    result = np.empty(stored.shape, dtype=np.float32) if out is None else out
    if tables := header.items("ModalityLUTSequence"):
        result[...] = looked_up(tables[0], stored)
        return result
    slope, intercept = rescale_of(header)
    if stored.dtype.itemsize * 8 > _EXACT_BITS:
        result[...] = stored.astype(np.float64) * slope + intercept
    elif slope == 1:
        np.add(stored, intercept, out=result, dtype=np.float32)
    else:
        np.multiply(stored, slope, out=result, dtype=np.float32)
        result += np.float32(intercept)
    return result


def rescale_of(header: Header) -> tuple[float, float]:
    """Rescale slope and intercept; 1 and 0 where they are absent or empty."""
    slope, intercept = header.number("RescaleSlope"), header.number("RescaleIntercept")
    if slope == 0:
        raise ImageFileError(header.path, "has RescaleSlope 0, which makes every pixel equal; export it again.")
    return 1.0 if slope is None else slope, intercept or 0.0


def looked_up(table: Header, values: np.ndarray) -> Float32[np.ndarray, "*s"]:
    """Map values by a lookup table (PS3.3 C.11.1.1); those outside of it get its first or last entry.

    Raises:
        ImageFileError: If the table has no descriptor, or not as many entries as that says.
    """
    descriptor = table.numbers("LUTDescriptor", 3)
    if descriptor is None:
        raise ImageFileError(table.path, "has a lookup table without LUTDescriptor; export it again.")
    count = int(descriptor[0]) % 2**16 or 2**16
    first = descriptor[1]
    if first >= 2**15 and values.min() < 0:
        first -= 2**16  # a signed number written as an unsigned one
    entries = _entries(table, count)
    index = np.clip(np.rint(values - first), 0, count - 1).astype(np.int64)
    return entries[index].astype(np.float32)


def missing_decoder(syntax: Any, bits: int = 8) -> str | None:
    """Packages to install, so that a transfer syntax can be decoded; empty if no package can, None if one is there.

    Args:
        syntax: UID of the transfer syntax.
        bits: BitsStored; Pillow decodes JPEG Extended of 8 bits alone.
    """
    from pydicom.pixels import get_decoder
    from pydicom.uid import JPEGExtended12Bit

    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return ""
    able = [
        plugin for plugin in decoder.available_plugins if bits <= 8 or syntax != JPEGExtended12Bit or plugin != "pillow"
    ]
    if able:
        return None
    needs = dict.fromkeys(line.split("requires ")[-1].strip() for line in decoder.missing_dependencies)
    return "; ".join(needs).replace("gdcm>", "python-gdcm>")


def _native(header: Header, keyword: str, data: bytes) -> np.ndarray:
    shape, kind = native_layout(header, len(data), keyword)
    count = math.prod(shape)
    beyond, frame = data[count * kind.itemsize :], count // shape[0] * kind.itemsize
    if len(beyond) >= frame and any(beyond):
        raise another_size(header, len(data) / frame)
    big_endian = not header.dataset.file_meta.TransferSyntaxUID.is_little_endian
    if kind.itemsize == 1 and big_endian and header.dataset[keyword].VR == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    values = np.frombuffer(data, kind, count).reshape(shape)
    return values.astype(kind.newbyteorder("=")) if big_endian else values


def _decoded(header: Header) -> np.ndarray:
    from pydicom.pixels import pixel_array

    syntax = header.dataset.file_meta.TransferSyntaxUID
    bits = header.whole("BitsStored") or 8
    needs = missing_decoder(syntax, bits)
    if needs is not None:
        advice = f"to decode it, install one of: {needs}" if needs else "no package here decodes it; convert the file"
        raise ImageFileError(header.path, f"is compressed as {syntax.name} ({bits} bits); {advice}.")
    shape = frame_shape(header)
    with readable(header.path, "has pixel data that cannot be decoded"):
        values = np.asarray(pixel_array(header.dataset, correct_unused_bits=False))
    if values.size != np.prod(shape):
        raise another_size(header, values.size / (shape[1] * shape[2]))
    return values.reshape(shape)


def _stored_bits(header: Header, values: np.ndarray, *, aligned: bool) -> np.ndarray:
    """Keep the bits that hold the pixel; JPEG decoders have ``aligned`` them to the lowest bit."""
    allocated = values.dtype.itemsize * 8
    stored = header.whole("BitsStored") or allocated
    high = stored - 1 if aligned else header.whole("HighBit")
    high = stored - 1 if high is None else high
    if not 0 < stored <= high + 1 <= allocated:
        raise ImageFileError(
            header.path,
            f"has BitsStored {stored}, HighBit {high} and {allocated} bits a pixel; expected BitsStored <= HighBit + 1 "
            "<= BitsAllocated.",
        )
    if stored == allocated:
        return values
    return np.right_shift(np.left_shift(values, allocated - 1 - high), allocated - stored)


def _entries(table: Header, count: int) -> np.ndarray:
    """Entries of a lookup table: 16-bit words, or two 8-bit entries packed in one word."""
    data = table.raw_bytes("LUTData")
    if data is None:
        numbers = table.numbers("LUTData") or ()
        data = b"".join(int(one).to_bytes(2, "little", signed=one < 0) for one in numbers)
        little = True
    else:
        little = getattr(table.dataset, "original_encoding", (None, True))[1] is not False
    for kind in (f"{'<' if little else '>'}u2", "u1"):
        if len(data) >= count * np.dtype(kind).itemsize:
            return np.frombuffer(data, kind, count)
    raise ImageFileError(table.path, f"has a lookup table of {len(data)} bytes; expected {count} entries.")


def decoders() -> list[tuple[str, str | None]]:
    """Name of every compressed transfer syntax of grey images, and what :func:`missing_decoder` says of it."""
    from pydicom import uid

    syntaxes = (
        uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1, uid.JPEGLSLossless,
        uid.JPEGLSNearLossless, uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.RLELossless,
    )  # fmt: skip
    return [
        (syntax.name, missing_decoder(syntax, bits=12 if syntax == uid.JPEGExtended12Bit else 8)) for syntax in syntaxes
    ]
