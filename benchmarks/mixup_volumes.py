"""What mix-up pretraining is worth in 3D: landmarks of hippocampi from a few annotated volumes.

Every row is a start of the same encoder; pretrained rows take the same number of steps on the training volumes, labels
unused. Each start is then trained to find landmarks on volumes drawn by the seed, and measured on the test section.
What is done is kept in ``--runs``, so that the same command again goes on.

    python benchmarks/mixup_volumes.py --runs runs/mixup_volumes --json volumes.json
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from ceph import DATA, ROOT
from detection import print_rows, spread, train_and_measure
from mixup_downstream import PRETRAINED, SCRATCH, pretrain
from volume_detection import BUNDLE, SETS, divide

PRETRAINING = ROOT / "bundles" / "ct_mixup_pretraining"
NAME = "hippocampus"
ROWS = (SCRATCH, "masked reconstruction", "same domain, both", "cross domain, both")
CHANNELS = [16, 32, 64, 128]
"""Widths of the landmark network and of the encoder that is pretrained."""
NORM = ["group", {"num_groups": 8}]
"""The batches of both trainings are too small for their own statistics."""
BATCH = 6
SETTINGS: dict[str, Any] = {
    "working_spacing_mm": [1.0] * 3,
    "window": None,
    "crop_foreground": False,
    "patch_shape": [32, 48, 32],
    "channels": CHANNELS,
    "norm": NORM,
    "repeats": 1,
}
"""Of the pretraining, on MR."""


def start_settings(weights: Path | None) -> dict[str, Any]:
    """Settings of a landmark training that starts from an encoder, or from nothing."""
    if weights is None:
        return {"start_weights": None}
    return {"start_weights": str(weights), "required_weights": ["backbone.down."]}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained networks and scores")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test"), default="test")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=(SCRATCH, *PRETRAINED))
    parser.add_argument("--images", type=int, nargs="*", default=[5], help="annotated volumes")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=300, help="of each pretraining")
    parser.add_argument("--finetune-steps", type=int, default=200)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    folder = options.runs.absolute() / options.split
    manifest, measured = divide(options.data, NAME, options.split, folder)
    reference = options.data / SETS[NAME] / "landmarks.csv"
    common = {
        "data_list_file_path": str(manifest),
        "steps": options.finetune_steps,
        "channels": CHANNELS,
        "norm": NORM,
        "val_fraction": 0.0,
        "val_interval": 10**6,
    }
    records: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        for row in options.rows:
            place = folder / row.replace(", ", "_").replace(" ", "_") / f"seed{seed}"
            weights = None
            if row in PRETRAINED:
                weights = pretrain(
                    PRETRAINING, row, manifest, seed, place, steps=options.steps, batch=BATCH, **SETTINGS
                )
            for images in options.images:
                own = {"train_images": images, "seed": seed}
                training = common | own | start_settings(weights)
                found = train_and_measure(BUNDLE, place / f"images{images}", training, measured, [reference])
                records.append({**found, "row": row, "volumes": images, "seed": seed})
                print(f"{row} | {images} volumes | seed {seed} | {found['mre_mm']:.2f} mm", flush=True)
    rows = [["start", "volumes", "MRE (mm)", "SDR 2 mm (%)"]]
    for row in options.rows:
        for images in options.images:
            cells = [one for one in records if (one["row"], one["volumes"]) == (row, images)]
            columns = [[cell["mre_mm"] for cell in cells], [cell["sdr_percent"]["2"] for cell in cells]]
            rows.append([row, str(images), *(spread(column) for column in columns)])
    print(f"{options.steps} steps of {BATCH} patches, then {options.finetune_steps} steps of landmarks")
    print_rows(rows)
    if options.json:
        options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
