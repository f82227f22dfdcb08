"""Self-training in volumes: error of matching, of the trained detector and of the mean of both.

Hippocampi: five training volumes as templates, all together, or one after the other with ``--alone``. The detector is
trained on the 60 training volumes without further landmarks and measured, like the matching, on the volumes of
a split. Finished trainings are kept in ``--runs``, so that the same command goes on.

    python benchmarks/volume_selftraining.py --split test
    python benchmarks/volume_selftraining.py --split test --alone
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from ceph import DATA, ROOT
from volume_matching import searched

from medpixcl import Detector, Matcher
from medpixcl.apps.agreement import mean_of_both
from medpixcl.apps.selftrain import selftrain
from medpixcl.data.manifest import Manifest

WAYS = ("matching", "detector", "mean of both")


def unlabelled(data: Path, file: Path) -> Path:
    """Write the manifest of the training volumes, without landmarks."""
    folder = data / "hippocampus_mr"
    listed = Manifest.read(ROOT / "data_manifests" / "hippocampus_mr.json", base_dir=folder)
    file.parent.mkdir(parents=True, exist_ok=True)
    Manifest(training=[{"image": str(folder / entry["image"])} for entry in listed.training]).write(file)
    return file


def errors(
    templates: list[Path], images: list[Path], marks: Path, manifest: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Mean radial error in mm of every way, after one training, and the seconds that this took."""
    run = options.runs / "_".join(template.name.removesuffix(".nii.gz") for template in templates)
    start = time.monotonic()
    weights = selftrain(templates, marks, manifest, run, settings=json.loads(options.settings))
    seconds = time.monotonic() - start
    matched = Matcher.from_bundle("volume_landmark_matching").fit(templates, marks).match(images, reference=marks)
    detected = Detector.from_bundle(weights=weights).detect(images, reference=marks)
    both = mean_of_both(matched, detected)
    both.measure()
    found = [one.metrics["mre_mm"] for one in (matched, detected, both) if one.metrics is not None]
    return dict(zip(WAYS, found, strict=True)) | {"seconds": seconds}


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--alone", action="store_true", help="one training for each template")
    parser.add_argument("--runs", type=Path, default=Path("runs/volume_selftraining"))
    parser.add_argument("--settings", default="{}", help="settings of the training, as JSON")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs = options.runs.absolute()
    templates, images, marks = searched("hippocampus", options.data, options.split)
    manifest, rows = unlabelled(options.data, options.runs / "unlabelled.json"), []
    for some in [[template] for template in templates] if options.alone else [templates]:
        rows.append(errors(some, images, marks, manifest, options))
        print({key: round(value, 2) for key, value in rows[-1].items()}, flush=True)
    for way in WAYS:
        means = [row[way] for row in rows]
        spread = f" +- {np.std(means, ddof=1):.2f}" if len(means) > 1 else ""
        print(f"{way}: {np.mean(means):.2f}{spread} mm in {len(images)} volumes")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
