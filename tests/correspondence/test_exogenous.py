"""Exogenous filters: golden cases, every kind of channel, controls and refusals."""

import itertools
import math

import jaxtyping
import numpy as np
import pytest
import torch

from medpixcl.correspondence import (
    ExogenousChannel,
    PooledExogenous,
    Positives,
    channel_weights,
    exogenous_difference,
    permute_positives,
    pool_exogenous,
    positive_statistics,
    positive_weights,
)
from tests.correspondence.cases import NAN, boxed, filtered, known, mask_of, pairs, random_cells
from tests.reference import pixpro

DIMS = pytest.mark.parametrize("dims", [2, 3])


class TestFilter:
    @pytest.mark.parametrize(
        ("e", "missing", "count"),
        [([0, 0, 1, 1], "ignore", 8), ([0, 0, 1, NAN], "ignore", 12), ([0, 0, 1, NAN], "drop", 5)],
    )
    def test_exogenous(self, e, missing, count):
        cells = boxed((0, 0), (1, 1), (2, 2))
        channel = ExogenousChannel("depth", threshold=0.5, missing=missing)
        found = filtered(cells, cells, channel, known(e), known(e), threshold=1.4)
        assert found.spatial.sum() == 16
        assert found.weights.sum() == count
        statistics = positive_statistics(found)
        assert statistics["positives"] == count
        assert statistics["kill_rate"].item() == pytest.approx(1 - count / 16)

    @DIMS
    def test_monotone(self, dims):
        query, key = random_cells(dims), random_cells(dims, seed=1)
        masks = [mask_of(query, key, threshold) for threshold in (0.3, 0.7, 1.4, 2.8)]
        assert all((small <= large).all() for small, large in itertools.pairwise(masks))
        e = known(np.random.default_rng(0).normal(size=query.positions.shape[1]), batch=2)
        weights = [
            filtered(query, key, ExogenousChannel("e", threshold=t), e, e, threshold=1.4).weights for t in (0.2, 0.8, 3)
        ]
        assert all((small <= large).all() for small, large in itertools.pairwise(weights))
        assert weights[0].sum() < weights[-1].sum()

    def test_no_filter_is_pixpro(self):
        query, key = random_cells(2), random_cells(2, seed=1)
        count = query.positions.shape[1]
        varied, constant = known(range(count), batch=2), known([7.0] * count, batch=2)
        spatial = mask_of(query, key, 1.1).float()
        assert torch.equal(positive_weights(query, key, threshold=1.1).weights, spatial)
        for soft in (False, True):
            unlimited = ExogenousChannel("e", threshold=math.inf, soft=soft)
            assert torch.equal(filtered(query, key, unlimited, varied, varied, threshold=1.1).weights, spatial)
            for limit in ({"threshold": 0.1}, {"quantile": 0.5}):
                channel = ExogenousChannel("e", **limit, soft=soft)
                assert torch.equal(filtered(query, key, channel, constant, constant, threshold=1.1).weights, spatial)

    @pytest.mark.parametrize("soft", [False, True])
    def test_affine_values(self, soft):
        query, key = random_cells(2), random_cells(2, seed=1)
        values = torch.randn(2, 2, 12, generator=torch.Generator().manual_seed(0))
        first, second = (PooledExogenous(v[:, None], v > -9, v) for v in values)
        moved, other = (PooledExogenous(-4 * v[:, None] + 8, v > -9, v) for v in values)
        one = filtered(query, key, ExogenousChannel("e", threshold=0.7, soft=soft), first, second, threshold=1.4)
        two = filtered(query, key, ExogenousChannel("e", threshold=2.8, soft=soft), moved, other, threshold=1.4)
        torch.testing.assert_close(one.weights, two.weights)
        assert 0 < one.weights.sum() < one.spatial.sum()


