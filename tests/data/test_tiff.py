"""TIFF in all its layouts: read as tifffile and ITK wrote it, or refused with a true reason."""

import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
import tifffile

from medpixcl.data.images import read_image
from medpixcl.data.pixels import ImageFileError

SHAPE = (40, 35)
KINDS = ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "f2", "f4", "f8"]


def pixels(path: Path) -> np.ndarray:
    return read_image(path, spacing_mm=0.5)[0].numpy()


def ramp(kind: str, *channels: int) -> np.ndarray:
    """All of the range of a type; of floats, what 16 bits can hold."""
    shape = (*SHAPE, *channels)
    info: Any = np.finfo("f2") if kind[0] == "f" else np.iinfo(kind)
    values = np.linspace(float(info.min), float(info.max), int(np.prod(shape)))
    return np.clip(values, info.min, np.nextafter(float(info.max), 0)).astype(kind).reshape(shape)


def grey(values: np.ndarray) -> np.ndarray:
    """ITU-R 601 luminance, laid over black where there is alpha."""
    own = values.astype(np.float64)
    colours = own[..., :3] @ [0.299, 0.587, 0.114] if own.shape[-1] > 2 else own[..., 0]
    top = 1.0 if values.dtype.kind == "f" else np.iinfo(values.dtype).max
    return colours * own[..., -1] / top if own.shape[-1] in (2, 4) else colours


LAYOUTS = [
    {"compression": packing, "predictor": predictor, "tile": tile}
    for packing, predictor, tile in itertools.product((None, "zlib"), (None, 2), (None, (16, 16)))
    if predictor is None or packing == "zlib"
]


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("kind", KINDS)
def test_grey_of_every_type(tmp_path: Path, kind: str, byteorder: Any) -> None:
    """Strips and tiles, packed and not, with differences of neighbours; WhiteIsZero of whole numbers turned."""
    values = ramp(kind)
    for number, layout in enumerate(LAYOUTS):
        if layout["predictor"] and kind[0] == "f":
            continue
        for photometric in ("minisblack", "miniswhite") if kind[0] == "u" else ("minisblack",):
            path = tmp_path / f"{number}{photometric}.tif"
            stored = values if photometric == "minisblack" else np.iinfo(kind).max - values
            tifffile.imwrite(path, stored, photometric=photometric, byteorder=byteorder, **layout)
            np.testing.assert_array_equal(pixels(path), values.astype(np.float32), err_msg=str(layout))


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("kind", ["u1", "u2", "u4", "f4"])
def test_colour_and_alpha(tmp_path: Path, kind: str, channels: int, planar: Any, byteorder: Any) -> None:
    """Channels of a pixel together or in planes of their own."""
    values = ramp(kind, channels) if kind[0] == "u" else np.random.default_rng(0).random((*SHAPE, channels), "f4")
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    alpha = {"extrasamples": ["unassalpha"]} if channels != 3 else {}
    for number, layout in enumerate(LAYOUTS):
        if layout["predictor"] and kind[0] == "f":
            continue
        path = tmp_path / f"{number}.tif"
        tifffile.imwrite(
            path, stored, photometric="rgb" if channels > 2 else "minisblack", planarconfig=planar,
            byteorder=byteorder, **alpha, **layout,
        )  # fmt: skip
        expected = grey(values)
        np.testing.assert_allclose(
            pixels(path), expected, rtol=1e-6, atol=1.0 if kind == "u1" else 1e-6 * expected.max(), err_msg=str(layout)
        )


@pytest.mark.parametrize(
    "kind", [SimpleITK.sitkUInt16, SimpleITK.sitkInt16, SimpleITK.sitkFloat32, SimpleITK.sitkVectorUInt16]
)
@pytest.mark.parametrize("packing", ["LZW", "Deflate", "PackBits"])
def test_what_itk_packs(tmp_path: Path, kind: int, packing: str) -> None:
    colour = kind == SimpleITK.sitkVectorUInt16
    values = np.random.default_rng(0).integers(0, 30000, (*SHAPE, 3) if colour else SHAPE)
    image = SimpleITK.Cast(SimpleITK.GetImageFromArray(values.astype(np.uint16), isVector=colour), kind)
    SimpleITK.WriteImage(image, str(tmp_path / "a.tif"), useCompression=True, compressor=packing)
    expected = grey(values.astype(np.uint16)) if colour else values
    np.testing.assert_allclose(pixels(tmp_path / "a.tif"), expected, atol=0.01 if colour else 0)


