"""PixPro's losses: golden values, literal loops, and the sum over levels, thresholds and directions."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from torch.nn import functional as F

from medpixcl.coordinates import apply_affine, voxel_positions
from medpixcl.losses.consistency import (
    instance_consistency,
    pixel_consistency,
    pixel_contrast_multi_positive,
    vector_spread,
)
from medpixcl.losses.pixpro import PixProLoss
from tests.reference import pixpro

SHAPES = {2: (16, 8), 3: (16, 8, 8)}
DIMS = pytest.mark.parametrize("dims", [2, 3])
VIEWS = ("query", "anchor")


def random_case(*, seed: int = 0, batch: int = 3, share: float = 0.3) -> dict[str, torch.Tensor]:
    """Unit vectors of 6 and 7 cells and weights; the last image has no positive."""
    generator = torch.Generator().manual_seed(seed)
    draw = {"generator": generator, "dtype": torch.float64}
    vectors = [F.normalize(torch.randn(batch, 4, n, **draw), dim=1) for n in (6, 7)]
    weights = torch.rand(batch, 6, 7, **draw) * (torch.rand(batch, 6, 7, **draw) < share)
    weights[:, 2], weights[-1] = 0.0, 0.0
    return {"queries": vectors[0], "keys": vectors[1], "weights": weights}


def literal(loss: Any, case: dict[str, torch.Tensor], **options: Any) -> list[float | None]:
    """The loss of every image."""
    queries, keys, weights = (case[name] for name in ("queries", "keys", "weights"))
    return [
        loss(q.mT.tolist(), k.mT.tolist(), w.tolist(), **options)
        for q, k, w in zip(queries, keys, weights, strict=True)
    ]


def two_views(dims: int, *, shift: float = 4.0, seed: int = 0, levels: tuple[int, ...] = (4,)) -> tuple[dict, dict]:
    """Random vectors of two views that lie ``shift`` mm apart along the first axis, and their target."""
    generator = torch.Generator().manual_seed(seed)
    shape, target, views = SHAPES[dims], {}, {}
    for number, view in enumerate(VIEWS):
        affine = torch.eye(dims + 1)[None].repeat(2, 1, 1)
        affine[:, 0, -1] = number * shift
        mm = apply_affine(affine, voxel_positions(shape).flatten(0, -2).expand(2, -1, -1))
        mm = torch.cat([mm, torch.ones_like(mm[..., :1])], dim=-1)
        target[f"coords_{view}"], target[f"affine_{view}"] = mm.mT.view(2, dims + 1, *shape), affine
        target[f"depth_{view}"] = mm.mT[:, :1].view(2, 1, *shape).clone()
        counts = [math.prod(n // stride for n in shape) for stride in levels]
        views[view] = {
            side: [F.normalize(torch.randn(2, 5, n, generator=generator), dim=1) for n in counts]
            for side in ("online", "keys")
        }
    return views, target


class TestConsistency:
    def test_perfect(self):
        """-2 a direction; with one of two samples disjoint -1 in the original's mean, -2 over those that contribute."""
        cells = torch.eye(4)[None].repeat(2, 1, 1)
        assert pixel_consistency(cells, cells, cells).item() == pytest.approx(-2, abs=1e-5)
        weights = cells.clone()
        weights[1] = 0
        assert pixel_consistency(cells, cells, weights).item() == pytest.approx(-2, abs=1e-5)
        assert pixel_consistency(cells, cells, weights, average="batch").item() == pytest.approx(-1, abs=1e-5)

    @pytest.mark.parametrize("average", ["contributing", "batch"])
    def test_against_loops(self, average):
        case = random_case()
        expected = literal(pixpro.consistency, case)
        assert expected[-1] == 0
        number = len(expected) - (average == "contributing")
        found = pixel_consistency(**case, average=average)
        torch.testing.assert_close(found.item(), sum(expected) / number)

    def test_length_does_not_count(self):
        case = random_case()
        longer = case | {"queries": 3 * case["queries"], "keys": 0.2 * case["keys"]}
        torch.testing.assert_close(pixel_consistency(**longer), pixel_consistency(**case))

    @pytest.mark.parametrize("loss", [pixel_consistency, pixel_contrast_multi_positive])
    def test_gradient(self, loss):
        case = random_case()
        queries, keys = (case[name].clone().requires_grad_() for name in ("queries", "keys"))
        assert torch.autograd.gradcheck(lambda q, k: loss(q, k, case["weights"]), (queries, keys))

    @pytest.mark.parametrize("loss", [pixel_consistency, pixel_contrast_multi_positive])
    @pytest.mark.parametrize("average", ["contributing", "batch"])
    def test_no_positives(self, loss, average):
        case = random_case()
        queries = case["queries"].clone().requires_grad_()
        found = loss(queries, case["keys"], torch.zeros_like(case["weights"]), average=average)
        found.backward()
        assert found.item() == 0
        assert torch.equal(queries.grad, torch.zeros_like(queries))

    @pytest.mark.parametrize("loss", [pixel_consistency, pixel_contrast_multi_positive])
    def test_autocast(self, loss):
        case = {name: value.float() for name, value in random_case().items()}
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss(**case)
        assert found.dtype == torch.float32
        assert torch.equal(found, loss(**case))

    def test_instance(self):
        one, two = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.0], [5.0, 0.0]])
        assert instance_consistency(one, one).item() == -2
        assert instance_consistency(one, two).item() == -1


