"""Annotated images (templates): read, checked, brought to the working spacing, and given to a matcher."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl._typing import Embed
from medpixcl.coordinates import affines_of, spacing_of, voxel_to_mm, working_spacing, working_voxels
from medpixcl.data.identity import first_file
from medpixcl.data.images import READ_FROM
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.series import files_of_image
from medpixcl.landmarks.points import LandmarkSet, outside_image, rows_by_name
from medpixcl.matching.matcher import LandmarkMatcher


class AnnotatedImage:
    """An annotated image: read, checked and brought to the working spacing.

    Args:
        item: Item of a datalist: ``image`` is a path, the files of a series, or the image as
            :func:`medpixcl.data.images.read_image` returns it; ``spacing_mm`` the pixel size in mm if its file does not
            state it.
        landmarks: Landmark file (CSV, ``.mrk.json``, ``.fcsv`` or a folder), whose rows of this image are used; or the
            landmarks themselves, in voxels of the image as its file holds it.
        preprocessing: Transforms that bring every image to the network.

    Attributes:
        path: File of the image, the first one of a series; for an image in memory its name.
        files: All files of the image; none for an image in memory.
        image: Prepared image, (1, *spatial).
        points: Landmarks in voxels of the file's image.
        voxels: Landmarks in voxels of the prepared image, (K, D), NaN where missing.

    Raises:
        ValueError: If the image or the landmark file is bad, no landmark is given for this image, or one lies outside.
    """

    def __init__(self, item: Mapping[str, Any], landmarks: str | LandmarkSet, preprocessing: Compose) -> None:
        self.image: MetaTensor = preprocessing(dict(item))["image"]
        meta, given = self.image.meta, item["image"]
        self.path = Path(str(meta["filename_or_obj"]) if isinstance(given, MetaTensor) else first_file(item))
        self.files = () if isinstance(given, MetaTensor) else files_of_image(given)
        if isinstance(landmarks, LandmarkSet):
            self.points, where = landmarks, "the landmarks given"
            self._check()
        else:
            affine = torch.as_tensor(meta["original_affine"])
            own = str(self.path) if isinstance(given, MetaTensor) else given
            file = meta.get(READ_FROM) or own  # a report says which DICOM file it was made on
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

    def voxels_of(self, names: Sequence[str]) -> Tensor:
        """Landmarks by name in voxels of the prepared image, shape (K, D), NaN where missing."""
        return rows_by_name(self.voxels, self.points.names, names)

    def mm_of(self, names: Sequence[str]) -> Tensor:
        """Landmarks by name in mm, RAS+, shape (K, D), NaN where missing."""
        return rows_by_name(self.mm, self.points.names, names)


def annotated_images(
    items: Sequence[Mapping[str, Any]], landmarks: str | LandmarkSet, preprocessing: Compose
) -> list[AnnotatedImage]:
    """Read several annotated images whose landmarks stand in one file or folder, see :class:`AnnotatedImage`."""
    return [AnnotatedImage(item, landmarks, preprocessing) for item in items]


def names_of_all(templates: Sequence[AnnotatedImage]) -> tuple[str, ...]:
    """Names of all landmarks of some annotated images, in order of first appearance."""
    return tuple(dict.fromkeys(name for template in templates for name in template.points.names))


def templates_digest(templates: Sequence[AnnotatedImage]) -> str:
    """Digest by which templates are known again: sizes of their images in voxels and mm, and their landmarks.

    It leaves out the pixels, which another processor may resample with another rounding.
    """
    digest = hashlib.sha256()
    for template in templates:
        size = [int(length) for length in template.image.meta["spatial_shape"]]
        spacing = [f"{step:.6g}" for step in spacing_of(affines_of(template.image)[0]).tolist()]
        places = [[f"{value:.3f}" for value in place] for place in template.points.voxels.tolist()]
        digest.update(repr((size, spacing, template.points.names, places)).encode())
    return digest.hexdigest()


def fit_to(
    matcher: LandmarkMatcher,
    templates: Sequence[AnnotatedImage],
    names: Sequence[str],
    embed: Embed,
    strides: Sequence[int],
) -> None:
    """Give a matcher the descriptors of the landmarks of some annotated images.

    Args:
        matcher: The matcher to fit.
        templates: The annotated images.
        names: Names of the landmarks, in the order of the matcher's results.
        embed: Embeds images; its level maps have these ``strides``.
        strides: Strides of the levels, finest first.
    """
    matcher.fit(
        embed,
        strides,
        [template.image.as_tensor()[None] for template in templates],
        [template.voxels_of(names).float() for template in templates],
        [working_spacing(template.image) for template in templates],
    )
