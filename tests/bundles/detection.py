"""Trainings of a second for the landmark detection bundles, in 2D and 3D."""

from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_landmark_phantoms
from tests.tiny import ROOT

BUNDLES = {
    2: ROOT / "bundles" / "cephalometric_landmark_detection",
    3: ROOT / "bundles" / "volume_landmark_detection",
}
SHAPES = {2: (40, 44), 3: (24, 26, 22)}
NAMES = ["1", "2", "3", "4"]
TINY: dict[str, Any] = {
    "backbone": "dynunet",
    "channels": [4, 8, 8],
    "bfloat16": False,
    "start_weights": None,
    "batch_size": 2,
    "steps": 4,
    "epoch_steps": 2,
    "val_interval": 1,
    "silent": True,
}


def write_manifest(folder: Path, dims: int, *, number: int = 6) -> Path:
    """Phantoms with landmarks; the last two are the test section."""
    items = write_landmark_phantoms(folder, number, SHAPES[dims])
    Manifest(training=items[:-2], test=items[-2:], base_dir=folder).write(folder / "manifest.json")
    return folder / "manifest.json"


def settings(dims: int) -> dict[str, Any]:
    return {**TINY, "working_spacing_mm": [1.0] * dims, "view_shape": [20] * dims, "spatial_dims": dims}


def train(manifest: Path, output: Path, dims: int, **changes: Any) -> ConfigWorkflow:
    places = {"data_list_file_path": str(manifest), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    return run_bundle(BUNDLES[dims], "train", {**settings(dims), **places, **changes})


def apply(config: str, weights: Path, output: Path, dims: int, **changes: Any) -> ConfigWorkflow:
    """Evaluation or inference with the settings that the training wrote beside the weights."""
    places = {"weights": str(weights / "model.pt"), "output_dir": str(output), "overlays": False}
    own = [] if config == "inference" else [BUNDLES[dims] / "configs" / f"{config}.json"]
    extra = [*own, weights / "inference.json"]
    return run_bundle(BUNDLES[dims], "inference", {**places, **changes}, extra_configs=extra, kind="infer")
