"""Pictures as every viewer shows them: rotation tags, polarity, bits, formats that are not read, and size."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.scan import scan

STORED = (np.arange(20, dtype=np.uint8) * 12).reshape(4, 5)
SIDES = {
    1: ("top", "left"), 2: ("top", "right"), 3: ("bottom", "right"), 4: ("bottom", "left"),
    5: ("left", "top"), 6: ("right", "top"), 7: ("right", "bottom"), 8: ("left", "bottom"),
}  # fmt: skip
"""TIFF 6.0, tag 274: where the 0th row and the 0th column of the stored picture lie in the one that is shown."""


def shown(stored: np.ndarray, orientation: int) -> np.ndarray:
    """The picture by the words of the standard, pixel by pixel."""
    rows, columns = stored.shape
    result = np.zeros(stored.shape if orientation < 5 else stored.shape[::-1], stored.dtype)
    for row in range(rows):
        for column in range(columns):
            place = {}
            for side, index, count in zip(SIDES[orientation], (row, column), (rows, columns), strict=True):
                axis = "y" if side in ("top", "bottom") else "x"
                place[axis] = index if side in ("top", "left") else count - 1 - index
            result[place["y"], place["x"]] = stored[row, column]
    return result


def pixels(path: Path) -> np.ndarray:
    return read_image(path, spacing_mm=0.5)[0].numpy()


def write_turned(path: Path, values: np.ndarray, orientation: int) -> None:
    if path.suffix == ".tif":
        tifffile.imwrite(path, values, photometric="minisblack", extratags=[(274, 3, 1, orientation, True)])
        return
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(values).save(path, exif=exif, quality=100)


@pytest.mark.parametrize("orientation", SIDES)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "deep.tif", "deep.png"])
def test_rotation_tag_is_followed(tmp_path: Path, name: str, orientation: int) -> None:
    values = STORED.astype(np.uint16) * 250 if name.startswith("deep") else STORED
    write_turned(tmp_path / name, values, orientation)
    np.testing.assert_allclose(pixels(tmp_path / name), shown(values, orientation), atol=2.5 if "jpg" in name else 0)


XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></rdf:RDF></x:xmpmeta>"""
ONE_TAG = b"II*\0\x08\0\0\0\x01\0\x12\x01"
"""A directory of EXIF in little-endian order with the tag Orientation alone, whose type and value follow."""


@pytest.mark.parametrize(
    "options",
    [
        {"exif": b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"},
        {"exif": b"Exif\0\0" + ONE_TAG + b"\x04\0\x01\0\0\0\x06\0\0\0\0\0\0\0"},
        {"exif": b"Exif\0\0" + ONE_TAG + b"\x03\0\x02\0\0\0\x06\0\x06\0\0\0\0\0"},
        {"xmp": XMP.encode()},
    ],
    ids=["big-endian", "of 32 bits", "of two values", "in XMP"],
)
def test_other_ways_to_write_the_rotation(tmp_path: Path, options: dict[str, bytes]) -> None:
    large = np.kron(STORED, np.ones((8, 8), np.uint8))
    Image.fromarray(large).save(tmp_path / "a.jpg", quality=100, **options)
    np.testing.assert_allclose(pixels(tmp_path / "a.jpg"), shown(large, 6), atol=4)


def test_a_rotation_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    write_turned(tmp_path / "a.png", STORED, 6)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4])]
    end = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[start + len(chunk) : end] + chunk + content[end:])
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), shown(STORED, 6))


def test_of_several_jpeg_pictures_the_photograph_is_read(tmp_path: Path) -> None:
    """Telephones store previews and light maps behind it (CIPA DC-007); pages of other files are refused."""
    photograph, preview = (Image.fromarray(np.full((16, 24), value, np.uint8)) for value in (200, 90))
    photograph.save(tmp_path / "a.jpg", format="MPO", save_all=True, append_images=[preview])
    assert pixels(tmp_path / "a.jpg").tolist() == [[200.0] * 24] * 16
    photograph.save(tmp_path / "a.png", save_all=True, append_images=[preview])
    with pytest.raises(ImageFileError, match="holds 2 pages"):
        read_image(tmp_path / "a.png", spacing_mm=1)


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_a_rotation_that_is_not_defined_is_none(tmp_path: Path, orientation: int) -> None:
    write_turned(tmp_path / "a.png", STORED, orientation)
    np.testing.assert_array_equal(pixels(tmp_path / "a.png"), STORED)


def test_landmarks_are_pixels_of_the_picture_as_shown(tmp_path: Path) -> None:
    """A picture taken with the camera on its side (orientation 6): 4 x 5 pixels stored, 5 x 4 shown."""
    write_turned(tmp_path / "a.jpg", STORED, 6)
    (tmp_path / "lm.csv").write_text("image,landmark,x_px,y_px\na.jpg,nasion,1,4\n")
    (entry,) = scan(tmp_path, spacing_mm=0.5, landmarks=tmp_path / "lm.csv").training
    assert entry["shape"] == [5, 4]
    image = read_image(tmp_path / "a.jpg", spacing_mm=0.5)
    points = read_landmarks(tmp_path / "lm.csv").for_image(tmp_path / "a.jpg", image.affine, image.shape[1:])
    assert points.voxels.tolist() == [[4.0, 1.0]]
    assert abs(float(image[0, 4, 1]) - shown(STORED, 6)[4, 1]) <= 2.5


