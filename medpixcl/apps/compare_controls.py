"""Repeat a training for every control and seed, to test whether an exogenous channel helps."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from medpixcl._json import parsed_json
from medpixcl.apps.bundles import run_bundle
from medpixcl.data.atomic import write_text_atomically
from medpixcl.training.controls import CONTROLS

HELD_OUT = "val_pixel_error"
METRICS = "training_metrics.json"


def trained_metrics(bundle: Path, output: Path, overrides: Mapping[str, Any]) -> dict[str, float]:
    """Train a PixPro bundle into a folder, unless that was done before, and return its final metrics.

    Args:
        bundle: Folder of the bundle.
        output: Folder of the run; an interrupted run is resumed.
        overrides: Values by config id.

    Returns:
        ``val_pixel_error`` of the last validation, and the means over the last epoch that
        :class:`medpixcl.training.positives.PositiveStatistics` names them.
    """
    kept = output / METRICS
    if kept.exists():
        return _kept_metrics(kept)
    places = {"output_dir": str(output), "ckpt_dir": str(output / "models")}
    parser = run_bundle(bundle, "train", {**overrides, **places}).parser
    metrics = {HELD_OUT: parser.get_parsed_content("validate::evaluator").state.metrics[HELD_OUT]}
    metrics |= parser.get_parsed_content("train::trainer").state.metrics
    write_text_atomically(kept, json.dumps(metrics, indent=1) + "\n")
    return metrics


def _kept_metrics(kept: Path) -> dict[str, float]:
    """Metrics of a run that is finished."""
    try:
        metrics = {str(name): float(value) for name, value in parsed_json(kept.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError):
        metrics = {}
    if HELD_OUT not in metrics:
        raise ValueError(f"{kept} is damaged; remove it to train this control again")
    return metrics


def compare_controls(
    bundle: Path,
    output: Path,
    overrides: Mapping[str, Any],
    *,
    controls: Sequence[str] = ("none", "shuffled", "random_deletion", "no_depth"),
    seeds: Iterable[int] = (0, 1, 2),
) -> list[dict[str, Any]]:
    """Train with every control and seed, and return one row per control.

    Args:
        bundle: Folder of a PixPro bundle.
        output: Folder of the runs, each in ``<control>_seed<seed>``; finished ones are not repeated.
        overrides: Values by config id, including the manifest.
        controls: Names of the controls, see :class:`medpixcl.training.controls.ExogenousControl`.
        seeds: Random seeds; every control is trained once with each seed.

    Returns:
        For each control: ``val_pixel_error`` (mean over seeds), ``spread`` (standard deviation over seeds; NaN of one),
        ``kill_rate`` and ``positives`` (means over seeds, last epoch, at the largest T of the coarsest stride).

    Raises:
        ValueError: If a control is unknown.
    """
    if unknown := [control for control in controls if control not in CONTROLS]:
        raise ValueError(f"control is {unknown[0]!r}; expected one of {', '.join(CONTROLS)}.")
    rows = []
    for control in controls:
        runs = [
            trained_metrics(bundle, output / f"{control}_seed{seed}", {**overrides, "control": control, "seed": seed})
            for seed in seeds
        ]
        rows.append({"control": control, **summary_of_seeds(runs)})
    return rows


def summary_of_seeds(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Average the trainings of one control, see :func:`compare_controls`."""
    errors = [run[HELD_OUT] for run in runs]
    tag = [name for name in runs[0] if name.startswith("pairs/kill_rate_")][-1].removeprefix("pairs/kill_rate_")
    return {
        HELD_OUT: statistics.mean(errors),
        "spread": statistics.stdev(errors) if len(errors) > 1 else math.nan,
        "kill_rate": statistics.mean(run[f"pairs/kill_rate_{tag}"] for run in runs),
        "positives": statistics.mean(run[f"pairs/positives_{tag}"] for run in runs),
    }
