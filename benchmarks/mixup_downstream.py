"""What mix-up pretraining is worth downstream: classification of chest radiographs and head CT slices with few labels.

Every row is a start of the same encoder; pretrained rows take the same number of steps on the images that are not
tested on, labels unused. Patients (``cxr_nih``) and repeats (``headct_hemorrhage``) stay on one side. Each start is
measured frozen (linear probe, nearest neighbours) and fine-tuned, on the test images of each seed's split. What is done
is kept in ``--runs``, so that the same command again goes on.

    python benchmarks/mixup_downstream.py --runs mixup_runs --json mixup.json
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.class_labels import ClassTable, split_labelled
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan

ROOT = Path(__file__).parents[1]
DATA = ROOT.parent / "shared" / "data"
PRETRAINING = ROOT / "bundles" / "xray_mixup_pretraining"
CLASSIFICATION = ROOT / "bundles" / "image_classification_finetuning"
DATASETS: dict[str, dict[str, Any]] = {
    "cxr_nih": {"class_column": "pneumonia", "group_column": "patient"},
    "headct_hemorrhage": {"class_column": "hemorrhage", "group_column": None},
}
SCRATCH, IMAGENET = "scratch", "ImageNet"
PRETRAINED: dict[str, tuple[list[str], dict[str, Any]]] = {
    "instance contrast": (["contrast"], {}),
    "masked reconstruction": (["masked"], {}),
    "volume fusion": (["volume_fusion"], {}),
    "same domain, both": (["same_domain"], {}),
    "cross domain, reconstruction": ([], {"opacity_weight": 0.0}),
    "cross domain, opacity": ([], {"reconstruction_weight": 0.0}),
    "cross domain, both": ([], {}),
}
"""Overlays of the pretraining bundle and settings."""
ROWS = (SCRATCH, IMAGENET, *PRETRAINED)
METHODS = ("linear", "neighbours", "fine-tuned")


def labelled_manifest(name: str, data: Path, runs: Path) -> Path:
    """Manifest of a data set with classes and groups, made once."""
    path = runs / f"{name}.json"
    if not path.exists():
        folder, how = data / name, DATASETS[name]
        manifest = scan(folder / "images", spacing_mm=1.0)
        ClassTable(folder / "labels.csv", how["class_column"], how["group_column"]).add_to(manifest)
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.write(path)
    return path


def unlabelled_manifest(labelled: Path, seed: int) -> Path:
    """Manifest of the images that a seed does not test on, in its training and validation section.

    Beside it stands ``*_tested.json``, with the tested images for validation: to measure a pretraining itself on images
    that took no part in it, by ``medpixcl leak-probe``.
    """
    path = labelled.with_name(f"{labelled.stem}_seed{seed}.json")
    if not path.exists():
        manifest, sides = Manifest.read(labelled), split_labelled(labelled, seed=seed)
        every = {
            entry["image"]: {key: value for key, value in entry.items() if key != "label"}
            for section in ("training", "validation")
            for entry in manifest.datalist(section)
        }
        training, validation, tested = (
            [every[item["image"]] for item in sides[side]] for side in ("training", "validation", "test")
        )
        manifest.test = []
        manifest.training, manifest.validation = training, tested
        manifest.write(path.with_name(f"{path.stem}_tested.json"))
        manifest.validation = validation
        manifest.write(path)
    return path


def epochs_for(steps: int, images: int, batch: int) -> int:
    """Epochs of about so many steps."""
    return max(1, round(steps / max(1, images // batch)))


def pretrain(
    bundle: Path, row: str, manifest: Path, seed: int, folder: Path, *, steps: int, batch: int, **settings: Any
) -> Path:
    """Encoder of a row, trained on a manifest for about so many steps unless it is there."""
    weights = folder / "models" / "model.pt"
    if not (folder / "done").exists():
        overlays, own = PRETRAINED[row]
        epochs = epochs_for(steps, len(Manifest.read(manifest).training), batch)
        changes = {
            "data_list_file_path": str(manifest),
            "output_dir": str(folder),
            "ckpt_dir": str(weights.parent),
            "seed": seed,
            "max_epochs": epochs,
            "val_interval": epochs,
            "batch_size": batch,
            "pictures": False,
        }
        extra = [bundle / "configs" / f"{name}.json" for name in overlays]
        run_bundle(bundle, "train", changes | settings | own, extra_configs=extra)
        (folder / "done").touch()
    return weights


def measure(
    start: dict[str, Any], labelled: Path, seed: int, share: float, folder: Path, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Scores of a start on the test images of a seed, frozen and fine-tuned; kept in ``scores.json``."""
    path = folder / "scores.json"
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    images = len(split_labelled(labelled, label_share=share, seed=seed)["training"])
    epochs = epochs_for(options.finetune_steps, images, min(options.batch, images))
    shared = {
        "data_list_file_path": str(labelled),
        "output_dir": str(folder),
        "ckpt_dir": str(folder / "models"),
        "seed": seed,
        "split_seed": seed,
        "label_share": share,
        "image_side": options.side,
        "batch_size": options.batch,
        "max_epochs": epochs,
        "val_interval": max(1, epochs // 10),
        **start,
    }
    configs = CLASSIFICATION / "configs"
    run_bundle(CLASSIFICATION, "train", shared, extra_configs=[configs / "probe.json"])
    probes = json.loads((folder / "probes.json").read_text(encoding="utf-8"))
    run_bundle(CLASSIFICATION, "train", shared)
    tested = run_bundle(CLASSIFICATION, "train", shared, extra_configs=[configs / "evaluate.json"])
    found = tested.parser.get_parsed_content("validate::evaluator").state.metrics
    scores = {name: probes[name] for name in ("linear", "neighbours")}
    scores["fine-tuned"] = {name: float(found[f"val_{name}"]) for name in ("auc", "accuracy", "ece")}
    for file in [folder / "resume.pt", *(folder / "models").glob("*.pt")]:
        file.unlink(missing_ok=True)
    path.write_text(json.dumps(scores, indent=1), encoding="utf-8")
    return scores


def run_all(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One record for each data set, row, seed and share of the labels."""
    for name in options.datasets:
        labelled = labelled_manifest(name, options.data, options.runs)
        for seed in range(options.seeds):
            for row in options.rows:
                place = options.runs / name / row.replace(", ", "_").replace(" ", "_") / f"seed{seed}"
                start: dict[str, Any] = {"start_weights": None, "imagenet": row == IMAGENET}
                if row in PRETRAINED:
                    weights = pretrain(
                        PRETRAINING,
                        row,
                        unlabelled_manifest(labelled, seed),
                        seed,
                        place,
                        steps=options.steps,
                        batch=options.batch,
                        image_side=options.side * 9 // 8,
                        patch_shape=[options.side] * 2,
                        imagenet=options.imagenet,
                    )
                    start["start_weights"] = str(weights)
                for share in options.shares:
                    scores = measure(start, labelled, seed, share, place / f"labels{100 * share:g}", options)
                    yield {"dataset": name, "row": row, "seed": seed, "share": share, **scores}


def table(records: list[dict[str, Any]], metric: str) -> str:
    """Mean and standard deviation over the seeds, in percent: a row for each start, a column for each measurement."""
    lines = []
    for name in dict.fromkeys(one["dataset"] for one in records):
        columns = [(share, method) for share in sorted({one["share"] for one in records}) for method in METHODS]
        header = " | ".join(f"{method}, {100 * share:g} %" for share, method in columns)
        lines += ["", f"{name}, {metric}", "", f"| start | {header} |", "|---" * (len(columns) + 1) + "|"]
        for row in dict.fromkeys(one["row"] for one in records):
            cells = []
            for share, method in columns:
                chosen = [one for one in records if (one["dataset"], one["row"], one["share"]) == (name, row, share)]
                values = [100 * one[method][metric] for one in chosen]
                spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.1f}{spread}" if values else "-")
            lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of the trained networks and scores")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--datasets", nargs="*", default=list(DATASETS), choices=list(DATASETS))
    parser.add_argument("--rows", nargs="*", default=list(ROWS), choices=ROWS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.1, 1.0], help="shares of the labels")
    parser.add_argument("--side", type=int, default=128, help="pixels; a multiple of 32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=600, help="of each pretraining")
    parser.add_argument("--finetune-steps", type=int, default=150)
    parser.add_argument("--imagenet", action="store_true", help="pretraining starts from the ImageNet weights")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    records = []
    for record in run_all(options):
        records.append(record)
        line = ", ".join(f"{method} {record[method]['auc']:.3f}" for method in METHODS)
        print(
            f"{record['dataset']} | {record['row']} | seed {record['seed']} | {record['share']:g} | AUC {line}",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(records, indent=1), encoding="utf-8")
    print(f"{options.steps} steps of {options.batch} patches, fine-tuned for {options.finetune_steps} steps")
    for metric in ("auc", "accuracy", "ece"):
        print(table(records, metric))


if __name__ == "__main__":
    main()
