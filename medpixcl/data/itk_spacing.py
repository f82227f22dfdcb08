"""Where programs on ITK, such as 3D Slicer, put the pixels of a radiograph, and whether that is where they are here."""

from pathlib import Path

import numpy as np

from medpixcl.data.dicom_header import Header, is_dicom, read_header
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.radiograph import PixelSize, radiograph_spacing

_PROJECTIONS = tuple(f"1.2.840.10008.5.1.4.1.1.{kind}" for kind in ("1", "1.1", "1.1.1", "1.2", "1.2.1", "1.3", "1.3.1",
                                                                    "12.1", "12.2"))  # fmt: skip
_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def itk_spacing(header: Header) -> PixelSize:
    """Pixel size (row, column) that ITK (with GDCM) gives a picture: 1 mm where it finds none for its kind.

    Of projections it takes ImagerPixelSpacing alone, without a magnification; of other pictures PixelSpacing, of
    captured ones else NominalScannedPixelSpacing (seen in SimpleITK 2.5.7).
    """
    kind = header.text("SOPClassUID")
    keywords = ["ImagerPixelSpacing"] if kind in _PROJECTIONS else ["PixelSpacing"]
    keywords += ["NominalScannedPixelSpacing"] if kind == _CAPTURE else []
    sizes = [found for keyword in keywords if (found := header.numbers(keyword, 2)) and min(found) > 0]
    return (sizes[0][0], sizes[0][1]) if sizes else (1.0, 1.0)


def why_itk_differs(path: Path) -> str | None:
    """Explain how the mm of a radiograph differ from those of programs on ITK; None if they do not."""
    if not path.is_file() or not is_dicom(path):
        return None
    try:
        header = read_header(path)
        (ours, source), theirs = radiograph_spacing(header), itk_spacing(header)
    except ImageFileError:
        return None
    if ours is None or np.allclose(ours, theirs, rtol=1e-3):
        return None
    return (
        f"points in mm are read with pixels of {ours[0]:.4g} x {ours[1]:.4g} mm ({source}); programs on ITK, such as "
        f"3D Slicer, show this radiograph with {theirs[0]:.4g} x {theirs[1]:.4g} mm, so that points made there belong "
        "elsewhere unless its spacing was set; set it before marking, or give pixels."
    )
