"""Read PNG, JPEG, TIFF and BMP as one grey channel, the way round that every viewer shows them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Float32
from PIL import Image, UnidentifiedImageError

from medpixcl.data.claims import check_voxels, open_binary
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.tiff import LUMINANCE, read_tiff

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
PICTURE_SIGNATURES = (b"\x89PNG\r\n", b"\xff\xd8\xff", *_TIFF, b"BM")
_FORMATS = ("PNG", "JPEG", "TIFF", "BMP")
_SEVERAL_JPEG = "MPO"
"""Several JPEG pictures in one file, as telephones write: the first is the photograph, which all viewers show."""
_OTHERS = {
    "WebP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "PGM or PPM (Netpbm)": rb"P[1-7]\s+[\d#W]",
    "HEIF or AVIF": rb"....ftyp(?:hei|hev|mif|msf|avi)",
    "JPEG XL": rb"\0\0\0\x0cJXL ",
    "Photoshop": rb"8BPS",
    "OpenEXR": rb"v/1\x01",
    "PDF": rb"%PDF-",
}
_ORIENTATION, _SAMPLE_FORMAT, _SIGNED = 0x0112, 339, 2
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    2: lambda rows: rows[:, ::-1],
    3: lambda rows: rows[::-1, ::-1],
    4: lambda rows: rows[::-1],
    5: lambda rows: rows.T,
    6: lambda rows: rows.T[:, ::-1],
    7: lambda rows: rows.T[::-1, ::-1],
    8: lambda rows: rows.T[::-1],
}
"""What shows a picture upright, by the value of the EXIF tag Orientation (TIFF 6.0: the row and column of its top)."""


def read_picture(path: Path) -> Float32[np.ndarray, "rows columns"]:
    """Read the grey values of a picture as viewers show it: a rotation tag is followed, WhiteIsZero is inverted.

    Values keep their range (16 bits stay 16 bits). Colours are converted to luminance (ITU-R 601); transparent pixels
    are laid over black. Resolution tags (dpi) are ignored: many scanners and programs write the resolution of a screen.

    Raises:
        ImageFileError: If the file is cut off, is not a picture or too large a one, or holds several pages.
    """
    with open_binary(path) as file:
        start = file.read(16)
        if (other := other_format(start)) is not None:
            raise ImageFileError(path, f"{other}.")
        file.seek(0)
        # By its name, Pillow 13 maps an uncompressed TIFF into memory and then turns rows of a wrong length.
        return _read(path, file, start)


def _read(path: Path, file: BinaryIO, start: bytes) -> Float32[np.ndarray, "rows columns"]:
    try:
        if start.startswith(_TIFF) and (found := read_tiff(path, file)) is not None:
            return _turned(*found)
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as picture:
            if (pages := getattr(picture, "n_frames", 1)) > 1 and picture.format != _SEVERAL_JPEG:
                raise ImageFileError(path, f"holds {pages} pages; expected one picture, split the file.")
            check_voxels(path, picture.size[::-1])
            values = _deep_colour(path, picture) if _is_deep_colour(picture) else _grey_values(picture)
            return _turned(values, picture.getexif().get(_ORIENTATION, 1))  # Pillow has turned a TIFF
    except ImageFileError:
        raise
    except Image.DecompressionBombError:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) / 1e6
        raise ImageFileError(path, f"has more than {limit:.3g} million pixels; make the picture smaller.") from None
    except UnidentifiedImageError:
        raise ImageFileError(path, _why_unknown(start)) from None
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        what = f"not readable as a picture ({type(error).__name__}): damaged or cut off, or stored in a way that is not"
        raise ImageFileError(path, f"{what} read here; save it as a grey PNG.") from error


def _turned(values: Float32[np.ndarray, "r c"], orientation: int) -> Float32[np.ndarray, "rows columns"]:
    """The picture as it is shown."""
    return np.ascontiguousarray(_UPRIGHT.get(orientation, lambda rows: rows)(values))


def other_format(start: bytes) -> str | None:
    """Name a format of pictures that is not read here, and what to do; None if the first bytes of a file are of none.

    Example:
        >>> other_format(b"GIF89a")
        'is a GIF file, which is not read here; convert it to PNG'
    """
    name = next((name for name, pattern in _OTHERS.items() if re.match(pattern, start, re.DOTALL)), None)
    return None if name is None else f"is a {name} file, which is not read here; convert it to PNG"


def _why_unknown(start: bytes) -> str:
    if start.startswith(PICTURE_SIGNATURES):
        return "is damaged, or stores its pixels in a way that is not read here; save it as a grey PNG."
    return "is no picture, whatever its name says."


def _grey_values(picture: Image.Image) -> Float32[np.ndarray, "rows columns"]:
    signed = getattr(picture, "tag_v2", {}).get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED
    picture.load()
    stored = np.asarray(_grey(picture))
    return (stored.view(np.int8) if signed and stored.dtype == np.uint8 else stored).astype(np.float32)


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;"):
        return picture
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, coloured).convert("L")
    return picture.convert("RGB").convert("L")


def _raw_mode(picture: Image.Image) -> str:
    """Name that Pillow gives to the samples in the file, such as ``RGB;16B``."""
    tiles = getattr(picture, "tile", None)
    args = tiles[0][3] if tiles else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _is_deep_colour(picture: Image.Image) -> bool:
    """True for 16-bit colour or alpha, of which Pillow would keep 8 bits."""
    return ";16" in _raw_mode(picture) and picture.mode not in ("L", "I", "F") and not picture.mode.startswith("I;")


def _deep_colour(path: Path, picture: Image.Image) -> Float32[np.ndarray, "rows columns"]:
    """Luminance of a PNG with 16 bits a channel, read by ITK."""
    import itk

    mode = _raw_mode(picture).partition(";")[0]
    if picture.format != "PNG" or mode not in ("LA", "RGB", "RGBA"):
        raise ImageFileError(path, f"holds 16-bit colour ({mode}) in a way that is not read here; save it as a PNG.")
    reader = itk.ImageFileReader[itk.VectorImage[itk.US, 2]].New(FileName=str(path))
    reader.Update()
    channels = itk.array_from_image(reader.GetOutput()).astype(np.float32)
    colours = 1 if mode == "LA" else 3
    if channels.shape[-1] < colours + mode.endswith("A"):
        raise ImageFileError(path, f"holds {channels.shape[-1]} channels where {mode} was expected; save it as a PNG.")
    values = channels[..., :colours] @ np.array(LUMINANCE if colours == 3 else (1.0,), dtype=np.float32)
    return values * (channels[..., colours] / 65535) if mode.endswith("A") else values
