"""Error against the number of annotated images: this evaluation and earlier ones of other trainings.

A training writes into ``inference.json`` how many images it was trained on and from what it started (``trained_on``);
the evaluation carries that into its ``metrics.json``, from which the evaluations of other trainings draw their curve.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medpixcl._json import parsed_json
from medpixcl.data.identity import pair_images
from medpixcl.limits import regular_file
from medpixcl.reports.few_shot import FewShotResult, few_shot_curve
from medpixcl.reports.html import Picture

SCRATCH, IMAGENET = "scratch", "imagenet"


def start_name(weights: str | None, imagenet: bool = False) -> str:
    """Short name of what a training starts from, without folders.

    Args:
        weights: File of the weights; the name is ``RUN`` for ``RUN/models/model.pt``, else that of the file.
        imagenet: Whether a network without ``weights`` has an ImageNet encoder.

    Example:
        >>> start_name("bundles/xray_infoaug_pretraining/models/model.pt"), start_name("/data/pretrained.pt")
        ('xray_infoaug_pretraining', 'pretrained')
        >>> start_name(None), start_name(None, imagenet=True)
        ('scratch', 'imagenet')
    """
    if weights is None:
        return IMAGENET if imagenet else SCRATCH
    folder, name = Path(weights).parent.resolve(), Path(weights).stem
    return folder.parent.name if (folder.name, name) == ("models", "model") else name


@dataclass(frozen=True)
class EarlierRun:
    """Error and training of an earlier evaluation, with the sorted names of the images that it measured."""

    file: str
    result: FewShotResult
    measured: tuple[str, ...]


def result_of(metrics: Any, file: str) -> FewShotResult:
    """Read error and training from the metrics of an evaluation.

    Args:
        metrics: Metrics of an evaluation, with ``trained_on``: ``images`` and ``start``.
        file: File of the metrics, named in errors.

    Raises:
        ValueError: If the metrics do not contain them.
    """
    match metrics:
        case {"mre_mm": float() | int() as error, "trained_on": {"images": int() as images, "start": str() as start}}:
            if images > 0 and math.isfinite(error) and isinstance(metrics.get("per_image", {}), dict):
                return FewShotResult(images, start, float(error))
    raise ValueError(
        f"{file} does not say how many images the detector was trained on (trained_on) and its error; expected the "
        "metrics.json of an evaluation that was run with the inference.json of a training, so run it again with that"
    )


def read_earlier_runs(files: Sequence[str]) -> list[EarlierRun]:
    """Read the ``metrics.json`` files of other evaluations.

    Raises:
        ValueError: If a file cannot be read as metrics, or does not contain the number of images.
    """
    runs = []
    for file in files:
        try:
            metrics = parsed_json(regular_file(file).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            reason = "is not there" if isinstance(error, FileNotFoundError) else "cannot be read as JSON"
            raise ValueError(f"{file} {reason}: earlier_runs takes the metrics.json of other evaluations") from error
        result = result_of(metrics, file)
        runs.append(EarlierRun(file, result, _measured(metrics)))
    return runs


def few_shot_report(
    metrics: Mapping[str, Any], earlier: Sequence[EarlierRun], between_readers_mm: float | None = None
) -> tuple[list[Picture], list[str]]:
    """Draw the curve of this and earlier evaluations for the report, and collect warnings for its reader.

    Args:
        metrics: Metrics of this evaluation.
        earlier: Other evaluations; no curve is drawn without any.
        between_readers_mm: Mean distance between the readers in mm.

    Returns:
        The picture, or None if fewer than two numbers of images are known, and the warnings.
    """
    if not earlier:
        return [], []
    if not metrics.get("trained_on"):
        return [], ["No few-shot curve: these weights do not say how many images they were trained on."]
    if metrics["mre_mm"] is None:
        return [], ["No few-shot curve: no landmark of this evaluation was measured."]
    own = result_of(metrics, "this evaluation")
    results = [*(run.result for run in earlier), own]
    if len({one.images for one in results}) < 2:
        return [], [f"No few-shot curve: all {len(results)} trainings have the same number of images, {own.images}."]
    others = sum(not _same_images(run.measured, _measured(metrics)) for run in earlier)
    warnings = [f"{others} of {len(earlier)} earlier runs in the few-shot curve were measured on other images."]
    picture = Picture(
        image=few_shot_curve(results, own=own, between_readers_mm=between_readers_mm),
        caption="Error by number of annotated training images: means, and one standard deviation of several trainings.",
        alt="Curves: mean radial error in mm against the number of training images, one for each start.",
    )
    return [picture], warnings if others else []


def _measured(metrics: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(sorted(metrics.get("per_image", {})))


def _same_images(one: Sequence[str], other: Sequence[str]) -> bool:
    """True if two runs measured the same images; their names may start at a folder or at a manifest above it."""
    try:
        return len(one) == len(other) == len(pair_images(one, other))
    except ValueError:  # a name that several images have
        return False
