"""Read the elements of an uncompressed DICOM file that matter for a slice, without the rest: much faster than pydicom.

What it does not know (compressed, big-endian or deflated files, sequences of undefined length) it leaves to pydicom.
"""

import struct
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from medpixcl.data.claims import open_binary
from medpixcl.data.dicom_header import HEADER_TAGS, Header

if TYPE_CHECKING:
    from pydicom.dataelem import RawDataElement

_START = 1 << 17
"""Bytes of a file in which the header has to end."""
_IMPLICIT, _EXPLICIT = b"1.2.840.10008.1.2", b"1.2.840.10008.1.2.1"
_LONG = frozenset((b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"))
_PIXELS, _META_END, _SYNTAX, _UNDEFINED = 0x7FE00010, 0x0002FFFF, 0x00020010, 0xFFFFFFFF


@dataclass(frozen=True)
class Elements:
    """Elements of a slice.

    Attributes:
        header: Elements of :data:`medpixcl.data.dicom_header.HEADER_TAGS`.
        pixels: Place of the pixel data in the file, in bytes.
        length: Length of the pixel data in bytes.
    """

    header: Header
    pixels: int
    length: int


def read_elements(path: Path) -> Elements | None:
    """Read the header of an uncompressed little-endian slice; None for any other file."""
    with open_binary(path) as file:
        start = file.read(_START)
    if start[128:132] != b"DICM":
        return None
    try:
        meta, at = _elements(start, 132, implicit=False, last=_META_END)
        syntax = meta[_SYNTAX].value.rstrip(b"\0 ") if _SYNTAX in meta else b""
        if syntax not in (_IMPLICIT, _EXPLICIT):
            return None
        found, at = _elements(start, at, implicit=syntax == _IMPLICIT, last=_PIXELS)
    except (_UnknownError, struct.error):
        return None
    pixels = found.pop(_PIXELS, None)
    if pixels is None or any(_is_sequence(element) for element in found.values()):
        return None
    return Elements(_header(path, found, syntax.decode()), at, pixels.length)


class _UnknownError(Exception):
    """What only pydicom reads."""


def _elements(data: bytes, at: int, *, implicit: bool, last: int) -> "tuple[dict[int, RawDataElement], int]":
    """Wanted elements up to a tag, and where the next one begins; of the pixel data, where their value begins."""
    from pydicom.dataelem import RawDataElement

    found: dict[int, RawDataElement] = {}
    wanted, end = _wanted(), len(data)
    while at < end:
        group, number = struct.unpack_from("<HH", data, at)
        tag = group << 16 | number
        if tag > last:
            return found, at
        kind = data[at + 4 : at + 6]
        if implicit:
            length, value = struct.unpack_from("<I", data, at + 4)[0], at + 8
        elif kind in _LONG:
            length, value = struct.unpack_from("<I", data, at + 8)[0], at + 12
        else:
            length, value = struct.unpack_from("<H", data, at + 6)[0], at + 8
        if length == _UNDEFINED or not (implicit or kind.isalpha()):
            raise _UnknownError
        if tag in wanted:
            vr = None if implicit else kind.decode()
            content = b"" if tag == _PIXELS else data[value : value + length]
            found[tag] = RawDataElement(wanted[tag], vr, length, content, value, implicit, True)
        if tag == _PIXELS:
            return found, value
        at = value + length
    raise _UnknownError


@cache
def _wanted() -> dict[int, int]:
    from pydicom.datadict import tag_for_keyword
    from pydicom.tag import Tag

    numbers = [tag_for_keyword(keyword) for keyword in HEADER_TAGS]
    return {number: Tag(number) for number in (*numbers, _PIXELS, _SYNTAX) if number is not None}


def _is_sequence(element: "RawDataElement") -> bool:
    from pydicom.datadict import dictionary_VR

    return (element.VR or dictionary_VR(element.tag)) in ("SQ", "UN") and element.length > 0


def _header(path: Path, found: "dict[int, RawDataElement]", syntax: str) -> Header:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset

    dataset = Dataset(found)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    return Header(dataset, path)
