"""A training of a second: a few phantoms, a small network, the configuration of the pretraining bundle."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow

from medpixcl.apps.bundles import run_bundle
from medpixcl.cli import main
from medpixcl.data.phantoms import write_phantoms
from medpixcl.data.scan import scan

ROOT = Path(__file__).parents[1]
PRETRAINING = ROOT / "bundles" / "xray_infoaug_pretraining"
MATCHING = ROOT / "bundles" / "xray_landmark_matching"
VOLUME_PRETRAINING = ROOT / "bundles" / "ct_infoaug_pretraining"
VOLUME_MATCHING = ROOT / "bundles" / "volume_landmark_matching"
SELFTRAINING = ROOT / "bundles" / "xray_landmark_selftraining"
VOLUME_SELFTRAINING = ROOT / "bundles" / "volume_landmark_selftraining"
NETWORK: dict[str, Any] = {"backbone": "dynunet", "channels": [4, 8, 8], "embedding_size": 8}
TRAINING: dict[str, Any] = {
    **NETWORK,
    "imagenet": False,
    "bfloat16": False,
    "working_spacing_mm": [1.0, 1.0],
    "view_shape": [32, 32],
    "entropy_radius_mm": 3.0,
    "anchors_per_image": 16,
    "batch_size": 2,
    "max_epochs": 3,
    "val_interval": 1,
    "val_repeats": 1,
    "pictures": False,  # drawing costs more than this training
}


def write_manifest(folder: Path, number: int = 5, shape: tuple[int, ...] = (48, 48)) -> Path:
    """Phantoms in ``folder/images`` and their manifest."""
    write_phantoms(folder / "images", number, shape)
    path = folder / "manifest.json"
    scan(folder / "images", spacing_mm=1.0).write(path)
    return path


def write_config(path: Path, **changes: Any) -> Path:
    """The settings above as a file to put over the bundle's configuration."""
    path.write_text(json.dumps({**TRAINING, **changes}))
    return path


def pretrain(manifest: Path, output: Path, **changes: Any) -> ConfigWorkflow:
    """Train in this process; keys that the bundle does not know may stand in ``changes``."""
    output.mkdir(parents=True, exist_ok=True)
    config = write_config(output / "tiny.json", **changes)
    places = {"data_list_file_path": manifest, "output_dir": output, "ckpt_dir": output / "models"}
    return run_bundle(PRETRAINING, "train", {k: str(v) for k, v in places.items()}, extra_configs=[config])


def edited_bundle(bundle: Path, folder: Path, config: str, **changes: Any) -> Path:
    """A copy of a bundle without its weights, one configuration of which is changed as its author may."""
    copy = folder / bundle.name
    shutil.copytree(bundle, copy, ignore=shutil.ignore_patterns("models"))
    file = copy / "configs" / f"{config}.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    return copy


def checkpoint(output: Path) -> dict[str, Any]:
    """What a training would resume from, without the time at which it was saved."""
    content = torch.load(output / "resume.pt", weights_only=True)
    del content["time"]
    return content


def medpixcl(*arguments: object) -> int:
    """Exit status of the command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["medpixcl", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return int(end.code or 0)
    return 0


def environment() -> dict[str, str]:
    """For processes of their own."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MEDPIXCL_BUNDLES": str(ROOT / "bundles")}


def run_apart(*words: str, **variables: str) -> None:
    """Run Python in a process of its own, which must end well within ten minutes."""
    done = subprocess.run(
        [sys.executable, *words],
        env=environment() | variables,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]


def assert_identical(found: Any, expected: Any) -> None:
    """Equal to the last bit, through dictionaries and lists of tensors."""
    assert type(found) is type(expected)
    if isinstance(found, dict):
        assert found.keys() == expected.keys()
        for key in found:
            assert_identical(found[key], expected[key])
    elif isinstance(found, list | tuple):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_identical(one, other)
    elif isinstance(found, torch.Tensor):
        assert torch.equal(found, expected)
    else:
        assert found == expected
