"""Marks that the other templates contradict, on embeddings whose places are known exactly."""

import pytest
import torch
from torch import Tensor

from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.marks import contradicted_marks
from tests.matching.fields import WaveField
from tests.matching.test_matcher import SHAPES, STRIDES, landmarks

AWAY = 12.0


def fitted(marks: list[Tensor]) -> LandmarkMatcher:
    """Templates of one and the same picture, marked by different people, each with an error of its own."""
    field, image = WaveField(2, STRIDES), torch.zeros(1, 1, *SHAPES[2])
    levels = field.levels(SHAPES[2], [1.0, 1.0])
    return LandmarkMatcher().fit(lambda _: levels, STRIDES, [image] * len(marks), marks, [1.0, 1.0])


def readings(count: int, generator: torch.Generator) -> list[Tensor]:
    points = landmarks(2, generator)
    return [points + 0.5 * torch.randn(points.shape, generator=generator) for _ in range(count)]


@pytest.mark.parametrize("count", [3, 5])
def test_a_mark_in_the_wrong_place_is_named_with_its_distance(count: int, generator: torch.Generator) -> None:
    marks = readings(count, generator)
    assert contradicted_marks(fitted(marks)).isnan().all(), "readers who agree"
    marks[1][4, 0] += AWAY
    away = contradicted_marks(fitted(marks))
    assert (~away.isnan()).nonzero().tolist() == [[1, 4]]
    assert away[1, 4].item() == pytest.approx(AWAY, abs=2.0)


def test_two_templates_contradict_each_other(generator: torch.Generator) -> None:
    marks = readings(2, generator)
    marks[1][4, 0] += AWAY
    assert (~contradicted_marks(fitted(marks)).isnan()).nonzero().tolist() == [[0, 4], [1, 4]]


def test_what_cannot_be_compared_is_not_named(generator: torch.Generator) -> None:
    """A single template; a landmark that one template has alone."""
    marks = readings(3, generator)
    assert contradicted_marks(fitted(marks[:1])).isnan().all()
    marks[1][4, 0] += AWAY
    for other in (marks[0], marks[2]):
        other[4] = torch.nan
    assert contradicted_marks(fitted(marks)).isnan().all()
