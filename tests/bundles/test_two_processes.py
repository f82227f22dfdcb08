"""Every bundle that trains on several processes trains on two like on one with the same global batch."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import ROOT, run_apart

BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/multi_gpu_train.json"))
SETTINGS: dict[str, Any] = {
    "backbone": "dynunet",  # with instance normalisation, so without statistics over the batch of one process
    "channels": [4, 8, 8],
    "norm": "instance",
    "levels": [4],
    "imagenet": False,
    "bfloat16": False,
    "pictures": False,
    "silent": True,
}
RECORDER = {
    "_target_": "tests.training.recording.Recorder",
    "trainer": "@train::trainer",
    "evaluator": "@validate::evaluator",
    "folder": "@output_dir",
}
NEARLY = {"organ_segmentation_finetuning": 20.0}
"""Factor of the tolerances where the loss, Dice over a batch, is no mean over images."""
pytestmark = pytest.mark.slow


def train(bundle: Path, output: Path, processes: int, batch_size: int) -> list[dict[str, Any]]:
    """What each process has recorded."""
    output.mkdir()
    known = json.loads((bundle / "configs" / "train.json").read_text())
    settings = {key: value for key, value in SETTINGS.items() if key in known}
    places = {"output_dir": str(output), "ckpt_dir": str(output / "models"), "bundle_root": str(bundle)}
    if "PixProNet" in known.get("wrapped", {}).get("_target_", ""):
        settings["wrapped::norm"] = "instance"
    if "embedding" in known:  # matched by a network of its own, on coarser grids for speed
        settings |= {"backbone": "unet", "channels": [8, 16, 16, 16]}
    if "epoch_steps" in known:  # of all processes together, divided among them
        settings["epoch_steps"] = 2 * processes
    changes = {**settings, **places, "batch_size": batch_size, "recorder": RECORDER, "+initialize": ["@recorder"]}
    (output / "tiny.json").write_text(json.dumps(changes))
    names = ["train", "smoke"] if processes == 1 else ["train", "smoke", "multi_gpu_train"]
    files = [str(bundle / "configs" / f"{name}.json") for name in names]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    words = ["-m", "monai.bundle", "run", "--config_file", str([*files, str(output / "tiny.json")])]
    run_apart(*(launcher if processes > 1 else []), *words, CUDA_VISIBLE_DEVICES="")
    return [torch.load(output / f"recorded-{rank}.pt") for rank in range(processes)]


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_two_processes_equal_one(bundle: Path, tmp_path: Path) -> None:
    """The same losses and weights up to rounding."""
    (alone,) = train(bundle, tmp_path / "one", 1, 4)
    ranks = train(bundle, tmp_path / "two", 2, 2)
    factor = NEARLY.get(bundle.name, 1.0)
    losses = torch.tensor([rank["losses"] for rank in ranks], dtype=torch.float64)
    expected = torch.tensor(alone["losses"], dtype=torch.float64)
    torch.testing.assert_close(losses.mean(dim=0), expected, rtol=1e-3 * factor, atol=1e-5)
    for rank in ranks:
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-2 * factor, abs=1e-4, nan_ok=True)
    weights = [torch.load(tmp_path / run / "models" / "model.pt", weights_only=True) for run in ("two", "one")]
    torch.testing.assert_close(*weights, rtol=1e-2 * factor, atol=1e-3 * factor)
