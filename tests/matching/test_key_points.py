"""Key points, the search for many of them, and the choice of the images that serve all best."""

import itertools
import math

import pytest
import torch
from torch import Tensor

from medpixcl.matching.grid import CellGrid
from medpixcl.matching.key_points import (
    choose_greedily,
    draw_key_points,
    find_points,
    point_quality,
    template_warning,
)
from medpixcl.matching.product import describe
from tests.matching.fields import WaveField
from tests.reference.matching import product_map

SHAPES = {2: (60, 72), 3: (20, 24, 22)}
SPACING = {2: [0.5, 0.8], 3: [1.0, 1.5, 0.7]}


def worth(quality: Tensor, weights: Tensor, chosen: tuple[int, ...]) -> float:
    """Value of a set, written out."""
    return sum(
        float(weight) * max(float(row[image]) for image in chosen) for row, weight in zip(quality, weights, strict=True)
    )


def greedy_reference(quality: Tensor, weights: Tensor, count: int) -> list[int]:
    chosen: list[int] = []
    for _ in range(count):
        free = [image for image in range(quality.shape[1]) if image not in chosen]
        chosen.append(max(free, key=lambda image: worth(quality, weights, (*chosen, image))))
    return chosen


@pytest.mark.parametrize("dims", [2, 3])
class TestKeyPoints:
    def draw(self, weights: Tensor, count: int, *, seed: int = 0, apart: float = 4.0) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        spacing = SPACING[weights.ndim]
        return draw_key_points(weights, count, spacing=spacing, min_distance_mm=apart, generator=generator)

    def test_lie_apart_and_off_the_border(self, dims: int, generator: torch.Generator) -> None:
        points = self.draw(torch.rand(SHAPES[dims], generator=generator), 20)
        assert points.shape == (20, dims)
        assert torch.equal(points, points.round())
        assert torch.pdist(points.double() * torch.tensor(SPACING[dims], dtype=torch.float64)).min() >= 4.0 - 1e-6
        edge = torch.tensor([int(0.05 * size) for size in SHAPES[dims]])
        assert ((points >= edge) & (points < torch.tensor(SHAPES[dims]) - edge)).all()

    def test_as_many_as_there_is_room_for(self, dims: int) -> None:
        """What is drawn last leaves no pixel with a weight that far from all points."""
        points = self.draw(torch.ones(SHAPES[dims]), 10_000)
        steps = torch.tensor(SPACING[dims])
        axes = [torch.arange(int(0.05 * size), size - int(0.05 * size)) for size in SHAPES[dims]]
        pixels = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, dims)
        assert torch.cdist(pixels * steps, points * steps).amin(dim=1).max() < 4.0

    def test_nothing_is_drawn_where_the_weight_is_zero(self, dims: int) -> None:
        weights = torch.zeros(SHAPES[dims])
        assert self.draw(weights, 5).shape == (0, dims)
        weights[(12,) * dims] = 1.0
        assert self.draw(weights, 5).tolist() == [[12.0] * dims]

    def test_drawn_in_proportion_to_the_weight(self, dims: int) -> None:
        """Two pixels, one three times as heavy: it comes first in three of four draws (binomial, 4 sd)."""
        weights = torch.zeros(SHAPES[dims])
        light, heavy = (5,) * dims, (15,) * dims
        weights[light], weights[heavy] = 1.0, 3.0
        firsts = [tuple(self.draw(weights, 1, seed=seed)[0].long().tolist()) for seed in range(400)]
        assert abs(firsts.count(heavy) - 300) < 4 * math.sqrt(400 * 0.75 * 0.25)

    def test_the_seed_decides(self, dims: int, generator: torch.Generator) -> None:
        weights = torch.rand(SHAPES[dims], generator=generator)
        assert torch.equal(self.draw(weights, 8, seed=3), self.draw(weights, 8, seed=3))
        assert not torch.equal(self.draw(weights, 8, seed=3), self.draw(weights, 8, seed=4))


