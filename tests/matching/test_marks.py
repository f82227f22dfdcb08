"""Marks that the other templates contradict, on embeddings whose places are known exactly."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching import AnnotatedImage, LandmarkMatcher
from medpixcl.matching.marks import contradicted_marks, mark_warnings
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


def test_sentences(generator: torch.Generator) -> None:
    """They name image and landmark, two images of one name by their folders."""
    marks, names = readings(3, generator), tuple(f"point {number}" for number in range(9))
    marks[1][4, 0] += AWAY
    marks[2][7] = torch.nan
    templates = []
    for number, points in enumerate(marks):
        meta = {"filename_or_obj": f"/p{number}/ceph.png", "spatial_shape": SHAPES[2], "original_affine": torch.eye(4)}
        image = MetaTensor(torch.zeros(1, *SHAPES[2]), affine=torch.eye(4), meta=meta)
        templates.append(AnnotatedImage({"image": image}, LandmarkSet(names, points.double()), Compose([])))
    checked, lacking = mark_warnings(fitted(marks), templates, names)
    assert checked.startswith("check the mark 'point 4' of p1/ceph.png: it lies 1")
    assert checked.endswith("mm from where the 2 other templates place it")
    assert lacking == "of the 3 templates, not all have these landmarks: 'point 7' in 2"
