"""Write NIfTI files, completely or not at all."""

import gzip
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Num

from medpixcl.data.atomic import drafted


def write_nifti(path: Path, values: Num[np.ndarray, "i j k"], affine: Float64[np.ndarray, "4 4"]) -> None:
    """Write a volume as ``.nii.gz``; the same volume always gives the same file.

    Args:
        path: File to write; missing folders are made.
        values: Voxels (i, j, k), kept in their data type.
        affine: Voxel to mm, RAS+.
    """
    import nibabel

    image = nibabel.Nifti1Image(np.ascontiguousarray(values), affine)
    with (
        drafted(path) as draft,
        draft.open("wb") as file,
        gzip.GzipFile(filename="", mode="wb", compresslevel=1, fileobj=file, mtime=0) as packed,
    ):
        image.to_stream(packed)