class TestContrast:
    @pytest.mark.parametrize("temperature", [0.3, 1.0])
    @pytest.mark.parametrize("average", ["contributing", "batch"])
    def test_against_loops(self, temperature, average):
        case = random_case()
        expected = literal(pixpro.contrast, case, temperature=temperature)
        assert expected[-1] is None
        number = len(expected) - (average == "contributing")
        found = pixel_contrast_multi_positive(**case, temperature=temperature, average=average)
        torch.testing.assert_close(found.item(), sum(expected[:-1]) / number)

    def test_candidates(self):
        case = random_case(batch=2)
        candidates = torch.rand(2, 6, 7, generator=torch.Generator().manual_seed(3)) < 0.5
        found = pixel_contrast_multi_positive(**case, candidates=candidates)
        queries, keys, weights = (case[name][0] for name in ("queries", "keys", "weights"))
        expected = pixpro.contrast(
            queries.mT.tolist(), keys.mT.tolist(), weights.tolist(), temperature=0.3, candidates=candidates[0].tolist()
        )
        torch.testing.assert_close(found.item(), expected)
        assert found < pixel_contrast_multi_positive(**case)

    def test_all_positive_is_no_task(self):
        case = random_case(batch=2)
        assert pixel_contrast_multi_positive(case["queries"], case["keys"], torch.ones(2, 6, 7)).abs() < 1e-12


