"""Images in memory: arrays and tensors with the same interface as images on disk."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path, PurePath
from typing import Any, TypeAlias

import numpy as np
import torch
from monai.data import MetaTensor
from torch import Tensor

from medpixcl._typing import AnyPath, Array
from medpixcl.apps.images import ImageList, Images
from medpixcl.coordinates import image_affine
from medpixcl.data.identity import unique_stems
from medpixcl.data.images import READ_FROM
from medpixcl.data.manifest import SECTIONS, Manifest
from medpixcl.data.paths import shown_value
from medpixcl.data.pixels import SpacingMM

Searchable: TypeAlias = AnyPath | Manifest | Images | Array | Sequence[AnyPath | Array] | Mapping[str, Array]
"""Anything that names or holds images: paths, a manifest, a list of images, arrays, named arrays."""


def image_list(
    images: Searchable,
    *,
    spacing_mm: SpacingMM | None = None,
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
        listed = _listed(images)
        if isinstance(listed[0], str | PathLike):
            return ImageList(listed, spacing_mm, exclude, spatial_dims)
        return LoadedImages(listed, spacing_mm, spatial_dims)
    return ImageList(images, spacing_mm, exclude, spatial_dims, sections)


def _listed(images: Any) -> list[Any]:
    """Several paths or several images in memory; a ValueError says what else was given."""
    if isinstance(images, bytes) or not isinstance(images, Iterable):
        raise ValueError(f"the images are {shown_value(images)}; expected paths, a manifest, arrays or tensors")
    listed = list(images)
    if not listed:
        raise ValueError("the list of images is empty; give at least one path or array")
    for kinds in (str | PathLike, np.ndarray | Tensor):
        if isinstance(listed[0], kinds) and all(isinstance(one, kinds) for one in listed):
            return listed
    found = ", ".join(dict.fromkeys(type(one).__name__ for one in listed))
    raise ValueError(f"the list of images holds {found}; give either paths alone or arrays and tensors alone")


class LoadedImages(Images):
    """Images in memory.

    Args:
        images: Arrays or tensors, (*spatial) or (1, *spatial), or a mapping of names to them. The affine of a
            ``MetaTensor`` is taken as voxel -> mm, RAS+. Those without a name are called ``image_000``, ``image_001``
            and so on, or like the file that a ``MetaTensor`` was read from.
        spacing_mm: Voxel size in mm along the axes of arrays without an affine, or one number for all axes.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.

    Raises:
        ValueError: If there is no image, an array has no spacing or is no grey image, two images have the same name, or
            a name would lead files out of the folder of the results.
    """

    def __init__(
        self,
        images: Mapping[str, Array] | Sequence[Array],
        spacing_mm: SpacingMM | None = None,
        spatial_dims: int | None = None,
    ) -> None:
        named = (
            images.items() if isinstance(images, Mapping) else [(_name(one, n), one) for n, one in enumerate(images)]
        )
        self.images = {_checked_name(name): loaded_image(one, name, spacing_mm) for name, one in named}
        if len(self.images) != len(named):
            raise ValueError("two images in memory have the same name; give a mapping of names to images")
        if not self.images:
            raise ValueError("the mapping of images is empty; give at least one name and array")
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

    def digest(self) -> str:
        """Digest of the images."""
        digest = hashlib.sha256()
        for item in self.datalist:
            image: MetaTensor = item["image"]
            digest.update(repr((image.meta["filename_or_obj"], image.affine.tolist(), tuple(image.shape))).encode())
            digest.update(image.as_tensor().contiguous().numpy().tobytes())
        return digest.hexdigest()

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
        return self._stems[image]

    @cached_property
    def _stems(self) -> dict[str, str]:
        return unique_stems(self.images)

    def _why_not(self, image: MetaTensor) -> str:
        dims = image.ndim - 1
        if self.spatial_dims not in (None, dims):
            return f"has {dims} spatial axes; the network takes {self.spatial_dims}."
        return not_finite(image)


def loaded_image(values: Array, name: str = "", spacing_mm: SpacingMM | None = None) -> MetaTensor:
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
    pixels = _pixels(name, values)
    if pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[0] != 1):
        pixels = pixels[None]
    if pixels.ndim not in (3, 4) or pixels.shape[0] != 1 or not pixels.numel():
        raise ValueError(f"{name} has the shape {tuple(pixels.shape)}; expected one grey image of two or three axes")
    affine = _affine_of(name, values) if isinstance(values, MetaTensor) else _affine(name, pixels.ndim - 1, spacing_mm)
    meta = {
        "filename_or_obj": name,
        "spacing_source": "given",
        "modality": "",
        "original_affine": affine.numpy().copy(),
        "spatial_shape": list(pixels.shape[1:]),
        "space": "RAS",
        READ_FROM: _file_of(values),
    }
    return MetaTensor(pixels, affine=affine, meta=meta)


def not_finite(image: MetaTensor) -> str:
    """Reason why an image with NaN or Inf cannot be used; empty for any other image."""
    bad = int((~image.as_tensor().isfinite()).sum())
    return f"holds {bad} values that are not finite (NaN or Inf)." if bad else ""


def _checked_name(name: Any) -> str:
    if (
        not isinstance(name, str)
        or not name
        or "\0" in name
        or PurePath(name).is_absolute()
        or ".." in PurePath(name).parts
    ):
        raise ValueError(
            f"{name!r} cannot name an image: its files would lie out of the folder of the results; give a relative "
            "path, such as 'patient/image'"
        )
    return name


def _pixels(name: str, values: Any) -> Tensor:
    """Grey values as float32 on the CPU."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "biuf":
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
    if isinstance(values, Tensor) and not (values.is_complex() or values.is_meta or values.layout != torch.strided):
        return torch.as_tensor(values).detach().cpu().float()
    kind = str(getattr(values, "dtype", type(values).__name__))
    raise ValueError(f"{name} is no image but {kind}; give a path, or an array or a dense tensor of real numbers")


def _affine_of(name: str, image: MetaTensor) -> Tensor:
    """Affine of a tensor, voxel -> mm, RAS+, float64."""
    affine = torch.as_tensor(image.affine, dtype=torch.float64).cpu()
    if not (bool(affine.isfinite().all()) and abs(float(torch.linalg.det(affine))) > 0):
        raise ValueError(f"the affine of {name} has no inverse; give one from voxels to mm, RAS+")
    return affine


def _affine(name: str, dims: int, spacing_mm: SpacingMM | None) -> Tensor:
    """Voxel -> mm, RAS+, 4 x 4: rows run down and columns to the right; axes of a volume run along x, y, z."""
    if spacing_mm is None:
        raise ValueError(f"{name} is an array without an affine; give the size of its voxels as spacing_mm")
    try:
        sizes = np.broadcast_to(np.asarray(spacing_mm, dtype=np.float64), dims).tolist()
    except (TypeError, ValueError):
        sizes = []
    if not sizes or not all(0 < size < np.inf for size in sizes):
        raise ValueError(
            f"spacing_mm of {name} is {spacing_mm}; expected a positive number or one for each of {dims} axes"
        )
    return image_affine(sizes) if dims == 2 else torch.diag(torch.tensor([*sizes, 1.0], dtype=torch.float64))


def _name(image: Array, number: int) -> str:
    """Name of the file that an image was read from, else a name made from its number."""
    file = _file_of(image)
    return Path(file).name if file else f"image_{number:03}"


def _file_of(image: Array) -> str:
    """File that an image in memory was read from; empty if it does not say."""
    return str(image.meta.get("filename_or_obj") or "") if isinstance(image, MetaTensor) else ""
