"""Calibration of the error radius without labels, from two kinds of disagreement between matches.

* **Detour**: the landmarks found in one unlabelled image serve as the template for the next one. The distance between
  this match and the direct match of the template estimates the matching error.
* **Shape**: the distance between each match and the position predicted from the other landmarks of its image, by a
  shape model learnt from the same matches.

Both are combined as if they were independent. Neither includes errors in the template's own marks or differences
between readers: pass the readers' standard deviation if it is known, or the radii will be too small.
"""

import copy
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl._typing import AnyPath, Embed, Progress
from medpixcl.apps.images import ImageList
from medpixcl.apps.match import Matcher
from medpixcl.coordinates import working_spacing
from medpixcl.landmarks.calibration import RadiusCalibration, calibrate_radii, with_readers
from medpixcl.matching import LandmarkMatcher, MatchResult
from medpixcl.matching.point_distribution import PointDistribution

LEAST_SHAPE = 3
"""Smallest number of landmarks that define a shape."""
LEAST_IMAGES = 11
"""Smallest number of images: they give ten examples, as many as a 90 % radius needs."""


@dataclass(frozen=True)
class Matched:
    """An unlabelled image in which the landmarks were found.

    Attributes:
        picture: Prepared image, shape (1, C, *spatial).
        levels: Level maps of the image, each (1, E, *cells), finest first.
        spacing: Size of a voxel in mm along the array axes.
        result: Landmarks of the template found in the image.
    """

    picture: Tensor
    levels: list[Tensor]
    spacing: list[float]
    result: MatchResult


def match_image(matcher: LandmarkMatcher, embed: Embed, image: MetaTensor) -> Matched:
    """Find the template's landmarks in one prepared image (C, *spatial)."""
    spacing, picture = working_spacing(image), image.as_tensor()[None]
    levels = embed(picture)
    return Matched(picture, levels, spacing, matcher.match(levels, picture.shape[2:], spacing))


def detour_errors(matcher: LandmarkMatcher, strides: Sequence[int], via: Matched, target: Matched) -> Tensor:
    """Distances in mm between the landmarks in ``target`` found through ``via`` and those found directly.

    Args:
        matcher: Matcher fitted to the template; it is not changed.
        strides: Voxels per cell of the levels, finest first.
        via: Image whose found landmarks serve as a template.
        target: Image in which both matches are compared.

    Returns:
        Shape (K,), NaN where a landmark is missing.
    """
    other = copy.copy(matcher)
    other.fit(lambda _: via.levels, strides, via.picture, via.result.voxels, via.spacing)
    through = other.match(target.levels, target.picture.shape[2:], target.spacing)
    step = through.voxels - target.result.voxels
    return torch.linalg.vector_norm(step * step.new_tensor(target.spacing), dim=1).cpu()


@dataclass(frozen=True)
class Examples:
    """Matches in N images, each found directly and through the previous image.

    Attributes:
        detour_mm: Distance in mm between the direct match and the detour, shape (N, K), NaN where missing.
        found_mm: Position of the direct match in mm along the array axes, shape (N, K, D), NaN where missing.
        unsure: Whether the direct match was flagged as unsure, shape (N, K).
    """

    detour_mm: Float[Tensor, "n k"]
    found_mm: Float[Tensor, "n k d"]
    unsure: Bool[Tensor, "n k"]


def collect_examples(
    matcher: LandmarkMatcher, embed: Embed, strides: Sequence[int], images: Iterable[MetaTensor]
) -> Examples:
    """Match all images directly, and all but the first also through the previous image.

    Landmarks that are unsure in the previous image are left out, since a template's own marks are reliable.

    Args:
        matcher: Matcher fitted to the template.
        embed: Pretrained embedding network.
        strides: Voxels per cell of the network's levels, finest first.
        images: At least two prepared images (C, *spatial); only two are held in memory at a time.
    """
    detours, found, unsure = [], [], []
    matched = (match_image(matcher, embed, image) for image in images)
    for via, target in itertools.pairwise(matched):
        doubtful = torch.tensor([flag == "unsure" for flag in via.result.flags])
        detours.append(detour_errors(matcher, strides, via, target).masked_fill(doubtful, torch.nan))
        found.append(target.result.voxels.cpu() * torch.tensor(target.spacing))
        unsure.append(torch.tensor([flag == "unsure" for flag in target.result.flags]))
    return Examples(torch.stack(detours), torch.stack(found), torch.stack(unsure))


