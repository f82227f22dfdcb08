"""What the tests of the mix-up bundles and of the classification share: tiny settings, and how to run them."""

from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.scan import scan
from tests.tiny import ROOT

XRAY = ROOT / "bundles" / "xray_mixup_pretraining"
CT = ROOT / "bundles" / "ct_mixup_pretraining"
CLASSIFY = ROOT / "bundles" / "image_classification_finetuning"
BASELINES = ("same_domain", "masked", "contrast", "volume_fusion")
NET: dict[str, Any] = {"backbone": "dynunet", "channels": [4, 8, 8]}
TINY: dict[str, Any] = {
    **NET,
    "imagenet": False,
    "bfloat16": False,
    "batch_size": 2,
    "max_epochs": 2,
    "val_interval": 1,
    "val_repeats": 2,
    "repeats": 1,
    "pictures": False,
    "silent": True,
}
SMALL: dict[int, dict[str, Any]] = {
    2: {"image_side": 24, "patch_shape": [16, 16]},
    3: {"patch_shape": [16, 16, 16], "working_spacing_mm": [1.0, 1.0, 1.0], "window": [0.0, 1.0]},
}


def write_manifest(folder: Path, dims: int = 2, number: int = 5) -> Path:
    """Phantoms and their manifest."""
    write_phantoms(folder / "images", number, (26, 22) if dims == 2 else (20, 18, 22))
    path = folder / "manifest.json"
    scan(folder / "images", spacing_mm=1.0).write(path)
    return path


def train(bundle: Path, manifest: Path, output: Path, *overlays: str, **changes: Any) -> ConfigWorkflow:
    """A pretraining of a second, by the bundle's own configuration."""
    dims = 3 if bundle == CT else 2
    places = {"data_list_file_path": str(manifest), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    settings = {**TINY, **SMALL[dims], **places, **changes}
    extra = [bundle / "configs" / f"{name}.json" for name in overlays]
    return run_bundle(bundle, "train", settings, extra_configs=extra)
