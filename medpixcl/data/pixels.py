"""Result and errors shared by all image readers."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64

from medpixcl.coordinates import flip_ras_lps

NO_SPACING = "has no pixel spacing; give spacing_mm."
SpacingMM = Sequence[float | int] | float | int
"""Pixel size in mm given by a person or a manifest: one number, or one for each array axis."""
_BLOCK = 32
"""Slices that are reordered together."""


class ImageFileError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        path: Path of the file.
        reason: Description of the problem, without the path.
    """

    def __init__(self, path: str | PathLike[str], reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else str(path))
        self.path = Path(path)
        self.reason = reason


class MissingSpacingError(ImageFileError):
    """An image whose pixel size in mm is unknown."""


@dataclass(frozen=True)
class Pixels:
    """Content of one grey image file.

    Attributes:
        values: Grey values, shape (rows, columns) or (i, j, k).
        affine: Matrix from voxel indices in array order to mm, RAS+, 4 x 4; None if the spacing is unknown.
        spacing_source: Origin of the spacing: ``file``, ``given``, ``unknown``, or the DICOM attributes used.
        modality: DICOM modality (``CT``, ``DX``...); empty if the file has none.
        notices: Sentences about what a person should know of how the file was read, without its path.
    """

    values: Float32[np.ndarray, "*s"]
    affine: Float64[np.ndarray, "4 4"] | None
    spacing_source: str = "file"
    modality: str = ""
    notices: tuple[str, ...] = ()


def in_c_order(values: Float32[np.ndarray, "*s"]) -> Float32[np.ndarray, "*s"]:
    """The values in C order and writable, without a copy where they are.

    Volumes in Fortran order, as NIfTI and ITK have them, are copied in blocks that stay in the processor's cache, which
    takes a fifth of the time of numpy's copy.
    """
    if values.ndim == 3 and values.flags.f_contiguous and not values.flags.c_contiguous:
        ordered = np.empty(values.shape, dtype=values.dtype)
        for start in range(0, values.shape[2], _BLOCK):
            block = slice(start, start + _BLOCK)
            for j in range(values.shape[1]):
                ordered[:, j, block] = values[:, j, block]
        return ordered
    return np.require(values, requirements=["C", "W"])


def checked_spacing(spacing_mm: SpacingMM) -> list[float]:
    """Check a pixel size in mm: one number, or one for each of two or three axes.

    Raises:
        ValueError: If it is anything else.

    Example:
        >>> checked_spacing([1, 0.5])
        [1.0, 0.5]
    """
    if not (sizes := _sizes(spacing_mm)):
        raise ValueError(f"spacing_mm is {spacing_mm!r}; expected one positive number in mm, or one for each axis.")
    return sizes


def row_column_spacing(spacing_mm: SpacingMM) -> tuple[float, float]:
    """Check a pixel size in mm, one number or (row, column), and return (row, column).

    Raises:
        ValueError: If it is not one or two positive numbers.

    Example:
        >>> row_column_spacing(0.5)
        (0.5, 0.5)
    """
    sizes = _sizes(spacing_mm)
    if len(sizes) not in (1, 2):
        raise ValueError(f"spacing_mm is {spacing_mm!r}; expected one positive number in mm, or one for (row, column).")
    return sizes[0], sizes[-1]


def _sizes(spacing_mm: object) -> list[float]:
    """One to three positive numbers as a list, which is empty for anything else."""
    values = np.asarray(spacing_mm, dtype=object)
    listed = np.atleast_1d(values).tolist()
    if values.ndim > 1 or len(listed) > 3 or any(isinstance(one, bool | str | bytes) for one in listed):
        return []
    try:
        sizes = [float(one) for one in listed]
    except (TypeError, ValueError):
        return []
    return sizes if all(0 < size < float("inf") for size in sizes) else []


def ras_affine(lps: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """Convert an affine to LPS+ (DICOM, ITK) into an affine to RAS+."""
    ras = lps.copy()
    ras[:3] = flip_ras_lps(torch.from_numpy(lps[:3].T.copy())).numpy().T
    return ras
