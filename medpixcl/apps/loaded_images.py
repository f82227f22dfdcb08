"""Images in memory: arrays and tensors with the same interface as images on disk."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.apps.images import AnyPath, ImageList, Images
from medpixcl.coordinates import image_affine
from medpixcl.data.identity import image_stem
from medpixcl.data.manifest import SECTIONS, Manifest

Array: TypeAlias = np.ndarray | Tensor
SpacingMM: TypeAlias = Sequence[float] | float | None
Searchable: TypeAlias = AnyPath | Manifest | Images | Array | Sequence[AnyPath | Array] | Mapping[str, Array]
"""Anything that names or holds images: paths, a manifest, a list of images, arrays, named arrays."""


def image_list(
    images: Searchable,
    *,
    spacing_mm: SpacingMM = None,
    exclude: Sequence[str] = (),
    spatial_dims: int | None = None,
    sections: Sequence[str] = SECTIONS,
) -> Images:
    """Return an image list for images given as files, arrays or tensors.

    Args:
        images: A file, a folder, a manifest, a list of paths, an :class:`~medpixcl.apps.images.ImageList`; or images in
            memory: an array, a ``MetaTensor``, a list of them, or a mapping of names to them.
        spacing_mm: Voxel size in mm of arrays along their axes, or of images whose file does not state it.
        exclude: Files to leave out of folders and manifests.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.
        sections: Sections of a manifest whose images are searched.

    Raises:
        ValueError: If no image is given, or an array has no spacing.
    """
    if isinstance(images, Images):
        return images
    if isinstance(images, np.ndarray | Tensor):
        return LoadedImages([images], spacing_mm, spatial_dims)
    if isinstance(images, Mapping):
        return LoadedImages(images, spacing_mm, spatial_dims)
    if not isinstance(images, str | PathLike | Manifest):
        if not len(images):
            raise ValueError("the list of images is empty; give at least one path or array")
        in_memory = [one for one in images if isinstance(one, np.ndarray | Tensor)]
        if in_memory:
            return LoadedImages(in_memory, spacing_mm, spatial_dims)
        paths = [one for one in images if isinstance(one, str | PathLike)]
        return ImageList(paths, spacing_mm, exclude, spatial_dims)
    return ImageList(images, spacing_mm, exclude, spatial_dims, sections)


class LoadedImages(Images):
    """Images in memory.

    Args:
        images: Arrays or tensors, (*spatial) or (1, *spatial), or a mapping of names to them. The affine of a
            ``MetaTensor`` is taken as voxel -> mm, RAS+. Those without a name are called ``image_000``, ``image_001``
            and so on, or like the file that a ``MetaTensor`` was read from.
        spacing_mm: Voxel size in mm along the axes of arrays without an affine, or one number for all axes.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.

    Raises:
        ValueError: If an array has no spacing or is not a grey image, or two images have the same name.
    """

    def __init__(
        self,
        images: Mapping[str, Array] | Sequence[Array],
        spacing_mm: SpacingMM = None,
        spatial_dims: int | None = None,
    ) -> None:
        named = (
            images.items() if isinstance(images, Mapping) else [(_name(one, n), one) for n, one in enumerate(images)]
        )
        self.images = {name: loaded_image(one, name, spacing_mm) for name, one in named}
        if len(self.images) != len(named):
            raise ValueError("two images in memory have the same name; give a mapping of names to images")
        self.spatial_dims = spatial_dims

    @cached_property
    def rejected(self) -> dict[str, str]:
        """Reason for every image that is not searched."""
        reasons = {name: self._why_not(image) for name, image in self.images.items()}
        return {name: reason for name, reason in reasons.items() if reason}

    @cached_property
    def datalist(self) -> list[dict[str, Any]]:
        """Items that the preprocessing transforms take."""
        return [{"image": image} for name, image in self.images.items() if name not in self.rejected]

    def check(self) -> None:
        """Check the images.

        Raises:
            ValueError: If there is no image to search.
        """
        if not self.datalist:
            reasons = [f"{name} {reason.rstrip('.')}" for name, reason in self.rejected.items()]
            raise ValueError(f"none of the images in memory can be searched ({'; '.join(reasons)})")

    def entry(self, image: str) -> dict[str, Any]:
        """Item of an image by its name."""
        return {"image": self.images[image]}

    def files(self, image: str) -> tuple[Path, ...]:
        """Return None, since the image is in memory."""
        return ()

    def name(self, image: str) -> str:
        """Name of an image in the results, as it was given."""
        return image

    def stem(self, image: str) -> str:
        """Name without suffix, unless two names would then be equal."""
        stem = image_stem(image)
        return stem if [image_stem(name) for name in self.images].count(stem) == 1 else image

    def _why_not(self, image: MetaTensor) -> str:
        dims = image.ndim - 1
        if self.spatial_dims not in (None, dims):
            return f"has {dims} spatial axes; the network takes {self.spatial_dims}."
        bad = int((~image.as_tensor().isfinite()).sum())
        return f"holds {bad} values that are not finite (NaN or Inf)." if bad else ""


def loaded_image(values: Array, name: str = "", spacing_mm: SpacingMM = None) -> MetaTensor:
    """Convert an array into what :func:`medpixcl.data.images.read_image` returns.

    Args:
        values: Grey values, (rows, columns), (i, j, k), or one of these with a first axis of length 1. A ``MetaTensor``
            has that first axis, and an affine: voxel -> mm, RAS+.
        name: Name of the image; that of its file by default.
        spacing_mm: Voxel size in mm along the array axes, or one number for all; a ``MetaTensor`` has its own.

    Raises:
        ValueError: If the array has no spacing, or is not a grey image.
    """
    name = name or _name(values, 0)
    pixels = torch.as_tensor(np.ascontiguousarray(values) if isinstance(values, np.ndarray) else values)
    if isinstance(values, MetaTensor):
        pixels, affine = values.as_tensor(), torch.as_tensor(values.affine, dtype=torch.float64).cpu()
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] != 1):
        pixels = pixels[None]
    if pixels.ndim not in (3, 4) or pixels.shape[0] != 1:
        raise ValueError(f"{name} has the shape {tuple(pixels.shape)}; expected one grey image of two or three axes")
    if not isinstance(values, MetaTensor):
        affine = _affine(name, pixels.ndim - 1, spacing_mm)
    meta = {
        "filename_or_obj": name,
        "spacing_source": "given",
        "modality": "",
        "original_affine": affine.numpy().copy(),
        "spatial_shape": list(pixels.shape[1:]),
        "space": "RAS",
    }
    return MetaTensor(pixels.detach().cpu().float(), affine=affine, meta=meta)


def _affine(name: str, dims: int, spacing_mm: SpacingMM) -> Tensor:
    """Voxel -> mm, RAS+, 4 x 4: rows run down and columns to the right; axes of a volume run along x, y, z."""
    if spacing_mm is None:
        raise ValueError(f"{name} is an array without an affine; give the size of its voxels as spacing_mm")
    sizes = [float(spacing_mm)] * dims if isinstance(spacing_mm, int | float) else [float(one) for one in spacing_mm]
    if len(sizes) != dims or min(sizes) <= 0:
        raise ValueError(
            f"spacing_mm of {name} is {spacing_mm}; expected a positive number or one for each of {dims} axes"
        )
    return image_affine(sizes) if dims == 2 else torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))


def _name(image: Array, number: int) -> str:
    """Name of the file that an image was read from, else a name made from its number."""
    file = image.meta.get("filename_or_obj") if isinstance(image, MetaTensor) else None
    return Path(str(file)).name if file else f"image_{number:03}"
