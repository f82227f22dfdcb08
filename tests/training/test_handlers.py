"""Handlers on real trainers: the guard against NaN, clipping, progress, loading of weights."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from torch import nn

from medpixcl.networks import ClassifierNet, EncoderNet, PixelEmbeddingNet
from medpixcl.training.handlers import (
    EpochProgress,
    FiniteLossGuard,
    GradientClipping,
    NonFiniteLossError,
    WeightsLoader,
    batch_files,
)
from tests.tiny import NETWORK, pretrain, write_manifest

pytestmark = pytest.mark.filterwarnings(
    "ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning",
    "ignore:.*GradScaler.*:FutureWarning",
    "ignore:.*CUDA is not available:UserWarning",
)


class Slope(nn.Module):
    """Loss 3 a + 4 b, whose gradient (3, 4) has the norm 5."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return (self.weights * image).sum()


def make_trainer(handlers: list[Any], values: list[list[float]], amp: bool = False, epochs: int = 1) -> Any:
    """One step of gradient descent per batch, with a step length of one."""
    network = Slope()
    return SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=[{"image": torch.tensor(row), "label": torch.zeros(1)} for row in values],
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=1.0),
        loss_function=lambda prediction, label: prediction,
        train_handlers=handlers,
        decollate=False,
        amp=amp,
    )


@pytest.mark.parametrize("scale", [None, 1024.0])
def test_gradients_are_clipped_in_their_own_units(scale: float | None) -> None:
    """Clipped to the norm 1, (3, 4) is (0.6, 0.8): with a gradient scaler too, which multiplies it by 1024 at first."""
    trainer = make_trainer([GradientClipping(max_norm=1.0)], [[3.0, 4.0]], amp=scale is not None)

    @trainer.on(Events.STARTED)  # MONAI's trainer takes a scaler for CUDA when it starts, which does nothing on a CPU
    def take_scaler(engine: Any) -> None:
        engine.scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)

    trainer.run()
    torch.testing.assert_close(trainer.network.weights.detach(), torch.tensor([-0.6, -0.8]), rtol=1e-5, atol=0)


def test_small_gradients_stay() -> None:
    trainer = make_trainer([GradientClipping(max_norm=6.0)], [[3.0, 4.0]])
    trainer.run()
    assert trainer.network.weights.tolist() == [-3.0, -4.0]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_guard_stops_before_the_weights_are_spoilt(value: float) -> None:
    """The first step goes to (-3, -4); the loss of the second is not finite, so its gradient is never applied."""
    trainer = make_trainer([FiniteLossGuard()], [[3.0, 4.0], [value, 4.0]])
    with pytest.raises(NonFiniteLossError, match=r"at iteration 2, made from unknown files: check these images"):
        trainer.run()
    assert trainer.network.weights.tolist() == [-3.0, -4.0]


def test_diverging_training_names_the_images(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    with pytest.raises(NonFiniteLossError) as caught:
        pretrain(manifest, tmp_path / "run", learning_rate=1e30, warmup_share=0.0, max_epochs=5)
    files = [Path(name) for name in str(caught.value).split("made from ")[1].split(": check")[0].split(", ")]
    assert len(files) == 2, "a batch of two"
    assert all(file.is_file() for file in files)


def test_batch_files() -> None:
    image = MetaTensor(torch.zeros(2, 1, 4), meta={"filename_or_obj": ["a.png", "b.png"]})
    single = MetaTensor(torch.zeros(1, 4), meta={"filename_or_obj": "b.png"})
    assert batch_files({"image": image, "other": single, "number": 3}) == ["a.png", "b.png"]
    assert batch_files([image]) == []


def test_progress_shows_epoch_loss_and_metric(capfd: pytest.CaptureFixture[str]) -> None:
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.metrics, evaluator.state.key_metric_name = {"error": 1.25, "other": 7.5}, "error"
    progress = EpochProgress(evaluator)
    trainer = make_trainer([progress], [[1.0, 0.0], [0.0, 1.0]], epochs=2)
    trainer.run()
    shown = capfd.readouterr().err
    assert "4/4" in shown
    assert "epoch=2/2" in shown
    assert "loss=-1.0" in shown  # a = -1 after the first epoch, and so on
    assert "error=1.25" in shown
    assert "other" not in shown
    assert progress.bar is None


def test_progress_starts_where_a_resumed_training_stands(capfd: pytest.CaptureFixture[str]) -> None:
    progress = EpochProgress()
    engine = Engine(lambda engine, batch: {"loss": torch.tensor(0.5)})
    engine.state.epoch, engine.state.iteration, engine.state.epoch_length, engine.state.max_epochs = 2, 6, 3, 4
    progress.start(engine)
    assert (progress.bar.n, progress.bar.total) == (6, 12)
    progress.close(engine)
    assert "6/12" in capfd.readouterr().err


def test_progress_lets_errors_through() -> None:
    progress = EpochProgress()
    trainer = make_trainer([FiniteLossGuard(), progress], [[float("nan"), 0.0]])
    with pytest.raises(NonFiniteLossError):
        trainer.run()
    assert progress.bar is None


def test_weights_loader(tmp_path: Path) -> None:
    source, target = PixelEmbeddingNet(**NETWORK), PixelEmbeddingNet(**NETWORK)
    torch.save(source.state_dict(), tmp_path / "model.pt")
    engine = Engine(lambda engine, batch: None)
    WeightsLoader(target, str(tmp_path / "model.pt")).attach(engine)
    before = target.heads[0].weight.clone()
    WeightsLoader(target, None)(engine)
    assert torch.equal(target.heads[0].weight, before)
    engine.run([0])
    assert torch.equal(target.heads[0].weight, source.heads[0].weight)


def test_weights_loader_refuses_another_architecture(tmp_path: Path) -> None:
    torch.save(PixelEmbeddingNet(**NETWORK).state_dict(), tmp_path / "model.pt")
    other = PixelEmbeddingNet(**{**NETWORK, "channels": [4, 8, 12]})
    with pytest.raises(ValueError, match="another architecture") as caught:
        WeightsLoader(other, str(tmp_path / "model.pt"))(Engine(lambda engine, batch: None))
    assert "model.pt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_loader_says_what_fitted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """From pictures of three channels under another name into a classifier of one channel."""
    small = {"backbone": "dynunet", "channels": [4, 8, 8]}
    source = EncoderNet(in_channels=3, **small)
    state = {name.replace("backbone.", "trunk."): value for name, value in source.state_dict().items()}
    torch.save(state | {"decoder.weight": torch.zeros(1)}, tmp_path / "model.pt")
    target = ClassifierNet(2, **small)
    how: dict[str, Any] = {"strict": False, "rename": {"trunk.": "backbone."}, "adapt_channels": True}
    loader = WeightsLoader(target, str(tmp_path / "model.pt"), required=["backbone."], **how)
    with caplog.at_level(logging.INFO, "medpixcl.training.handlers"):
        loader(Engine(lambda engine, batch: None))
    assert loader.report is not None
    assert len(loader.report.matched) == len(state)
    assert loader.report.missing == ("head.weight", "head.bias")
    for text in (f"{len(state)} tensors matched, 2 missing", "missing: head.weight", "unexpected: decoder.weight"):
        assert text in caplog.text
    first = loader.report.adapted[0]
    torch.testing.assert_close(target.state_dict()[first], source.state_dict()[first].sum(1, keepdim=True))
    with pytest.raises(ValueError, match=r"must fill every tensor of the network that begins with 'head\.'"):
        WeightsLoader(target, str(tmp_path / "model.pt"), required=["head."], **how)(Engine(lambda e, b: None))
