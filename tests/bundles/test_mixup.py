"""The bundles of mix-up pretraining: their configurations agree, and train, measure, embed, resume and refuse."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, run
from PIL import Image

from medpixcl.apps.mixing_probe import probe_bundle
from medpixcl.data.class_labels import ClassTable, split_labelled
from medpixcl.data.scan import scan
from medpixcl.networks import ClassifierNet, EncoderNet, LandmarkNet, load_weights
from tests.bundles.mixing import BASELINES, CT, NET, SMALL, TINY, XRAY, train, write_manifest
from tests.tiny import assert_identical, checkpoint, medpixcl

BUNDLES = {2: XRAY, 3: CT}
NETWORK = ("spatial_dims", "backbone", "channels", "norm")
pytestmark = pytest.mark.filterwarnings(
    "ignore:parsing config_file:UserWarning",
    "ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning",
)


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="ascii"))


@pytest.mark.parametrize("bundle", [XRAY, CT], ids=lambda path: path.name)
def test_inference_sees_what_was_trained(bundle: Path) -> None:
    train, inference = read(bundle, "train"), read(bundle, "inference")
    for key in (*NETWORK, "window", "crop_foreground", "foreground_threshold", "image_side"):
        assert inference[key] == train[key]
    assert inference["working_spacing_mm"] == train["working_spacing_mm"]
    *shared, padding = train["deterministic"]["transforms"]
    assert inference["preprocessing"]["transforms"] == shared
    assert padding["_target_"] == "SpatialPadd"
    network = EncoderNet(**{key: inference[key] for key in NETWORK})
    form = read(bundle, "metadata")["network_data_format"]
    assert form["outputs"]["pred"]["num_channels"] == network.embedding_size
    assert form["inputs"]["image"]["spatial_shape"] == [f"{network.coarsest_stride}*n"] * inference["spatial_dims"]
    load_weights(network, bundle / "models" / "model.pt")


@pytest.mark.parametrize("dims", [2, 3])
def test_train_evaluate_embed(dims: int, tmp_path: Path) -> None:
    """The encoder's weights move to a classifier and a landmark network; the whole network is measured again."""
    bundle, output = BUNDLES[dims], tmp_path / "out"
    train(bundle, write_manifest(tmp_path, dims), output)
    weights = output / "models" / "model.pt"
    state = torch.load(weights, weights_only=True)
    assert all(name.startswith("backbone.") for name in state)
    options = {**NET, "spatial_dims": dims, "norm": "batch"}
    for network in (ClassifierNet(2, in_channels=4, **options), LandmarkNet(3, **options)):
        report = load_weights(network, weights, strict=False, adapt_channels=True)
        assert set(report.matched) == set(state)
        assert bool(report.adapted) == isinstance(network, ClassifierNet)
    best = checkpoint(output)["best"]["best_metric"]
    settings = {
        **TINY,
        **SMALL[dims],
        "pictures": True,
        "mixtures": 2,
        "data_list_file_path": tmp_path / "manifest.json",
    }
    run(
        config_file=[str(bundle / "configs" / f"{name}.json") for name in ("train", "evaluate")],
        bundle_root=str(bundle),
        logging_file=False,
        ckpt_dir=str(output / "models"),
        output_dir=str(tmp_path / "measured"),
        **{key: str(value) if isinstance(value, Path) else value for key, value in settings.items()},
    )
    with (tmp_path / "measured" / "metrics.csv").open(newline="") as file:
        measured = dict(csv.reader(file))
    assert float(measured["val_loss"]) == pytest.approx(best, rel=1e-4)
    assert {"val_opacity_r2", "val_leak_r2", "val_error_against_linear", "val_reconstruction_mae"} < measured.keys()
    assert {path.name for path in (tmp_path / "measured").glob("*.png")} == {"unmixed.png", "opacity.png"}
    run(
        config_file=str(bundle / "configs" / "inference.json"),
        bundle_root=str(bundle),
        logging_file=False,
        images=str(tmp_path / "images"),
        pixel_mm=1.0,
        weights=str(weights),
        output_dir=str(tmp_path / "vectors"),
        **NET,
    )
    with np.load(tmp_path / "vectors" / "vectors.npz") as kept:
        assert kept["vectors"].shape == (5, 8)
        assert len(set(kept["images"].tolist())) == 5


@pytest.mark.parametrize("overlay", BASELINES)
@pytest.mark.parametrize("dims", [2, 3])
def test_baselines_train_in_the_same_frame(dims: int, overlay: str, tmp_path: Path) -> None:
    """Each writes an encoder that fits into the same network, and learns something of what it is asked."""
    output = tmp_path / "out"
    train(BUNDLES[dims], write_manifest(tmp_path, dims), output, overlay, max_epochs=1, val_fraction=0.4)
    report = load_weights(EncoderNet(**NET, spatial_dims=dims), output / "models" / "model.pt")
    assert report.complete


def test_no_weight_no_learning_of_the_opacity(tmp_path: Path) -> None:
    """Reconstruction alone leaves the head as it was."""
    manifest = write_manifest(tmp_path)
    train(XRAY, manifest, tmp_path / "a", max_epochs=1, opacity_weight=0.0, weight_decay=0.0)
    train(XRAY, manifest, tmp_path / "b", max_epochs=1, learning_rate=0.0, weight_decay=0.0)
    one, other = (checkpoint(tmp_path / name)["network"] for name in "ab")
    head = "network.opacity_head.weight"
    assert torch.equal(one[head], other[head])
    assert any(not torch.equal(one[name], other[name]) for name in one if "decoder" in name and "weight" in name)


