"""What several annotated images (templates) say about each other's marks."""

import copy
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from medpixcl.data.identity import telling_names
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.matching.matcher import LandmarkMatcher
from medpixcl.matching.templates import Template, TemplateSet

CONTRADICTED = 3.5
"""Ratio to the usual distance above which a mark is contradicted."""


def mark_warnings(matcher: LandmarkMatcher, templates: Sequence[AnnotatedImage], names: Sequence[str]) -> list[str]:
    """One sentence for each mark to check, and one for the landmarks that some templates lack.

    Args:
        matcher: Matcher fitted to the templates.
        templates: The annotated images.
        names: Names of the landmarks, in the order of the matcher.
    """
    away = contradicted_marks(matcher)
    marked = torch.stack([~template.voxels_of(names).isnan().any(dim=1) for template in templates])
    counts = marked.sum(dim=0).tolist()
    called = telling_names([str(template.path) for template in templates])
    warnings = []
    for number, index in (~away.isnan()).nonzero().tolist():
        others = "the other template places" if counts[index] == 2 else f"the {counts[index] - 1} other templates place"
        warnings.append(
            f"check the mark {names[index]!r} of {called[str(templates[number].path)]}: it lies "
            f"{float(away[number, index]):.1f} mm from where {others} it"
        )
    few = [f"{name!r} in {count}" for name, count in zip(names, counts, strict=True) if 0 < count < len(templates)]
    if few:
        warnings.append(f"of the {len(templates)} templates, not all have these landmarks: {', '.join(few)}")
    return warnings


@torch.no_grad()
def contradicted_marks(matcher: LandmarkMatcher) -> Float[Tensor, "t k"]:
    """Find marks of the templates that lie far from where the other templates place them.

    Every template is matched by all the others. Of each landmark, the mark farthest from its match is suspected if its
    distance is well above the median of all marks. The suspects are then left out and the other marks matched again: a
    suspect is contradicted if it also lies far outside the usual distance of its own landmark. Two templates that
    contradict each other are both named. A mark whose match is unsure is never named.

    Args:
        matcher: Matcher fitted to T templates.

    Returns:
        Distance of each contradicted mark from where the other templates place it, in mm, shape (T, K); NaN for all
        others, so for all marks of a single template.
    """
    templates = matcher.annotated.templates
    marks = torch.stack([template.voxels for template in templates])
    if len(templates) == 1:
        return torch.full_like(marks[..., 0], torch.nan)
    away = _distances(matcher, templates)
    usual = away.nanmedian()
    suspected = away > CONTRADICTED * usual
    if len(templates) > 2:
        suspected &= away == away.nan_to_num(-1).amax(dim=0)
        if bool(suspected.any()):
            others = _distances(matcher, _without(templates, suspected)).nanmedian(dim=0).values
            suspected &= ~(away <= CONTRADICTED * others)
    return away.masked_fill(~suspected, torch.nan)


def _distances(matcher: LandmarkMatcher, templates: list[Template]) -> Float[Tensor, "t k"]:
    """Distance in mm of each mark from its match by the other templates, NaN where there is none or it is unsure."""
    return torch.stack(
        [_distance(matcher, one, [other for other in templates if other is not one]) for one in templates]
    )


def _distance(matcher: LandmarkMatcher, template: Template, others: list[Template]) -> Float[Tensor, " k"]:
    """Distance in mm of the marks of one template from their matches by others."""
    if all(bool(other.voxels.isnan().all()) for other in others):
        return torch.full_like(template.voxels[:, 0], torch.nan)
    alone = copy.copy(matcher)
    alone.templates = TemplateSet(others)
    found = alone.search(template.levels, template.grid)
    away = (found.voxels - template.voxels) * template.voxels.new_tensor(template.grid.spacing)
    return torch.linalg.vector_norm(away, dim=1).masked_fill(found.unsure, torch.nan)


def _without(templates: list[Template], marks: Bool[Tensor, "t k"]) -> list[Template]:
    """Templates without some of their marks."""
    return [
        replace(template, voxels=template.voxels.masked_fill(gone[:, None], torch.nan))
        for template, gone in zip(templates, marks, strict=True)
    ]
