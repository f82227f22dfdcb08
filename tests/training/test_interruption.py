"""Signals, full disks, lost processes and divergence: what stays on the disk, what is said, and where it goes on."""

import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.training.failures import DeviceError, in_one_sentence
from tests.tiny import PRETRAINING, assert_identical, checkpoint, environment, medpixcl, write_config, write_manifest

pytestmark = [
    pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
STEPS = {"batch_size": 1, "max_epochs": 3}
"""Four steps an epoch."""


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_manifest(tmp_path_factory.mktemp("phantoms"))


@pytest.fixture(scope="module")
def undisturbed(manifest: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("undisturbed")
    assert train(manifest, run) == 0
    return run


def command(manifest: Path, run: Path, *options: str, **changes: Any) -> list[str]:
    """Arguments of a training with a configuration of its own."""
    config = write_config(run.parent / f"{run.name}.json", **STEPS | changes)
    where = ["--data", str(manifest), "-o", str(run), "--trust", "--config", str(config)]
    return ["pretrain", str(PRETRAINING), *where, *options]


def train(manifest: Path, run: Path, *options: str, **changes: Any) -> int:
    """Exit status of a training in this process."""
    return medpixcl(*command(manifest, run, *options, **changes))


def at_step(step: int, does: str) -> dict[str, Any]:
    """Configuration in which an expression is evaluated at the beginning of a step."""
    event = f"ignite.engine.Events.ITERATION_STARTED(once={step})"
    return {
        "imports": ["$import ignite", "$import os", "$import time", "$import multiprocessing"],
        "+initialize": [f"$@train::trainer.add_event_handler({event}, lambda engine: {does})"],
    }


def curves(run: Path) -> dict[str, list[tuple[int, float]]]:
    """Points of all scalars, in the order of their steps."""
    events = EventAccumulator(str(run))
    events.Reload()
    return {tag: sorted((one.step, one.value) for one in events.Scalars(tag)) for tag in events.Tags()["scalars"]}


def assert_same_run(run: Path, other: Path) -> None:
    """Weights and state to the last bit, every point of the curves once, and no file more or less."""
    assert_identical(checkpoint(run), checkpoint(other))
    weights, others = (torch.load(one / "models" / "model.pt") for one in (run, other))
    assert_identical(weights, others)
    assert curves(run) == curves(other)
    files, other_files = ({path.relative_to(one).as_posix() for path in one.rglob("*")} for one in (run, other))
    assert {name for name in files if "events" not in name} == {name for name in other_files if "events" not in name}


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 75)])
@pytest.mark.parametrize("step", [2, 8])
def test_signals(
    name: str, status: int, step: int, manifest: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """In the middle of the first epoch, and in the last step of the second, whose end is waited for."""
    number = getattr(signal, name)
    handler = signal.getsignal(number)
    stopped = at_step(step, f"os.kill(os.getpid(), {int(number)})")
    assert train(manifest, tmp_path / "run", **stopped) == status
    assert signal.getsignal(number) == handler
    sentence = f"stopped by {name}, with the state {'after step 2' if step == 2 else 'of the last complete epoch'} in "
    assert capsys.readouterr().out.count(sentence) == 1
    content = checkpoint(tmp_path / "run")
    assert (content["epoch"], content["iteration"]) == (0 if step == 2 else 2, step)
    assert train(manifest, tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_signal_while_images_are_read(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    reading = {"imports": ["$import os"], "initialize": [f"$os.kill(os.getpid(), {int(signal.SIGUSR1)})"]}
    assert train(manifest, tmp_path / "run", **reading) == 75
    assert "stopped by SIGUSR1, with no further state saved: the same command goes on" in capsys.readouterr().out


def test_classes_that_follow_the_loss(manifest: Path, tmp_path: Path) -> None:
    """Their sums over an epoch are part of a state within the epoch; the average of the weights, too."""
    adaptive = {"class_ratios": "loss", "ema_momentum": 0.1}
    assert train(manifest, tmp_path / "whole", **adaptive) == 0
    stopped = at_step(6, f"os.kill(os.getpid(), {int(signal.SIGTERM)})")
    assert train(manifest, tmp_path / "parts", **adaptive, **stopped) == 143
    assert checkpoint(tmp_path / "parts")["classes"]["epoch_sums"].sum() > 0
    assert train(manifest, tmp_path / "parts", **adaptive) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_killed_in_the_first_epoch(manifest: Path, undisturbed: Path, tmp_path: Path) -> None:
    """Its points come once, and what it was writing goes; a process of a data loader that still lives locks nothing."""
    run = tmp_path / "run"
    arguments = command(manifest, run, "--set", "num_workers=1", **at_step(4, "time.sleep(600)"))
    process = subprocess.Popen(
        [sys.executable, "-m", "medpixcl", *arguments], env=environment(), stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 300
        while not (run.is_dir() and any(steps == 3 for steps in map(len, curves(run).values()))):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert train(manifest, run) == 2, "another process works in the folder"
    finally:
        process.kill()
        process.wait()
    (run / "models").mkdir()
    for draft in (".resume.pt.tmp", ".resume.pt.123.tmp", ".training.json.4.tmp", "models/.model.pt.99.tmp"):
        (run / draft).write_bytes(b"half")
    assert train(manifest, run) == 0
    assert_same_run(run, undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "workers", "group"),
    [(signal.SIGTERM, 0, False), (signal.SIGTERM, 2, True), (signal.SIGUSR1, 2, True), (signal.SIGKILL, 0, False)],
)
def test_at_random_moments(number: int, workers: int, group: bool, tmp_path: Path) -> None:
    """Several times, also with a signal that reaches the processes of the data loader, as a cluster sends it."""
    manifest, moments = write_manifest(tmp_path / "data", number=14), random.Random(int(number) + workers)
    slow = at_step(1, "None") | {"batch_size": 2}
    slow["+initialize"] = [slow["+initialize"][0].replace("(once=1)", "").replace("None", "time.sleep(0.1)")]
    options = ("--set", f"num_workers={workers}")
    expected = {signal.SIGTERM: 143, signal.SIGUSR1: 75, signal.SIGKILL: -9}[signal.Signals(number)]

    def run_until(run: Path, delay: float | None) -> int:
        before = set(run.glob("events*"))
        line = [sys.executable, "-m", "medpixcl", *command(manifest, run, *options, **slow)]
        process = subprocess.Popen(
            line, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while delay is not None and process.poll() is None and set(run.glob("events*")) <= before:
            time.sleep(0.02)
        time.sleep(delay or 0)
        if delay is not None and process.poll() is None:
            (os.killpg if group else os.kill)(process.pid, number)
        return process.wait()

    assert run_until(tmp_path / "whole", None) == 0
    for _ in range(4):
        assert run_until(tmp_path / "parts", moments.uniform(0, 2)) in (0, expected)
    assert run_until(tmp_path / "parts", None) == 0
    assert_same_run(tmp_path / "parts", tmp_path / "whole")


def test_divergence_at_the_start(
    manifest: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The same command with another learning rate is a training like any other."""
    assert train(manifest, tmp_path / "run", "--set", "learning_rate=1e30") == 2
    said = capsys.readouterr().err
    assert re.search(
        r"is (nan|inf) at iteration \d+, made from .*; with other settings the same command starts anew", said
    )
    assert train(manifest, tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_divergence_after_a_good_epoch(
    manifest: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Weights that have grown in the second epoch, and NaN in the third: the state after the first is left."""
    grow = "[weight.data.mul_(1e3) for weight in engine.network.parameters()]"
    spoil = "[weight.data.fill_(float('nan')) for weight in engine.network.parameters()]"
    both = at_step(7, grow)
    both["+initialize"] += at_step(10, spoil)["+initialize"]
    assert train(manifest, tmp_path / "run", **both) == 2
    assert "goes on from the last state that had not diverged" in capsys.readouterr().err
    assert checkpoint(tmp_path / "run")["epoch"] == 1
    assert train(manifest, tmp_path / "run") == 0
    assert_same_run(tmp_path / "run", undisturbed)


def test_other_learning_rate_after_a_resume(manifest: Path, tmp_path: Path) -> None:
    """It is that of the command, at the place of the schedule that the training has reached."""
    stopped = at_step(5, f"os.kill(os.getpid(), {int(signal.SIGTERM)})")
    assert train(manifest, tmp_path / "run", **stopped) == 143
    before = dict(curves(tmp_path / "run")["learning_rate"])
    assert train(manifest, tmp_path / "run", "--set", "learning_rate=0.0001") == 0
    after = dict(curves(tmp_path / "run")["learning_rate"])
    assert train(manifest, tmp_path / "usual") == 0
    usual = dict(curves(tmp_path / "usual")["learning_rate"])
    assert {step: after[step] for step in before} == before
    for step in range(6, 13):
        assert after[step] == pytest.approx(usual[step] / 10, abs=1e-12)


@contextmanager
def full_disk(size: int) -> Iterator[None]:
    """No file of this process grows over this number of bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_full_disk(manifest: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The file is named, the state before stays, nothing half is left, and the command goes on when there is room."""
    run, size = tmp_path / "run", (undisturbed / "resume.pt").stat().st_size
    shutil.copytree(undisturbed, run)
    (run / "resume.pt").unlink()
    stopped = at_step(6, f"os.kill(os.getpid(), {int(signal.SIGTERM)})")
    assert train(manifest, run, **stopped) == 143
    with full_disk(size // 2):
        assert train(manifest, run) == 2
    assert capsys.readouterr().err.strip().splitlines()[-1] == f"medpixcl: {run / 'resume.pt'}: File too large"
    assert checkpoint(run)["iteration"] == 6
    assert train(manifest, run) == 0
    assert_same_run(run, undisturbed)


def test_killed_process_of_the_data_loader(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    killed = at_step(6, "[os.kill(one.pid, 9) for one in multiprocessing.active_children()] and time.sleep(30)")
    assert train(manifest, tmp_path / "run", "--set", "num_workers=1", **killed) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.fullmatch(
        r"medpixcl: a process of the data loader \(number \d+\) was killed by the signal Killed, .*", said
    )
    assert checkpoint(tmp_path / "run")["epoch"] == 1


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nSee"),
            "cuda:1 has no memory left (CUDA",
        ),
        (
            RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors"),
            "cuda:1 failed (CUDA error: unspe",
        ),
    ],
)
def test_lost_devices(error: Exception, sentence: str) -> None:
    """The errors that PyTorch raises; no device can be lost here."""
    found = in_one_sentence(error, torch.device("cuda:1"), "run")
    assert isinstance(found, DeviceError)
    assert sentence in str(found)
    assert "\n" not in str(found)


def test_errors_in_a_process_of_the_data_loader_and_others() -> None:
    caught = (
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback:\n  line\nValueError: a.png: is broken"
    )
    found = in_one_sentence(ValueError(caught), torch.device("cpu"), "run")
    assert (type(found), str(found)) == (ValueError, "a.png: is broken")
    assert str(in_one_sentence(OSError(28, "No space left on device"), torch.device("cpu"), "run")).endswith("'run'")
    for other in (RuntimeError("a bug"), KeyError("a bug"), OSError(2, "No such file", "a.png")):
        assert in_one_sentence(other, torch.device("cpu"), "run") is other


def test_changed_images_are_refused(manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """One was replaced, then one is missing; the same content at another time and in another folder is the same."""
    data, run = tmp_path / "data", tmp_path / "run"
    shutil.copytree(manifest.parent, data, copy_function=shutil.copy2)
    assert train(data / "manifest.json", run) == 0
    state = (run / "resume.pt").read_bytes()
    moved, first, second = tmp_path / "moved", *sorted((data / "images").glob("*.png"))[:2]
    shutil.copytree(data, moved, copy_function=shutil.copyfile)
    assert train(moved / "manifest.json", run) == 0
    shutil.copyfile(second, first)
    assert train(data / "manifest.json", run) == 2
    assert f"the image {first.name} or its annotation has changed since this training began" in capsys.readouterr().err
    entries = json.loads((data / "manifest.json").read_text())
    entries["training"] = entries["training"][1:]
    (data / "manifest.json").write_text(json.dumps(entries))
    assert train(data / "manifest.json", run) == 2
    assert f"{first.name} is missing in the data of this training: give the data as it was" in capsys.readouterr().err
    state_after = (run / "resume.pt").read_bytes()
    assert len(state_after) == len(state)
    for file in (run / "training.json", run / "resume.pt"):
        assert str(tmp_path).encode() not in file.read_bytes(), file


def test_changed_settings_are_told(
    manifest: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """Which of them count, in a line each; where the data lies and what computes is no setting of the training."""
    run = tmp_path / "run"
    shutil.copytree(undisturbed, run)
    start = run / "models" / "model.pt"
    settings = ["temperature=0.5", "max_epochs=4", "num_workers=0", f"start_weights={json.dumps(str(start))}"]
    assert train(manifest, run, *[f"--set={one}" for one in settings], device="cpu") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "when this training began" in line]
    digest = re.search(r"SHA-256 \w{20,}", " ".join(said))
    assert digest is not None
    assert str(tmp_path) not in " ".join(said)
    assert [line.partition(" was ")[0] for line in said] == ["max_epochs", "start_weights", "temperature"]
    counts, goes_on = "it counts from here on", "it does not count, because the training goes on from its own state"
    assert said[0] == f"max_epochs was 3 when this training began and is 4 now: {counts}"
    assert said[1].endswith(goes_on)
    assert said[2] == f"temperature was 0.07 when this training began and is 0.5 now: {counts}"