def test_a_resumed_run_ends_as_an_undisturbed_one(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path)
    train(XRAY, manifest, tmp_path / "whole")
    train(XRAY, manifest, tmp_path / "parts", **{"train::trainer::max_epochs": 1})
    assert checkpoint(tmp_path / "parts")["epoch"] == 1
    train(XRAY, manifest, tmp_path / "parts")
    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert_identical(parts["network"], whole["network"])
    assert_identical(parts["optimizer"], whole["optimizer"])


@pytest.mark.parametrize("bundle", [XRAY, CT], ids=lambda path: path.name)
def test_properties(bundle: Path, tmp_path: Path) -> None:
    for kind, names in (("train", ("train", "smoke")), ("infer", ("inference",))):
        made = ConfigWorkflow(
            [str(bundle / "configs" / f"{name}.json") for name in names],
            workflow_type=kind,
            logging_file=False,
            bundle_root=str(bundle),
            **({"output_dir": str(tmp_path)} if kind == "train" else {"dataset_dir": str(tmp_path)}),
        )
        made.initialize()
        assert made.check_properties() == []


def test_leak_probe_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Unmatched sources give the opacity away; the untrained network knows nothing."""
    manifest = write_manifest(tmp_path)
    train(XRAY, manifest, tmp_path / "out", max_epochs=1)
    settings = {**NET, **SMALL[2], "imagenet": False, "batch_size": 30}
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]
    weights = tmp_path / "out" / "models" / "pretraining.pt"
    options = ["--bundle", XRAY, "--mixtures", 60, "--weights", weights, *words]
    assert medpixcl("leak-probe", "--data", manifest, *options) == 0
    out = capsys.readouterr().out
    assert "leak probe: R2" in out
    assert "60 mixtures" in out
    assert "network: R2 -" in out
    flat = [{"image": str(tmp_path / "flat" / f"{number}.png"), "spacing_mm": [1.0, 1.0]} for number in range(2)]
    (tmp_path / "flat").mkdir()
    for number, entry in enumerate(flat):
        Image.fromarray(np.random.default_rng(number).integers(0, 60, (30, 30)).astype(np.uint8)).save(entry["image"])
    changes = {**settings, "match": "none", "split": {"training": flat, "validation": flat}}
    loud = probe_bundle(XRAY, manifest, mixtures=150, overrides=changes)
    quiet = probe_bundle(XRAY, manifest, mixtures=150, overrides={**changes, "match": "spectrum"})
    assert loud.leak.r2 > quiet.leak.r2
    assert quiet.network_r2 is None


@pytest.mark.slow
@pytest.mark.data
def test_trained_weights_read_the_opacity_and_statistics_do_not(tmp_path: Path, data_dir: Path) -> None:
    """Patients and a kind of texture that took no part in the training: R2 above 0.9, of the leak probe below 0.25."""
    manifest, path = scan(data_dir / "cxr_nih" / "images", spacing_mm=1.0), tmp_path / "manifest.json"
    ClassTable(data_dir / "cxr_nih" / "labels.csv", "pneumonia", "patient").add_to(manifest)
    manifest.write(path)
    tested = split_labelled(path, seed=0)["test"]
    as_trained = {"image_side": 160, "patch_shape": [128, 128]}
    overrides = {**as_trained, "split": {"training": tested, "validation": tested}}
    weights = XRAY / "models" / "pretraining.pt"
    found = probe_bundle(XRAY, path, mixtures=200, weights=weights, overrides=overrides)
    assert found.leak.r2 < 0.25
    assert found.network_r2 is not None
    assert found.network_r2 > 0.9


class TestBadInput:
    """One sentence each, and exit status 2."""

    @staticmethod
    def said(capsys: pytest.CaptureFixture[str], tmp_path: Path, changes: dict[str, Any], manifest: Path) -> str:
        config = tmp_path / "changes.json"
        config.write_text(json.dumps({**TINY, **SMALL[2], **changes}))
        output = tmp_path / "out"
        assert medpixcl("pretrain", XRAY, "--data", manifest, "-o", output, "--config", config, "--trust") == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medpixcl: ")]
        assert len(lines) == 1
        return lines[0]

    def test_empty_source_folder(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        sources = {"_target_": "medpixcl.data.PictureSources", "images": str(tmp_path / "empty")}
        found = self.said(capsys, tmp_path, {"train_sources": sources}, write_manifest(tmp_path))
        assert "empty holds no image to mix with; give a folder of pictures" in found

    def test_source_smaller_than_the_patch(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        manifest = write_manifest(tmp_path)
        sources = {"_target_": "medpixcl.data.PictureSources", "images": str(tmp_path / "images")}
        changes = {"train_sources": sources, "patch_shape": [40, 40]}
        assert "smaller than the patch (40, 40)" in self.said(capsys, tmp_path, changes, manifest)

    def test_voxels_that_are_not_numbers(self, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
        manifest = write_manifest(tmp_path)
        steps = read(XRAY, "train")["deterministic"]["transforms"]
        spoil = {"_target_": "Lambdad", "keys": "image", "func": "$lambda image: image * float('nan')"}
        changes = {"deterministic": {"_target_": "Compose", "transforms": [*steps, spoil]}}
        assert "voxels that are not finite (NaN or Inf)" in self.said(capsys, tmp_path, changes, manifest)
