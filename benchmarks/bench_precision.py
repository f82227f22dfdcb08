"""Training step of every bundle in float32, in bfloat16 and in the precision that the bundle takes by default.

    python benchmarks/bench_precision.py [--bundles xray_infoaug_pretraining ...] [--side 64] [--rounds 2]
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python benchmarks/bench_precision.py  # a CPU without bfloat16

Network, batch and shape of the views are those of ``train.json``, the images are phantoms. The bundle's own trainer
runs, and changes its precision from step to step; a step is timed without the loading of its batch, which no precision
changes. Where bfloat16 is slow a step takes minutes: ``--side`` gives smaller views, and a precision that has used up
``--limit`` seconds gets no further step.

Holds: the default takes at most 1.2 times the faster of both precisions.
"""

import argparse
import json
import logging
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import torch
from ignite.engine import Engine, Events
from monai.bundle import ConfigWorkflow

from medpixcl.networks.device_precision import MARGIN, device_precision
from medpixcl.networks.precision import Precision

BUNDLES = Path(__file__).parents[1] / "bundles"
SHAPES = ("view_shape", "patch_shape", "image_side")
SIZES = (*SHAPES, "batch_size", "channels", "hidden_channels", "cells", "anchors_per_image", "pairs_per_image")
ENDLESS = {"max_epochs": 1000, "val_interval": 1000}


class StepTimes:
    """Gives each step of a training the next precision and measures its CPU time.

    Args:
        rounds: Steps in each precision.
        limit_s: CPU time after which a precision gets no further step.
    """

    def __init__(self, rounds: int, limit_s: float) -> None:
        self.rounds, self.limit_s = rounds, limit_s
        self.seconds: dict[str, list[float]] = {}
        self.precisions: dict[str, Precision] = {}

    def attach(self, engine: Any) -> None:
        """Follow the steps of a trainer."""
        default = Precision(engine.network.precision.setting)
        self.precisions = {"float32": Precision(False), "default": default, "bfloat16": Precision(True)}
        self.seconds = {name: [] for name in self.precisions}
        engine.add_event_handler(Events.ITERATION_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.stop)

    def start(self, engine: Any) -> None:
        """Change the precision of this step."""
        self.name = min(self._open(), key=lambda name: len(self.seconds[name]))
        engine.network.precision = self.precisions[self.name]
        self.begun = time.process_time()

    def stop(self, engine: Engine) -> None:
        """Keep the time of this step; end the training after the last one."""
        self.seconds[self.name].append(time.process_time() - self.begun)
        if not self._open():
            engine.terminate()

    def _open(self) -> list[str]:
        return [n for n, past in self.seconds.items() if len(past) < self.rounds and sum(past) < self.limit_s]


def step_seconds(bundle: str, side: int | None, rounds: int, limit_s: float) -> dict[str, float]:
    """Least CPU seconds of a training step by precision."""
    times = StepTimes(rounds, limit_s)
    with tempfile.TemporaryDirectory() as folder:
        overlay = Path(folder) / "bench.json"
        overlay.write_text(json.dumps(on_phantoms(BUNDLES / bundle / "configs", side)), encoding="ascii")
        workflow = ConfigWorkflow(
            config_file=[str(BUNDLES / bundle / "configs" / "train.json"), str(overlay)],
            logging_file=False,
            workflow_type="train",
            bundle_root=str(BUNDLES / bundle),
            output_dir=folder,
        )
        workflow.initialize()
        times.attach(workflow.parser.get_parsed_content("train::trainer"))
        workflow.run()
    return {name: min(past) for name, past in times.seconds.items()}


def on_phantoms(configs: Path, side: int | None) -> dict[str, Any]:
    """The smoke configuration with the sizes of the training, and phantoms that hold its views."""
    train, smoke = (json.loads((configs / f"{name}.json").read_text()) for name in ("train", "smoke"))
    sizes = {key: train[key] for key in SIZES if key in train}
    if side is not None:
        sizes |= {key: _all(sizes[key], side) for key in SHAPES if sizes.get(key)}
    view = next(sizes[key] for key in SHAPES if isinstance(sizes.get(key), list | int))
    shape = [size * 5 // 4 for size in (view if isinstance(view, list) else [view, view])]
    settings = _phantoms({**smoke, **sizes}, shape, sizes["batch_size"])
    return settings | {key: value for key, value in ENDLESS.items() if key in train}


def _all(shape: Any, side: int) -> Any:
    return [side] * len(shape) if isinstance(shape, list) else side


def _phantoms(settings: Any, shape: list[int], number: int) -> Any:
    """Phantoms of a shape, enough for a batch, wherever a configuration writes some."""
    if not isinstance(settings, dict):
        return settings
    settings = {key: _phantoms(value, shape, number) for key, value in settings.items()}
    if "phantoms" in str(settings.get("_target_")):
        settings |= {"shape": shape, "number": max(number, settings["number"])}
    return settings


def main() -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", nargs="+", default=sorted(path.parent.name for path in BUNDLES.glob("*/configs")))
    parser.add_argument("--side", type=int, help="pixels along each axis of a view, instead of the bundle's own")
    parser.add_argument("--rounds", type=int, default=2, help="steps in each precision, the least is taken")
    parser.add_argument("--limit", type=float, default=120, help="seconds after which a precision gets no further step")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(f"CPU: {device_precision(torch.device('cpu'))}; ms of a step on one thread")
    print(f"{'bundle':34s}{'float32':>10s}{'bfloat16':>10s}{'default':>10s}  default / faster (at most {MARGIN})")
    rows: dict[str, dict[str, float]] = {}
    for bundle in given.bundles:
        rows[bundle] = row = step_seconds(bundle, given.side, given.rounds, given.limit)
        columns = "".join(f"{1e3 * row[name]:10.0f}" for name in ("float32", "bfloat16", "default"))
        ratio = row["default"] / min(row["bfloat16"], row["float32"])
        print(f"{bundle:34s}{columns}  {ratio:.2f}", flush=True)
    if given.json:
        table = {"title": "training step", "side": given.side, "rounds": given.rounds, "rows": rows}
        timing.save(given.json, [table], packages=["torch", "monai"])


if __name__ == "__main__":
    main()
