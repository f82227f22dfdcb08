"""A training that was killed and started again ends bit for bit like one that was left alone."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.networks import MixedPrecision
from medpixcl.training import BestMetricState, BestWeights, EarlyStop, PeriodicValidation, ResumeHandler
from tests.tiny import (
    PRETRAINING,
    assert_identical,
    checkpoint,
    environment,
    medpixcl,
    pretrain,
    write_config,
    write_manifest,
)

# MONAI's early stop speaks to Ignite in old words; two workers are asked of a machine that may have one core.
pytestmark = [
    pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
# Two steps an epoch; the fourth step, in the middle of the second epoch, never comes.
STUCK = {
    "imports": ["$import time", "$import ignite"],
    "+initialize": [
        "$@train::trainer.add_event_handler(ignite.engine.Events.ITERATION_STARTED(once=4), lambda: time.sleep(600))"
    ],
}
# The first validation stays the best one, so a resumed run must not take its own first one for that.
FIRST_IS_BEST = {"validate::evaluator::metric_cmp_fn": "$lambda current, previous: False"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ConfigWorkflow]:
    output = tmp_path_factory.mktemp("undisturbed")
    return output, pretrain(manifest, output, **FIRST_IS_BEST)


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, optimizer with its moments, schedule, best metric, early stop, epoch: everything, to the last bit."""
    first, second = checkpoint(one), checkpoint(other)
    assert_identical(second, first)
    assert first["optimizer"]["state"]
    weights, others = (torch.load(run / "models" / "model.pt", weights_only=True) for run in (one, other))
    assert_identical(others, weights)


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, f"{path} does not come"
        time.sleep(0.05)


def test_killed_in_the_middle_of_an_epoch(
    manifest: Path, undisturbed: tuple[Path, ConfigWorkflow], tmp_path: Path
) -> None:
    config = write_config(tmp_path / "tiny.json", **FIRST_IS_BEST)
    stuck = write_config(tmp_path / "stuck.json", **FIRST_IS_BEST, **STUCK)
    arguments = [
        "pretrain",
        str(PRETRAINING),
        "--data",
        str(manifest),
        "-o",
        str(tmp_path / "run"),
        "--trust",
        "--config",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "medpixcl", *arguments, str(stuck)],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        wait_for(tmp_path / "run" / "resume.pt", process)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -9
    assert checkpoint(tmp_path / "run")["epoch"] == 1

    assert medpixcl(*arguments, config) == 0

    assert_same_run(undisturbed[0], tmp_path / "run")
    assert checkpoint(tmp_path / "run")["best"]["best_metric_epoch"] == 1
    assert not list((tmp_path / "run").rglob("*tmp*"))
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    for tag in events.Tags()["scalars"]:
        steps = [scalar.step for scalar in events.Scalars(tag)]
        assert len(steps) == len(set(steps)), tag
    # Sorted, because the files of two runs that begin in the same second are read in the order of their process ids.
    assert sorted(scalar.step for scalar in events.Scalars("train_loss")) == list(range(1, 7))


def test_any_number_of_workers(manifest: Path, undisturbed: tuple[Path, ConfigWorkflow], tmp_path: Path) -> None:
    pretrain(manifest, tmp_path, num_workers=2, **FIRST_IS_BEST)
    assert_same_run(undisturbed[0], tmp_path)


def test_finished_training_stays_as_it_is(undisturbed: tuple[Path, ConfigWorkflow], manifest: Path) -> None:
    before = checkpoint(undisturbed[0])
    pretrain(manifest, undisturbed[0], **FIRST_IS_BEST)
    assert_identical(checkpoint(undisturbed[0]), before)


def test_validated_after_the_last_epoch_whatever_the_interval(manifest: Path, tmp_path: Path) -> None:
    workflow = pretrain(manifest, tmp_path, val_interval=2, max_epochs=3)
    assert workflow.parser.get_parsed_content("validate::evaluator").state.epoch == 3
    workflow = pretrain(manifest, tmp_path / "short", val_interval=5, max_epochs=1)
    assert (tmp_path / "short" / "models" / "model.pt").is_file()


def test_fewer_images_than_a_batch(manifest: Path, tmp_path: Path) -> None:
    """Four images are trained on: a batch of eight holds them all, instead of an epoch without a step."""
    pretrain(manifest, tmp_path, batch_size=8, max_epochs=2)
    assert checkpoint(tmp_path)["iteration"] == 2


def engines(scores: list[float], path: Path) -> tuple[Engine, Engine, list[int]]:
    """A trainer of six epochs and its evaluator, which finds the next score at each validation."""
    validated: list[int] = []

    def find(engine: Engine, batch: object) -> None:
        engine.state.metrics["error"] = scores[trainer.state.epoch - 1]
        validated.append(trainer.state.epoch)

    trainer, evaluator = Engine(lambda engine, batch: None), Engine(find)
    stop = EarlyStop(metric="error", patience=2)
    stop.set_trainer(trainer)
    stop.attach(evaluator)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda: evaluator.run([0]))
    ResumeHandler(str(path), {"early_stop": stop}).attach(trainer)
    return trainer, evaluator, validated


