"""What every reader returns, and what it raises."""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64

from medpixcl.coordinates import flip_ras_lps

SpacingMM = Sequence[float | int] | float | int
"""Size of a pixel in mm as a person or a manifest gives it: one number, or one for each array axis."""


class ImageFileError(ValueError):
    """A file that cannot be used as an image.

    Attributes:
        path: The file.
        reason: What is wrong with it, without the path.
    """

    def __init__(self, path: str | PathLike[str], reason: str = "") -> None:
        super().__init__(f"{path}: {reason}" if reason else str(path))
        self.path = Path(path)
        self.reason = reason


class MissingSpacingError(ImageFileError):
    """Nothing says how many mm a pixel measures."""


@dataclass(frozen=True)
class Pixels:
    """One grey image as its file holds it.

    Attributes:
        values: Shape (rows, columns) or (i, j, k).
        affine: Voxel index in array order to mm, RAS+, 4 x 4; None if the spacing is unknown.
        spacing_source: Where the spacing comes from: ``file``, ``given``, ``unknown``, or the DICOM attributes used.
        modality: DICOM modality (``CT``, ``DX``...); empty where the file does not say.
    """

    values: Float32[np.ndarray, "*s"]
    affine: Float64[np.ndarray, "4 4"] | None
    spacing_source: str = "file"
    modality: str = ""


def row_column_spacing(spacing_mm: SpacingMM) -> tuple[float, float]:
    """Check a pixel size given by a person, one number or (row, column), in mm.

    Raises:
        ValueError: If it is not one or two positive numbers.

    Example:
        >>> row_column_spacing(0.5)
        (0.5, 0.5)
    """
    sizes = [float(size) for size in (spacing_mm if isinstance(spacing_mm, Sequence) else [spacing_mm])]
    if len(sizes) not in (1, 2) or not all(0 < size < float("inf") for size in sizes):
        raise ValueError(f"spacing_mm is {spacing_mm}; expected one positive number in mm, or one for (row, column).")
    return sizes[0], sizes[-1]


def ras_affine(lps: Float64[np.ndarray, "4 4"]) -> Float64[np.ndarray, "4 4"]:
    """Affine to LPS+ (DICOM, ITK) as affine to RAS+."""
    ras = lps.copy()
    ras[:3] = flip_ras_lps(torch.from_numpy(lps[:3].T.copy())).numpy().T
    return ras