class TestPixProLoss:
    @DIMS
    def test_two_directions(self, dims):
        """Views one cell apart: the grids meet in all but one row, in the order of the cells."""
        views, target = two_views(dims)
        shape = [n // 4 for n in SHAPES[dims]]
        cells = torch.arange(math.prod(shape)).view(shape)
        expected = 0.0
        for one, other, own, partner in (
            ("query", "anchor", cells[1:], cells[:-1]),
            ("anchor", "query", cells[:-1], cells[1:]),
        ):
            cosine = (
                views[one]["online"][0][:, :, own.flatten()] * views[other]["keys"][0][:, :, partner.flatten()]
            ).sum(1)
            expected = expected - 2 * cosine.mean()
        loss = PixProLoss(strides=[4], scales=[[0.5, 1.0]])
        torch.testing.assert_close(loss(views, target), expected, atol=1e-5, rtol=1e-5)
        assert loss.latest["positives_stride4_T0.5"] == cells[1:].numel()
        assert loss.latest["kill_rate_stride4_T0.5"] == 0

    def test_flat_volume_is_a_picture(self):
        views, target = two_views(2)
        deep = {}
        for view in VIEWS:
            coords = target[f"coords_{view}"]
            deep[f"coords_{view}"] = torch.cat([coords[:, :2], torch.zeros_like(coords[:, :1]), coords[:, 2:]], 1)[
                ..., None
            ]
            affine = torch.eye(4)[None].repeat(2, 1, 1)
            affine[:, 0, 3], affine[:, 2, 2] = target[f"affine_{view}"][:, 0, 2], 0.0
            deep[f"affine_{view}"], deep[f"depth_{view}"] = affine, target[f"depth_{view}"][..., None]
        options = {"scales": [[0.7, 1.0], [1.4, 2.0]], "exogenous": [{"key": "depth", "threshold": 3.0}]}
        flat, solid = PixProLoss(strides=[4], **options), PixProLoss(strides=[[4, 4, 1]], **options)
        torch.testing.assert_close(solid(views, deep), flat(views, target))
        assert [v.item() for v in solid.latest.values()] == [v.item() for v in flat.latest.values()]

    def test_both_readings_of_multi_scale(self):
        """Weighted mean over levels and over (T, factor of T_e)."""
        views, target = two_views(2, levels=(4, 2))
        depth = {"exogenous": [{"key": "depth", "threshold": 2.5}]}

        def one(level: int, stride: int, scale: list[float]) -> torch.Tensor:
            single = {view: {side: [parts[side][level]] for side in parts} for view, parts in views.items()}
            return PixProLoss(strides=[stride], scales=[scale], **depth)(single, target)

        scales = [[0.7, 1.0], [1.4, 2.0]]
        parts = [[one(level, stride, scale) for scale in scales] for level, stride in ((0, 4), (1, 2))]
        assert len({part.item() for row in parts for part in row}) == 4
        both = PixProLoss(strides=[4, 2], scales=scales, **depth)
        torch.testing.assert_close(both(views, target), sum(map(sum, parts)) / 4)
        weighted = PixProLoss(strides=[4, 2], scales=scales, level_weights=[1, 3], scale_weights=[2, 0], **depth)
        torch.testing.assert_close(weighted(views, target), (2 * parts[0][0] + 6 * parts[1][0]) / 8)
        assert "kill_rate_stride2_T1.4_x2" in both.latest

    def test_filter(self):
        """Depth is the position along the first axis: it takes the neighbours along it, not those across."""
        views, target = two_views(2, shift=0.0)
        loss = PixProLoss(strides=[4], scales=[[0.8, 1.0]], exogenous=[{"key": "depth", "threshold": 2.0}])
        loss(views, target)
        assert loss.latest["spatial_positives_stride4_T0.8"] == 8 + 2 * 6 + 2 * 4
        assert loss.latest["positives_stride4_T0.8"] == 8 + 2 * 4
        missing = {**target, "depth_query": torch.full_like(target["depth_query"], math.nan)}
        loss(views, missing)
        assert loss.latest["kill_rate_stride4_T0.8"] == 0
        drop = [{"key": "depth", "threshold": 2.0, "missing": "drop"}]
        assert PixProLoss(strides=[4], exogenous=drop)(views, missing) == 0

    def test_random_deletion(self):
        """As many positives at the same seed of the items, and another loss than the filter's."""
        views, target = two_views(2, shift=0.0)
        target["item_seed"] = torch.tensor([3, 4])
        given = {"strides": [4], "scales": [[0.8, 1.0]], "exogenous": [{"key": "depth", "threshold": 2.0}]}
        filtered, control = PixProLoss(**given), PixProLoss(**given, random_deletion=True)
        first, second = filtered(views, target), control(views, target)
        assert first != second
        assert control(views, target) == second
        assert control.latest == filtered.latest

    @DIMS
    @pytest.mark.parametrize("objective", ["consistency", "contrast"])
    def test_drawn_cells(self, dims, objective):
        """All of them drawn in another order: the same loss."""
        views, target = two_views(dims)
        loss = PixProLoss(strides=[4], objective=objective)
        expected = loss(views, target)
        for view in VIEWS:
            count = views[view]["online"][0].shape[2]
            order = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(s)) for s in (0, 1)])
            online = views[view]["online"][0].gather(2, order[:, None].expand(-1, 5, -1))
            views[view], target[f"cells_{view}"] = views[view] | {"online": [online]}, [order]
        torch.testing.assert_close(loss(views, target), expected)

    def test_removed_pairs(self):
        """Of PixContrast: negatives, or left out of the denominator, which is then less."""
        views, target = two_views(2, shift=0.0)
        given = {"strides": [4], "scales": [[0.8, 1.0]], "exogenous": [{"key": "depth", "threshold": 2.0}]}
        found = {
            removed: PixProLoss(**given, objective="contrast", removed=removed)(views, target)
            for removed in ("negative", "left_out")
        }
        assert found["left_out"] < found["negative"]

    def test_instance_branch(self):
        views, target = two_views(2)
        expected = PixProLoss(strides=[4])(views, target)
        for parts in views.values():
            parts |= {"instance_online": torch.tensor([[1.0, 0.0]]), "instance_keys": torch.tensor([[1.0, 1.0]])}
        found = PixProLoss(strides=[4], instance_weight=0.5)(views, target)
        torch.testing.assert_close(found, expected + 0.5 * 2 * -2 * 0.5**0.5)

    def test_disjoint(self):
        views, target = two_views(2, shift=100.0)
        views["query"]["online"][0].requires_grad_()
        loss = PixProLoss(strides=[4])(views, target)
        loss.backward()
        assert loss.item() == 0
        assert (views["query"]["online"][0].grad == 0).all()

    def test_from_json(self):
        config = {
            "_target_": "medpixcl.losses.PixProLoss",
            "strides": [4],
            "scales": [[0.7, 1], [1.4, 1]],
            "exogenous": [{"key": "depth", "quantile": 0.8, "soft": True}],
        }
        loss = ConfigParser(json.loads(json.dumps({"loss": config}))).get_parsed_content("loss")
        assert torch.isfinite(loss(*two_views(2)))


