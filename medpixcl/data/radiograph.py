"""Read a DICOM radiograph as a person sees it, with the best pixel size that its header gives."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float32

from medpixcl.coordinates import image_affine
from medpixcl.data.dicom_header import Header
from medpixcl.data.dicom_pixels import looked_up, modality_values, rescale_of, stored_values
from medpixcl.data.padding import padding_of
from medpixcl.data.pixels import ImageFileError, Pixels

_LARGEST_MAGNIFICATION = 20.0
_SAME_SPACING = 1e-3
"""Relative difference below which PixelSpacing repeats ImagerPixelSpacing."""
PixelSize = tuple[float, float]
Grey = Float32[np.ndarray, "rows columns"]


def read_radiograph(header: Header, *, spacing_mm: PixelSize | None = None) -> Pixels:
    """Read a picture as a person sees it: bright is dense, the first window that shows anything applied.

    The Modality LUT and the VOI LUT (or window) are applied (DICOM PS3.3 C.11.1, C.11.2); MONOCHROME1 and a
    presentation LUT of the shape INVERSE turn the result. Pixels of PixelPaddingValue are black. The pixel size is that
    of :func:`radiograph_spacing`.

    Args:
        header: Header of the file with its pixel data.
        spacing_mm: Pixel size in mm, (row, column), used where the header has none.

    Raises:
        ImageFileError: If the pixels cannot be decoded or all have one value, or the header is malformed.
    """
    stored = stored_values(header)[0]
    padding = padding_of(header, stored)
    seen = _seen(header, modality_values(header, stored), ~padding if not padding.all() else np.ones_like(padding))
    spacing, source = radiograph_spacing(header, spacing_mm)
    affine = None if spacing is None else image_affine(spacing).numpy()
    return Pixels(seen, affine, source, header.code("Modality"))


def radiograph_spacing(header: Header, given: PixelSize | None = None) -> tuple[PixelSize | None, str]:
    """Pixel size (row, column) in mm of a projection image, and its origin.

    PixelSpacing counts as it stands (calibrated), unless it only repeats ImagerPixelSpacing. That one is measured at
    the detector and divided by the magnification where the header gives one (PS3.3 10.7.1.3). Then come
    NominalScannedPixelSpacing, the size at a film scanner, and ``given``, to which PixelAspectRatio is applied. Sizes
    of 0 count as absent.
    """
    calibrated, imager = _spacing(header, "PixelSpacing"), _spacing(header, "ImagerPixelSpacing")
    if calibrated and not (imager and _repeats(header, calibrated, imager)):
        return calibrated, "PixelSpacing"
    if imager:
        magnification, source = _magnification(header)
        return (imager[0] / magnification, imager[1] / magnification), f"ImagerPixelSpacing{source}"
    if scanned := _spacing(header, "NominalScannedPixelSpacing"):
        return scanned, "NominalScannedPixelSpacing"
    return (None, "unknown") if given is None else (_with_aspect(header, given), "given")


def _seen(header: Header, grey: Grey, anatomy: Bool[np.ndarray, "rows columns"]) -> Grey:
    if np.ptp(grey[anatomy]) == 0:
        raise ImageFileError(header.path, f"shows nothing: all of its pixels have the value {grey[anatomy][0]:g}.")
    shown = next((one for one in _windowed(header, grey) if _shows(one[anatomy], grey[anatomy])), grey)
    if header.code("PhotometricInterpretation") == "MONOCHROME1" or header.code("PresentationLUTShape") == "INVERSE":
        shown = shown[anatomy].max() - shown
    return np.where(anatomy, shown, shown[anatomy].min()).astype(np.float32, copy=False)


def _shows(values: np.ndarray, whole: np.ndarray) -> bool:
    """True unless a window leaves only black and white (or one of them) of a picture that has more."""
    return _has_between(values) or not (_has_between(whole) or np.ptp(values) == 0)


def _has_between(values: np.ndarray) -> bool:
    return bool(((values > values.min()) & (values < values.max())).any())


def _windowed(header: Header, grey: Grey) -> Iterator[Grey]:
    """The picture through each VOI LUT and each window of the header, in the order of the standard's preference."""
    for table in header.items("VOILUTSequence"):
        yield looked_up(table, grey)
    centres, widths = header.numbers("WindowCenter") or (), header.numbers("WindowWidth") or ()
    low, high = _output_range(header)
    for centre, width in zip(centres, widths, strict=False):
        share = _window_share(header.code("VOILUTFunction") or "LINEAR", grey, centre, width)
        if share is not None:
            yield (share * (high - low) + low).astype(np.float32)


