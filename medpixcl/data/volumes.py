"""Read NIfTI, NRRD and MetaImage files."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from medpixcl.data.pixels import ImageFileError, Pixels, ras_affine

NIFTI_SUFFIXES = (".nii", ".nii.gz")
ITK_SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
_MM_PER_UNIT = {"meter": 1000.0, "micron": 0.001}


def read_nifti(path: Path) -> Pixels:
    """Read a NIfTI-1 or NIfTI-2 volume as (i, j, k); its scale factors and unit of length are applied.

    Raises:
        ImageFileError: If the file is damaged, holds colours, complex numbers or several volumes.
    """
    import nibabel

    try:
        image = nibabel.load(path)
        if not np.issubdtype(image.get_data_dtype(), np.number):
            raise ImageFileError(path, "holds colours; expected one grey value per voxel.")
        if np.issubdtype(image.get_data_dtype(), np.complexfloating):
            raise ImageFileError(path, "holds complex numbers; save their magnitude.")
        unit = image.header.get_xyzt_units()[0]
        values = image.get_fdata(dtype=np.float32, caching="unchanged")
        affine = np.diag([*[_MM_PER_UNIT.get(unit, 1.0)] * 3, 1.0]) @ image.affine
    except ImageFileError:
        raise
    except Exception as error:  # damaged headers make nibabel and gzip raise many kinds
        raise ImageFileError(path, "not readable as NIfTI (damaged or cut off); export it again.") from error
    return Pixels(_as_volume(path, values), _checked_affine(path, affine))


def read_itk(path: Path) -> Pixels:
    """Read NRRD or MetaImage through SimpleITK: a volume as (i, j, k), a 2D image as (row, column).

    Raises:
        ImageFileError: If the file is damaged, or holds several channels or volumes.
    """
    import SimpleITK

    try:
        image = SimpleITK.ReadImage(str(path))
    except RuntimeError as error:
        raise ImageFileError(path, "not readable as NRRD or MetaImage (damaged or cut off).") from error
    if image.GetNumberOfComponentsPerPixel() != 1:
        raise ImageFileError(path, f"holds {image.GetNumberOfComponentsPerPixel()} channels; expected one.")
    dims = image.GetDimension()
    values = np.asarray(SimpleITK.GetArrayFromImage(image), dtype=np.float32)
    step = np.asarray(image.GetDirection()).reshape(dims, dims) @ np.diag(image.GetSpacing())
    if dims == 2:
        step = step[:, ::-1]
    else:
        values = _as_volume(path, values.transpose())
    size = min(dims, 3)
    affine = np.eye(4)
    affine[:size, :size] = step[:size, :size]
    affine[:size, 3] = image.GetOrigin()[:size]
    return Pixels(values, _checked_affine(path, ras_affine(affine)))


def detached_data(path: Path) -> Path | None:
    """Find the raw file that a ``.mhd`` or ``.nhdr`` header points to, None if the header holds the data itself."""
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return None
    header = path.read_bytes()[:100_000].decode("latin-1")
    found = re.search(r"^(?:ElementDataFile\s*=|data ?file:)\s*(.+?)\s*$", header, re.MULTILINE | re.IGNORECASE)
    if found is None or found[1].upper().startswith(("LOCAL", "LIST")):
        return None
    return path.parent / found[1]


def _as_volume(path: Path, values: np.ndarray) -> np.ndarray:
    """Drop trailing axes of length one beyond the third, add those that are missing."""
    shape = values.shape
    if any(size != 1 for size in shape[3:]):
        raise ImageFileError(path, f"holds a {len(shape)}D image of shape {shape}; expected one volume, split it.")
    return values.reshape((*shape, 1, 1)[:3])


def _checked_affine(path: Path, affine: np.ndarray) -> Float64[np.ndarray, "4 4"]:
    affine = np.asarray(affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise ImageFileError(path, "has an affine that cannot be inverted; set its spacing and orientation.")
    return affine
