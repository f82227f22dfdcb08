"""Two processes train like one with the same global batch, by the bundle's own multi-process configuration."""

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import (
    PRETRAINING,
    TRAINING,
    checkpoint,
    pretrain,
    run_apart,
    write_config,
    write_manifest,
)

RECORDED = {
    "recorder": {
        "_target_": "tests.training.recording.Recorder",
        "trainer": "@train::trainer",
        "evaluator": "@validate::evaluator",
        "folder": "@output_dir",
    },
    "+initialize": ["@recorder"],
}
GLOBAL_BATCH = 4
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten images: eight are trained on and two held out, one for each process."""
    return write_manifest(tmp_path_factory.mktemp("phantoms"), number=10)


def settings(keys: str) -> dict[str, Any]:
    """With the keys of one image also classes that follow the loss, and the average of the weights."""
    adaptive = {"class_cuts": "adaptive", "class_ratios": "loss", "ema_momentum": 0.2} if keys == "image" else {}
    return {**RECORDED, **adaptive, "keys": keys, "max_epochs": 2, "val_fraction": 0.2}


@pytest.fixture(params=["image", "batch"])
def keys(request: pytest.FixtureRequest) -> str:
    return request.param


def run_two_processes(manifest: Path, output: Path, keys: str) -> None:
    changes = {"data_list_file_path": str(manifest), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    config = write_config(output / "tiny.json", **settings(keys), **changes, batch_size=GLOBAL_BATCH // 2)
    files = [PRETRAINING / "configs" / "train.json", PRETRAINING / "configs" / "multi_gpu_train.json", config]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    bundle = ["-m", "monai.bundle", "run", "--config_file", str([str(file) for file in files])]
    root = ["--bundle_root", str(PRETRAINING), "--meta_file", str(PRETRAINING / "configs" / "metadata.json")]
    run_apart(*launcher, *bundle, *root, CUDA_VISIBLE_DEVICES="")


def test_two_processes_equal_one(keys: str, manifest: Path, tmp_path: Path) -> None:
    """The same losses and weights up to rounding: a mean over processes stands for the mean over the whole batch."""
    one, two = tmp_path / "one", tmp_path / "two"
    two.mkdir()
    pretrain(manifest, one, **settings(keys), batch_size=GLOBAL_BATCH)
    run_two_processes(manifest, two, keys)

    alone = torch.load(one / "recorded-0.pt")
    ranks = [torch.load(two / f"recorded-{rank}.pt") for rank in range(2)]
    losses = torch.tensor([rank["losses"] for rank in ranks], dtype=torch.float64)
    assert losses.shape == (2, 4)
    assert not torch.equal(losses[0], losses[1]), "each process has images of its own"
    expected = torch.tensor(alone["losses"], dtype=torch.float64)
    torch.testing.assert_close(losses.mean(dim=0), expected, rtol=1e-4, atol=0)
    for rank in ranks:
        assert rank["metrics"] == pytest.approx(alone["metrics"], rel=1e-3)

    found, wanted = checkpoint(two), checkpoint(one)
    torch.testing.assert_close(found["network"], wanted["network"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["average"], wanted["average"], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found["classes"], wanted["classes"], rtol=1e-3, atol=1e-4)
    assert bool(found["classes"]) == (keys == "image")
    assert found["optimizer"]["param_groups"][0]["lr"] == wanted["optimizer"]["param_groups"][0]["lr"]
    assert (found["epoch"], found["iteration"]) == (2, 4)
    assert len(list(two.glob("events*"))) == len(list(one.glob("events*"))), "the first process alone writes events"
    assert TRAINING["backbone"] == "dynunet", "no statistics over the batch"
