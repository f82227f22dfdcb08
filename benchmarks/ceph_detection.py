"""Supervised landmark detection on the ISBI 2015 cephalograms: what the start gives on 5, 25 and all annotated images.

Every cell trains the bundle ``cephalometric_landmark_detection`` for the same steps from one start (random weights,
ImageNet, weights of a pretraining of this project) on some of the training images, drawn by the seed, and measures it
against the mean of the readers, the senior and the junior one. ``--split dev`` trains without the 40 images that are
measured and the repeats of them: settings are chosen there. Images of ``test1`` are never trained on.

    python benchmarks/ceph_detection.py --split dev --runs runs/ceph_detection --spacing-mm 1.0 --set steps=600

``--picture`` draws the few-shot curve: the error against the target by number of images and start, and the readers'
difference. Runs that are there already are read, and those that were stopped go on.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import torch
from ceph import DATA, FILE_SPACING, ROOT, Cephalograms
from detection import MODEL, print_rows, spread, train_and_measure
from selftraining import images_to_train_on

from medpixcl.apps.bundles import parse_settings
from medpixcl.apps.few_shot import IMAGENET, SCRATCH
from medpixcl.apps.measurement import read_names
from medpixcl.data.manifest import Manifest
from medpixcl.reports.few_shot import FewShotResult, few_shot_curve
from medpixcl.reports.figures import save_png

BUNDLE = ROOT / "bundles" / "cephalometric_landmark_detection"
PRETRAINING = ROOT / "bundles" / "xray_infoaug_pretraining" / "models" / "model.pt"
READERS = {"mean": "landmarks", "senior": "landmarks_senior", "junior": "landmarks_junior"}
ALL = "all"
VIEW = 256
"""Pixels of a training view at 0.5 mm."""


def write_manifest(cephalograms: Cephalograms, names: list[str], path: Path) -> None:
    """Manifest of some images with the landmarks of both readers and their mean."""
    readers = {reader: str(cephalograms.folder / f"{file}.csv") for reader, file in READERS.items()}
    entries = [
        {"image": str(cephalograms.path(name)), "spacing_mm": [FILE_SPACING] * 2, "landmarks": readers}
        for name in names
    ]
    Manifest(training=entries).write(path)


def start_settings(start: str, pretrainings: dict[str, str]) -> dict[str, Any]:
    """Settings of a start."""
    if start in (SCRATCH, IMAGENET):
        return {"start_weights": None, "imagenet": start == IMAGENET}
    if start not in pretrainings:
        raise ValueError(f"unknown start {start!r}: give --pretraining {start}=WEIGHTS, {SCRATCH} or {IMAGENET}")
    return {"start_weights": pretrainings[start], "imagenet": False}


def seeds_of(images: str, number: int) -> range:
    """All images are one training; few are drawn anew by each seed."""
    return range(1 if images == ALL else number)


def table(results: dict[tuple[str, str], list[dict]]) -> list[list[str]]:
    """MRE and SDR by number of images and start, for the target and by reader."""
    rows = [
        ["images", "start", "seeds", "MRE (mm)", "SDR 2 mm (%)", "p95 (mm)", "senior", "junior", "SNA (°)", "ANB (°)"]
    ]
    for (images, start), cells in results.items():
        others = [
            spread([cell["readers"][f"{MODEL} against {READERS[reader]}"]["mre_mm"] for cell in cells])
            for reader in ("senior", "junior")
        ]
        angles = [
            spread(
                [cell["measurements"][f"{MODEL} against {READERS['mean']}"][name]["mean_absolute"] for cell in cells]
            )
            for name in ("SNA", "ANB")
        ]
        own = [spread([value(cell) for cell in cells]) for value in (_mre, _sdr, _p95)]
        rows.append([images, start, str(len(cells)), *own, *others, *angles])
    return rows


def draw_curve(results: dict[tuple[str, str], list[dict]], all_images: int, path: Path) -> None:
    """The few-shot curve of the grid as PNG; "all" stands for so many images."""
    curve = [
        FewShotResult(all_images if images == ALL else int(images), start, _mre(cell))
        for (images, start), cells in results.items()
        for cell in cells
    ]
    between = _between_readers(next(iter(results.values()))[0])["mre_mm"]
    save_png(few_shot_curve(curve, between_readers_mm=between), path)


def _mre(cell: dict) -> float:
    return cell["mre_mm"]


def _sdr(cell: dict) -> float:
    return cell["sdr_percent"]["2"]


def _p95(cell: dict) -> float:
    return cell["p95_mm"]


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--images", default=f"5,25,{ALL}", help="Numbers of training images, or all.")
    parser.add_argument("--starts", default=f"{SCRATCH},{IMAGENET},infoaug")
    parser.add_argument("--pretraining", action="append", default=[], metavar="NAME=WEIGHTS")
    parser.add_argument("--seeds", type=int, default=3, help="Draws of a few images; all images are trained on once.")
    parser.add_argument("--target", default="mean", help="Reader that is learnt.")
    parser.add_argument("--spacing-mm", type=float, default=0.5, help="1.0 is half the resolution.")
    parser.add_argument("--runs", type=Path, default=Path("runs/ceph_detection"))
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Setting of the training.")
    parser.add_argument("--measured", type=int, help="Measure so many images alone: to try this program.")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--picture", type=Path, help="PNG of the few-shot curve.")
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data)
    measured = cephalograms.images(options.split)[: options.measured]
    references = [cephalograms.folder / f"{file}.csv" for file in READERS.values()]
    folder = options.runs.absolute() / options.split
    trained = images_to_train_on(cephalograms, cephalograms.images(options.split))
    write_manifest(cephalograms, trained, folder / "train.json")
    write_manifest(cephalograms, measured, folder / "measured.json")
    pretrainings = {"infoaug": str(PRETRAINING)} | dict(text.split("=", 1) for text in options.pretraining)
    side = VIEW * FILE_SPACING / options.spacing_mm
    common = {
        "data_list_file_path": str(folder / "train.json"),
        "target": options.target,
        "working_spacing_mm": [options.spacing_mm] * 2,
        "view_shape": [32 * round(side / 32)] * 2,
        "val_fraction": 0.0,
        "val_interval": 10**6,
    }
    names = read_names(cephalograms.folder / "landmark_names.csv")
    results: dict[tuple[str, str], list[dict]] = {}
    for images, start in itertools.product(options.images.split(","), options.starts.split(",")):
        for seed in seeds_of(images, options.seeds):
            begun = time.monotonic()
            own = {"train_images": None if images == ALL else int(images), "seed": seed}
            metrics = train_and_measure(
                BUNDLE,
                folder / f"{options.spacing_mm:g}mm" / options.target / f"{images}_{start}_{seed}",
                {**common, **own, **start_settings(start, pretrainings), **parse_settings(options.set)},
                folder / "measured.json",
                references,
                names=names,
            )
            results.setdefault((images, start), []).append(metrics)
            seconds = time.monotonic() - begun
            print(
                f"{images} {start} seed {seed}: {_mre(metrics):.2f} mm, {_sdr(metrics):.1f} % ({seconds:.0f} s)",
                flush=True,
            )
    between = _between_readers(next(iter(results.values()))[0])
    print(
        f"{options.split}: {len(measured)} images; the readers lie {between['mre_mm']:.2f} mm apart, "
        f"{between['sdr_percent']['2']:.1f} % within 2 mm"
    )
    print_rows(table(results))
    if options.picture:
        draw_curve(results, len(trained), options.picture)
    if options.json:
        rows = [
            {"trained_on": images, "start": start, "seed": seed, **cell}
            for (images, start), cells in results.items()
            for seed, cell in enumerate(cells)
        ]
        content = {"split": options.split, "spacing_mm": options.spacing_mm, "settings": options.set, "cells": rows}
        options.json.write_text(json.dumps(content, indent=1), encoding="utf-8")


def _between_readers(cell: dict) -> dict:
    return cell["readers"][f"{READERS['senior']} against {READERS['junior']}"]


if __name__ == "__main__":
    main()