def test_early_stop_counts_on_over_a_resume(tmp_path: Path) -> None:
    scores = [5.0, 4.0, 4.5, 4.2, 1.0, 1.0]
    whole, _, alone = engines(scores, tmp_path / "whole.pt")
    whole.run([0], max_epochs=6)
    assert alone == [1, 2, 3, 4]  # worse than 4.0 twice

    first, _, before = engines(scores, tmp_path / "parts.pt")
    first.run([0], max_epochs=3)
    second, _, after = engines(scores, tmp_path / "parts.pt")
    second.run([0], max_epochs=6)
    assert before + after == alone

    third, _, again = engines(scores, tmp_path / "parts.pt")
    third.run([0], max_epochs=6)
    assert again == [], "a training out of patience goes no further"


def train_in(path: Path, bfloat16: bool | str, epochs: int, *, with_precision: bool = True) -> None:
    """A training that only runs its network, and keeps the precision in its checkpoint, or not as older ones did."""
    network = MixedPrecision(torch.nn.Conv2d(1, 1, 3), bfloat16)
    trainer = Engine(lambda engine, batch: network(batch))
    objects = {"network": network} | ({"precision": network.precision} if with_precision else {})
    ResumeHandler(str(path), objects).attach(trainer)
    trainer.run([torch.zeros(1, 1, 4, 4)], max_epochs=epochs)


def test_precision_stands_in_the_checkpoint(undisturbed: tuple[Path, ConfigWorkflow]) -> None:
    assert checkpoint(undisturbed[0])["precision"] == {"bfloat16": False}


def test_another_precision_after_a_resume_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train_in(tmp_path / "resume.pt", True, 1)
    assert checkpoint(tmp_path)["precision"] == {"bfloat16": True}
    train_in(tmp_path / "resume.pt", False, 2)
    assert "the training began in bfloat16 and goes on in float32: bfloat16 is set to false" in caplog.text
    assert checkpoint(tmp_path)["precision"] == {"bfloat16": False}


def test_resumes_what_was_written_before_precision_was_kept(tmp_path: Path) -> None:
    train_in(tmp_path / "resume.pt", False, 1, with_precision=False)
    train_in(tmp_path / "resume.pt", "auto", 2)
    assert checkpoint(tmp_path)["epoch"] == 2
    assert "bfloat16" in checkpoint(tmp_path)["precision"]


@pytest.mark.parametrize("damage", ["another network", "cut off", "no checkpoint", "abc", "no epoch", "list", "number"])
def test_refuses_what_it_cannot_resume(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "resume.pt"
    network = torch.nn.Linear(2, 2)
    trainer = Engine(lambda engine, batch: None)
    ResumeHandler(str(path), {"network": network}).attach(trainer)
    trainer.run([0], max_epochs=1)
    if damage == "another network":
        network = torch.nn.Linear(3, 2)
    elif damage in ("no epoch", "list", "number"):
        kept = torch.load(path, weights_only=True)
        contents = {"no epoch": {"network": kept["network"]}, "list": [1], "number": kept | {"network": 5}}
        torch.save(contents[damage], path)
    else:
        path.write_bytes(path.read_bytes()[:100] if damage == "cut off" else damage.encode())
    again = Engine(lambda engine, batch: None)
    ResumeHandler(str(path), {"network": network}).attach(again)
    with pytest.raises(ValueError, match=r"resume\.pt is damaged or of a run with another network"):
        again.run([0], max_epochs=2)


def test_best_weights_are_those_of_the_best_validation(tmp_path: Path) -> None:
    network, found = torch.nn.Linear(1, 1, bias=False), [3.0, 1.0, 2.0]
    evaluator = Engine(lambda engine, batch: None)
    evaluator.state.best_metric, evaluator.state.best_metric_epoch = -1.0, -1

    @evaluator.on(Events.EPOCH_COMPLETED)
    def compare(engine: Engine) -> None:
        if engine.state.best_metric_epoch == -1 or found[engine.state.epoch - 1] < engine.state.best_metric:
            engine.state.best_metric, engine.state.best_metric_epoch = found[engine.state.epoch - 1], engine.state.epoch

    @evaluator.on(Events.EPOCH_STARTED)
    def change(engine: Engine) -> None:
        torch.nn.init.constant_(network.weight, engine.state.epoch)

    BestWeights(network, str(tmp_path / "new" / "model.pt")).attach(evaluator)
    evaluator.run([0], max_epochs=3)
    assert torch.load(tmp_path / "new" / "model.pt")["weight"].item() == 2.0
    assert BestMetricState(evaluator).state_dict() == {"best_metric": 1.0, "best_metric_epoch": 2}


def test_periodic_validation_wants_an_evaluator() -> None:
    with pytest.raises(TypeError, match="Evaluator"):
        PeriodicValidation(1, Engine(lambda engine, batch: None))
