"""The handlers that follow the positives of PixPro's loss."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor, list_data_collate
from monai.transforms import Compose
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.losses.pixpro import PixProLoss
from medpixcl.training.controls import ExogenousControl
from medpixcl.training.pixpro import PixProPrepareBatch
from medpixcl.training.positives import PositivePictures, PositiveStatistics
from medpixcl.transforms import MissingAsNaNd, RandPixelPairsd, RandPixelViewsd, ShuffledExogenousd

DIMS = pytest.mark.parametrize("dims", [2, 3])
CHANNEL = {"key": "depth", "threshold": 3.0}
LABELS = {"key": "labels", "kind": "categorical", "classes": 3, "threshold": 0.5}


def items(dims: int) -> list[dict[str, Any]]:
    """Noise with a depth that grows along the first axis; unknown in one corner."""
    found = []
    for seed in range(2):
        image = torch.rand(1, *(24,) * dims, generator=torch.Generator().manual_seed(seed))
        depth = torch.arange(24.0).view(1, -1, *[1] * (dims - 1)).expand_as(image)
        known = torch.ones_like(image)
        known[(slice(None), *[slice(0, 6)] * dims)] = 0
        affine = torch.eye(4, dtype=torch.float64)
        both = torch.cat([depth * known, known])
        found.append({"image": MetaTensor(image, affine=affine), "depth": MetaTensor(both, affine=affine)})
    return found


def views(dims: int) -> RandPixelViewsd:
    return RandPixelViewsd(["image", "depth"], [16] * dims, exogenous_keys=["depth"])


def batch_of(dims: int) -> dict[str, Any]:
    chain = Compose([views(dims), MissingAsNaNd(["depth_query", "depth_anchor"])])
    made = []
    for seed, item in enumerate(items(dims)):
        chain.set_random_state(seed=seed)
        made.append({**chain(item), "item_seed": seed})
    return list_data_collate(made)


def test_means_over_an_epoch() -> None:
    """Counts are means of the steps, the kill rate is of all positives together: 1 - (2 + 6) / (4 + 12)."""
    loss = PixProLoss(strides=[4])
    steps = [(2.0, 4.0, 0.5), (6.0, 12.0, 0.5), (1.0, 4.0, 0.75), (12.0, 12.0, 0.0)]

    def step(engine: Engine, number: int) -> None:
        kept, spatial, killed = steps[number]
        loss.latest = {"positives_x": torch.tensor(kept), "spatial_positives_x": torch.tensor(spatial)}
        loss.latest["kill_rate_x"] = torch.tensor(killed)

    engine, found = Engine(step), []
    handler = PositiveStatistics(loss)
    handler.attach(engine)
    for half in ([0, 1], [2, 3]):
        engine.run(half, max_epochs=1)
        found.append(dict(engine.state.metrics))
    assert found[0] == pytest.approx({"pairs/positives_x": 4, "pairs/spatial_positives_x": 8, "pairs/kill_rate_x": 0.5})
    assert found[1]["pairs/kill_rate_x"] == pytest.approx(1 - 13 / 16), "not the mean of the steps' rates, 0.375"


@DIMS
def test_picture_of_the_positives(dims: int, tmp_path: Path) -> None:
    loss = PixProLoss(strides=[4], scales=[[0.7, 1], [2.8, 1]], exogenous=[CHANNEL])
    engine = Engine(lambda engine, batch: None)
    PositivePictures(str(tmp_path), loss).attach(engine)
    engine.run([batch_of(dims)], max_epochs=1)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert events.Tags()["images"] == ["validation/positives"]


@DIMS
def test_positives_are_those_of_the_loss(dims: int) -> None:
    """What is drawn is what the loss counts."""
    _, target, _, _ = PixProPrepareBatch([4], ["depth"])(batch_of(dims), "cpu")
    loss = PixProLoss(strides=[4], scales=[[1.4, 1]], exogenous=[CHANNEL])
    cells = 4**dims
    vectors = {"online": [torch.randn(2, 3, cells)], "keys": [torch.randn(2, 3, cells)]}
    loss({"query": vectors, "anchor": vectors}, target)
    found = loss.positives(target)
    assert found.weights.sum((1, 2)).mean() == loss.latest["positives_stride4_T1.4"]
    assert 0 < found.weights.sum() < found.spatial.sum()


def test_pictures_want_a_channel(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no exogenous channel, so there is none to draw"):
        PositivePictures(str(tmp_path), PixProLoss(strides=[4]))


def test_uniform_pairs_need_no_entropy() -> None:
    item = {**views(2)(items(2)[0])}
    pairs = RandPixelPairsd(20, exponent=0.0)(item)
    assert pairs["valid"].all()
    assert "informativeness" not in pairs
    with pytest.raises(KeyError):
        RandPixelPairsd(20, exponent=0.3)(item)


class TestControl:
    @pytest.mark.parametrize(
        ("control", "keys", "random"),
        [
            ("none", ["depth"], False),
            ("shuffled", ["depth"], False),
            ("random_deletion", ["depth"], True),
            ("labels", ["labels"], False),
            ("no_depth", [], False),
        ],
    )
    def test_parts(self, control: str, keys: list[str], random: bool) -> None:
        made = ExogenousControl(control, [CHANNEL], LABELS)
        assert (made.keys, made.loaded, made.random_deletion) == (keys, keys, random)
        assert made.nearest_keys == [key for key in keys if key == "labels"]
        assert made.view_keys == [f"{key}_{view}" for key in keys for view in ("query", "anchor")]
        data = [{"image": "a"}, {"image": "b"}]
        assert isinstance(made.preparation(dict), ShuffledExogenousd) == (control == "shuffled")
        assert all(("donor" in item) == (control == "shuffled") for item in made.items(data))

    def test_computed_channels_are_no_files(self) -> None:
        assert ExogenousControl("none", [CHANNEL], computed=["depth"]).loaded == []

    def test_unknown(self) -> None:
        with pytest.raises(ValueError, match="control is 'shufled'; expected one of none, shuffled"):
            ExogenousControl("shufled", [CHANNEL])
        with pytest.raises(ValueError, match="control is 'labels' but no label map is described"):
            ExogenousControl("labels", [CHANNEL])


def test_random_deletion_takes_as_many() -> None:
    _, target, _, _ = PixProPrepareBatch([4], ["depth"])(batch_of(2), "cpu")
    options: dict[str, Any] = {"strides": [4], "scales": [[2.8, 1]], "exogenous": [CHANNEL]}
    by_depth, by_chance = PixProLoss(**options), PixProLoss(**options, random_deletion=True)
    found = [loss.positives(target).weights for loss in (by_depth, by_chance)]
    assert np.allclose(*[weights.sum((1, 2)) for weights in found])
    assert not torch.equal(*found)
