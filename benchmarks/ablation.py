"""The paper's ablation in this package's frame: what informativeness does for one-shot matching on cephalograms.

Every row is a pretraining of the same number of steps on the 150 training images (labels unused), then one-shot
matching of the 130 test images that repeat no training image, each landmark alone (argmax) and with geometric
consistency. The first row and the adaptive one get three seeds, the others one. Finished runs are kept in ``--runs``.

    python benchmarks/ablation.py --runs ablation_runs --json ablation.json

Choices of the training beside the paper's are compared on the development images: ``--split dev --rows ...``.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ceph import DATA, FILE_SPACING, Cephalograms, one_line, summaries

from medpixcl.apps.bundles import run_bundle
from medpixcl.apps.estimate_jitter import JitterSettings, estimate_for_bundle
from medpixcl.data.scan import scan

ROOT = Path(__file__).parents[1]
PRETRAINING = ROOT / "bundles" / "xray_infoaug_pretraining"
TEMPLATES = ("125", "010", "114")

CLASSES = ("intensity_low", "intensity_medium", "intensity_high")
FIXED = {"brightness": [0.85, 1.15], "contrast": [0.75, 1.25]}
"""Jitter of the baseline, CC2D."""
ALPHA = 2.0
"""Share of the mean mutual information that a changed patch keeps; at the paper's 1 there is no upper bound here."""
UNIFORM, ESTIMATED, ADAPTIVE = "uniform, fixed jitter", "0.3, estimated jitter", "0.3, adaptive jitter"
EXPONENTS = {f"exponent {exponent:g}": exponent for exponent in (0.01, 0.1, 0.3, 0.5, 1.0)}
BY_CLASS = "ranges by class"
PAPER = (UNIFORM, *EXPONENTS, ESTIMATED, ADAPTIVE, BY_CLASS)
"""After the exponents: one jitter for all pixels, estimated; one for each class, the classes cut by the running loss;
and the bundle's overlay ``paper.json``, which also changes gamma, noise, blur and bias field."""
PAPER_FORM = json.loads((PRETRAINING / "configs" / "paper.json").read_text(encoding="ascii"))
THRICE = (UNIFORM, ADAPTIVE)
TRAINING: dict[str, dict[str, Any]] = {
    "random start": {"imagenet": False},
    "averaged weights": {"ema_momentum": 0.01},
    "no elastic views": {"elastic_mm": 0.0},
    "elastic views, 6 mm": {"elastic_mm": 6.0},
    "embedding of 128": {"embedding_size": 128},
    "negatives of the batch": {"keys": "batch"},
    "larger views": {},
    "three times as long": {},
}
"""Choices of the training, each a change of ``paper.json``."""
ROWS = (*PAPER, *TRAINING)
VIEW_MM = {"larger views": 192.0}
"""Side of the views where it is not 128 mm."""
LENGTH = {"three times as long": 3}
"""Factor of the epochs where it is not 1."""


def settings_of(row: str, manifest: Path, spacing: float) -> dict[str, Any]:
    """Config values of a row; at half resolution views and windows cover the same anatomy."""
    size = round(VIEW_MM.get(row, 128.0) / spacing)
    settings: dict[str, Any] = {"working_spacing_mm": [spacing] * 2, "view_shape": [size] * 2}
    if row == BY_CLASS or row in TRAINING:
        return settings | PAPER_FORM | TRAINING.get(row, {})
    settings["informativeness_exponent"] = 0.0 if row == UNIFORM else EXPONENTS.get(row, 0.3)
    if row not in (ESTIMATED, ADAPTIVE):
        return settings | dict.fromkeys(CLASSES, FIXED)
    classes, _ = estimate_for_bundle(PRETRAINING, manifest, JitterSettings(alpha=ALPHA), overrides=settings)
    ranges = [{"brightness": list(found.brightness), "contrast": list(found.contrast)} for found in classes]
    if row == ADAPTIVE:
        return settings | dict(zip(CLASSES, ranges, strict=True)) | {"class_cuts": "adaptive"}
    pairs = [found.number for found in classes]
    alike = {
        kind: np.average([range_[kind] for range_ in ranges], axis=0, weights=pairs).tolist() for kind in ranges[0]
    }
    return settings | dict.fromkeys(CLASSES, alike)


def pretrain(row: str, seed: int, folder: Path, *, manifest: Path, spacing: float, epochs: int) -> Path:
    """Weights of a row, trained unless they are there."""
    weights = folder / "models" / "model.pt"
    if not (folder / "done").exists():
        places = {"data_list_file_path": str(manifest), "output_dir": str(folder), "ckpt_dir": str(weights.parent)}
        epochs *= LENGTH.get(row, 1)
        steps = {"seed": seed, "max_epochs": epochs, "val_interval": epochs}
        run_bundle(PRETRAINING, "train", {**settings_of(row, manifest, spacing), **places, **steps})
        (folder / "done").touch()
    return weights


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained networks")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--rows", nargs="*", default=PAPER, choices=ROWS)
    parser.add_argument("--seeds", type=int, default=3, help="seeds of the first row and of the adaptive one")
    parser.add_argument("--spacing-mm", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--split", choices=("dev", "test1"), default="test1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data, spacing_mm=options.spacing_mm)
    manifest = options.runs / "manifest.json"
    if not manifest.exists():
        folder = cephalograms.folder
        scan(folder / "images", spacing_mm=FILE_SPACING, split=folder / "splits.csv").write(manifest)
    images = cephalograms.images(options.split)
    results: dict[str, list[dict]] = {}
    for row in options.rows:
        for seed in range(options.seeds if row in THRICE else 1):
            name = row.replace(" ", "_").replace(",", "")
            weights = pretrain(
                row,
                seed,
                options.runs / f"{name}_seed{seed}",
                manifest=manifest,
                spacing=options.spacing_mm,
                epochs=options.epochs,
            )
            own = {key: value for key, value in TRAINING.get(row, {}).items() if key == "embedding_size"}
            network = cephalograms.matcher(weights, **own).network
            measured = {m: summaries(e) for m, e in cephalograms.matching_errors(network, images, TEMPLATES).items()}
            results.setdefault(row, []).append({"seed": seed, **measured})
            for mode, by_template in measured.items():
                print(f"{row:22s} seed {seed} {mode:11s} {one_line(by_template)}", flush=True)
    for row, runs in results.items():
        for mode in ("argmax", "consistent"):
            means = [np.mean([t["mre_mm"] for t in run[mode].values()]) for run in runs]
            spread = f" +- {np.std(means, ddof=1):.3f}" if len(means) > 1 else ""
            print(f"{row:22s} {mode:11s} mean {np.mean(means):.3f}{spread} mm, {len(means)} seed(s)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
