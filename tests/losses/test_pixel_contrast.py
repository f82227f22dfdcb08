import json
import math
from typing import Any

import jaxtyping
import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from medpixcl.losses import PixelContrastLoss
from tests.reference.info_nce import info_nce

STRIDES = (2, 4, 8, 16, 32)


def levels(shape: tuple[int, ...], strides: tuple[int, ...], *, seed: int, batch: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ([-(-n // stride) for n in shape] for stride in strides)
    return [torch.randn(batch, 4, *size, generator=generator, dtype=torch.float64) for size in sizes]


def pixel_pairs(shape: tuple[int, ...], *, count: int = 6, batch: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    """Whole query pixels and sub-pixel positives, some of them off the border; a third is not valid."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.tensor(shape)
    query = torch.stack([torch.randint(0, n, (batch, count), generator=generator).double() for n in shape], dim=-1)
    positive = torch.rand(batch, count, len(shape), generator=generator, dtype=torch.float64) * size - 0.5
    positive[:, 0], positive[:, 1] = -0.5, size - 0.5
    return {"query": query, "positive": positive, "valid": torch.arange(batch * count).view(batch, count) % 3 != 2}


def sampled(level: torch.Tensor, voxel: torch.Tensor, stride: int) -> list[float]:
    """Vector of one image's level (C, *cells) at a voxel, with scipy's linear interpolation."""
    cell = ((voxel + 0.5) / stride - 0.5).numpy()[:, None]
    return [float(map_coordinates(channel, cell, order=1, mode="nearest")[0]) for channel in level.numpy()]


def literal(
    query: torch.Tensor, anchor: torch.Tensor, pairs: dict[str, torch.Tensor], stride: int, **rules: Any
) -> float:
    """Mean over the valid pairs with the positives as keys, pair by pair."""
    chosen = [(b, n) for b, n in np.ndindex(*pairs["valid"].shape) if pairs["valid"][b, n]]
    cells = [((pairs["positive"][pair] + 0.5) / stride - 0.5).tolist() for pair in chosen]
    images = [b for b, _ in chosen]
    losses = info_nce(
        [sampled(query[b], pairs["query"][b, n], stride) for b, n in chosen],
        [sampled(anchor[b], pairs["positive"][b, n], stride) for b, n in chosen],
        list(range(len(chosen))),
        key_positions=cells,
        key_images=images,
        **rules,
    )
    return sum(losses) / len(losses)


def literal_dense(
    query: torch.Tensor, anchor: torch.Tensor, pairs: dict[str, torch.Tensor], stride: int, **rules: Any
) -> float:
    """Mean over the valid pairs with all cells of the same image as keys."""
    shape = anchor.shape[2:]
    places = [list(index) for index in np.ndindex(*shape)]
    losses = []
    for b, n in np.ndindex(*pairs["valid"].shape):
        if not pairs["valid"][b, n]:
            continue
        position = ((pairs["positive"][b, n] + 0.5) / stride - 0.5).tolist()
        nearest = [min(max(round(x), 0), size - 1) for x, size in zip(position, shape, strict=True)]
        keys = [anchor[b][(slice(None), *place)].tolist() for place in places]
        vector = sampled(query[b], pairs["query"][b, n], stride)
        target = [places.index(nearest)]
        losses += info_nce([vector], keys, target, key_positions=places, **rules)
    return sum(losses) / len(losses)


class TestAgainstReference:
    @pytest.mark.parametrize("shape", [(64, 60), (32, 34, 36)], ids=["2d", "3d"])
    @pytest.mark.parametrize(
        "rules",
        [{}, {"exclusion_radius": 6.0}, {"window": 3, "clamp": True}, {"distance_slope": 0.1, "distance_cap": 0.9}],
        ids=str,
    )
    def test_sampled_keys(self, shape: tuple[int, ...], rules: dict[str, Any]) -> None:
        views = levels(shape, STRIDES, seed=1), levels(shape, STRIDES, seed=2)
        pairs = pixel_pairs(shape)
        loss = PixelContrastLoss(strides=STRIDES, temperature=0.2, **rules)
        expected = [
            literal(query, anchor, pairs, stride, temperature=0.2, **{"exclusion_radius": 2.0} | rules)
            for query, anchor, stride in zip(*views, STRIDES, strict=True)
        ]
        found = torch.stack(loss.losses(views, pairs))
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-6)
        assert loss(views, pairs).item() == pytest.approx(sum(expected), rel=1e-6)

    @pytest.mark.parametrize("shape", [(32, 24), (8, 12, 10)], ids=["2d", "3d"])
    def test_keys_of_the_same_image(self, shape: tuple[int, ...]) -> None:
        """Every image alone, averaged over all pairs."""
        query, anchor = (levels(shape, STRIDES, seed=seed) for seed in (1, 2))
        pairs = pixel_pairs(shape)
        counts = pairs["valid"].sum(dim=1)
        found = PixelContrastLoss(strides=STRIDES, keys="image").losses((query, anchor), pairs)
        for level, stride in enumerate(STRIDES):
            alone = [
                literal(
                    query[level][one : one + 1],
                    anchor[level][one : one + 1],
                    {name: value[one : one + 1] for name, value in pairs.items()},
                    stride,
                    temperature=0.07,
                    exclusion_radius=2.0,
                )
                for one in range(len(counts))
            ]
            expected = sum(value * count for value, count in zip(alone, counts.tolist(), strict=True)) / counts.sum()
            assert found[level].item() == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize("shape", [(32, 24), (8, 12, 10)], ids=["2d", "3d"])
    @pytest.mark.parametrize("rules", [{}, {"window": 2}, {"exclusion_radius": 1.5, "clamp": True}], ids=str)
    def test_all_cells_as_keys(self, shape: tuple[int, ...], rules: dict[str, Any]) -> None:
        strides = (2, 4)
        views = levels(shape, strides, seed=1), levels(shape, strides, seed=2)
        pairs = pixel_pairs(shape, count=4)
        rules = {"exclusion_radius": 0.0, "temperature": 0.3, **rules}
        expected = [
            literal_dense(query, anchor, pairs, stride, **rules)
            for query, anchor, stride in zip(*views, strides, strict=True)
        ]
        found = PixelContrastLoss(strides=strides, keys="cells", **rules).losses(views, pairs)
        torch.testing.assert_close(torch.stack(found), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=0)

    @pytest.mark.parametrize(("hit", "expected"), [(False, 28.093), (True, 23.126)])
    def test_five_levels_of_cc2d(self, hit: bool, expected: float) -> None:
        """Card, section 6.1: the loss of CC2D at 384 x 384 when all cosines are 0, and at its floor."""
        sizes = [384 // stride for stride in STRIDES]
        query = [torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, n, n) for n in sizes]
        anchor = [torch.tensor([0.0, 1.0]).view(1, 2, 1, 1).repeat(1, 1, n, n) for n in sizes]
        if hit:
            for level in anchor:
                centre = level.shape[-1] // 2
                level[0, :, centre, centre] = torch.tensor([1.0, 0.0])
        pixel = torch.full((1, 1, 2), 192.0)
        pairs = {"query": pixel, "positive": pixel, "valid": torch.ones(1, 1, dtype=torch.bool)}
        loss = PixelContrastLoss(
            strides=STRIDES, temperature=1.0, clamp=True, window=9, exclusion_radius=0.0, keys="cells"
        )
        assert loss((query, anchor), pairs).item() == pytest.approx(expected, abs=5e-4)


@pytest.mark.parametrize("keys", ["batch", "image", "cells"])
class TestAllForms:
    def test_weights(self, keys: str) -> None:
        views, pairs = [levels((16, 16), (2, 4), seed=seed) for seed in (1, 2)], pixel_pairs((16, 16))
        fine, coarse = PixelContrastLoss(strides=(2, 4), keys=keys).losses(views, pairs)
        weighted = PixelContrastLoss(strides=(2, 4), keys=keys, level_weights=(1.0, 0.25))
        assert weighted(views, pairs).item() == pytest.approx((fine + coarse / 4).item())

    def test_built_from_json(self, keys: str) -> None:
        arguments = {"strides": [[1, 2], [2, 4]], "level_weights": [1.0, 0.5], "window": 4, "keys": keys}
        loss = PixelContrastLoss(**json.loads(json.dumps(arguments)))
        views = [[torch.ones(2, 3, 16, 8), torch.ones(2, 3, 8, 4)] for _ in range(2)]
        assert loss(views, pixel_pairs((16, 16))).isfinite()

    def test_pairs_that_are_not_valid_do_not_exist(self, keys: str) -> None:
        shape = (16, 16)
        views, pairs = [levels(shape, (2, 4), seed=seed) for seed in (1, 2)], pixel_pairs(shape)
        loss = PixelContrastLoss(strides=(2, 4), keys=keys)
        expected = loss(views, pairs)
        for name in ("query", "positive"):
            pairs[name][~pairs["valid"]] = torch.nan
        views = [[level.requires_grad_() for level in view] for view in views]
        found = loss(views, pairs)
        assert torch.equal(found, expected)
        found.backward()
        for level in (*views[0], *views[1]):
            assert level.grad.isfinite().all()
            assert level.grad.any()

    def test_no_valid_pair(self, keys: str) -> None:
        views = [[level.requires_grad_() for level in levels((16, 16), (2, 4), seed=seed)] for seed in (1, 2)]
        pairs = pixel_pairs((16, 16))
        pairs["valid"][:] = False
        loss = PixelContrastLoss(strides=(2, 4), keys=keys)(views, pairs)
        assert loss.item() == 0
        loss.backward()
        assert all(torch.equal(level.grad, torch.zeros_like(level)) for level in (*views[0], *views[1]))

    def test_2d_is_3d_with_a_depth_of_one(self, keys: str) -> None:
        views, pairs = [levels((24, 20), (2, 4), seed=seed) for seed in (1, 2)], pixel_pairs((24, 20))
        flat = PixelContrastLoss(strides=(2, 4), keys=keys)(views, pairs)
        deep_views = [[level.unsqueeze(2) for level in view] for view in views]
        deep_pairs = {"valid": pairs["valid"]}
        deep_pairs |= {name: torch.nn.functional.pad(pairs[name], (1, 0)) for name in ("query", "positive")}
        deep = PixelContrastLoss(strides=((1, 2, 2), (1, 4, 4)), keys=keys)(deep_views, deep_pairs)
        assert deep.item() == pytest.approx(flat.item(), rel=1e-6)

    def test_half_precision_does_not_move_the_pixels(self, keys: str) -> None:
        shape = (16, 1024)
        half = [[level.bfloat16() for level in levels(shape, (2, 4), seed=seed)] for seed in (1, 2)]
        single = [[level.float() for level in view] for view in half]
        pairs, loss = pixel_pairs(shape), PixelContrastLoss(strides=(2, 4), keys=keys)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = loss([[level.requires_grad_() for level in view] for view in half], pairs)
        assert torch.equal(found, loss(single, pairs))
        found.backward()
        assert all(level.grad.dtype == torch.bfloat16 for level in (*half[0], *half[1]))

    def test_equal_views_of_one_hot_cells(self, keys: str) -> None:
        """Each of four cells has its own axis: the cosine is 1 at the positive and 0 elsewhere."""
        level = torch.eye(4).view(1, 4, 2, 2)
        centres = torch.tensor([[[0.5, 0.5], [0.5, 2.5], [2.5, 0.5], [2.5, 2.5]]])
        pairs = {"query": centres, "positive": centres, "valid": torch.ones(1, 4, dtype=torch.bool)}
        loss = PixelContrastLoss(strides=[2], temperature=0.5, exclusion_radius=0.0, keys=keys)
        assert loss(([level], [level]), pairs).item() == pytest.approx(math.log1p(3 * math.exp(-2)))


def test_no_process_group_needed() -> None:
    """``gather`` without torch.distributed is the plain loss."""
    views, pairs = [levels((16, 16), (2,), seed=seed) for seed in (1, 2)], pixel_pairs((16, 16))
    assert torch.equal(*(PixelContrastLoss(strides=(2,), gather=gather)(views, pairs) for gather in (True, False)))


def test_errors() -> None:
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match="level_weights has 1 levels and strides 2; give one for each level"):
            PixelContrastLoss(strides=(2, 4), level_weights=[1.0])
        views = levels((16, 16), (2,), seed=1), levels((16, 16), (2, 4), seed=2)
        with pytest.raises(ValueError, match="the anchor view has 2 levels and strides 1"):
            PixelContrastLoss(strides=(2,))(views, pixel_pairs((16, 16)))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize("keys", ["batch", "image", "cells"])
def test_losses_of_the_pairs(keys: str) -> None:
    """Their mean over the valid pairs is the loss, they have no gradient, and the others are 0."""
    shape, strides = (16, 12), (2, 4)
    views = [[level.requires_grad_() for level in levels(shape, strides, seed=seed)] for seed in (0, 1)]
    pairs = pixel_pairs(shape)
    loss = PixelContrastLoss(strides=strides, keys=keys, level_weights=[1.0, 0.3])
    found = loss.pair_losses(views, pairs)
    assert found.shape == pairs["valid"].shape
    assert not found.requires_grad
    assert (found[~pairs["valid"]] == 0).all()
    torch.testing.assert_close(found[pairs["valid"]].mean(), loss(views, pairs).detach())
    assert found[pairs["valid"]].std() > 0


def test_loss_of_a_pair_is_that_of_it_alone() -> None:
    """With all cells as keys no pair knows of another."""
    shape, strides = (16, 12), (2, 4)
    views, pairs = [levels(shape, strides, seed=seed) for seed in (0, 1)], pixel_pairs(shape)
    loss = PixelContrastLoss(strides=strides, keys="cells")
    found = loss.pair_losses(views, pairs)
    for image, place in pairs["valid"].nonzero().tolist():
        alone = torch.zeros_like(pairs["valid"])
        alone[image, place] = True
        torch.testing.assert_close(found[image, place], loss(views, pairs | {"valid": alone}))


def test_losses_of_no_pair() -> None:
    views, pairs = [levels((16, 12), (2,), seed=seed) for seed in (0, 1)], pixel_pairs((16, 12))
    pairs["valid"] = torch.zeros_like(pairs["valid"])
    for keys in ("batch", "image", "cells"):
        assert (PixelContrastLoss(strides=[2], keys=keys).pair_losses(views, pairs) == 0).all()
