"""Read single DICOM files: headers, grey values, radiographs.

Nothing that names a person (names, numbers, dates of a header) is read, kept or repeated in a message.
"""

import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32

from medpixcl.coordinates import image_affine
from medpixcl.data.pixels import ImageFileError, MissingSpacingError, Pixels

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER_TAGS = (
    "SOPClassUID",
    "SeriesInstanceUID",
    "Modality",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "NominalScannedPixelSpacing",
    "EstimatedRadiographicMagnificationFactor",
)
_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66"
_SPACING_TAGS = ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing")


def is_dicom(path: Path) -> bool:
    """True for a file with the DICOM prefix, and for the older kind that starts with its first element."""
    with path.open("rb") as file:
        start = file.read(132)
    if start[128:] == b"DICM":
        return True
    if len(start) < 16:
        return False
    group, element, length = struct.unpack("<HHI", start[:8])
    explicit = start[4:6] in (b"UL", b"UI", b"CS")
    return group in (0x0002, 0x0008) and element <= 0x0018 and (explicit or length <= 64)


def read_header(path: Path) -> "Dataset":
    """Read the elements of ``HEADER_TAGS``, without pixels.

    Raises:
        ImageFileError: If the file is not DICOM or damaged.
    """
    return read_dataset(path, stop_before_pixels=True, specific_tags=[*HEADER_TAGS])


def why_unusable(header: "Dataset") -> str | None:
    """Explain why a DICOM object is not one grey image; None if it is."""
    if str(header.get("SOPClassUID", "")).startswith(_SEGMENTATION) or header.get("Modality") == "SEG":
        return "is a DICOM segmentation or surface; expected an image."
    if not header.get("Rows") or not header.get("Columns"):
        return f"is a DICOM object without pixels ({header.get('Modality') or 'no modality'}); expected an image."
    frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1 or "PerFrameFunctionalGroupsSequence" in header:
        return f"is a multi-frame DICOM image of {frames} frames; convert it to NIfTI or to single-frame DICOM."
    photometric = header.get("PhotometricInterpretation", "")
    if header.get("SamplesPerPixel", 1) != 1 or photometric not in ("MONOCHROME1", "MONOCHROME2"):
        return f"is a colour image ({photometric}); expected one grey value per pixel."
    return None


def is_slice(header: "Dataset") -> bool:
    """True if the image is a slice of a volume, false if it is a picture of its own, as a radiograph is."""
    return header.get("Modality") in ("CT", "MR", "PT") or "ImageOrientationPatient" in header


def read_radiograph(path: Path, *, spacing_mm: tuple[float, float] | None = None) -> Pixels:
    """Read a DICOM picture as a person sees it: bright is dense, the first window applied.

    MONOCHROME1 is inverted, the Modality LUT and the VOI LUT (or window) are applied (DICOM PS3.3 C.11.1, C.11.2).
    The pixel size is that of :func:`radiograph_spacing`, else ``spacing_mm``, else unknown.

    Raises:
        ImageFileError: If the pixels cannot be decoded.
    """
    from pydicom.pixels import apply_voi_lut

    dataset = read_dataset(path)
    if (reason := why_unusable(dataset)) is not None:
        raise ImageFileError(path, reason)
    grey = modality_values(dataset, path)
    with _quiet(path, "has a VOI LUT or window that cannot be applied"):
        whole = np.array_equal(grey, np.rint(grey))
        seen = np.asarray(apply_voi_lut(grey.astype(np.int32) if whole else grey, dataset), dtype=np.float32)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        seen = seen.max() - seen
    spacing, source = radiograph_spacing(dataset, path)
    if spacing is None and spacing_mm is not None:
        spacing, source = spacing_mm, "given"
    affine = None if spacing is None else image_affine(spacing).numpy()
    return Pixels(seen, affine, source, str(dataset.get("Modality") or ""))


def radiograph_spacing(header: "Dataset", path: Path) -> tuple[tuple[float, float] | None, str]:
    """Pixel size (row, column) in mm of a projection image, and which DICOM attribute it comes from.

    PixelSpacing counts as it stands (calibrated); ImagerPixelSpacing is measured at the detector and is divided by
    EstimatedRadiographicMagnificationFactor where that is given; NominalScannedPixelSpacing is that of a film scanner.
    """
    for tag in _SPACING_TAGS:
        if not header.get(tag):
            continue
        row, column = _positive_pair(header, tag, path)
        magnification = float(header.get("EstimatedRadiographicMagnificationFactor") or 0)
        if tag == "ImagerPixelSpacing" and magnification > 0:
            return (row / magnification, column / magnification), f"{tag} / magnification {magnification:g}"
        return (row, column), tag
    return None, "unknown"


def slice_spacing(header: "Dataset", path: Path) -> tuple[float, float]:
    """Distance in mm of neighbouring rows and of neighbouring columns of a slice."""
    if not header.get("PixelSpacing"):
        raise MissingSpacingError(path, "slice has no PixelSpacing; expected the size of a pixel in mm.")
    return _positive_pair(header, "PixelSpacing", path)


def read_slice_values(path: Path) -> Float32[np.ndarray, "rows columns"]:
    """Read the values of one slice after rescaling: HU for CT."""
    return modality_values(read_dataset(path), path)


def modality_values(dataset: "Dataset", path: Path) -> Float32[np.ndarray, "rows columns"]:
    """Decode the pixels and apply the Modality LUT (rescale slope and intercept).

    Raises:
        ImageFileError: If a decoder is missing, or the pixel data are absent or cut off.
    """
    from pydicom.pixels import apply_modality_lut

    _require_decoder(dataset, path)
    with _quiet(path, "has pixel data that cannot be decoded"):
        return np.asarray(apply_modality_lut(dataset.pixel_array, dataset), dtype=np.float32)


def read_dataset(path: Path, **options: object) -> "Dataset":
    """Read a DICOM file with pydicom and its options, including files without a preamble.

    Raises:
        ImageFileError: If the file is not DICOM or damaged.
    """
    import pydicom
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if not is_dicom(path):
        raise ImageFileError(path, "is not DICOM; expected a DICOM file.")
    with _quiet(path, "is damaged DICOM"):
        dataset = pydicom.dcmread(path, force=True, **options)
        if "TransferSyntaxUID" not in dataset.file_meta:
            implicit, little = dataset.original_encoding
            uncompressed = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else uncompressed
        return dataset


def _require_decoder(dataset: "Dataset", path: Path) -> None:
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise ImageFileError(path, f"is compressed as {syntax.name}, which no package here decodes.") from error
    if not decoder.is_available:
        missing = "; ".join(line.split("requires ")[-1] for line in decoder.missing_dependencies)
        raise ImageFileError(path, f"is compressed as {syntax.name}; to decode it, install one of: {missing}.")


@contextmanager
def _quiet(path: Path, problem: str) -> Iterator[None]:
    """Turn whatever a damaged header makes pydicom raise into one sentence; its warnings quote header values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            yield
        except ImageFileError:
            raise
        except Exception as error:
            raise ImageFileError(path, f"{problem} ({type(error).__name__}); export it again.") from None


def _positive_pair(header: "Dataset", tag: str, path: Path) -> tuple[float, float]:
    values = [float(value) for value in header[tag].value]
    if len(values) != 2 or not all(0 < value < float("inf") for value in values):
        raise ImageFileError(path, f"has {tag} {values}; expected two positive sizes in mm.")
    return values[0], values[1]
