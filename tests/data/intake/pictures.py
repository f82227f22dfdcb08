"""Pictures: rotation, polarity, bits, density, size, names."""

import os
import struct
import zlib
from pathlib import Path

import tifffile
from PIL import Image

from tests.data.intake.cases import BYTES, Cases, Expected, keep_in, shade

CASES: Cases = {}
_case = keep_in(CASES)
WORDS = (shade() * 60000).astype("u2")


@_case("exif_rotated_jpeg", Expected({"a.jpg": (BYTES.T[:, ::-1], (0.5, 0.5))}, spacing_mm=0.5, atol=4))
def _(folder: Path) -> None:
    """Orientation 6: the 0th row is the right side, the 0th column the top."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(BYTES).save(folder / "a.jpg", exif=exif, quality=95)


@_case("jpeg_dpi_300", Expected({"a.jpg": (BYTES, (0.5, 0.5))}, spacing_mm=0.5, atol=4))
def _(folder: Path) -> None:
    Image.fromarray(BYTES).save(folder / "a.jpg", dpi=(300, 300), quality=95)


@_case("tiff16_miniswhite", Expected({"a.tif": (WORDS, (0.5, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", 65535 - WORDS, photometric="miniswhite")


@_case("tiff32_uint", Expected({"a.tif": ((WORDS.astype("u4") * 60000).astype("f4"), (0.5, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    tifffile.imwrite(folder / "a.tif", WORDS.astype("u4") * 60000, photometric="minisblack")


@_case("bomb_one_bit", Expected({}, {"a.png": "has more than 179 million pixels"}))
def _(folder: Path) -> None:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 14000, 13500, 1, 0, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(1751 * 13500)))
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data + chunk(b"IEND", b""))


@_case("name_not_utf8", Expected({"good.png": (BYTES, (0.5, 0.5))}, {r"M\xfcller.png": "not UTF-8"}, spacing_mm=0.5))
def _(folder: Path) -> None:
    Image.fromarray(BYTES).save(folder / "good.png")
    Image.fromarray(BYTES).save(folder / "t.png")
    (folder / "t.png").rename(os.fsdecode(os.fsencode(folder) + b"/M\xfcller.png"))