class TestChannels:
    def test_vector(self):
        one, two = torch.tensor([[[0.0], [0.0]]]), torch.tensor([[[3.0], [4.0]]])
        assert exogenous_difference(one, two, kind="vector").item() == 5.0
        weights, _ = channel_weights(
            ExogenousChannel("e", kind="vector", threshold=2.0, scale=2.5, soft=True),
            *(PooledExogenous(v, torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1)) for v in (one, two)),
            torch.ones(1, 1, 1, dtype=torch.bool),
        )
        assert weights.item() == pytest.approx(math.exp(-1))

    def test_cyclic(self):
        draw = np.random.default_rng(0).uniform(-400, 400, size=(2, 6))
        found = exogenous_difference(*(torch.tensor(v)[None, None] for v in draw), kind="cyclic", period=360.0)
        expected = [[pixpro.wrapped(a, b, 360.0) for b in draw[1]] for a in draw[0]]
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-9)

    @pytest.mark.parametrize("soft", [False, True])
    def test_categorical(self, soft):
        """The share of pairs of voxels, one from each cell, that have the same label."""
        query = pool_exogenous(torch.tensor([[[[0, 0, 1, 2]]]]), (1, 4), kind="categorical", classes=3)
        key = pool_exogenous(torch.tensor([[[[0, 1, 1, 1]]]]), (1, 4), kind="categorical", classes=3)
        agreement = (2 * 1 + 1 * 3 + 1 * 0) / 16
        spatial = torch.ones(1, 1, 1, dtype=torch.bool)
        if soft:
            channel = ExogenousChannel("e", kind="categorical", classes=3, soft=True)
            assert channel_weights(channel, query, key, spatial)[0].item() == pytest.approx(agreement)
        else:
            for threshold, passed in ((agreement, 1.0), (agreement + 0.01, 0.0)):
                channel = ExogenousChannel("e", kind="categorical", classes=3, threshold=threshold)
                assert channel_weights(channel, query, key, spatial)[0].item() == passed

    @pytest.mark.parametrize("quantile", [0.0, 0.25, 0.5, 1.0])
    def test_quantile(self, quantile):
        """Of the differences among the spatial positives of each pair of views alone."""
        query, key = random_cells(2), random_cells(2, seed=1)
        values = torch.randn(2, 2, 12, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0])[:, None]
        own, other = (PooledExogenous(v[:, None], torch.ones(2, 12, dtype=torch.bool), v) for v in values)
        found = filtered(query, key, ExogenousChannel("e", quantile=quantile), own, other, threshold=1.4)
        difference = (values[0][:, :, None] - values[1][:, None]).abs()
        for pair in range(2):
            inside = difference[pair][found.spatial[pair]].numpy()
            limit = np.quantile(inside, quantile, method="inverted_cdf") if quantile else inside.min()
            expected = found.spatial[pair].numpy() & (difference[pair].numpy() <= limit)
            assert np.array_equal(found.weights[pair].numpy(), expected)

    def test_combined(self):
        cells = boxed((0, 0), (1, 1), (1, 1))
        channels = [ExogenousChannel(name, threshold=1.0, soft=True) for name in "ab"]
        own, other = [known([0.0]), known([0.0])], [known([0.5]), known([1.0])]
        first, second = math.exp(-0.25), math.exp(-1.0)
        given = {"channels": channels, "query_exogenous": own, "key_exogenous": other, "threshold": 0.7}
        for combine, expected in (("product", first * second), ("min", second), ("mean", (first + second) / 2)):
            assert positive_weights(cells, cells, **given, combine=combine).weights.item() == pytest.approx(expected)

    @pytest.mark.parametrize("combine", ["product", "min", "mean"])
    def test_drop_leaves_no_pair_whatever_the_others_say(self, combine):
        cells = boxed((0, 0), (1, 1), (1, 1))
        for missing, expected in (("drop", 0.0), ("ignore", 1.0)):
            channels = [ExogenousChannel("a", threshold=1.0), ExogenousChannel("b", threshold=1.0, missing=missing)]
            given = {"channels": channels, "query_exogenous": [known([0.0])] * 2, "threshold": 0.7}
            found = positive_weights(cells, cells, **given, key_exogenous=[known([0.0]), known([NAN])], combine=combine)
            assert found.weights.item() == expected

    def test_varied_cells_count_as_missing(self):
        pooled = pool_exogenous(torch.tensor([[[[0.0, 4.0, 1.0, 1.0]]]]), (1, 2))
        cells = boxed((0, 0), (1, 1), (1, 2))
        for limit, expected in ((None, {(0, 0), (1, 1)}), (1.0, {(1, 1)})):
            channel = ExogenousChannel("e", threshold=0.5, max_spread=limit, missing="drop")
            assert pairs(filtered(cells, cells, channel, pooled, pooled, threshold=0.7).weights) == expected

    def test_scales_multiply_the_threshold(self):
        cells, e = boxed((0, 0), (1, 1), (2, 2)), known([0, 1, 2, 3])
        channel = ExogenousChannel("e", threshold=0.75)
        found = [filtered(cells, cells, channel, e, e, threshold=1.4, factor=f).weights.sum().item() for f in (1, 2, 4)]
        assert found == [4, 10, 14]


