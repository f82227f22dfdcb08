"""Patches of different images that show the same anatomy, found without labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from monai.data import MetaTensor
from torch import Tensor

from medpixcl._typing import Progress
from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.correspondence.pixels import draw_pixels
from medpixcl.informativeness import sampling_weights
from medpixcl.matching.mutual import mutual_matches
from medpixcl.networks.embedding import LevelsNet

CYCLE_CELLS = 2
"""Greatest distance between a pixel and its best match there and back, in cells of the finest level."""


@dataclass(frozen=True)
class PatchPairs:
    """Patches and their partners in other images, N of them.

    Attributes:
        patches: Around the pixels drawn, shape (N, *window).
        partners: Around their matches, the same shape.
        classes: Informativeness of the pixels drawn: 0 low, 1 medium, 2 high; shape (N,).
        drawn: Pixels drawn in all, matched or not.
    """

    patches: Float[Tensor, " n *s"]
    partners: Float[Tensor, " n *s"]
    classes: Int[Tensor, " n"]
    drawn: int


@dataclass(frozen=True)
class EmbeddedImage:
    """An image with its informativeness and embedding.

    Attributes:
        image: Grey levels between 0 and 1, shape (*spatial).
        entropy: Bits, the same shape.
        classes: 0 low, 1 medium, 2 high, the same shape.
        levels: Unit vectors (E, *cells), finest first.
        spacing: mm per voxel along the array axes.
        group: Images of the same group show the same picture.
    """

    image: Float[Tensor, " *s"]
    entropy: Float[Tensor, " *s"]
    classes: Int[Tensor, " *s"]
    levels: list[Tensor]
    spacing: tuple[float, ...]
    group: str


def embed_item(item: Mapping[Any, Any], levels: Callable[[Tensor], list[Tensor]], group: str) -> EmbeddedImage:
    """Embed an item with ``image``, ``entropy_image`` and ``class_image``, as a pretraining bundle prepares it."""
    image: MetaTensor = item["image"]
    dims = image.ndim - 1
    with torch.no_grad():
        maps = [level[0] for level in levels(image.as_tensor()[None])]
    spacing = spacing_of(spatial_affine(torch.as_tensor(image.affine), dims)).tolist()
    plain = [torch.as_tensor(item[key]).as_subclass(Tensor)[0] for key in ("image", "entropy_image", "class_image")]
    return EmbeddedImage(plain[0].float(), plain[1].float(), plain[2].long(), maps, tuple(spacing), group)


def draw_image_pairs(groups: Sequence[str], number: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """Ordered pairs of different images, drawn without repetition; repeats of one picture are never paired.

    Args:
        groups: Group of every image; equal for repeats of one picture.
        number: Greatest number of pairs.
        generator: Source of randomness.
    """
    every = [(a, b) for a, one in enumerate(groups) for b, other in enumerate(groups) if one != other]
    return [every[index] for index in torch.randperm(len(every), generator=generator)[:number].tolist()]


def corresponding_patches(
    images: Sequence[EmbeddedImage],
    pairs: Sequence[tuple[int, int]],
    network: LevelsNet,
    *,
    window_mm: float,
    points: int,
    exponent: float,
    max_cycle_mm: float | None = None,
    generator: torch.Generator,
    progress: Progress = lambda done, total: None,
) -> PatchPairs:
    """Patches around pixels of one image, and around what they match in another.

    Pixels are drawn by informativeness where a whole window fits. A pixel is kept if its best match in the other image,
    matched back, ends near it, and if a whole window fits there too.

    Args:
        images: Images of one spacing.
        pairs: Numbers of the images.
        network: Network that embedded the images.
        window_mm: Side of the windows.
        points: Pixels drawn per pair of images.
        exponent: Exponent of the informativeness by which pixels are drawn.
        max_cycle_mm: Greatest distance after matching there and back; two cells of the finest level when None.
        generator: Source of randomness.
        progress: Called with the pairs done and in all.

    Raises:
        ValueError: If a window does not fit into an image.
    """
    patches, partners, classes = [], [], []
    for number, (one, other) in enumerate(pairs):
        source, target = images[one], images[other]
        size = window_size(window_mm, source.spacing)
        pixels = draw_centres(source, size, points, exponent, generator)
        shapes = (source.image.shape, target.image.shape)
        found = mutual_matches(
            pixels.to(source.levels[0]), source.levels, target.levels, network.strides, shapes, source.spacing
        )
        limit = CYCLE_CELLS * network.strides[0] * min(source.spacing) if max_cycle_mm is None else max_cycle_mm
        starts, matched = window_starts(pixels, size), window_starts(found.voxels.cpu(), size)
        kept = (found.cycle_mm.cpu() <= limit) & fits(matched, size, shapes[1])
        patches.append(cut_windows(source.image, starts[kept], size))
        partners.append(cut_windows(target.image, matched[kept], size))
        classes.append(source.classes[tuple(pixels[kept].long().T)])
        progress(number + 1, len(pairs))
    return PatchPairs(torch.cat(patches), torch.cat(partners), torch.cat(classes), points * len(pairs))


def window_size(window_mm: float, spacing: Sequence[float]) -> list[int]:
    """Pixels of a window along every axis."""
    return [max(1, round(window_mm / step)) for step in spacing]


def draw_centres(
    image: EmbeddedImage, size: Sequence[int], number: int, exponent: float, generator: torch.Generator
) -> Float[Tensor, "k d"]:
    """Pixels (K, D) drawn by informativeness among those whose window lies inside the image."""
    inner = [extent - length + 1 for extent, length in zip(image.image.shape, size, strict=True)]
    if min(inner) < 1:
        raise ValueError(
            f"a window of {list(size)} pixels does not fit into an image of {list(image.image.shape)}; "
            "expected images larger than the window: give a smaller window in mm"
        )
    offset = torch.tensor([length // 2 for length in size])
    region = tuple(slice(start, start + extent) for start, extent in zip(offset.tolist(), inner, strict=True))
    weights = sampling_weights(image.entropy[region][None, None], exponent=exponent)
    pixels, drawn = draw_pixels(weights, min(number, weights.numel()), generator=generator)
    return pixels[0, drawn[0]] + offset


def window_starts(centres: Float[Tensor, "k d"], size: Sequence[int]) -> Int[Tensor, "k d"]:
    """First pixel of the window around each pixel."""
    return centres.round().long() - torch.tensor([length // 2 for length in size])


def fits(starts: Int[Tensor, "k d"], size: Sequence[int], shape: Sequence[int]) -> Tensor:
    """True for windows that lie inside an image."""
    last = torch.tensor([extent - length for extent, length in zip(shape, size, strict=True)])
    return ((starts >= 0) & (starts <= last)).all(dim=1)


def cut_windows(image: Float[Tensor, " *s"], starts: Int[Tensor, "k d"], size: Sequence[int]) -> Float[Tensor, "k ..."]:
    """Windows (K, *size) of an image."""
    windows = image
    for axis, length in enumerate(size):
        windows = windows.unfold(axis, length, 1)
    return windows[tuple(starts.T)]
