"""The reader of this package for MONAI's own ``LoadImage`` and ``LoadImaged``."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from monai.data import ImageReader
from monai.utils import MetaKeys

from medpixcl._typing import AnyPath, Number
from medpixcl.data.images import ImagePath, image_format, read_image
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.series import dicom_files


@dataclass(frozen=True)
class ReadingRequest:
    """An image to read.

    Attributes:
        path: File, folder of a DICOM series, or list of the files of a series.
        options: Further arguments of :func:`medpixcl.data.images.read_image`.
    """

    path: ImagePath
    options: dict[str, Any]


class MedpixclReader(ImageReader):
    """Read every format of :func:`medpixcl.data.images.read_image` in MONAI's ``LoadImage`` and ``LoadImaged``.

    Voxels, affine and metadata are those of ``read_image``, without its axis of one channel: (rows, columns) of a
    picture, (i, j, k) of a volume; ``ensure_channel_first=True`` puts the axis in front. Several files are the slices
    of one DICOM series.

    MONAI tries its other readers where one raises an error in ``read``, and they would take what was refused here for a
    reason, such as a series without one of its slices. So ``read`` only notes what to read, and ``get_data`` reads.

    Args:
        spacing_mm: Pixel size in mm for images whose file does not state it.
        allow_missing_spacing: If the pixel size is unknown, assume 1 mm instead of raising an error.
        tolerance_mm: How far in mm a slice of a DICOM volume may lie from its place on the regular grid.

    Example:
        >>> from monai.transforms import LoadImage
        >>> load = LoadImage(reader="medpixcl.data.MedpixclReader", ensure_channel_first=True, spacing_mm=0.5)
        >>> load("radiograph.png")  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        spacing_mm: SpacingMM | None = None,
        allow_missing_spacing: bool = False,
        tolerance_mm: Number | None = None,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "spacing_mm": spacing_mm,
            "allow_missing_spacing": allow_missing_spacing,
            "tolerance_mm": tolerance_mm,
        }

    def verify_suffix(self, filename: AnyPath | Sequence[AnyPath]) -> bool:
        """True if the first file is of a format that is read here, or the folder holds DICOM files."""
        path = Path(_one_or_several(filename)[0])
        if path.is_dir():
            return bool(dicom_files(path))
        return path.is_file() and image_format(path) is not None

    def read(self, data: AnyPath | Sequence[AnyPath], **kwargs: Any) -> ReadingRequest:
        """Note what is to be read.

        Args:
            data: Path of an image, or the paths of the slices of one series.
            kwargs: Options that replace those of the reader.
        """
        paths = _one_or_several(data)
        return ReadingRequest(paths[0] if len(paths) == 1 else paths, self.options | kwargs)

    def get_data(self, img: ReadingRequest) -> tuple[Float32[np.ndarray, "*s"], dict[str, Any]]:
        """Read the image: its values without a channel axis, and its metadata with the affine.

        Raises:
            ImageFileError: For the reasons of :func:`medpixcl.data.images.read_image`.
        """
        image = read_image(img.path, **img.options)
        meta = {**image.meta, MetaKeys.AFFINE: image.affine.numpy(), MetaKeys.ORIGINAL_CHANNEL_DIM: nan}
        return image[0].numpy(), meta


def _one_or_several(data: AnyPath | Sequence[AnyPath]) -> list[AnyPath]:
    return list(data) if isinstance(data, list | tuple) else [data]  # type: ignore[list-item]
