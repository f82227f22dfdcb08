"""Read PNG, JPEG, TIFF and BMP as one grey channel."""

from pathlib import Path

import numpy as np
from jaxtyping import Float32
from PIL import Image

from medpixcl.data.pixels import ImageFileError

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")


def read_picture(path: Path) -> Float32[np.ndarray, "rows columns"]:
    """Read the grey values of a picture as stored (16 bits stay 16 bits; a rotation tag is ignored).

    Colours are converted to luminance (ITU-R 601); transparent pixels are laid over black. Resolution tags (dpi) are
    ignored: many scanners and programs write the resolution of a screen.

    Raises:
        ImageFileError: If the file is cut off, is not a picture, or holds several pages.
    """
    try:
        with Image.open(path) as picture:
            if (pages := getattr(picture, "n_frames", 1)) > 1:
                raise ImageFileError(path, f"holds {pages} pages; expected one picture, split the file.")
            picture.load()
            return np.asarray(_grey(picture), dtype=np.float32)
    except ImageFileError:
        raise
    except Exception as error:  # Pillow's readers raise many kinds on damaged files
        raise ImageFileError(
            path, f"not readable as a picture ({type(error).__name__}), damaged or cut off."
        ) from error


def _grey(picture: Image.Image) -> Image.Image:
    if picture.mode in ("L", "I", "F") or picture.mode.startswith("I;"):
        return picture
    if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
        coloured = picture.convert("RGBA")
        black = Image.new("RGBA", coloured.size, (0, 0, 0, 255))
        return Image.alpha_composite(black, coloured).convert("L")
    return picture.convert("RGB").convert("L")
