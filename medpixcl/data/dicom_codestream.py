"""Size that a compressed frame states itself: decoders take memory for it, whatever the header of the file states."""

import struct

_JPEG_2000, _JPEG_2000_FILE = b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  "
_LONGEST_BOXES = 4096
"""Bytes before the code stream of a JPEG 2000 file."""
_NO_FRAME = (0xC4, 0xC8, 0xCC)
"""Markers among those of frames that begin tables."""
_JPEG_LS = 0xF7
_WITHOUT_LENGTH = (0x01, *range(0xD0, 0xD9))


def stated_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of a frame of JPEG, JPEG-LS or JPEG 2000 by its own header; None for any other.

    Args:
        frame: Compressed frame, at least up to the end of its header.
    """
    if frame.startswith(b"\xff\xd8"):
        return _jpeg_size(frame)
    at = frame.find(_JPEG_2000, 0, _LONGEST_BOXES)
    if not frame.startswith((_JPEG_2000, _JPEG_2000_FILE)) or at < 0 or len(frame) < at + 24:
        return None
    right, bottom, left, top = struct.unpack_from(">4I", frame, at + 8)  # SIZ (ISO/IEC 15444-1 A.5.1)
    return bottom - top, right - left


def _jpeg_size(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns of the first start of frame (ITU-T T.81 B.2.2, T.87 C.2.2)."""
    at = 2
    while at + 9 <= len(frame) and frame[at] == 0xFF:
        marker = frame[at + 1]
        if marker == _JPEG_LS or (0xC0 <= marker <= 0xCF and marker not in _NO_FRAME):
            rows, columns = struct.unpack_from(">2H", frame, at + 5)
            return rows, columns
        if marker == 0xFF:  # fill byte
            at += 1
        else:
            at += 2 if marker in _WITHOUT_LENGTH else 2 + struct.unpack_from(">H", frame, at + 2)[0]
    return None
