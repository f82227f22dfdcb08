"""The annotated image (template): read, checked and brought to the working spacing."""

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl._typing import Embed
from medpixcl.coordinates import affines_of, voxel_to_mm, working_spacing, working_voxels
from medpixcl.data.images import READ_FROM
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.landmarks.points import LandmarkSet, outside_image
from medpixcl.matching.matcher import LandmarkMatcher


class AnnotatedImage:
    """An annotated image: read, checked and brought to the working spacing.

    Args:
        image: Path of the image, or the image as :func:`medpixcl.data.images.read_image` returns it.
        landmarks: Landmark file (CSV, ``.mrk.json``, ``.fcsv`` or a folder), whose rows of this image are used; or the
            landmarks themselves, in voxels of the image as its file holds it.
        preprocessing: Transforms that bring every image to the network.
        spacing_mm: Pixel size in mm of an image whose file does not state it.

    Attributes:
        path: File of the image; for an image in memory its name.
        image: Prepared image, (1, *spatial).
        points: Landmarks in voxels of the file's image.
        voxels: Landmarks in voxels of the prepared image, (K, D), NaN where missing.

    Raises:
        ValueError: If the image or the landmark file is bad, no landmark is given for this image, or one lies outside.
    """

    def __init__(
        self,
        image: str | MetaTensor,
        landmarks: str | LandmarkSet,
        preprocessing: Compose,
        spacing_mm: Sequence[float] | float | None,
    ) -> None:
        self.image: MetaTensor = preprocessing({"image": image, "spacing_mm": spacing_mm})["image"]
        meta = self.image.meta
        self.path = Path(image if isinstance(image, str) else str(meta["filename_or_obj"]))
        if isinstance(landmarks, LandmarkSet):
            self.points, where = landmarks, "the landmarks given"
            self._check()
        else:
            affine = torch.as_tensor(meta["original_affine"])
            file = meta.get(READ_FROM) or str(self.path)  # a report says which DICOM file it was made on
            self.points = read_landmarks(landmarks).for_image(file, affine, list(meta["spatial_shape"]))
            where = landmarks
        if bool(self.points.missing.all()):
            raise ValueError(f"{where} has no landmark with a position in {self.path.name}; mark at least one")
        self.voxels = working_voxels(self.points.voxels, self.image)

    def _check(self) -> None:
        """Raise a ValueError if the landmarks given are of another dimension than the image, or lie outside of it."""
        name, shape = self.path.name, tuple(self.image.meta["spatial_shape"])
        if self.points.dims != len(shape):
            raise ValueError(
                f"the landmarks given have {self.points.dims} coordinates, and {name} has {len(shape)} axes; give one "
                "for each axis"
            )
        if bool((outside := outside_image(self.points.voxels, shape)).any()):
            index = int(outside.nonzero()[0])
            raise ValueError(
                f"the landmark {self.points.names[index]!r} lies at voxel {self.points.voxels[index].tolist()}, "
                f"outside {name} of size {shape}; check the order of the axes and the unit"
            )

    @property
    def mm(self) -> Tensor:
        """The landmarks in mm, RAS+, shape (K, D)."""
        return voxel_to_mm(self.voxels.double(), affines_of(self.image)[1])

    def fit(self, matcher: LandmarkMatcher, embed: Embed, strides: Sequence[int]) -> None:
        """Give a matcher the descriptors of the landmarks.

        Args:
            matcher: The matcher to fit.
            embed: Embeds images; its level maps have these ``strides``.
            strides: Strides of the levels, finest first.
        """
        picture = self.image.as_tensor()[None]
        matcher.fit(embed, strides, picture, self.voxels.float(), working_spacing(self.image))
