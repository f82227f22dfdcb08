"""The annotated image (template): read, checked and brought to the working spacing."""

from collections.abc import Sequence
from pathlib import Path

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl._typing import Embed
from medpixcl.coordinates import affines_of, voxel_to_mm, working_spacing, working_voxels
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.matching.matcher import LandmarkMatcher


class AnnotatedImage:
    """The annotated image (template): read, checked and brought to the working spacing.

    Args:
        image: Path of the image.
        landmarks: Landmark file (CSV, ``.mrk.json``, ``.fcsv`` or a folder); the rows of this image are used.
        preprocessing: Transforms that also prepare the query images.
        spacing_mm: Pixel size of a picture whose file has none.

    Raises:
        ValueError: If the image or the landmark file is bad, or no landmark is given for this image.
    """

    def __init__(
        self, image: str, landmarks: str, preprocessing: Compose, spacing_mm: Sequence[float] | float | None
    ) -> None:
        self.path = Path(image)
        self.image: MetaTensor = preprocessing({"image": image, "spacing_mm": spacing_mm})["image"]
        meta = self.image.meta
        affine = torch.as_tensor(meta["original_affine"])
        self.points = read_landmarks(landmarks).for_image(image, affine, list(meta["spatial_shape"]))
        if bool(self.points.missing.all()):
            raise ValueError(f"{landmarks} has no landmark with a position in {self.path.name}; mark at least one")
        self.voxels = working_voxels(self.points.voxels, self.image)

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
