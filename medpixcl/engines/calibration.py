"""Calibration of the error radius without labels: how far matches through another image end from direct ones.

The template's landmarks are found in unlabelled images. What was found in one image then serves as the template for the
next. The distance between that match and the direct one of the template is an example error: it holds three errors of
matching (template to one image, template to the other, one to the other). The error against a reader's mark holds one
of matching and two of readers, of the template's and of the reference. Taking the one for the other supposes that a
reader is about as unsure as the matching, which no label-free method can tell; where a template's mark is off by more,
the radii are too small.
"""

import copy
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.coordinates import spacing_of, spatial_affine
from medpixcl.engines.image_list import ImageList
from medpixcl.engines.matching import Template
from medpixcl.engines.workflow import own_errors, read_bundle
from medpixcl.landmarks.calibration import RadiusCalibration, calibrate_radii
from medpixcl.matching import LandmarkMatcher, MatchResult
from medpixcl.networks.weights import load_weights

Embed = Callable[[Tensor], list[Tensor]]
"""Image (1, C, *spatial) to level maps (1, E, *cells), finest first."""
LEAST_IMAGES = 11
"""Fewer give no landmark a radius of 90 % of its own: ten examples, each between two images."""
CONTENT = (
    "template",
    "landmarks",
    "spacing_mm",
    "found",
    "preprocessing",
    "inferer",
    "network",
    "weights",
    "matcher",
    "device",
)
"""What is taken from a bundle's configuration."""
Progress = Callable[[int, int], None]
"""What is done, what there is in all."""


@dataclass(frozen=True)
class Matched:
    """An unlabelled image in which the landmarks were found.

    Attributes:
        picture: Shape (1, C, *spatial).
        levels: Its maps, (1, E, *cells), finest first.
        spacing: Size of a voxel in mm along the array axes.
        result: The template's landmarks in it.
    """

    picture: Tensor
    levels: list[Tensor]
    spacing: list[float]
    result: MatchResult


def match_image(matcher: LandmarkMatcher, embed: Embed, image: MetaTensor) -> Matched:
    """Find the template's landmarks in one prepared image (C, *spatial)."""
    affine = spatial_affine(torch.as_tensor(image.affine, dtype=torch.float64), image.ndim - 1)
    spacing, picture = spacing_of(affine).tolist(), image.as_tensor()[None]
    levels = embed(picture)
    return Matched(picture, levels, spacing, matcher.match(levels, picture.shape[2:], spacing))


def detour_errors(matcher: LandmarkMatcher, strides: Sequence[int], via: Matched, target: Matched) -> Tensor:
    """Distances in mm between the landmarks in ``target`` found through ``via`` and those found directly.

    Args:
        matcher: How landmarks are matched; it keeps its own template.
        strides: Voxels per cell of the levels, finest first.
        via: The image whose found landmarks are taken as a template's.
        target: The other image.

    Returns:
        Shape (K,), NaN where a landmark is missing.
    """
    other = copy.copy(matcher)
    other.fit(lambda _: via.levels, strides, via.picture, via.result.voxels, via.spacing)
    through = other.match(target.levels, target.picture.shape[2:], target.spacing)
    step = through.voxels - target.result.voxels
    return torch.linalg.vector_norm(step * step.new_tensor(target.spacing), dim=1).cpu()


def example_errors(
    matcher: LandmarkMatcher, embed: Embed, strides: Sequence[int], images: Iterable[MetaTensor]
) -> tuple[Float[Tensor, "n k"], Bool[Tensor, "n k"]]:
    """Example errors of a fitted matcher, one for every image but the first; each goes through the one before.

    A landmark that is unsure in the image between is no example: the template's own mark is not of that kind.

    Args:
        matcher: Fitted to the template.
        embed: The pretrained network.
        strides: Voxels per cell of its levels, finest first.
        images: At least two prepared images (C, *spatial); two are in memory at a time.

    Returns:
        Errors in mm (N - 1, K), NaN where there is none, and whether the direct match was flagged as unsure.
    """
    errors, unsure = [], []
    matched = (match_image(matcher, embed, image) for image in images)
    for via, target in itertools.pairwise(matched):
        doubtful = torch.tensor([flag == "unsure" for flag in via.result.flags])
        errors.append(detour_errors(matcher, strides, via, target).masked_fill(doubtful, torch.nan))
        unsure.append(torch.tensor([flag == "unsure" for flag in target.result.flags]))
    return torch.stack(errors), torch.stack(unsure)


def draw_items(images: ImageList, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """At most ``limit`` images in random order.

    Raises:
        ValueError: If there are too few of them.
    """
    usable = len(images.datalist)
    if min(usable, usable if limit is None else limit) < LEAST_IMAGES:
        raise ValueError(
            f"{images.path} has {usable} usable images, of which at most {limit or usable} are taken; a calibration "
            f"needs at least {LEAST_IMAGES} and is better with 50"
        )
    order = torch.randperm(usable, generator=torch.Generator().manual_seed(seed))[:limit]
    return [images.datalist[number] for number in order.tolist()]


def calibrate_from_bundle(
    bundle: Path,
    overrides: Mapping[str, Any],
    *,
    coverage: float = 0.9,
    limit: int | None = 100,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> tuple[RadiusCalibration, dict[str, str]]:
    """Calibrate with the template, matcher, network, weights and preprocessing of a matching bundle.

    Args:
        bundle: Its folder.
        overrides: Config ids of its ``inference`` configuration to values: ``template``, ``landmarks``, ``images``.
        coverage: Probability that a true place shall lie within the radius.
        limit: At most so many images, drawn at random; None for all.
        seed: Of that, and of the order.
        progress: Called after every image.

    Returns:
        The calibration, and the reason for every file that was rejected.

    Raises:
        BundleError: If an override names no id of the configuration.
        ValueError: Of bad input.
    """
    parser = read_bundle(bundle, "inference", overrides)
    with own_errors():
        template, landmarks, spacing, found, prepare, inferer, network, weights, matcher, device = (
            parser.get_parsed_content(key) for key in CONTENT
        )
        annotated = Template(template, landmarks, prepare, spacing)
    found.check()
    items = draw_items(found, limit, seed)
    if weights is not None:
        load_weights(network, weights)
    annotated.fit(matcher, network, inferer, device)

    def prepared() -> Iterator[MetaTensor]:
        for number, item in enumerate(items):
            yield prepare(item)["image"]
            progress(number + 1, len(items))

    errors, unsure = example_errors(matcher, matcher.embed, network.strides, prepared())
    return calibrate_radii(errors, unsure, annotated.points.names, coverage=coverage), found.rejected
