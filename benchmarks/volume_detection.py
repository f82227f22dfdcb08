"""Landmark detection in volumes: mouse heads (15 for training) and hippocampi (60), by seed, coarse and refined.

``--split dev`` measures on the validation section, or on every fourth training volume, which is then not trained on;
``--split test`` on the test section.

    python benchmarks/volume_detection.py hippocampus --split dev --runs runs/volume_detection
    python benchmarks/volume_detection.py mouse --split dev --refine --runs runs/volume_detection
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ceph import DATA, ROOT
from detection import SHORT_VALIDATION, detect, measure, print_rows, spread, train_and_measure

from medpixcl.apps.bundles import parse_settings, run_bundle
from medpixcl.data.manifest import Manifest

BUNDLE = ROOT / "bundles" / "volume_landmark_detection"
CONFIGS = BUNDLE / "configs"
SETS = {"hippocampus": "hippocampus_mr", "mouse": "mouse_head_ct"}
COARSE = {name: [CONFIGS / f"{file}.json"] for name, file in SETS.items()}
FINE = {"mouse": [CONFIGS / "mouse_head_ct_fine.json", CONFIGS / "fine.json"]}


def divide(data: Path, name: str, split: str, folder: Path) -> tuple[Path, Path]:
    """Manifests of the volumes to train on and to measure."""
    whole = Manifest.read(ROOT / "data_manifests" / f"{SETS[name]}.json", base_dir=data / SETS[name])
    training = [entry for entry in whole.training if entry["landmarks"]]
    validation = whole.validation
    if split == "dev" and not validation:
        training, validation = [e for n, e in enumerate(training) if n % 4 != 3], training[3::4]
    paths = folder / "train.json", folder / "measured.json"
    base = (data / SETS[name]).absolute()
    Manifest(training=training, base_dir=base).write(paths[0])
    Manifest(test=validation if split == "dev" else whole.test, base_dir=base).write(paths[1])
    return paths


def refined(run: Path, fine: Path, name: str, training: dict[str, Any], measured: Path, reference: Path) -> dict:
    """Metrics of both stages of one training together."""
    result = fine / "result.json"
    if not result.is_file():
        places = {"output_dir": str(fine), "ckpt_dir": str(run / "models"), "silent": True}
        run_bundle(BUNDLE, "train", training | places, extra_configs=[*FINE[name], SHORT_VALIDATION])
        stages = [CONFIGS / "inference_refine.json", run / "models" / "fine.json"]
        weights = str(run / "models" / "fine.pt")
        detect(BUNDLE, run / "models", fine / "found", measured, stages, fine_weights=weights)
        result.write_text(json.dumps(measure(fine / "found" / "landmarks.csv", [reference])), encoding="utf-8")
    return json.loads(result.read_text(encoding="utf-8"))


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=tuple(SETS))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test"), default="dev")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--train-images", type=int)
    parser.add_argument("--refine", action="store_true", help="Train the second stage, too (mouse).")
    parser.add_argument("--runs", type=Path, default=Path("runs/volume_detection"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Setting of both trainings.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.refine and options.name not in FINE:
        parser.error(f"--refine has no settings for {options.name}")
    torch.set_num_threads(1)

    folder = options.runs.absolute() / options.name / options.split
    manifest, measured = divide(options.data, options.name, options.split, folder)
    reference = options.data / SETS[options.name] / "landmarks.csv"
    common = {
        "data_list_file_path": str(manifest),
        "train_images": options.train_images,
        "val_fraction": 0.0,
        "val_interval": 10**6,
    } | parse_settings(options.set)
    stages: dict[str, list[dict]] = {}
    for seed in range(options.seeds):
        run = folder / f"{options.train_images or 'all'}_{seed}"
        training = {**common, "seed": seed}
        coarse = train_and_measure(BUNDLE, run, training, measured, [reference], configs=COARSE[options.name])
        stages.setdefault("whole volume", []).append(coarse)
        if options.refine:
            fine = refined(run, run / "fine", options.name, training, measured, reference)
            stages.setdefault("refined", []).append(fine)
        print(f"seed {seed}: " + ", ".join(f"{name} {cells[-1]['mre_mm']:.3f} mm" for name, cells in stages.items()))
    rows = [["stage", "volumes", "seeds", "MRE (mm)", "median (mm)", "p95 (mm)", "SDR 2 mm (%)"]]
    for stage, cells in stages.items():
        columns = [[cell[key] for cell in cells] for key in ("mre_mm", "median_mm", "p95_mm")]
        columns.append([cell["sdr_percent"]["2"] for cell in cells])
        rows.append([stage, str(cells[0]["images"]), str(len(cells)), *(spread(column, 3) for column in columns)])
    print_rows(rows)
    if options.json:
        content = {"set": options.name, "split": options.split, "settings": options.set, "stages": stages}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
