"""The bundle of classification: it starts from a pretrained encoder, is measured on other patients, and refuses."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigWorkflow, run
from PIL import Image

from medpixcl.networks import ClassifierNet, EncoderNet, load_weights
from tests.bundles.mixing import CLASSIFY, NET
from tests.tiny import medpixcl

TINY: dict[str, Any] = {
    **NET,
    "image_side": 16,
    "silent": True,
    "batch_size": 8,
    "max_epochs": 10,
    "bfloat16": False,
    "learning_rate": 0.01,
    "head_learning_rate": 0.01,
    "shift_pixels": 1.0,
}
pytestmark = pytest.mark.filterwarnings(
    "ignore:parsing config_file:UserWarning",
    "ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning",
)


def read(name: str) -> dict[str, Any]:
    return json.loads((CLASSIFY / "configs" / f"{name}.json").read_text(encoding="ascii"))


def write_stripes(folder: Path, classes: int = 2) -> Path:
    """Upright stripes are class 0, lying ones class 1; with a manifest. Mean and spread tell nothing."""
    folder.mkdir(parents=True)
    rows = ["image,label,patient"]
    for number in range(96):
        random = np.random.default_rng(number)
        wave = np.sin(np.arange(24) * 1.5 + random.uniform(0, 6))
        picture = np.tile(wave, (24, 1)) + random.normal(0, 0.2, (24, 24))
        label = number % 2
        grey = np.clip(128 + 50 * (picture if label == 0 else picture.T), 0, 255).astype(np.uint8)
        Image.fromarray(grey).save(folder / f"{number}.png")
        rows.append(f"{number}.png,{label % classes},p{number // 2}")
    (folder / "labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    manifest = folder / "manifest.json"
    table = ["--classes", folder / "labels.csv", "--group-column", "patient", "--spacing-mm", 1]
    assert medpixcl("scan", folder, "-o", manifest, *table) == (0 if classes > 1 else 2)
    return manifest


def go(*names: str, **settings: Any) -> None:
    files = [str(CLASSIFY / "configs" / f"{name}.json") for name in names]
    run(config_file=files, bundle_root=str(CLASSIFY), logging_file=False, **settings)


def test_inference_sees_what_was_trained() -> None:
    train, inference = read("train"), read("inference")
    shared = ("spatial_dims", "backbone", "channels", "norm", "class_names", "window", "image_side", "crop_foreground")
    assert {key: inference[key] for key in shared} == {key: train[key] for key in shared}
    assert inference["preprocessing"] == train["deterministic"]
    load_weights(ClassifierNet(2), CLASSIFY / "models" / "model.pt")


def test_learns_measures_probes_and_predicts(tmp_path: Path) -> None:
    """Stripes are told apart on other patients, fine-tuned and by both probes of a random encoder."""
    manifest, output = write_stripes(tmp_path / "data"), tmp_path / "out"
    torch.manual_seed(0)  # of the encoder: whatever ran before must not decide
    encoder = EncoderNet(**NET)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    places = {"data_list_file_path": str(manifest), "ckpt_dir": str(output / "models"), "output_dir": str(output)}
    settings = {**TINY, **places, "start_weights": str(tmp_path / "encoder.pt")}
    go("train", **settings)
    go("train", "evaluate", **settings)
    with (output / "metrics.csv").open(newline="") as file:
        measured = {name: float(value) for name, value in csv.reader(file)}
    assert measured["val_auc"] > 0.9
    go("train", "probe", **settings)
    probes = json.loads((output / "probes.json").read_text())
    assert probes["linear"]["auc"] > 0.9
    assert probes["neighbours"]["auc"] > 0.8
    assert sum(probes["images"].values()) == 96
    assert "0 missing" in probes["weights"]
    go(
        "inference",
        **NET,
        image_side=16,
        images=str(tmp_path / "data"),
        pixel_mm=1.0,
        weights=str(output / "models" / "model.pt"),
        output_dir=str(output),
    )
    with (output / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = [int(row["class"]) == int(row["image"].removesuffix(".png")) % 2 for row in rows]
    assert np.mean(right) > 0.8
    assert all(abs(float(row["0"]) + float(row["1"]) - 1) < 1e-3 for row in rows)


def test_linear_probe_by_training_leaves_the_encoder(tmp_path: Path) -> None:
    manifest = write_stripes(tmp_path / "data")
    encoder = EncoderNet(**NET)
    torch.save(encoder.state_dict(), tmp_path / "encoder.pt")
    settings = {**TINY, "max_epochs": 1, "trained_layers": 0, "start_weights": str(tmp_path / "encoder.pt")}
    places = {"data_list_file_path": str(manifest), "output_dir": str(tmp_path), "ckpt_dir": str(tmp_path)}
    go("train", **settings, **places)
    state = torch.load(tmp_path / "model.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


def test_a_copy_trains_from_an_empty_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The bundle whose weights start the training is found by its name; no folder lies beside the copy."""
    manifest = write_stripes(tmp_path / "data")
    start = tmp_path / "mine" / "xray_mixup_pretraining"
    (start / "configs").mkdir(parents=True)
    (start / "configs" / "metadata.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    monkeypatch.setenv("MEDPIXCL_BUNDLES", str(tmp_path / "mine"))
    assert medpixcl("bundles", "copy", CLASSIFY.name, "copy") == 0
    Path("tiny.json").write_text(json.dumps({**TINY, "trained_layers": 0}))
    options = ["--data", manifest, "--epochs", 1, "--config", "tiny.json"]
    assert medpixcl("pretrain", "copy", *options, "-o", "without") == 2
    assert f"{start} has no weights (models/model.pt)" in capsys.readouterr().err
    (start / "models").mkdir()
    encoder = EncoderNet(**NET)
    torch.save(encoder.state_dict(), start / "models" / "model.pt")
    assert medpixcl("pretrain", "copy", *options, "-o", "run") == 0
    state = torch.load("run/models/model.pt", weights_only=True)
    assert all(torch.equal(state[name], value) for name, value in encoder.state_dict().items())


def test_command_says_which_weights_fitted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = write_stripes(tmp_path / "data")
    torch.save(EncoderNet(**NET).state_dict(), tmp_path / "encoder.pt")
    config = tmp_path / "tiny.json"
    config.write_text(json.dumps({**TINY, "start_weights": str(tmp_path / "encoder.pt")}))
    options = ["--data", manifest, "-o", tmp_path / "out", "--epochs", 1, "--config", config]
    assert medpixcl("pretrain", CLASSIFY, *options) == 0
    out = capsys.readouterr().out
    assert "tensors matched, 2 missing, 0 unexpected" in out
    assert "missing: head.weight, head.bias" in out


def test_one_class_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_stripes(tmp_path / "data", classes=1)
    err = capsys.readouterr().err
    assert "all 96 images of" in err
    assert "have the class 0; classification needs images of 2 classes: check the labels." in err


def test_properties(tmp_path: Path) -> None:
    for kind, names in (("train", ("train", "smoke")), ("infer", ("inference",))):
        made = ConfigWorkflow(
            [str(CLASSIFY / "configs" / f"{name}.json") for name in names],
            workflow_type=kind,
            logging_file=False,
            bundle_root=str(CLASSIFY),
            **({"output_dir": str(tmp_path)} if kind == "train" else {"dataset_dir": str(tmp_path)}),
        )
        made.initialize()
        assert made.check_properties() == []
