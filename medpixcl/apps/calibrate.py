"""Calibration of the error radius without labels, from two kinds of disagreement between matches.

* **Detour**: the landmarks found in as many unlabelled images as there are templates serve as templates for the next
  image. The distance between this match and the direct match of the templates estimates the matching error.
* **Shape**: the distance between each match and the position predicted from the other landmarks of its image, by a
  shape model learnt from the same matches.

Both are combined as if they were independent. Neither includes errors in the template's own marks or differences
between readers: pass the readers' standard deviation if it is known, or the radii will be too small.
"""

import copy
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from monai.data import MetaTensor
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from medpixcl._typing import AnyPath, Embed, Progress
from medpixcl.apps.images import ImageList
from medpixcl.apps.match import Matcher
from medpixcl.coordinates import working_spacing
from medpixcl.landmarks.calibration import RadiusCalibration, calibrate_radii, with_readers
from medpixcl.landmarks.geometry import mean_shape
from medpixcl.matching import LandmarkMatcher, MatchResult
from medpixcl.matching.point_distribution import PointDistribution

LEAST_SHAPE = 3
"""Smallest number of landmarks that define a shape."""
LEAST_EXAMPLES = 10
"""Smallest number of examples, as many as a 90 % radius needs; the first image gives none, and so does one more for
every further template."""


@dataclass(frozen=True)
class Matched:
    """An unlabelled image in which the landmarks were found.

    Attributes:
        picture: Prepared image, shape (1, C, *spatial).
        spacing: Size of a voxel in mm along the array axes.
        result: Landmarks of the template found in the image.
    """

    picture: Tensor
    spacing: list[float]
    result: MatchResult


def match_image(matcher: LandmarkMatcher, image: MetaTensor) -> Matched:
    """Find the template's landmarks in one prepared image (C, *spatial)."""
    spacing, picture = working_spacing(image), image.as_tensor()[None]
    return Matched(picture, spacing, matcher.match(picture, picture.shape[2:], spacing))


def detour_errors(matcher: LandmarkMatcher, strides: Sequence[int], via: Sequence[Matched], target: Matched) -> Tensor:
    """Distances in mm between the landmarks in ``target`` found through ``via`` and those found directly.

    Landmarks that are unsure in an image of ``via`` are left out of it, since a template's own marks are reliable.

    Args:
        matcher: Matcher fitted to the templates; it is not changed.
        strides: Voxels per cell of the levels, finest first.
        via: Images whose found landmarks serve as templates.
        target: Image in which both matches are compared.

    Returns:
        Shape (K,), NaN where a landmark is missing.
    """
    marks = [one.result.voxels.masked_fill(one.result.unsure[:, None], torch.nan) for one in via]
    if all(bool(points.isnan().all()) for points in marks):
        return torch.full_like(target.result.scores, torch.nan).cpu()
    other = copy.copy(matcher)
    other.fit(matcher.embed, strides, [one.picture for one in via], marks, [one.spacing for one in via])
    through = other.match(target.picture, target.picture.shape[2:], target.spacing)
    step = through.voxels - target.result.voxels
    return torch.linalg.vector_norm(step * step.new_tensor(target.spacing), dim=1).cpu()


def _remembering(embed: Embed) -> Embed:
    """The same function, which embeds an image once as long as the image is in memory."""
    levels = WeakTensorKeyDictionary()

    def embedded(image: Tensor) -> list[Tensor]:
        if image not in levels:
            levels[image] = embed(image)
        return levels[image]

    return embedded


@dataclass(frozen=True)
class Examples:
    """Matches in N images, each found directly and through the images before.

    Attributes:
        detour_mm: Distance in mm between the direct match and the detour, shape (N, K), NaN where missing.
        found_mm: Position of the direct match in mm along the array axes, shape (N, K, D), NaN where missing.
        unsure: Whether the direct match was flagged as unsure, shape (N, K).
    """

    detour_mm: Float[Tensor, "n k"]
    found_mm: Float[Tensor, "n k d"]
    unsure: Bool[Tensor, "n k"]


