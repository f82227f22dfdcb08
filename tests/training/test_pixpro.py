"""PixPro in MONAI's trainer: schedule, momentum handler, prepared batches, resumed runs."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import DataLoader, MetaTensor
from monai.engines import SupervisedTrainer
from monai.transforms import Compose
from torch import nn

from medpixcl.data.seeded import EpochSampler, SeededDataset
from medpixcl.losses.pixpro import PixProLoss
from medpixcl.networks import BackboneNet
from medpixcl.networks.pixpro import PixProNet
from medpixcl.training import ResumeHandler
from medpixcl.training.momentum import MomentumEncoder, momentum_at
from medpixcl.training.pixpro import PixProPrepareBatch
from medpixcl.transforms import RandPixelViewsd
from tests.geometry import random_image

STRIDES = [2, 4]
DEPTH = {"key": "depth", "quantile": 0.7}
VIEW = {2: (16, 16), 3: (8, 8, 8)}


class TestMomentum:
    def test_golden(self):
        assert [momentum_at(step, 1000) for step in (0, 500, 1000)] == pytest.approx([0.99, 0.995, 1.0], abs=1e-12)

    def test_moves_before_every_step(self):
        """The recurrence written out, with the weights before the step and the first step's momentum at the start."""
        network = Counting()
        engine = Engine(lambda engine, value: network.online.fill_(value))
        MomentumEncoder(network, start=0.5).attach(engine)
        network.online.fill_(8.0)
        engine.run([4.0, 0.0, 2.0], max_epochs=1)
        expected = 8.0
        for step, online in enumerate([8.0, 4.0, 0.0]):
            momentum = momentum_at(step, 3, 0.5)
            expected = momentum * expected + (1 - momentum) * online
        assert network.key.item() == pytest.approx(expected)

    @pytest.mark.parametrize(("iteration", "restarts"), [(0, 1), (5, 0)])
    def test_only_a_new_training_begins_with_the_weights(self, iteration, restarts):
        network, engine = Counting(), Engine(lambda engine, value: None)
        engine.state.iteration = iteration
        MomentumEncoder(network).begin(engine)
        assert network.restarts == restarts

    def test_bad_input(self):
        with pytest.raises(ValueError, match=r"the momentum starts at 1\.5; expected a number between 0 and 1"):
            MomentumEncoder(Counting(), start=1.5)


class Counting(nn.Module):
    """One number and its copy."""

    def __init__(self) -> None:
        super().__init__()
        self.online, self.key, self.restarts = torch.zeros(1), torch.zeros(1), 0

    def follow(self, momentum: float) -> None:
        self.key.lerp_(self.online, 1 - momentum)

    def restart(self) -> None:
        self.key.copy_(self.online)
        self.restarts += 1


def item(dims: int, number: int) -> dict[str, MetaTensor]:
    image = random_image((24, 28, 20)[:dims], seed=0)
    return {"image": image / 4 + 0.5, "depth": MetaTensor(image.as_tensor().roll(number, 1), affine=image.affine)}


def loader(dims: int) -> DataLoader:
    views = RandPixelViewsd(["image", "depth"], view_shape=VIEW[dims], flip_probability=0.5)
    data = [item(dims, number) for number in range(4)]
    dataset = SeededDataset(data, prepare=Compose([]), transform=Compose([views]), seed=0)
    return DataLoader(dataset, batch_size=2, sampler=EpochSampler(dataset, seed=0))


def train(dims: int, folder: Path | None, epochs: int, *, interrupted: bool = False) -> tuple[PixProNet, PixProLoss]:
    torch.manual_seed(0)
    trunk = BackboneNet(spatial_dims=dims, backbone="dynunet", channels=[4, 8, 8], strides=STRIDES)
    net = PixProNet(trunk, projection_size=6, hidden_channels=8)
    loss = PixProLoss(strides=STRIDES, exogenous=[DEPTH])
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
    handlers: list[Any] = [MomentumEncoder(net, start=0.5)]
    if folder is not None:
        handlers.append(ResumeHandler(str(folder / "resume.pt"), {"network": net, "optimizer": optimizer}))
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=epochs,
        train_data_loader=loader(dims),
        network=net,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=PixProPrepareBatch(STRIDES, exogenous=["depth"], cells=9),
        train_handlers=handlers,
        decollate=False,
    )
    if interrupted:  # in the middle of the second epoch
        trainer.add_event_handler(Events.ITERATION_COMPLETED(once=3), interrupt)
    trainer.run()
    return net, loss


def interrupt(engine: Engine) -> None:
    raise InterruptedError


class TestTraining:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_runs(self, dims):
        net, loss = train(dims, None, 1)
        assert 0 < loss.latest["kill_rate_stride2_T0.7"] < 1
        moved = [not torch.equal(a, b) for a, b in zip(net.online.parameters(), net.momentum.parameters(), strict=True)]
        assert any(moved)

    def test_interrupted_ends_like_undisturbed(self, tmp_path):
        """The same views, cells and momentum: weights, the copy and the statistics to the last bit."""
        (tmp_path / "one").mkdir()
        (tmp_path / "two").mkdir()
        whole, _ = train(2, tmp_path / "one", 3)
        with pytest.raises(InterruptedError):
            train(2, tmp_path / "two", 3, interrupted=True)
        resumed, _ = train(2, tmp_path / "two", 3)
        for name, value in whole.state_dict().items():
            assert torch.equal(resumed.state_dict()[name], value), name


class TestPrepareBatch:
    def batch(self) -> dict[str, Any]:
        return next(iter(loader(2)))

    def test_target(self):
        batch = self.batch()
        query, target, (anchor,), drawn = PixProPrepareBatch(STRIDES, ["depth"])(batch)
        assert torch.equal(query, batch["image_query"].as_tensor())
        assert torch.equal(anchor, batch["image_anchor"].as_tensor())
        assert drawn == {}
        assert torch.equal(target["coords_query"], batch["coords_image_query"].as_tensor())
        assert target["affine_anchor"].shape == (2, 3, 3)
        torch.testing.assert_close(target["affine_anchor"][:, :2, 2], target["coords_anchor"][:, :2, 0, 0])
        assert not any(isinstance(value, MetaTensor) for value in (query, anchor, *target.values()))

    def test_the_same_cells_again(self):
        prepare, batch = PixProPrepareBatch(STRIDES, cells=5), self.batch()
        one, two = prepare(batch)[3], prepare(batch)[3]
        assert [cells.shape for cells in one["query_cells"]] == [(2, 5), (2, 5)]
        assert all(torch.equal(a, b) for key in one for a, b in zip(one[key], two[key], strict=True))
        torch.testing.assert_close(prepare(batch)[1]["cells_anchor"], one["anchor_cells"])

    def test_absent_channel(self):
        with pytest.raises(ValueError, match="the exogenous channel 'ct' is absent: the batch has no 'ct_query'"):
            PixProPrepareBatch(STRIDES, ["ct"])(self.batch())