@pytest.mark.parametrize("dims", [2, 3])
def test_points_are_found_where_the_literal_product_is_largest(
    dims: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts of a few points at a time as at once."""
    strides, shape = [2, 4], {2: (24, 20), 3: (12, 10, 12)}[dims]
    field = WaveField(dims, strides)
    levels = [level[0] for level in field.levels(shape, [1.0] * dims)]
    points = (0.2 + 0.6 * torch.rand(7, dims, generator=generator)) * (torch.tensor(shape) - 1)
    vectors = describe(levels, strides, points)
    grid = CellGrid(tuple(levels[0].shape[1:]), 2, (1.0,) * dims)
    found, scores = find_points(vectors, levels, strides, grid)
    for number, (place, score) in enumerate(zip(found, scores, strict=True)):
        literal = product_map([level[number] for level in vectors], levels, strides)
        assert float(score) == pytest.approx(float(literal.max()), abs=1e-5)
        cell = torch.stack(torch.unravel_index(literal.argmax(), literal.shape))
        assert ((place + 0.5) / 2 - 0.5 - cell).abs().max() <= 0.5 + 1e-4
    assert torch.linalg.vector_norm(found - points, dim=1).max() < 2.0
    monkeypatch.setattr("medpixcl.matching.key_points.ROWS_AT_ONCE", 2 * levels[0][0].numel())
    in_parts = find_points(vectors, levels, strides, grid)
    torch.testing.assert_close(in_parts, (found, scores))


def test_points_are_not_looked_for_in_the_padding() -> None:
    strides = [2]
    levels = [WaveField(2, strides).levels((20, 20), [1.0, 1.0])[0][0]]
    vectors = describe(levels, strides, torch.tensor([[16.5, 4.5]]))
    found, _ = find_points(vectors, levels, strides, CellGrid((5, 10), 2, (1.0, 1.0)))
    assert found[0, 0] <= 9.0


def test_quality_of_a_point() -> None:
    """Similarity alone where the way back leads home; almost nothing far off."""
    quality = point_quality(torch.tensor([0.8, 0.8, 0.8]), torch.tensor([0.0, 3.0, 30.0]))
    torch.testing.assert_close(quality, torch.tensor([0.8, 0.8 * math.exp(-0.5), 0.0]))


class TestChoice:
    @pytest.mark.parametrize("seed", range(5))
    def test_equals_the_literal_choice(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        quality, weights = torch.rand(30, 9, generator=generator), torch.rand(30, generator=generator)
        chosen, values = choose_greedily(quality, weights, 6)
        assert chosen == greedy_reference(quality, weights, 6)
        expected = [worth(quality, weights, tuple(chosen[:number])) for number in range(1, 7)]
        assert values == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize("seed", range(5))
    def test_keeps_the_bound_of_nemhauser(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(100 + seed)
        quality, weights = torch.rand(12, 8, generator=generator) ** 4, torch.ones(12)
        best = max(worth(quality, weights, some) for some in itertools.combinations(range(8), 3))
        _, values = choose_greedily(quality, weights, 3)
        assert (1 - 1 / math.e) * best <= values[-1] <= best * (1 + 1e-5)

    def test_the_medoid_of_points_on_a_line(self) -> None:
        """Images at places on a line, alike as they are near: the median serves all best."""
        places = torch.tensor([0.0, 1.0, 2.0, 3.0, 50.0])
        quality = 1 - (places[:, None] - places).abs() / 50
        assert choose_greedily(quality, torch.full((5,), 0.2), 1) == ([2], pytest.approx([1 - 52 / 250]))

    def test_a_second_image_serves_the_other_group(self) -> None:
        """Not the second best alone, which would be of the same group."""
        groups = torch.tensor([0, 0, 0, 1, 1])
        quality = 0.1 + 0.7 * (groups[:, None] == groups).float() + 0.1 * torch.eye(5)
        chosen, _ = choose_greedily(quality, torch.full((5,), 0.2), 2)
        assert groups[chosen].tolist() == [0, 1]

    def test_none_twice_where_nothing_is_gained(self) -> None:
        assert choose_greedily(torch.ones(3, 4), torch.ones(3), 4)[0] == [0, 1, 2, 3]

    @pytest.mark.parametrize("count", [0, 5])
    def test_refuses_more_than_there_are(self, count: int) -> None:
        with pytest.raises(ValueError, match="ask for 1 to 4"):
            choose_greedily(torch.ones(3, 4), torch.ones(3), count)


class TestWarning:
    def test_of_a_template_that_most_images_do_not_fit(self) -> None:
        said = template_warning([["unsure", "", ""], ["unsure", "unsure", "missing"]])
        assert said.startswith("60 % of the landmarks are unsure")
        assert "choose-template" in said

    def test_a_fifth_is_still_fair(self) -> None:
        assert template_warning([["unsure", "", "", "", "no geometry", "missing"]]) == ""
        assert template_warning([["unsure", "", "", "missing"]]) != ""

    def test_nothing_matched(self) -> None:
        assert template_warning([]) == template_warning([["missing"]]) == ""
