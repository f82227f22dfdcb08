"""Streams of source images for cross-domain mix-up: procedural textures, or images of a folder.

A stream is a map-style dataset of ``len(stream)`` sources. ``stream[index]`` has shape (1, *spatial) and values from 0
to 1, and is the same in every worker, process and run. The training and the validation split share no source.
"""

from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from medpixcl.data.images import image_format, read_image
from medpixcl.data.phantoms import draw_phantom
from medpixcl.data.sources import group_files, visible_files
from medpixcl.data.textures.fields import check_shape, perlin_noise, power_noise, unit_range
from medpixcl.data.textures.patterns import gabor_patches, warped_checkers, worley_cells

SPLITS = ("training", "validation")
Shape = Sequence[int]
Random = np.random.Generator


def _noise(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    return power_noise(shape, random, beta=random.uniform(1.0, 3.5))


def _perlin(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    cell = _log_uniform(random, 8, max(*shape, 16) / 2)
    return perlin_noise(shape, random, cell=cell, octaves=int(random.integers(1, 5)))


def _cells(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    points = round(_log_uniform(random, 12, 120))
    return worley_cells(shape, random, points=points, flat=random.uniform(0, 1))


def _gabor(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    number = round(_log_uniform(random, 20, 150))
    return gabor_patches(shape, random, number=number, wavelength=(4.0, max(*shape, 32) / 4))


def _ellipsoids(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    return draw_phantom(shape, int(random.integers(2**32)))


def _checkers(shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    cell = _log_uniform(random, 5, max(*shape, 20) / 4)
    return warped_checkers(shape, random, cell=cell, warp=cell * random.uniform(0, 3), soft=random.uniform(0.05, 0.5))


def _log_uniform(random: Random, low: float | int, high: float | int) -> float:
    return float(np.exp(random.uniform(np.log(low), np.log(max(low, high)))))


DRAWN: dict[str, Callable[[Shape, Random], Float32[np.ndarray, "*s"]]] = {
    "noise": _noise,
    "perlin": _perlin,
    "cells": _cells,
    "gabor": _gabor,
    "ellipsoids": _ellipsoids,
    "checkers": _checkers,
}
"""Kinds of textures, each with the function that draws it with random parameters."""


def draw_texture(kind: str, shape: Shape, random: Random) -> Float32[np.ndarray, "*s"]:
    """Draw one texture with random parameters, values from 0 to 1.

    Args:
        kind: Kind of texture: ``noise`` (1/f^beta), ``perlin``, ``cells`` (Worley), ``gabor``, ``ellipsoids`` or
            ``checkers``.
        shape: Spatial shape, 2D or 3D.
        random: Source of all random numbers.

    Raises:
        ValueError: If there is no such kind, or the shape is not 2D or 3D.

    Example:
        >>> draw_texture("cells", (8, 8, 8), np.random.default_rng(0)).shape
        (8, 8, 8)
    """
    if kind not in DRAWN:
        raise ValueError(f"no texture of kind {kind!r}; the kinds are {', '.join(DRAWN)}.")
    return DRAWN[kind](check_shape(shape), random)


class ProceduralSources(Dataset):
    """Procedural textures in 2D or 3D, computed when they are read.

    Source ``index`` depends only on seed, split and index: it is the same in every worker, process and run.

    Args:
        shape: Shape of every source, at least that of the patches it is mixed with.
        kinds: Kinds of textures (:func:`draw_texture`); one is drawn for each source.
        split: Name of the split, ``training`` or ``validation``; the two share no seed.
        held_out_kinds: Kinds left out of training. Validation has only these, or all kinds if none is held out.
        number: Number of sources; the default is practically endless.
        seed: Random seed for all sources.

    Raises:
        ValueError: If a kind or split is not known, or none is left.
    """

    def __init__(
        self,
        shape: Sequence[int],
        kinds: Sequence[str] = tuple(DRAWN),
        split: str = "training",
        held_out_kinds: Sequence[str] = (),
        number: int = 2**31 - 1,
        seed: int = 0,
    ) -> None:
        if unknown := [kind for kind in (*kinds, *held_out_kinds) if kind not in DRAWN]:
            raise ValueError(f"no texture of kind {unknown[0]!r}; the kinds are {', '.join(DRAWN)}.")
        self.shape, self.split, self.number, self.seed = check_shape(shape), _check_split(split), number, seed
        training = [kind for kind in kinds if kind not in held_out_kinds]
        self.kinds = training if split == "training" else list(held_out_kinds) or training
        if not self.kinds or number < 1:
            raise ValueError("no source is left; give at least one kind that is not held out, and a number above 0.")

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> Float[Tensor, " 1 *s"]:
        if not 0 <= index < self.number:
            raise IndexError(f"source {index} of {self.number}.")
        random = np.random.default_rng((self.seed, SPLITS.index(self.split), index))
        kind = self.kinds[int(random.integers(len(self.kinds)))]
        return torch.from_numpy(draw_texture(kind, self.shape, random))[None]


class PictureSources(Dataset):
    """Grey images of a folder as sources, each scaled so that its values range from 0 to 1.

    The images may have any format that :func:`medpixcl.data.images.read_image` reads; other files are skipped.

    Args:
        images: Folder of images, or list of image files.
        split: Name of the split, ``training`` or ``validation``.
        held_out: Share of the images kept for validation, chosen by the seed; 0 gives both splits all images.
        smallest_side: Least length of an image's shortest side; smaller images are enlarged so that patches fit.
        seed: Random seed for choosing the validation images.

    Raises:
        ValueError: If there is no image, or none is left for the split.
    """

    def __init__(
        self,
        images: str | PathLike[str] | Sequence[str | PathLike[str]],
        split: str = "training",
        held_out: float = 0.2,
        smallest_side: int | None = None,
        seed: int = 0,
    ) -> None:
        roots = [Path(one) for one in ([images] if isinstance(images, str | PathLike) else images)]
        if missing := [path for path in roots if not path.exists()]:
            raise ValueError(f"{missing[0]} does not exist; expected a folder of source images, or an image.")
        found, _ = group_files([path for path in visible_files(roots) if image_format(path) is not None])
        if not found:
            name = roots[0] if roots else "the list of sources"
            raise ValueError(f"{name} holds no image to mix with; give a folder of pictures, or use ProceduralSources.")
        order = np.random.default_rng(seed).permutation(len(found))
        kept = round(held_out * len(found))
        if held_out:
            order = order[kept:] if _check_split(split) == "training" else order[:kept]
        if not len(order):
            raise ValueError(
                f"{len(found)} source image(s) with held_out={held_out} leave none for {split}; add images."
            )
        self.images = [found[place].image for place in sorted(order)]
        self.smallest_side = smallest_side

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Float[Tensor, " 1 *s"]:
        values = read_image(self.images[index], allow_missing_spacing=True).as_tensor()
        image = torch.from_numpy(unit_range(values.numpy()))
        shortest = min(image.shape[1:])
        if self.smallest_side is None or shortest >= self.smallest_side:
            return image
        sizes = [-(-size * self.smallest_side // shortest) for size in image.shape[1:]]
        mode = "bilinear" if len(sizes) == 2 else "trilinear"
        return F.interpolate(image[None], sizes, mode=mode, align_corners=False)[0]


SKIMAGE_PICTURES = ("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png")


def skimage_pictures() -> list[str]:
    """List the photographs in the scikit-image package, all CC0 or in the public domain, none of them medical.

    There are few, so that a network memorises them: use them for trials, not for pretraining.

    Raises:
        ValueError: If scikit-image is not installed, or its package holds none of them.
    """
    try:
        import skimage
    except ImportError:
        raise ValueError("scikit-image is not installed; run `pip install scikit-image`.") from None
    folder = Path(skimage.__file__).parent / "data"
    if found := [str(folder / name) for name in SKIMAGE_PICTURES if (folder / name).exists()]:
        return found
    raise ValueError("this release of scikit-image carries no pictures; give a folder of your own.")


def _check_split(split: str) -> str:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}; expected training or validation.")
    return split
