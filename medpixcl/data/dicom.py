"""Tell what a DICOM file holds, and read one: a radiograph as a picture, a multi-frame image as a volume."""

from pathlib import Path

from medpixcl._typing import Number
from medpixcl.data.dicom_header import Header, read_whole
from medpixcl.data.dicom_pixel_bytes import frame_count
from medpixcl.data.multiframe import frame_headers, read_multiframe
from medpixcl.data.pixels import ImageFileError, Pixels, SpacingMM, row_column_spacing
from medpixcl.data.radiograph import read_radiograph

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66"
_NO_IMAGES = {"SEG": "segmentation or surface", "RTDOSE": "dose distribution", "RTSTRUCT": "set of contours"}
_SLICES = ("CT", "MR", "PT")
_PROJECTIONS = ("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA")


def why_unusable(header: Header) -> str | None:
    """Explain why a DICOM object is not one grey image; None if it is.

    Raises:
        ImageFileError: If the header is malformed.
    """
    modality = header.code("Modality")
    if header.text("SOPClassUID").startswith(_SEGMENTATION) or modality in _NO_IMAGES:
        return f"is a DICOM {_NO_IMAGES.get(modality, _NO_IMAGES['SEG'])}; expected an image."
    if not header.whole("Rows") or not header.whole("Columns"):
        if "Image Storage" in _class_name(header):
            return f"is a DICOM image ({modality or 'no modality'}) without Rows and Columns: damaged or cut off."
        return f"is a DICOM object without pixels ({modality or 'no modality'}); expected an image."
    photometric = header.code("PhotometricInterpretation")
    if not photometric:
        return "has no PhotometricInterpretation, so that black and white are unknown; add it to the header."
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return f"is a colour image ({photometric}); expected one grey value per pixel."
    if (samples := header.whole("SamplesPerPixel") or 1) != 1:
        return f"has SamplesPerPixel {samples} and is {photometric}; expected one grey value per pixel."
    if (frames := frame_count(header)) > 1 and "PerFrameFunctionalGroupsSequence" not in header:
        return f"is a multi-frame DICOM image of {frames} frames; convert it to NIfTI or to single-frame DICOM."
    return None


def is_volume(header: Header) -> bool:
    """True if the file holds several frames, each with its place."""
    return frame_count(header) > 1


def is_slice(header: Header) -> bool:
    """True if the image is a slice of a volume, false if it is a picture of its own, as a radiograph is."""
    if header.code("Modality") in _PROJECTIONS:
        return False
    return header.code("Modality") in _SLICES or "ImageOrientationPatient" in header


def slice_header(header: Header) -> Header:
    """Header of a slice with its place at the top, also where an enhanced image has it in a functional group."""
    return frame_headers(header)[0] if "PerFrameFunctionalGroupsSequence" in header else header


def read_dicom(path: Path, *, spacing_mm: SpacingMM | None = None, tolerance_mm: Number | None = None) -> Pixels:
    """Read one file: a radiograph or another picture (rows, columns), or a multi-frame volume (i, j, k).

    Args:
        path: DICOM file.
        spacing_mm: Pixel size in mm, one number or (row, column), of a picture whose header has none.
        tolerance_mm: How far in mm a slice of a volume may lie from its place on the grid.

    Raises:
        ImageFileError: If the file is no grey image, is a single slice, or cannot be decoded.
    """
    header = read_whole(path)
    if (reason := why_unusable(header)) is not None:
        raise ImageFileError(path, reason)
    if is_volume(header):
        return read_multiframe(header, tolerance_mm=tolerance_mm)
    if is_slice(header):
        raise ImageFileError(path, "is one slice of a volume; give the folder of its series, or all its files.")
    return read_radiograph(header, spacing_mm=None if spacing_mm is None else row_column_spacing(spacing_mm))


def _class_name(header: Header) -> str:
    from pydicom.config import IGNORE
    from pydicom.uid import UID

    return UID(header.text("SOPClassUID"), validation_mode=IGNORE).name  # it would warn, and repeat what it was given