@pytest.mark.parametrize("samples", [1, 3])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_differences_of_the_bytes_of_floats(tmp_path: Path, kind: str, samples: int) -> None:
    """Adobe's TIFF Technical Note 3: all first bytes of a row, then all second ones, each less the one before."""
    values = np.random.default_rng(0).random((4, 5, samples)).astype(kind)
    strip = b""
    for row in values:
        in_planes = row.astype(f">{kind}").reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T.reshape(-1)
        strip += bytes((int(one) - (int(in_planes[n - samples]) if n >= samples else 0)) % 256
                       for n, one in enumerate(in_planes))  # fmt: skip
    write_tiff(tmp_path / "a.tif", zlib.compress(strip), {
        256: 5, 257: 4, 258: values.itemsize * 8, 259: 8, 262: 2 if samples == 3 else 1, 277: samples, 278: 4, 317: 3,
        339: 3,
    })  # fmt: skip
    np.testing.assert_allclose(pixels(tmp_path / "a.tif"), grey(values), rtol=1e-6)


def write_tiff(path: Path, strip: bytes, tags: dict[int, int]) -> None:
    """A TIFF of one strip by its definition; every value is one number, of all samples."""
    tags = {**tags, 273: 8, 279: len(strip)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(tags.items())]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(strip)) + strip + directory)


@pytest.mark.parametrize(("bits", "photometric"), [(4, 0), (4, 1), (8, 0), (8, 1)])
@pytest.mark.parametrize("fill_order", [1, 2])
def test_few_bits_in_either_order_and_polarity(tmp_path: Path, bits: int, photometric: int, fill_order: int) -> None:
    """TIFF 6.0: pixels from the high bits of a byte to the low ones, or the bits of each byte in the other order."""
    levels = np.random.default_rng(0).integers(0, 2**bits, (4, 6))
    packed = levels[:, ::2] << 4 | levels[:, 1::2] if bits == 4 else levels
    strip = [int(f"{byte:08b}"[::-1], 2) if fill_order == 2 else byte for byte in packed.ravel().tolist()]
    tags = {256: 6, 257: 4, 258: bits, 259: 1, 262: photometric, 266: fill_order, 277: 1, 278: 4}
    write_tiff(tmp_path / "a.tif", bytes(strip), tags)
    if (bits, photometric, fill_order) == (8, 0, 2):
        with pytest.raises(ImageFileError, match="or stored in a way that is not read here"):
            read_image(tmp_path / "a.tif", spacing_mm=1)
        return
    bright = levels * 255 // (2**bits - 1)
    np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), bright if photometric else 255 - bright)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_polarity_that_is_not_stated_is_never_guessed(tmp_path: Path, bits: int) -> None:
    """Pillow takes white for 0, libtiff black."""
    tags = {256: 4, 257: 4, 258: bits, 259: 1, 277: 1, 278: 4}
    write_tiff(tmp_path / "a.tif", bytes(range(2 * bits)), tags)
    with pytest.raises(ImageFileError, match="has no PhotometricInterpretation, so that black and white are unknown"):
        read_image(tmp_path / "a.tif", spacing_mm=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_deep_colour_is_that_of_its_grey(tmp_path: Path, orientation: int) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (4, 5)).astype(np.uint16)
    turn: Any = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "grey.tif", values, photometric="minisblack", extratags=turn)
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([values] * 3, -1), photometric="rgb", extratags=turn)
    np.testing.assert_allclose(pixels(tmp_path / "rgb.tif"), pixels(tmp_path / "grey.tif"), rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "options", "sentence"),
    [
        (ramp("u2"), {"byteorder": ">", "bigtiff": True}, "is a BigTIFF in big-endian byte order"),
        (ramp("u2", 2), {"photometric": "minisblack", "planarconfig": "contig"}, "holds 2 channels"),
        (ramp("i2"), {"photometric": "miniswhite"}, "is WhiteIsZero with values that are signed"),
        (np.stack([ramp("u2")] * 2), {"photometric": "minisblack"}, "holds 2 pages"),
        (ramp("u2").astype("c8"), {}, "stores more than 8 bits in a way that is not read here"),
    ],
)  # fmt: skip
def test_other_layouts_are_named(tmp_path: Path, values: np.ndarray, options: dict, sentence: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path / "a.tif", spacing_mm=1)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_part_that_is_cut_off(tmp_path: Path, compression: Any, share: float) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (60, 50)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: int(share * len(content))])
    with pytest.raises(ImageFileError, match=r"cut off|damaged"):
        read_image(tmp_path / "a.tif", spacing_mm=1)


def test_big_tiff(tmp_path: Path) -> None:
    for kind in ("u1", "u2", "f4"):
        tifffile.imwrite(tmp_path / "a.tif", ramp(kind), bigtiff=True, photometric="minisblack")
        np.testing.assert_array_equal(pixels(tmp_path / "a.tif"), ramp(kind).astype(np.float32))
