"""The two bundles of PixPro with an exogenous channel: configurations, runs, controls, bad input, export."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.phantoms import write_depth_phantoms, write_phantoms
from medpixcl.networks import load_weights
from tests.tiny import ROOT, environment, medpixcl

XRAY = ROOT / "bundles" / "xray_depth_pixpro_pretraining"
CT = ROOT / "bundles" / "ct_depth_pixpro_pretraining"
BUNDLES = [XRAY, CT]
EACH = pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
NETWORK = ("spatial_dims", "backbone", "channels", "levels", "norm")
TINY: dict[str, Any] = {
    "backbone": "dynunet",
    "channels": [4, 8, 8],
    "levels": [4],
    "hidden_channels": 16,
    "imagenet": False,
    "bfloat16": False,
    "working_spacing_mm": [1.0, 1.0],
    "view_shape": [32, 32],
    "batch_size": 2,
    "max_epochs": 1,
    "val_interval": 1,
    "val_repeats": 1,
    "pairs_per_image": 16,
    "silent": True,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning",
    "ignore:parsing config_file:UserWarning",
)


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="ascii"))


def write_manifest(folder: Path, number: int = 4) -> Path:
    """Phantoms with depth, as an entry written by hand names it."""
    items = write_depth_phantoms(folder / "images", number, (48, 48))
    entries = [{"image": Path(item["image"]), "exogenous": item["exogenous"]} for item in items]
    listed = [
        {
            "image": entry["image"].relative_to(folder).as_posix(),
            "spacing_mm": [1.0, 1.0],
            "exogenous": {"depth": Path(entry["exogenous"]["depth"]).relative_to(folder).as_posix()},
        }
        for entry in entries
    ]
    path = folder / "manifest.json"
    path.write_text(json.dumps({"training": listed}))
    return path


def train(manifest: Path, output: Path, **changes: Any) -> ConfigWorkflow:
    places = {"data_list_file_path": str(manifest), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    return run_bundle(XRAY, "train", {**TINY, **places, **changes})


def metrics(workflow: ConfigWorkflow) -> dict[str, float]:
    return workflow.parser.get_parsed_content("train::trainer").state.metrics


@EACH
def test_inference_sees_what_was_trained(bundle: Path) -> None:
    """The same network and preparation, without any exogenous channel."""
    training, inference = read(bundle, "train"), read(bundle, "inference")
    assert {key: inference[key] for key in NETWORK} == {key: training[key] for key in NETWORK}
    assert inference["working_spacing_mm"] == training["working_spacing_mm"]
    definition = {key: value for key, value in training["network_def"].items() if key != "pretrained"}
    assert inference["network_def"] == definition
    prepared = inference["preprocessing"]
    assert all(step in training["deterministic"]["transforms"] for step in prepared["transforms"])
    left_out = [step for step in training["deterministic"]["transforms"] if step not in prepared["transforms"]]
    assert all("_disabled_" in step for step in left_out), "only what makes channels"
    assert "exogenous" not in json.dumps(inference).lower()


def test_volumes_have_the_scales_of_radiographs() -> None:
    """A level's cells lie as far apart in 3D as in 2D if T is smaller by the root of 2 / 3."""
    first, second = read(XRAY, "train"), read(CT, "train")
    assert np.allclose([t for t, _ in second["scales"]], [t * (2 / 3) ** 0.5 for t, _ in first["scales"]], atol=1e-3)