def _window_share(function: str, grey: Grey, centre: float, width: float) -> np.ndarray | None:
    """Place of every value in a window, 0 black to 1 white (PS3.3 C.11.2.1.2 and .3); None for an impossible window."""
    values = grey.astype(np.float64)
    if function == "LINEAR" and width >= 1:
        if width == 1:
            return (values > centre - 0.5).astype(np.float64)
        return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - centre) / width + 0.5, 0, 1)
    if function == "SIGMOID" and width > 0:
        return 1 / (1 + np.exp(np.clip(-4 * (values - centre) / width, -500, 500)))
    return None


def _output_range(header: Header) -> tuple[float, float]:
    """Lowest and highest possible value after the Modality LUT."""
    if tables := header.items("ModalityLUTSequence"):
        bits = int((tables[0].numbers("LUTDescriptor", 3) or (0, 0, 16))[2])
        return 0.0, float(2**bits - 1)
    bits = header.whole("BitsStored") or header.whole("BitsAllocated") or 16
    signed = header.whole("PixelRepresentation") == 1
    lowest, highest = (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1) - 1) if signed else (0.0, 2.0**bits - 1)
    slope, intercept = rescale_of(header)
    low, high = sorted((lowest * slope + intercept, highest * slope + intercept))
    return low, high


def _spacing(header: Header, keyword: str) -> PixelSize | None:
    found = header.numbers(keyword, 2)
    if found is None or 0 in found:
        return None
    if min(found) < 0:
        raise ImageFileError(header.path, f"has {keyword} {list(found)}; expected two positive sizes in mm.")
    return found[0], found[1]


def _repeats(header: Header, calibrated: PixelSize, imager: PixelSize) -> bool:
    """True where PixelSpacing only repeats the size at the detector, and nothing says that it was calibrated."""
    same = np.allclose(calibrated, imager, rtol=_SAME_SPACING)
    return bool(same) and not header.text("PixelSpacingCalibrationType") and _magnification(header)[0] != 1


def _magnification(header: Header) -> tuple[float, str]:
    """Magnification of the object at the detector, and the words for the origin of the pixel size; 1 if unknown."""
    if factor := header.number("EstimatedRadiographicMagnificationFactor"):
        if not 1 <= factor <= _LARGEST_MAGNIFICATION:
            raise ImageFileError(
                header.path,
                f"has EstimatedRadiographicMagnificationFactor {factor:g}; a projection magnifies, expected 1 to "
                f"{_LARGEST_MAGNIFICATION:g}.",
            )
        return factor, f" / magnification {factor:g}"
    detector, patient = (header.number(f"DistanceSourceTo{place}") for place in ("Detector", "Patient"))
    if detector and patient and 1 < detector / patient <= _LARGEST_MAGNIFICATION:
        factor = detector / patient
        return factor, f" / magnification {factor:.4g} (DistanceSourceToDetector / DistanceSourceToPatient)"
    return 1.0, ""


def _with_aspect(header: Header, given: PixelSize) -> PixelSize:
    """Apply PixelAspectRatio (height : width) to a given pixel size, unless that is not square and says the same."""
    aspect = header.numbers("PixelAspectRatio") or ()
    if len(aspect) != 2 or min(aspect) <= 0 or aspect[0] == aspect[1]:
        return given
    ratio = aspect[0] / aspect[1]
    if given[0] == given[1]:
        return given[1] * ratio, given[1]
    if not np.isclose(given[0] / given[1], ratio, rtol=1e-2):
        raise ImageFileError(
            header.path,
            f"has PixelAspectRatio {aspect[0]:g} : {aspect[1]:g}, and the given pixel size is {given[0]:g} x "
            f"{given[1]:g} mm; give the width of a pixel alone.",
        )
    return given
