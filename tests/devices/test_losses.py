"""Every loss runs on a device, with its gradient, and gives the numbers of the CPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves, tree_map_only

from medpixcl import losses
from medpixcl.coordinates import apply_affine, voxel_positions
from medpixcl.losses import (
    InstanceContrastLoss,
    LandmarkLoss,
    MixUpObjective,
    PixelContrastLoss,
    gather_counts,
    gather_keys,
    pixel_info_nce,
)
from medpixcl.losses.heatmap import HEATMAP_LOSSES
from medpixcl.losses.pixpro import PixProLoss
from tests.devices.pretend import NAME, assert_same, on, pretend_device
from tests.losses.cases import RULES, random_case

DIMS = pytest.mark.parametrize("dims", [2, 3])
SHAPE = {2: (16, 8), 3: (16, 8, 8)}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def vectors(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(draw(*shape, seed=seed) - 0.5, dim=1)


def learns_alike(loss: Callable[..., Tensor], learnt: Any, *given: Any) -> None:
    """Value and gradient are those of the CPU, and lie on the device."""
    results = []
    with pretend_device() as device:
        for place in (torch.device("cpu"), device):
            leaves = tree_map_only(Tensor, lambda t, at=place: t.to(at).detach().requires_grad_(), learnt)
            value = loss(leaves, *on(place, given))
            assert value.device.type == place.type
            value.sum().backward()
            gradients = [leaf.grad for leaf in tree_leaves(leaves)]
            assert all(gradient is None or gradient.device.type == place.type for gradient in gradients)
            results.append([value.detach().cpu(), *[None if g is None else g.cpu() for g in gradients]])
    assert any(gradient is not None for gradient in results[0][1:])
    torch.testing.assert_close(results[1], results[0])


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("rule", [RULES[0], RULES[-1], RULES[len(RULES) // 2]], ids=["plain", "all", "exclusion"])
def test_info_nce(rule: dict[str, Any], reduction: str) -> None:
    case = random_case(2)
    learnt = {name: case.pop(name) for name in ("anchors", "keys")}
    learns_alike(
        lambda leaves, rest: pixel_info_nce(**leaves, **rest, **rule, reduction=reduction, chunk=4), learnt, case
    )


@DIMS
@pytest.mark.parametrize("keys", ["batch", "image", "cells"])
def test_pixel_contrast(dims: int, keys: str) -> None:
    loss = PixelContrastLoss(strides=[2, 4], keys=keys)
    sides = [[vectors(2, 5, *[n // s for n in SHAPE[dims]], seed=s + side) for s in (2, 4)] for side in (0, 1)]
    places = {name: draw(2, 9, dims, seed=n) * 7 for n, name in enumerate(("query", "positive"))}
    pairs = places | {"valid": draw(2, 9) > 0.3}
    learns_alike(loss, sides, pairs)
    assert_same(loss.pair_losses, sides, pairs)


def two_views(dims: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Vectors of two views at stride 4, and where their cells lie."""
    views, target = {}, {}
    cells = torch.Size(n // 4 for n in SHAPE[dims]).numel()
    for number, view in enumerate(("query", "anchor")):
        affine = torch.eye(dims + 1).repeat(2, 1, 1)
        affine[:, 0, -1] = 2.0 * number
        mm = apply_affine(affine, voxel_positions(SHAPE[dims]).flatten(0, -2).expand(2, -1, -1))
        coords = torch.cat([mm, torch.ones_like(mm[..., :1])], dim=-1).mT.view(2, dims + 1, *SHAPE[dims])
        views[view] = {"online": [vectors(2, 5, cells, seed=number)], "keys": [vectors(2, 5, cells, seed=5 + number)]}
        views[view] |= {"instance_online": vectors(2, 5, seed=number), "instance_keys": vectors(2, 5, seed=7)}
        target |= {f"coords_{view}": coords, f"affine_{view}": affine}
        target |= {f"depth_{view}": coords[:, :1] + 0.5, f"label_{view}": (coords[:, :1] / 4).floor().clamp(0, 3)}
        target[f"angle_{view}"] = torch.where(coords[:, 1:2] > 6, torch.nan, coords[:, 1:2] * 30)
    return views, target | {"item_seed": torch.tensor([3, 4])}


CHANNELS = {
    "threshold": {"key": "depth", "threshold": 3.0, "max_spread": 9.0},
    "quantile": {"key": "depth", "quantile": 0.5},
    "soft": {"key": "depth", "threshold": 3.0, "soft": True},
    "cyclic": {"key": "angle", "kind": "cyclic", "period": 360.0, "threshold": 90.0, "missing": "drop"},
    "categorical": {"key": "label", "kind": "categorical", "classes": 4, "threshold": 0.4},
}


@DIMS
@pytest.mark.parametrize("channel", CHANNELS)
def test_pixpro(dims: int, channel: str) -> None:
    loss = PixProLoss(
        strides=[4],
        scales=[[0.7, 1.0], [1.3, 2.0]],
        exogenous=[CHANNELS[channel]],
        objective="consistency" if channel == "threshold" else "contrast",
        removed="left_out",
        metric="bins",
        instance_weight=1.0,
        random_deletion=channel == "quantile",
    )
    views, target = two_views(dims)
    learns_alike(loss, views, target)
    assert_same(loss.positives, target)


def test_pixpro_reports_on_the_device() -> None:
    loss = PixProLoss(strides=[4])
    with pretend_device() as device:
        loss(*on(device, two_views(2)))
        assert {value.device.type for value in loss.latest.values()} == {NAME}


@DIMS
@pytest.mark.parametrize("heatmap", HEATMAP_LOSSES)
def test_landmarks(dims: int, heatmap: str) -> None:
    loss = LandmarkLoss([1.0] * dims, heatmap=heatmap, coordinate_weight=0.1, landmark_weights=[1.0, 2.0])
    points = draw(2, 2, dims) * 7
    points[0, 1] = torch.nan
    output = draw(2, 2 * (1 + dims), *[n // 2 for n in SHAPE[dims]], seed=1)
    learns_alike(loss, output, {"points": points, "weights": draw(2, 2)})


@DIMS
@pytest.mark.parametrize(
    ("reconstruction", "opacity"), [("l1", "squared"), ("ssim", "cross_entropy"), ("l1", "ordinal")]
)
def test_mixup(dims: int, reconstruction: str, opacity: str) -> None:
    loss = MixUpObjective(
        source_weight=1.0,
        physics_weight=1.0,
        reconstruction=reconstruction,
        opacity=opacity,
        opacity_range=(0.2, 0.8),
        weigh_by_opacity=True,
    )
    shape = (2, 1, *[16] * dims)
    output = {name: draw(*shape, seed=number) for number, name in enumerate(("target", "source"))}
    output |= {"opacity": draw(2, 1), "opacity_logits": draw(2, 4 if opacity == "ordinal" else 1)}
    truth = {name: draw(*shape, seed=9 + number) for number, name in enumerate(("target", "source", "mixed"))}
    learns_alike(loss, output, truth | {"opacity": draw(2, 1)})


def test_instance_contrast() -> None:
    learns_alike(InstanceContrastLoss(), draw(3, 2, 4))


def test_gathering_by_one_process() -> None:
    keys = draw(4, 3)
    assert_same(lambda keys: gather_keys(keys, gather_counts(len(keys), keys.device)), keys)


def test_every_public_loss_is_run() -> None:
    tested = {InstanceContrastLoss, LandmarkLoss, MixUpObjective, PixelContrastLoss}
    tested |= {PixProLoss, gather_counts, gather_keys, pixel_info_nce}
    assert {getattr(losses, name) for name in losses.__all__} == tested
