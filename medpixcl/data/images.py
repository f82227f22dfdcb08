"""Read an image of any supported format as a MONAI image."""

import logging
from collections.abc import Sequence
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Literal

import torch
from monai.data import MetaTensor

from medpixcl._typing import Number
from medpixcl.coordinates import image_affine
from medpixcl.data.claims import open_binary
from medpixcl.data.dicom import read_dicom
from medpixcl.data.dicom_geometry import checked_tolerance
from medpixcl.data.dicom_header import is_dicom_start
from medpixcl.data.nifti import NIFTI_SUFFIXES, read_nifti
from medpixcl.data.other_files import why_no_image
from medpixcl.data.paths import checked_path, checked_paths
from medpixcl.data.pictures import PICTURE_SIGNATURES, PICTURE_SUFFIXES, read_picture
from medpixcl.data.pixels import (
    NO_SPACING,
    ImageFileError,
    MissingSpacingError,
    Pixels,
    SpacingMM,
    checked_spacing,
    in_c_order,
    row_column_spacing,
)
from medpixcl.data.series import dicom_files, read_series
from medpixcl.data.volumes import ITK_SUFFIXES, MINC_SUFFIX, read_itk, read_minc

READ_FROM = "read_from"
"""Key in the metadata of an image in memory: path of the file that it was read from, empty if it was not."""
ImagePath = str | PathLike[str] | Sequence[str | PathLike[str]]


def read_image(
    path: ImagePath,
    *,
    spacing_mm: SpacingMM | None = None,
    allow_missing_spacing: bool = False,
    tolerance_mm: Number | None = None,
) -> MetaTensor:
    """Read one grey image with its position in space.

    * PNG, JPEG, TIFF, BMP: (1, rows, columns); see :func:`medpixcl.data.pictures.read_picture`.
    * A DICOM radiograph: (1, rows, columns), as a person sees it; see :func:`medpixcl.data.radiograph.read_radiograph`.
    * NIfTI, NRRD, MetaImage, MINC: (1, i, j, k); a 2D image or a volume of one slice is (1, rows, columns).
    * A DICOM series, as its folder or the list of its files, or a multi-frame file: (1, i, j, k) in HU or whatever the
      rescale gives.

    Args:
        path: Image file, folder of a DICOM series, or list of the files of a series.
        spacing_mm: Pixel size in mm for axes whose size the file does not state: one number, or one for each array
            axis; other images ignore it.
        allow_missing_spacing: If the pixel size is unknown, assume 1 mm instead of raising an error.
        tolerance_mm: How far in mm a slice of a DICOM volume may lie from its place on the regular grid, a tenth of
            the slice distance by default; it has to be less than half of it, and hides no missing slice.

    Returns:
        float32 image with a 4 x 4 RAS+ affine. ``meta`` holds ``filename_or_obj``, ``modality`` (may be empty),
        ``spacing_source`` (``file``, ``given``, ``unknown``, or the DICOM attribute) and ``notice``: sentences about
        how the file was read, empty as a rule. A notice is also logged, once for each file.

    Raises:
        MissingSpacingError: If the pixel size is unknown.
        ImageFileError: If the file cannot be used, with the reason; both are ValueErrors.
        ValueError: If ``path``, ``spacing_mm`` or ``tolerance_mm`` is of another kind.
    """
    if spacing_mm is not None:
        checked_spacing(spacing_mm)
    pixels = read_pixels(path, spacing_mm=spacing_mm, tolerance_mm=checked_tolerance(tolerance_mm))
    name = checked_paths(path, "the image")[0]
    if not allow_missing_spacing:
        require_spacing(pixels, name)
    values = torch.from_numpy(in_c_order(pixels.values))
    if not values.sum().isfinite() and not values.isfinite().all():  # a finite sum has finite terms, at less cost
        raise ImageFileError(name, f"holds {int((~values.isfinite()).sum())} values that are not finite (NaN or Inf).")
    affine = _one_mm(values.ndim) if pixels.affine is None else torch.from_numpy(pixels.affine)
    if notice := " ".join(pixels.notices):
        log_notice(str(name), notice)
    meta = {
        "filename_or_obj": str(name),
        "spacing_source": pixels.spacing_source,
        "modality": pixels.modality,
        "original_affine": affine.numpy().copy(),
        "spatial_shape": list(pixels.values.shape),
        "space": "RAS",
        "notice": notice,
    }
    return MetaTensor(values[None], affine=affine, meta=meta)


def require_spacing(pixels: Pixels, path: str | PathLike[str]) -> None:
    """Refuse an image of unknown pixel size.

    Raises:
        MissingSpacingError: If the pixel size is not known.
    """
    if pixels.affine is None:
        raise MissingSpacingError(path, NO_SPACING)


def read_pixels(path: ImagePath, *, spacing_mm: SpacingMM | None = None, tolerance_mm: Number | None = None) -> Pixels:
    """Read the pixels of an image; like :func:`read_image`, but without MONAI's types and without checks."""
    if isinstance(path, Sequence) and not isinstance(path, str):
        if not path:
            raise ValueError("the list of files of a series is empty; give its slices.")
        files = [_existing(one) for one in checked_paths(path, "a file of the series")]
        return read_series(files, tolerance_mm=tolerance_mm)
    path = _existing(checked_path(path, "the image"))
    if path.is_dir():
        return read_series(_series_files(path), tolerance_mm=tolerance_mm)
    kind = image_format(path)
    if kind == "nifti":
        return read_nifti(path, spacing_mm)
    if kind == "itk":
        return read_itk(path, spacing_mm)
    if kind == "minc":
        return read_minc(path)
    if kind == "dicom":
        return read_dicom(path, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm)
    if kind == "picture":
        affine = None if spacing_mm is None else image_affine(row_column_spacing(spacing_mm)).numpy()
        return Pixels(read_picture(path), affine, "unknown" if affine is None else "given")
    raise ImageFileError(path, why_no_image(path))


def image_format(path: Path) -> Literal["nifti", "itk", "minc", "dicom", "picture"] | None:
    """Detect the format of a file by content and suffix, None if it is not supported.

    The prefix of DICOM goes first: what stands before it "shall not be used" to tell what a file is (PS3.10 7.1), and
    may be the header of a TIFF.
    """
    name = path.name.lower()
    with open_binary(path) as file:
        start = file.read(132)
    if not start:
        return None
    if start[128:] == b"DICM":
        return "dicom"
    if name.endswith(NIFTI_SUFFIXES):
        return "nifti"
    if name.endswith(ITK_SUFFIXES):
        return "itk"
    if name.endswith(MINC_SUFFIX):
        return "minc"
    if name.endswith(PICTURE_SUFFIXES) or start.startswith(PICTURE_SIGNATURES):
        return "picture"
    return "dicom" if is_dicom_start(start) else None


def _one_mm(dims: int) -> torch.Tensor:
    """Affine to RAS+ of an image of unknown spacing: 1 mm, the axes of LPS."""
    return image_affine((1.0, 1.0)) if dims == 2 else torch.diag(torch.tensor([-1.0, -1.0, 1.0, 1.0])).double()


@cache
def log_notice(name: str, notice: str) -> None:
    """Log a notice about how an image was read, once in this process."""
    logging.getLogger(__name__).warning("%s: %s", name, notice)


def _series_files(folder: Path) -> list[Path]:
    if not (files := dicom_files(folder)):
        raise ImageFileError(folder, "is a folder without DICOM files; expected a file or the folder of a series.")
    return files


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ImageFileError(path, "does not exist.")
    return path
