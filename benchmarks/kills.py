"""Commands killed at random moments, and started again: their results against those of an undisturbed run.

``python benchmarks/kills.py [--kills 10] [--seed 0] [--commands pretrain selftrain match detect scan] [--json FILE]``

Every command runs on phantoms, once to its end; then, in another folder, it is killed by SIGKILL as often as asked, at
moments drawn evenly over the time that the undisturbed run took, and runs to its end. Counted are files that differ,
that are missing or too many, drafts that were left, rows of landmarks that are doubled or lost, files that cannot be
read, and points of TensorBoard that are doubled or lost. Holds: all these counts are 0.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.data.phantoms import write_landmark_phantoms
from medpixcl.data.scan import scan

IMAGES = 24
SIDES = (160, 128)
TINY = {
    "backbone": "dynunet", "channels": [4, 8, 8], "embedding_size": 8, "imagenet": False, "bfloat16": False,
    "working_spacing_mm": [1.0, 1.0], "view_shape": [32, 32], "batch_size": 2, "val_interval": 1, "val_repeats": 1,
    "anchors_per_image": 16, "entropy_radius_mm": 3.0, "max_epochs": 12, "pictures": False,
}  # fmt: skip
TIMES = {"run.json", "training.json"}
"""Files that hold times."""


def words_of(command: str, data: Path, output: Path, *, again: bool) -> list[str]:
    """Words of a command, the same at every start.

    Args:
        command: Name of the command.
        data: Folder of the images, the landmarks and the settings.
        output: Folder of the results.
        again: Whether the run may have begun before.
    """
    images, table = data / "images", data / "images" / "landmarks.csv"
    template = ["--template", images / "phantom_000.png", "--landmarks", table]
    searched = ["--images", images, "-o", output, "--spacing-mm", 1, *(["--continue"] if again else [])]
    words: dict[str, list[Any]] = {
        "scan": ["scan", images, "-o", output / "manifest.jsonl", "--spacing-mm", 1, "--workers", 1],
        "match": ["match", *template, *searched],
        "detect": ["detect", "--bundle", "cephalometric_landmark_detection", *searched],
        "pretrain": ["pretrain", "xray_infoaug_pretraining", "--data", data / "manifest.json", "-o", output, "--trust",
                     "--config", data / "tiny.json"],
        "selftrain": ["selftrain", *template, "--data", data / "manifest.json", "-o", output, "--spacing-mm", 1,
                      "--epochs", 4, "--rounds", 1, "--set", "batch_size=4", "--set", "bfloat16=false"],
    }  # fmt: skip
    return [sys.executable, "-m", "medpixcl", *map(str, words[command])]


def run(words: Sequence[str], log: Path, kill_after: float | None = None) -> int:
    """Exit status of a command, which may be killed after some seconds."""
    with log.open("ab") as file, subprocess.Popen(words, stdout=file, stderr=file) as process:
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()


def faults(found: Path, expected: Path) -> dict[str, Any]:
    """What differs between the results of two runs: files by name, and numbers."""
    ours, theirs = files_of(found), files_of(expected)
    both = [name for name in ours.keys() & theirs.keys() if Path(name).name not in TIMES and "events" not in name]
    rows = [line for path in found.rglob("landmarks.csv") for line in path.read_text().splitlines()]
    keys = [tuple(line.split(",")[:2]) for line in rows]
    names = [{name for name in side if "events" not in name} for side in (ours, theirs)]
    return {
        "different files": sorted(name for name in both if not same(found / name, expected / name)),
        "missing files": len(names[1] - names[0]),
        "files too many": len(names[0] - names[1]),
        "drafts": sum(name.endswith(".tmp") for name in ours),
        "doubled rows": len(keys) - len(set(keys)),
        "unreadable files": sum(not readable(path) for path in ours.values()),
        "different points": sum(((points(found) - points(expected)) + (points(expected) - points(found))).values()),
    }


def files_of(folder: Path) -> dict[str, Path]:
    """All files below a folder, by their path in it."""
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same; of a training's state without the times."""
    if one.suffix != ".pt":
        return one.read_bytes() == other.read_bytes()
    return equal(*(torch.load(file, weights_only=True) for file in (one, other)))


def equal(one: Any, other: Any) -> bool:
    """Equal to the last bit, through dictionaries and lists of tensors."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one.keys() - {"time"})
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


def readable(path: Path) -> bool:
    """Whether a file of JSON or of weights can be read."""
    try:
        if path.suffix == ".json":
            json.loads(path.read_text())
        elif path.suffix == ".pt":
            torch.load(path, weights_only=True)
    except Exception:
        return False
    return True


def points(folder: Path) -> Counter[tuple[str, int, float]]:
    """Points of all curves that TensorBoard shows of a folder."""
    if not any(folder.glob("events*")):
        return Counter()
    events = EventAccumulator(str(folder))
    events.Reload()
    return Counter((tag, one.step, one.value) for tag in events.Tags()["scalars"] for one in events.Scalars(tag))


def measure(command: str, data: Path, folder: Path, kills: int, moments: random.Random) -> dict[str, Any]:
    """Kill a command and compare."""
    whole, parts, log = folder / command / "whole", folder / command / "parts", folder / f"{command}.log"
    for output in (whole, parts):
        output.mkdir(parents=True)
    start = time.monotonic()
    status = run(words_of(command, data, whole, again=False), log)
    if status not in (0, 3):
        sys.exit(f"{command} failed: {log.read_text()[-2000:]}")
    took = time.monotonic() - start
    words = words_of(command, data, parts, again=True)
    killed = 0
    while killed < kills:
        status = run(words, log, moments.uniform(0, took))
        if status == -9:
            killed += 1
        elif status not in (0, 3):
            sys.exit(f"{command} ended with {status} after a kill: {log.read_text()[-2000:]}")
        else:  # it was done before
            for path in sorted(parts.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
    if run(words, log) not in (0, 3):
        sys.exit(f"{command} failed after {killed} kills: {log.read_text()[-2000:]}")
    return {"seconds": round(took, 1), "kills": killed, **faults(parts, whole)}


def main() -> None:
    """Kill every command, and print what differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="for each command")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", nargs="+", default=["pretrain", "selftrain", "match", "detect", "scan"])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    moments, table = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as place:
        data = Path(place) / "data"
        write_landmark_phantoms(data / "images", IMAGES, SIDES)
        (data / "tiny.json").write_text(json.dumps(TINY))
        scan(data / "images", spacing_mm=1.0).write(data / "manifest.json")
        for command in options.commands:
            table[command] = measure(command, data, Path(place), options.kills, moments)
            print(command, json.dumps(table[command]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(table, indent=1))
    wrong = {key: value for one in table.values() for key, value in one.items() if key not in ("seconds", "kills")}
    if any(wrong.values()):
        sys.exit(f"killed runs differ: {wrong}")


if __name__ == "__main__":
    main()