def collect_examples(matcher: LandmarkMatcher, strides: Sequence[int], images: Iterable[MetaTensor]) -> Examples:
    """Match all images directly, and each also through the images before it, as many as there are templates.

    Args:
        matcher: Matcher fitted to the T templates.
        strides: Voxels per cell of the network's levels, finest first.
        images: More than T prepared images (C, *spatial); only T + 1 are held in memory at a time. The first T serve
            as detours only.
    """
    matcher, templates = copy.copy(matcher), len(matcher.annotated.templates)
    matcher.embed = _remembering(matcher.embed)
    before: deque[Matched] = deque(maxlen=templates)
    detours, found, unsure = [], [], []
    matched = (match_image(matcher, image) for image in images)
    for target in matched:
        via = list(before)
        before.append(target)
        if len(via) < templates:
            continue
        detours.append(detour_errors(matcher, strides, via, target))
        found.append(target.result.voxels.cpu() * torch.tensor(target.spacing))
        unsure.append(target.result.unsure.cpu())
    return Examples(torch.stack(detours), torch.stack(found), torch.stack(unsure))


def shape_errors(
    found_mm: Float[Tensor, "n k d"], unsure: Bool[Tensor, "n k"], template_mm: Float[Tensor, "k d"]
) -> Float[Tensor, "n k"]:
    """Distance of each match from its position predicted by the others, (N, K) in mm; 0 for fewer than three.

    Args:
        found_mm: Positions of the matches in mm, shape (N, K, D), NaN where missing.
        unsure: Matches that are left out when the shape is learnt, shape (N, K).
        template_mm: Landmarks of the template (the mean of several) in mm, shape (K, D), NaN where missing.
    """
    errors = torch.zeros_like(found_mm[..., 0])
    there = ~(found_mm.isnan().any(dim=2).any(dim=0) | template_mm.isnan().any(dim=1))
    if int(there.sum()) >= LEAST_SHAPE:
        points, weights = found_mm[:, there].double(), (~unsure[:, there]).double()
        shape = PointDistribution(points, weights, template_mm[there].double())
        miss = torch.linalg.vector_norm(points - shape.judge(points, weights).predicted, dim=2)
        errors[:, there] = miss.to(errors)
    return errors


def draw_items(images: ImageList, limit: int | None, seed: int, *, templates: int = 1) -> list[dict[str, Any]]:
    """Draw at most ``limit`` images in random order, for a calibration of some templates.

    Raises:
        ValueError: If there are too few images.
    """
    usable, least = len(images.datalist), templates + LEAST_EXAMPLES
    if min(usable, usable if limit is None else limit) < least:
        raise ValueError(
            f"{images.path} has {usable} usable images, of which at most {limit or usable} are taken; a calibration "
            f"needs at least {least} and is better with 50"
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
        matcher: Matcher with its templates.
        images: Folder or manifest of unlabelled images; templates are left out.
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
    items = draw_items(found, limit, seed, templates=len(matcher.templates))
    strides = matcher.network.strides

    def prepared() -> Iterator[MetaTensor]:
        for number, item in enumerate(items):
            yield matcher.preprocessing(item)["image"]
            progress(number + 1, len(items))

    examples = collect_examples(matcher.inferer.matcher, strides, prepared())
    marks = mean_shape(
        [one.voxels_of(matcher.names).float() * torch.tensor(working_spacing(one.image)) for one in matcher.templates]
    )
    errors = torch.hypot(examples.detour_mm, shape_errors(examples.found_mm, examples.unsure, marks))
    errors = with_readers(errors, reader_mm, marks.shape[1], torch.Generator().manual_seed(seed))
    made = calibrate_radii(errors, examples.unsure, matcher.names, coverage=coverage)
    return replace(made, made_for=matcher.digest), found.rejected
