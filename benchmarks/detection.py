"""What the detection benchmarks share: a training that is resumed, the landmarks it finds, tables over seeds."""

import json
import shutil
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medpixcl import Detector
from medpixcl.apps.bundles import run_bundle
from medpixcl.apps.evaluate import evaluate

MODEL = "model"
SHORT_VALIDATION = {"validate::dataset::data": "$@split['validation'][:2]"}
"""The last weights are kept whatever the validation says, which comes once, after the last step."""


def train_and_measure(
    bundle: Path,
    run: Path,
    training: Mapping[str, Any],
    images: Path,
    references: Sequence[Path],
    *,
    configs: Sequence[Path] = (),
    names: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Metrics of one training on some images, kept in ``result.json`` of its folder; a second call reads it.

    Args:
        bundle: Landmark detection bundle.
        run: Folder of the training; one that was stopped goes on.
        training: Settings of it.
        images: Manifest of the images to measure.
        references: Landmark files; the first is the target that the errors are of.
        configs: Put over the bundle's training.
        names: For cephalograms: what the landmarks are; adds the measurements.
    """
    result = run / "result.json"
    if not result.is_file():
        models = run / "models"
        places = {"output_dir": str(run), "ckpt_dir": str(models), "silent": True}
        run_bundle(bundle, "train", places | dict(training), extra_configs=[*configs, SHORT_VALIDATION])
        detect(bundle, models, run / "found", images)
        found = run / f"{MODEL}.csv"  # its name in the comparisons
        shutil.copy(run / "found" / "landmarks.csv", found)
        metrics = measure(found, references, names)
        result.write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return json.loads(result.read_text(encoding="utf-8"))


def detect(
    bundle: Path, models: Path, output: Path, images: Path, configs: Sequence[Path] = (), **settings: Any
) -> None:
    """Find the landmarks of images with the weights and settings of a training."""
    detector = Detector.from_bundle(bundle, weights=models / "model.pt", config=configs, settings=settings, trust=True)
    detector.detect(images).write(output, ["csv"], overlays=False, overwrite=True)


def measure(found: Path, references: Sequence[Path], names: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Metrics against the references; the landmarks of single images are left out."""
    metrics = evaluate(found, references, angles=names is not None, names=names).metrics
    return {key: value for key, value in metrics.items() if key not in ("per_image", "images_without_prediction")}


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean, and the standard deviation over the seeds where there are several."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def print_rows(rows: Sequence[Sequence[str]]) -> None:
    """A table in Markdown, the first row its header."""
    header, *body = rows
    for row in (header, ["---"] * len(header), *body):
        print("| " + " | ".join(row) + " |")
