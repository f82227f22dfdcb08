"""Error of `medpixcl adapt` against the number of annotated images: matching, the detector, and the mean of both.

On the ISBI 2015 cephalograms; see :mod:`ceph` for the splits and :mod:`annotation_budget` for the templates of each
number. Every set of templates trains one detector on the training images, of which those that are measured and repeats
of them are left out with ``--split dev``. Finished sets are kept in ``--runs``, so that the same command goes on.

    python benchmarks/adaptation.py --split test1 --counts 3 5 10 --draws 2 --json adaptation.json

``--alone`` measures what the annotated images give without the others: the detector of
``cephalometric_landmark_detection``, from the same start, fine-tuned on them alone.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from annotation_budget import NAMED, drawn_sets
from ceph import DATA, FILE_SPACING, ROOT, Cephalograms
from selftraining import images_to_train_on, write_manifest

from medpixcl import Detector, Results, adapt
from medpixcl.apps.adaptation_steps import WAYS
from medpixcl.apps.agreement import mean_of_both
from medpixcl.apps.bundles import run_bundle
from medpixcl.data.manifest import Manifest

ALONE = "fine-tuned alone"
SUPERVISED = ROOT / "bundles" / "cephalometric_landmark_detection"
MEASURED = {"dev": ("dev",), "test1": ("test1", "published")}
"""Sets of images on which each split is measured, the largest last."""


def adapted_errors(cephalograms: Cephalograms, split: str, templates: list[str], folder: Path) -> dict[str, Any]:
    """Mean radial error and share within 2 mm of every way, on every set of images, after one adaptation."""
    manifest = folder.parent / "unlabelled.json"
    write_manifest(cephalograms, images_to_train_on(cephalograms, cephalograms.images(split)), manifest)
    start, marks = time.monotonic(), cephalograms.folder / "landmarks.csv"
    adapted = adapt(
        [cephalograms.path(name) for name in templates], marks, manifest, folder, folds=0, spacing_mm=FILE_SPACING
    )
    errors: dict[str, Any] = {"seconds": time.monotonic() - start}
    paths = paths_to_measure(cephalograms, split)
    matched = adapted.matcher.match(paths, spacing_mm=FILE_SPACING, reference=marks)
    detected = adapted.detector.detect(paths, spacing_mm=FILE_SPACING, reference=marks)
    both = mean_of_both(matched, detected)
    both.measure()
    for way, results in zip(WAYS, (matched, detected, both), strict=True):
        errors[way] = errors_of_sets(cephalograms, split, results)
    return errors


def errors_alone(
    cephalograms: Cephalograms, split: str, templates: list[str], folder: Path, steps: int
) -> dict[str, Any]:
    """The same of a detector that was trained for so many steps on the annotated images alone."""
    marks = cephalograms.folder / "landmarks.csv"
    entries = [
        {"image": str(cephalograms.path(name)), "spacing_mm": [FILE_SPACING] * 2, "landmarks": {"mean": str(marks)}}
        for name in templates
    ]
    Manifest(training=entries).write(folder / "annotated.json")
    places = {
        "data_list_file_path": str(folder / "annotated.json"),
        "output_dir": str(folder),
        "ckpt_dir": str(folder / "models"),
        "val_fraction": 0.0,
        "val_interval": 10**6,
        "steps": steps,
        "silent": True,
    }
    start = time.monotonic()
    run_bundle(SUPERVISED, "train", places)
    detector = Detector.from_bundle(SUPERVISED, weights=folder / "models" / "model.pt", trust=True)
    seconds = time.monotonic() - start
    found = detector.detect(paths_to_measure(cephalograms, split), spacing_mm=FILE_SPACING, reference=marks)
    return {"seconds": seconds, ALONE: errors_of_sets(cephalograms, split, found)}


def paths_to_measure(cephalograms: Cephalograms, split: str) -> list[Path]:
    """Files of all images that a split measures."""
    return [cephalograms.path(name) for name in cephalograms.images(MEASURED[split][-1])]


def errors_of_sets(cephalograms: Cephalograms, split: str, results: Results) -> dict[str, dict[str, float]]:
    """Error on every set of images of a split."""
    return {name: mean_error(results, cephalograms.images(name)) for name in MEASURED[split]}


def mean_error(results: Results, images: list[str]) -> dict[str, float]:
    """Error of some of the images of a run."""
    assert results.metrics is not None
    rows = {Path(image).stem: entry["errors_mm"].values() for image, entry in results.metrics["per_image"].items()}
    errors = np.array([error for name in images if name in rows for error in rows[name]])
    return {"mre_mm": float(errors.mean()), "sdr_2": float(100 * (errors < 2).mean())}


def main() -> None:
    """Adapt, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 3, 5, 10], help="numbers of annotated images")
    parser.add_argument("--draws", type=int, default=2, help="sets for each number; of one image the first named ones")
    parser.add_argument("--runs", type=Path, default=Path("runs/adaptation"))
    parser.add_argument("--alone", action="store_true", help="fine-tune on the annotated images alone instead")
    parser.add_argument("--steps", type=int, default=400, help="training steps of --alone")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data)
    images = cephalograms.images(options.split)
    free = [name for name in cephalograms.images("train") if name not in images]
    results: dict[str, Any] = {"split": options.split}
    ways = [ALONE] if options.alone else WAYS
    measure = partial(errors_alone, steps=options.steps) if options.alone else adapted_errors
    runs = options.runs.absolute() / options.split / ("alone" if options.alone else "adapted")
    for count in options.counts:
        sets = list(NAMED) if count == 1 else drawn_sets(free, count, options.draws)
        rows = {}
        for name in sets[: options.draws]:
            templates, folder = name.split("+"), runs / name.replace("+", "_")
            kept = folder / "errors.json"
            if kept.is_file():
                rows[name] = json.loads(kept.read_text(encoding="utf-8"))
            else:
                rows[name] = measure(cephalograms, options.split, templates, folder)
                kept.write_text(json.dumps(rows[name]), encoding="utf-8")
            print(name, {way: round(rows[name][way][options.split]["mre_mm"], 3) for way in ways}, flush=True)
        results[str(count)] = rows
        for group in MEASURED[options.split]:
            for way in ways:
                means, within = ([row[way][group][key] for row in rows.values()] for key in ("mre_mm", "sdr_2"))
                spread = np.std(means, ddof=1) if len(means) > 1 else np.nan
                print(
                    f"{count} annotated, {way}, {group}: {np.mean(means):.2f} +- {spread:.2f} mm, "
                    f"{np.mean(within):.1f} % within 2 mm",
                    flush=True,
                )
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
