"""The composite handler of a training: in which order Ignite calls its parts, and what a resumed training has."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from ignite.metrics import MeanAbsoluteError
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from torch import nn

from medpixcl.networks import MixedPrecision
from medpixcl.training import (
    AveragedWeights,
    EpochProgress,
    PeriodicValidation,
    ResumeHandler,
    TrainingHandlers,
    WeightsLoader,
    handlers as own,
)

pytestmark = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")
BATCHES = [{"image": torch.full((2, 1), 1.0), "label": torch.full((2, 1), value)} for value in (2.0, 4.0)]


class Extra:
    """A handler of a configuration's own: counts epochs, and remembers the count."""

    def __init__(self, calls: list[str]) -> None:
        self.calls, self.epochs = calls, 0

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, lambda: self.calls.append("extra starts"))
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.count)

    def count(self) -> None:
        self.calls.append("extra")
        self.epochs += 1

    def state_dict(self) -> dict[str, int]:
        return {"epochs": self.epochs}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epochs = state["epochs"]


def make(folder: Path, calls: list[str], epochs: int, **options: Any) -> tuple[Any, SupervisedTrainer]:
    """A line through the origin, fitted by least squares: a training with everything the recipe can attach."""
    network = MixedPrecision(nn.Linear(1, 1, bias=False), bfloat16=False)
    average = AveragedWeights(network, momentum=0.5)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=BATCHES,
        network=average.network,
        key_val_metric={"error": MeanAbsoluteError(lambda output: (output["pred"], output["label"]))},
        metric_cmp_fn=lambda current, previous: current < previous,
        decollate=False,
    )
    extra = Extra(calls)
    recipe = TrainingHandlers(
        network=network,
        optimizer=optimizer,
        lr_scheduler=scheduler,
        evaluator=evaluator,
        val_interval=1,
        output_dir=str(folder),
        start=WeightsLoader(network.network, str(folder / "start.pt")),
        average=average,
        early_stop_patience=3,
        extras=[extra],
        state={"extra": extra},
        **options,
    )
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=BATCHES,
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        train_handlers=[recipe],
        decollate=False,
    )
    return extra, trainer


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the handlers in the order in which they are called; the real ones run."""
    torch.save({"weight": torch.tensor([[0.25]])}, tmp_path / "start.pt")
    calls: list[str] = []

    def listen(kind: type, method: str, name: str) -> None:
        real = getattr(kind, method)

        def called(self: Any, *arguments: Any) -> Any:
            calls.append(name)
            return real(self, *arguments)

        monkeypatch.setattr(kind, method, called)

    for kind, method, name in (
        (WeightsLoader, "__call__", "start weights"),
        (AveragedWeights, "start", "average starts"),
        (ResumeHandler, "load", "resume loads"),
        (own.FiniteLossGuard, "__call__", "guard"),
        (own.GradientClipping, "__call__", "clipping"),
        (torch.optim.lr_scheduler.StepLR, "step", "schedule"),
        (PeriodicValidation, "__call__", "validation"),
        (EpochProgress, "step", "progress"),
        (ResumeHandler, "save", "resume saves"),
    ):
        listen(kind, method, name)
    return calls


def test_documented_order(tmp_path: Path, calls: list[str]) -> None:
    _, trainer = make(tmp_path, calls, epochs=1)
    calls.clear()  # the schedule steps once when it is built
    trainer.run()
    step = ["guard", "clipping", "schedule", "progress"]
    start = ["start weights", "average starts", "resume loads", "extra starts"]
    assert calls == [*start, *step, *step, "extra", "validation", "resume saves"]


def test_resumed_training_has_all_parts(tmp_path: Path, calls: list[str]) -> None:
    make(tmp_path, calls, epochs=1)[1].run()
    content = torch.load(tmp_path / "resume.pt", weights_only=True)
    parts = {
        "network",
        "precision",
        "optimizer",
        "lr_scheduler",
        "best",
        "average",
        "early_stop",
        "extra",
        "watch",
        "epoch",
        "iteration",
        "epoch_length",
        "good",
        "time",
    }
    assert content.keys() == parts
    assert content["best"]["best_metric_epoch"] == 1, "saved after the validation of its epoch"
    extra, trainer = make(tmp_path, calls, epochs=2)
    trainer.run()
    assert (extra.epochs, trainer.state.epoch) == (2, 2)
    assert torch.load(tmp_path / "resume.pt", weights_only=True)["lr_scheduler"]["last_epoch"] == 4


def test_average_begins_with_the_start_weights(tmp_path: Path, calls: list[str]) -> None:
    """The second loader of earlier configurations is not needed: the average of a rate of 0 is what was loaded."""
    _, trainer = make(tmp_path, calls, epochs=1, silent=True)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    trainer.run()
    average = torch.load(tmp_path / "resume.pt", weights_only=True)["average"]
    assert average["network.weight"].item() == 0.25


def test_silent_writes_no_events(tmp_path: Path, calls: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    make(tmp_path, calls, epochs=1, silent=True)[1].run()
    assert not list(tmp_path.glob("events.*"))
    assert "progress" not in calls
    assert "step" not in capfd.readouterr().err


def test_early_stop_ends_the_training_that_it_watches(tmp_path: Path, calls: list[str]) -> None:
    """Weights that stay make no validation better than the first: four of ten epochs with a patience of three."""
    _, trainer = make(tmp_path, calls, epochs=10, silent=True)
    trainer.optimizer.param_groups[0]["lr"] = 0.0
    trainer.run()
    assert trainer.state.epoch == 4
