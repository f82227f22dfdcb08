"""Read NRRD, MetaImage and MINC files through ITK."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from medpixcl.data.claims import check_voxels, open_binary
from medpixcl.data.itk_headers import METAIMAGE_SUFFIXES, NRRD_SUFFIXES, read_itk_header
from medpixcl.data.nifti import NIFTI_SUFFIXES
from medpixcl.data.pictures import PICTURE_SUFFIXES
from medpixcl.data.pixels import ImageFileError, Pixels, SpacingMM, ras_affine
from medpixcl.data.placement import VolumePlacement, placed_pixels, unit_steps
from medpixcl.limits import special_kind

ITK_SUFFIXES = (*NRRD_SUFFIXES, *METAIMAGE_SUFFIXES)
MINC_SUFFIX = ".mnc"
_LARGEST_DIRECTION = 1e6
"""Bound of the directions of axes, unit vectors as a rule: ITK inverts larger ones without end."""
_MINC_1 = b"CDF"


def read_itk(path: Path, spacing_mm: SpacingMM | None = None) -> Pixels:
    """Read NRRD or MetaImage through SimpleITK: a volume as (i, j, k), a 2D image or one slice as (row, column).

    Args:
        path: File to read.
        spacing_mm: Voxel size in mm for axes whose size the file does not state.

    Raises:
        ImageFileError: If the file is damaged, holds several channels or volumes, or states an unknown unit.
    """
    import SimpleITK

    header = read_itk_header(path)
    _check_data_file(path, header.data_file)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO("NrrdImageIO" if path.name.lower().endswith(NRRD_SUFFIXES) else "MetaImageIO")
    try:
        reader.ReadImageInformation()
        channels = reader.GetNumberOfComponents()
        check_voxels(path, reader.GetSize() + ((channels,) if channels > 1 else ()))
        if not (np.abs(reader.GetDirection()) < _LARGEST_DIRECTION).all():
            raise ImageFileError(path, "has an affine that cannot be inverted; set its spacing and orientation.")
        image = reader.Execute()
    except RuntimeError as error:
        if np.isnan(header.sizes).any() and "spacing" in str(error):
            raise ImageFileError(path, "states a voxel size of 0; correct the size in its header.") from error
        raise ImageFileError(
            path, "not readable as NRRD or MetaImage (damaged or cut off, or of a kind that ITK refuses)."
        ) from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageFileError(path, f"holds {image.GetNumberOfComponentsPerPixel()} channels; expected one.")
    dims = image.GetDimension()
    values = np.asarray(SimpleITK.GetArrayViewFromImage(image)).astype(np.float32).transpose()
    lps = np.eye(4)
    size, known = min(dims, 3), _first(header.sizes, np.nan)
    directions = np.asarray(image.GetDirection()).reshape(dims, dims)
    unit = _first(header.mm_per_unit, 1.0)[:, None]
    steps = np.eye(3)
    steps[:size, :size] = (directions * image.GetSpacing())[:size, :size]
    lps[:3, :3] = steps * unit
    lps[:size, 3] = np.asarray(image.GetOrigin())[:size] * unit[:size, 0]
    placement = _placement(lps, np.where(np.arange(3) < dims, known, 1.0))
    return placed_pixels(path, values, placement, spacing_mm, flat=dims == 2)


def read_minc(path: Path) -> Pixels:
    """Read a MINC 2 volume through ITK as (i, j, k).

    MINC measures to the right, front and head (RAS). ITK 5.4 hands these numbers on as if they were LPS.

    Raises:
        ImageFileError: If the file is MINC 1 or damaged, or holds several volumes.
    """
    import itk

    with open_binary(path) as file:
        if file.read(3) == _MINC_1:
            raise ImageFileError(path, "is MINC 1; convert it with `mincconvert -2` or to .nii.gz.")
    try:
        content = itk.MINCImageIO.New(FileName=str(path))
        content.ReadImageInformation()
        check_voxels(path, map(content.GetDimensions, range(content.GetNumberOfDimensions())))
        if (volumes := content.GetNumberOfComponents()) != 1:
            raise ImageFileError(path, f"holds {volumes} volumes (a 4D image); save each as a file of its own.")
        reader = itk.ImageFileReader[itk.Image[itk.F, 3]].New(FileName=str(path), ImageIO=content)
        reader.Update()
    except RuntimeError as error:
        raise ImageFileError(path, "not readable as MINC 2 (damaged or cut off).") from error
    image = reader.GetOutput()
    ras = np.eye(4)
    ras[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
    ras[:3, 3] = np.asarray(image.GetOrigin())
    notice = "is MINC, which measures to the right, front and head; viewers that read it by ITK may show it turned."
    placement = _placement(ras_affine(ras), np.ones(3), notice)
    return placed_pixels(path, itk.array_from_image(image).transpose(), placement, None)


def _check_data_file(path: Path, name: str | None) -> None:
    if name is None:
        return
    if _is_named_image(name):
        raise ImageFileError(path, f"names an image, {name}, as its file of voxels; export it again.")
    if kind := special_kind(path.parent / name):
        raise ImageFileError(path, f"is a header whose file of voxels, {name}, is {kind}; expected a file.")
    if not (path.parent / name).is_file():
        raise ImageFileError(path, f"is a header whose file of voxels, {name}, is not there; copy both.")


def _is_named_image(name: str) -> bool:
    """True for the name of an image, which stands for itself and not for the voxels of another file."""
    return name.lower().endswith((*PICTURE_SUFFIXES, *NIFTI_SUFFIXES, *ITK_SUFFIXES, MINC_SUFFIX, ".dcm"))


def is_header(path: Path) -> bool:
    """True for the name of a header whose voxels may lie in another file."""
    return has_header_name(path.name)


def has_header_name(name: str) -> bool:
    """:func:`is_header` for a path as text."""
    return name.lower().endswith((".mhd", ".nhdr"))


def detached_data(path: Path) -> Path | None:
    """Find the file that a ``.mhd`` or ``.nhdr`` header points to; None if there is none, or not exactly one."""
    if not is_header(path):
        return None
    try:
        name = read_itk_header(path).data_file
    except (ImageFileError, OSError):
        return None
    if name is None or _is_named_image(name):
        return None
    return path.parent / name if (path.parent / name).is_file() else None


def with_detached_data(files: Iterable[Path]) -> list[Path]:
    """Files of an image, with the files that the headers among them point to, which hold its voxels."""
    files = list(files)
    return [*files, *filter(None, map(detached_data, files))]


def _placement(lps: Float64[np.ndarray, "4 4"], stated: Float64[np.ndarray, "3"], *notices: str) -> VolumePlacement:
    """VolumePlacement of an affine to LPS+; the size is NaN along the axes where ``stated`` is."""
    ras = ras_affine(lps)
    sizes = np.where(np.isnan(stated), np.nan, np.linalg.norm(ras[:3, :3], axis=0))
    return VolumePlacement(unit_steps(ras[:3, :3]), sizes, ras[:3, 3], notices)


def _first(numbers: Float64[np.ndarray, " n"], filled: float) -> Float64[np.ndarray, "3"]:
    return np.array([*numbers, filled, filled, filled][:3])
