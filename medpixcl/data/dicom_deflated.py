"""How large a deflated DICOM file becomes: pydicom inflates it whole before anything of it can be looked at."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from medpixcl.data.claims import OverLimitError, open_binary
from medpixcl.limits import RAISE_LIMIT, max_voxels

_DEFLATED = b"1.2.840.10008.1.2.1.99"
_PREAMBLE, _META, _SYNTAX = 132, 2, 0x0010
_LONG = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_BYTES_PER_VOXEL = 4
_PACKED, _PIECE = 2**17, 2**20


def check_inflated_size(path: Path) -> None:
    """Refuse a deflated DICOM file that inflates to more bytes than the largest image has; other files pass.

    Raises:
        OverLimitError: If it does; it is not inflated further.
    """
    with open_binary(path) as file:
        if _transfer_syntax(file) != _DEFLATED:
            return
        stream, found, packed = zlib.decompressobj(-zlib.MAX_WBITS), 0, b""
        most = max_voxels() * _BYTES_PER_VOXEL
        while not stream.eof and (packed := packed or file.read(_PACKED)):
            try:
                found += len(stream.decompress(packed, _PIECE))
            except zlib.error:  # for the reader to say
                return
            if found > most:
                raise OverLimitError(
                    path,
                    f"inflates to more than {most / 1e9:.3g} GB, the limit; save it uncompressed, or {RAISE_LIMIT}.",
                )
            packed = stream.unconsumed_tail


def _transfer_syntax(file: BinaryIO) -> bytes:
    """Transfer syntax of a DICOM file, which is left at the first byte behind its meta information (PS3.10 7.1)."""
    file.seek(0 if file.read(_PREAMBLE)[-4:] != b"DICM" else _PREAMBLE)
    syntax = b""
    while len(head := file.read(8)) == 8 and head[:2] == struct.pack("<H", _META):
        number, kind, length = struct.unpack_from("<H", head, 2)[0], head[4:6], struct.unpack_from("<H", head, 6)[0]
        if kind in _LONG:
            length = int.from_bytes(file.read(4), "little")
        elif not (kind.isalpha() and kind.isupper()):  # without the kind of the value
            length = struct.unpack_from("<I", head, 4)[0]
        if number == _SYNTAX:
            syntax = file.read(min(length, 64)).rstrip(b"\0 ")
        else:
            file.seek(length, 1)
    file.seek(-len(head), 1)
    return syntax