def shape_errors(
    found_mm: Float[Tensor, "n k d"], unsure: Bool[Tensor, "n k"], template_mm: Float[Tensor, "k d"]
) -> Float[Tensor, "n k"]:
    """Distance of each match from its position predicted by the others, (N, K) in mm; 0 for fewer than three.

    Args:
        found_mm: Positions of the matches in mm, shape (N, K, D), NaN where missing.
        unsure: Matches that are left out when the shape is learnt, shape (N, K).
        template_mm: Landmarks of the template in mm, shape (K, D), NaN where missing.
    """
    errors = torch.zeros_like(found_mm[..., 0])
    there = ~(found_mm.isnan().any(dim=2).any(dim=0) | template_mm.isnan().any(dim=1))
    if int(there.sum()) >= LEAST_SHAPE:
        points, weights = found_mm[:, there].double(), (~unsure[:, there]).double()
        shape = PointDistribution(points, weights, template_mm[there].double())
        miss = torch.linalg.vector_norm(points - shape.judge(points, weights).predicted, dim=2)
        errors[:, there] = miss.to(errors)
    return errors


def draw_items(images: ImageList, limit: int | None, seed: int) -> list[dict[str, Any]]:
    """Draw at most ``limit`` images in random order.

    Raises:
        ValueError: If there are too few images.
    """
    usable = len(images.datalist)
    if min(usable, usable if limit is None else limit) < LEAST_IMAGES:
        raise ValueError(
            f"{images.path} has {usable} usable images, of which at most {limit or usable} are taken; a calibration "
            f"needs at least {LEAST_IMAGES} and is better with 50"
        )
    order = torch.randperm(usable, generator=torch.Generator().manual_seed(seed))[:limit]
    return [images.datalist[number] for number in order.tolist()]


def calibrate(
    matcher: Matcher,
    images: AnyPath,
    *,
    coverage: float = 0.9,
    reader_mm: float = 0.0,
    limit: int | None = 100,
    seed: int = 0,
    spacing_mm: float | None = None,
    progress: Progress = lambda done, total: None,
) -> tuple[RadiusCalibration, dict[str, str]]:
    """Estimate from unlabelled images how far off the landmarks of a matcher may be.

    Args:
        matcher: Matcher with one template.
        images: Folder or manifest of unlabelled images; the template is left out.
        coverage: Probability with which a true position should lie within the radius.
        reader_mm: Standard deviation of a reader's marks along one axis in mm; 0 ignores the readers' error.
        limit: Maximum number of images, drawn at random; None takes all.
        seed: Random seed for choosing and ordering the images and for the readers' marks.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        progress: Function called after every image.

    Returns:
        The calibration, and the reason for every file that was rejected.

    Raises:
        ValueError: If the input is bad.
    """
    found = ImageList(images, spacing_mm, matcher.files, matcher.spatial_dims)
    found.check()
    items = draw_items(found, limit, seed)
    template, strides = matcher.templates[0], matcher.network.strides

    def prepared() -> Iterator[MetaTensor]:
        for number, item in enumerate(items):
            yield matcher.preprocessing(item)["image"]
            progress(number + 1, len(items))

    examples = collect_examples(matcher.inferer.matcher, matcher.model, strides, prepared())
    marks = template.voxels.float() * torch.tensor(working_spacing(template.image))
    errors = torch.hypot(examples.detour_mm, shape_errors(examples.found_mm, examples.unsure, marks))
    errors = with_readers(errors, reader_mm, marks.shape[1], torch.Generator().manual_seed(seed))
    return calibrate_radii(errors, examples.unsure, matcher.names, coverage=coverage), found.rejected