class TestControl:
    def test_random_deletion(self):
        """As many removed in every pair, among the spatial positives, but others."""
        query, key = random_cells(2), random_cells(2, seed=1)
        e = known(range(12), batch=2)
        found = filtered(query, key, ExogenousChannel("e", threshold=3.0, soft=True), e, e, threshold=1.4)
        control = permute_positives(found, generator=torch.Generator().manual_seed(0))
        for pair in range(2):
            spatial = found.spatial[pair]
            old, new = found.weights[pair][spatial], control.weights[pair][spatial]
            assert torch.equal(old.sort().values, new.sort().values)
            assert not torch.equal(old, new)
            assert (control.weights[pair][~spatial] == 0).all()

    def test_statistics(self):
        """Three pairs of views: two of four positives left, all taken, none there."""
        spatial = torch.tensor([[[True, True], [True, True]], [[True, False], [False, True]], [[False] * 2] * 2])
        weights = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]], [[0.0] * 2] * 2])
        found = positive_statistics(Positives(weights, spatial))
        expected = {"positives": 2 / 3, "spatial_positives": 2, "kill_rate": 4 / 6}
        expected |= {"empty_pairs": 2 / 3, "emptied_pairs": 1 / 3}
        assert {name: value.item() for name, value in found.items()} == pytest.approx(expected)
        nothing = positive_statistics(Positives(weights[2:], spatial[2:]))
        assert nothing["kill_rate"] == 0


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"threshold": 0.0}, "threshold is 0.0; expected a positive share of the cell diagonal"),
            ({"threshold": 0.7, "metric": "voxel"}, "metric is 'voxel'; expected 'mm' or 'bins'"),
            ({"threshold": 0.7, "combine": "max"}, "combine is 'max'; expected 'product', 'min' or 'mean'"),
        ],
    )
    def test_mask(self, options, words):
        cells = boxed((0, 0), (1, 1), (2, 2))
        jaxtyping.config.update("jaxtyping_disable", True)  # the hook would speak first
        try:
            with pytest.raises(ValueError, match=words):
                positive_weights(cells, cells, **options)
        finally:
            jaxtyping.config.update("jaxtyping_disable", False)

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({}, "has threshold=None, quantile=None; give one of them"),
            ({"threshold": 1.0, "quantile": 0.5}, "has threshold=1.0, quantile=0.5; give one of them"),
            ({"threshold": -1.0}, "has threshold -1.0; expected a positive number"),
            ({"quantile": 1.5}, "has quantile 1.5; expected 0 to 1"),
            ({"threshold": 1.0, "scale": 0.0}, "has scale 0.0; expected a positive number"),
            ({"threshold": 1.0, "kind": "cyclic"}, "of kind cyclic has period=None; give one to a cyclic channel only"),
            ({"threshold": 1.0, "period": 2.0}, "of kind continuous has period=2.0"),
            ({"threshold": 1.0, "kind": "categorical"}, "of kind categorical has classes=None"),
            ({"kind": "categorical", "classes": 2}, "is categorical; give it a threshold, or soft=True without one"),
        ],
    )
    def test_channel(self, options, words):
        with pytest.raises(ValueError, match=f"the exogenous channel 'depth' {words}"):
            ExogenousChannel("depth", **options)

    def test_values(self):
        with pytest.raises(ValueError, match="a categorical channel has the label 3; expected 0 to 2"):
            pool_exogenous(torch.tensor([[[[0, 3]]]]), (1, 2), kind="categorical", classes=3)