@pytest.mark.parametrize("kind", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_white_is_zero_is_inverted(tmp_path: Path, kind: str, compression: str | None) -> None:
    """TIFF 6.0, PhotometricInterpretation 0: "0 is imaged as white"."""
    top = np.iinfo(kind).max
    black_is_zero = (np.linspace(0, 0.9, 20) * top).astype(kind).reshape(4, 5)
    tifffile.imwrite(tmp_path / "a.tif", top - black_is_zero, photometric="miniswhite", compression=compression)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), black_is_zero)


def test_one_bit_white_is_zero(tmp_path: Path) -> None:
    values = np.array([[True, False, False], [False, True, True]])
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), np.where(values, 0, 255))


def test_white_is_zero_without_a_largest_value_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", STORED.astype(np.float32), photometric="miniswhite")
    with pytest.raises(ImageFileError, match="WhiteIsZero with values that are signed or no integers"):
        read_image(tmp_path / "a.tif", spacing_mm=1)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", ["u4", "i4", "i2", "i1", "f4"])
def test_large_and_negative_values_stay(tmp_path: Path, kind: str, byteorder: Any) -> None:
    """Pillow has no unsigned 32 bits and no signed 8 bits."""
    if kind == "f4":
        values = np.linspace(-3e5, 3e9, 20, dtype="f4").reshape(4, 5)
    else:
        info = np.iinfo(kind)
        values = np.linspace(info.min, info.max, 20).astype(kind).reshape(4, 5)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", byteorder=byteorder)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), values.astype(np.float32))


def write_png(path: Path, values: np.ndarray, colour_type: int) -> None:
    """A PNG of 16 bits by its definition (ISO/IEC 15948)."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


def expected_grey(values: np.ndarray) -> np.ndarray:
    """ITU-R 601 luminance, laid over black."""
    own = values.astype(np.float64)
    grey = own[..., :3] @ [0.299, 0.587, 0.114] if own.shape[-1] > 2 else own[..., 0]
    return grey * own[..., -1] / 65535 if own.shape[-1] in (2, 4) else grey


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_of_colour_and_alpha_stay(tmp_path: Path, suffix: str, channels: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (4, 5, channels)).astype(np.uint16)
    path = tmp_path / f"a.{suffix}"
    if suffix == "png":
        write_png(path, values, {2: 4, 3: 2, 4: 6}[channels])
    else:
        alpha = {"extrasamples": ["unassalpha"]} if channels != 3 else {}
        tifffile.imwrite(path, values, photometric="rgb" if channels > 2 else "minisblack", **alpha)
    np.testing.assert_allclose(pixels(path), expected_grey(values), rtol=1e-5, atol=0.02)


@pytest.mark.parametrize("named", ["own", ".png", ".dat"])
@pytest.mark.parametrize(
    ("suffix", "name"), [(".webp", "WebP"), (".gif", "GIF"), (".jp2", "JPEG 2000"), (".j2k", "JPEG 2000"),
                         (".pgm", "PGM or PPM"), (".ppm", "PGM or PPM"), (".avif", "HEIF or AVIF")]
)  # fmt: skip
def test_other_formats_are_named(tmp_path: Path, suffix: str, name: str, named: str) -> None:
    picture = Image.fromarray(np.full((16, 16), 90, np.uint8))
    path = tmp_path / f"a{suffix}"
    (picture.convert("RGB") if suffix in (".ppm", ".avif") else picture).save(path)
    if named != "own":
        path = path.rename(tmp_path / f"a{named}")
    with pytest.raises(ImageFileError, match=f"is a {name}.* file, which is not read here; convert it to PNG"):
        read_image(path, spacing_mm=1)


@pytest.mark.parametrize("content", [b"hello world, this is text", b"%!PS-Adobe", b"\0" * 40])
def test_what_is_no_picture_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageFileError, match="is no picture, whatever its name says"):
        read_image(tmp_path / "a.png", spacing_mm=1)


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_a_picture_that_is_too_large_has_that_reason(tmp_path: Path, suffix: str, monkeypatch: Any) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    Image.new("1", (500, 401)).save(tmp_path / f"a.{suffix}")
    with pytest.raises(ImageFileError, match=r"has more than 0.2 million pixels; make the picture smaller"):
        read_image(tmp_path / f"a.{suffix}", spacing_mm=1)


@pytest.mark.parametrize("suffix", ["jpg", "tif", "png", "bmp"])
def test_density_is_never_taken_as_a_size(tmp_path: Path, suffix: str) -> None:
    """300 dots per inch would be 0.0847 mm; most such tags are the resolution of a screen or a scanner's default."""
    Image.fromarray(STORED).save(tmp_path / f"a.{suffix}", dpi=(300, 300))
    with pytest.raises(ImageFileError, match="has no pixel spacing; give spacing_mm"):
        read_image(tmp_path / f"a.{suffix}")
    assert read_image(tmp_path / f"a.{suffix}", spacing_mm=0.5).pixdim[:2].tolist() == [0.5, 0.5]