class TestBadInput:
    def test_absent_channel(self):
        views, target = two_views(2)
        loss = PixProLoss(strides=[4], exogenous=[{"key": "ct", "threshold": 1.0}])
        with pytest.raises(ValueError, match="the exogenous channel 'ct' is absent: the batch has no 'ct_query'"):
            loss(views, target)

    def test_channel_of_another_size(self):
        views, target = two_views(2)
        target["depth_anchor"] = target["depth_anchor"][..., :4]
        loss = PixProLoss(strides=[4], exogenous=[{"key": "depth", "threshold": 1.0}])
        with pytest.raises(ValueError, match=r"'depth_anchor' has the size \(16, 4\); expected that of the view"):
            loss(views, target)

    def test_levels(self):
        with pytest.raises(ValueError, match="level 0 has 8 cells, a view at stride 2 32; give the loss the strides"):
            PixProLoss(strides=[2])(*two_views(2))
        with pytest.raises(ValueError, match=r"level_weights is \[1.0\]; expected 2 numbers"):
            PixProLoss(strides=[2, 4], level_weights=[1])
        with pytest.raises(ValueError, match="instance_weight is not 0 but the network has no instance branch"):
            PixProLoss(strides=[4], instance_weight=1.0)(*two_views(2))


def test_spread_is_the_distance_from_the_mean() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(3, 5, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    cells = vectors.movedim(1, 2).reshape(-1, 5).numpy().astype(float)
    away = np.sqrt(np.square(cells - cells.mean(0)).sum(1).mean())
    assert vector_spread(vectors).item() == pytest.approx(away, rel=1e-5)
    assert vector_spread(vectors[:1, :, :1].expand(3, 5, 7)).item() == pytest.approx(0, abs=1e-3)