@EACH
def test_published_weights_need_the_image_alone(bundle: Path, tmp_path: Path) -> None:
    """They load strictly; the bundle's export, in a process of its own, takes one tensor: the image."""
    inference, metadata = read(bundle, "inference"), read(bundle, "metadata")
    network = ConfigParser(inference).get_parsed_content("network_def").eval()
    assert load_weights(network, bundle / "models" / "model.pt").complete
    files = {"config_file": "configs/inference.json", "meta_file": "configs/metadata.json"}
    files |= {"ckpt_file": "models/model.pt", "filepath": str(tmp_path / "network.ts")}
    words = [word for name, file in files.items() for word in (f"--{name}", file)]
    command = [sys.executable, "-m", "monai.bundle", "ckpt_export", "network_def", *words]
    done = subprocess.run(command, cwd=bundle, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    exported = torch.jit.load(tmp_path / "network.ts")
    assert [argument.name for argument in exported.forward.schema.arguments] == ["self", "x"]
    image = torch.rand(1, 1, *(64,) * inference["spatial_dims"], generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = exported(image), network(image)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert found.shape[1] == metadata["network_data_format"]["outputs"]["pred"]["num_channels"]
    assert found.shape[2] == 64 // inference["levels"][0]
    assert list(metadata["network_data_format"]["inputs"]) == ["image"]


@EACH
def test_train_then_evaluate(bundle: Path, tmp_path: Path) -> None:
    files = [str(bundle / "configs" / f"{name}.json") for name in ("train", "smoke")]
    places = {"bundle_root": str(bundle), "logging_file": False, "output_dir": str(tmp_path)}
    run(config_file=files, **places)
    kept = torch.load(tmp_path / "resume.pt", weights_only=True)
    assert kept["epoch"] == 2
    events = [EventAccumulator(str(path)).Reload() for path in sorted(tmp_path.glob("events.*"))]
    scalars = {name for log in events for name in log.Tags()["scalars"]}
    stride, (first, _) = read(bundle, "train")["levels"][0], read(bundle, "train")["scales"][0]
    assert {f"pairs/kill_rate_stride{stride}_T{first:g}", f"pairs/spread_stride{stride}", "val_pixel_error"} <= scalars
    assert "validation/positives" in {name for log in events for name in log.Tags()["images"]}

    evaluate = [files[0], str(bundle / "configs" / "evaluate.json"), files[1]]
    run(config_file=evaluate, ckpt_dir=str(tmp_path / "models"), **places)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        measured = dict(csv.reader(file))
    logged = [log.Scalars("val_pixel_error") for log in events if "val_pixel_error" in log.Tags()["scalars"]]
    assert float(measured["val_pixel_error"]) == pytest.approx(logged[0][-1].value, rel=1e-3), "the last weights"


@EACH
def test_properties(bundle: Path, tmp_path: Path) -> None:
    for kind, names in (("train", ["train", "smoke"]), ("infer", ["inference"])):
        files = [str(bundle / "configs" / f"{name}.json") for name in names]
        places = {"bundle_root": str(bundle), "output_dir": str(tmp_path), "dataset_dir": str(tmp_path)}
        made = ConfigWorkflow(files, workflow_type=kind, logging_file=False, **places)
        made.initialize()
        assert made.check_properties() == []


@EACH
def test_embeddings_of_odd_sizes(bundle: Path, tmp_path: Path) -> None:
    """Images are padded to what the backbone can divide, and need no channel."""
    training = read(bundle, "train")
    shape = (72, 88) if bundle == XRAY else (20, 28, 24)
    write_phantoms(tmp_path / "images", 1, shape)
    settings: dict[str, Any] = {"working_spacing_mm": [1.0] * len(shape), "images": str(tmp_path / "images")}
    if bundle == XRAY:
        settings["pixel_mm"] = 1.0
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        logging_file=False,
        output_dir=str(tmp_path / "out"),
        **settings,
    )
    multiple = 32 if bundle == XRAY else 8
    with np.load(tmp_path / "out" / "phantom_000.npz") as kept:
        assert kept["strides"].tolist() == training["levels"]
        for number, stride in enumerate(training["levels"]):
            cells = tuple(-(-size // multiple) * multiple // stride for size in shape)
            assert kept[f"level_{number}"].shape[1:] == cells


class TestControls:
    def test_kill_rates(self, tmp_path: Path) -> None:
        """The channel takes positives, random deletion as many; without it none is taken."""
        manifest = write_manifest(tmp_path)
        found = {
            control: metrics(train(manifest, tmp_path / control, control=control))
            for control in ("none", "shuffled", "random_deletion", "no_depth")
        }
        name = "pairs/kill_rate_stride4_T2.8"
        assert found["none"][name] > 0.02
        assert found["random_deletion"][name] == pytest.approx(found["none"][name], abs=1e-6)
        assert found["no_depth"][name] == 0
        assert found["shuffled"][name] > 0
        assert found["shuffled"][name] != found["none"][name]

    def test_labels(self, tmp_path: Path) -> None:
        manifest = write_manifest(tmp_path)
        content = json.loads(manifest.read_text())
        for entry in content["training"]:
            labels = np.zeros((48, 48), np.uint8)
            labels[:, 24:] = 2
            path = Path(entry["image"]).with_name(Path(entry["image"]).stem + "_labels.png")
            (tmp_path / "labels").mkdir(exist_ok=True)
            Image.fromarray(labels).save(tmp_path / "labels" / path.name)
            entry["exogenous"]["labels"] = f"labels/{path.name}"
        manifest.write_text(json.dumps(content))
        found = metrics(train(manifest, tmp_path / "run", control="labels"))
        assert 0 < found["pairs/kill_rate_stride4_T2.8"] < 1


class TestBadInput:
    """One sentence each, at the program's own command."""

    def fails(self, manifest: Path, capsys: pytest.CaptureFixture[str], *settings: str) -> str:
        changes = [word for key, value in TINY.items() for word in ("--set", f"{key}={json.dumps(value)}")]
        words = [word for setting in settings for word in ("--set", setting)]
        output = manifest.parent / "run"
        assert medpixcl("pretrain", XRAY, "--data", manifest, "-o", output, *changes, *words) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert "Traceback" not in said
        return said

    def spoil(self, folder: Path, depth: np.ndarray) -> Path:
        manifest = write_manifest(folder)
        for path in (folder / "images" / "depth").glob("*.png"):
            Image.fromarray(depth).save(path)
        return manifest

    def test_depth_of_another_size(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.fails(self.spoil(tmp_path, np.full((40, 48), 900, np.uint16)), capsys)
        assert "has 40 x 48 voxels, its image 48 x 48; expected the same" in said

    def test_no_known_depth(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.fails(self.spoil(tmp_path, np.zeros((48, 48), np.uint16)), capsys)
        assert "holds nothing but missing values" in said

    def test_channel_that_the_manifest_does_not_name(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.fails(write_manifest(tmp_path), capsys, 'exogenous=[{"key": "skin", "threshold": 1}]')
        assert "the exogenous channel 'skin' is asked for, but the manifest names only depth" in said

    def test_negative_spacing(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        manifest = write_manifest(tmp_path)
        manifest.write_text(manifest.read_text().replace("[1.0, 1.0]", "[1.0, -1.0]"))
        assert "spacing_mm of entry 0 of training is [1.0, -1.0]; expected a positive size" in self.fails(
            manifest, capsys
        )

    def test_unknown_control(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said = self.fails(write_manifest(tmp_path), capsys, "control=shufled")
        assert "control is 'shufled'; expected one of none, shuffled" in said
