"""Organ segmentation: configurations agree; what is written, measured and kept is checked against the files."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.manifest import Manifest
from medpixcl.data.phantoms import write_organ_phantoms
from medpixcl.networks import load_weights
from medpixcl.networks.pixpro import BackboneNet
from tests.tiny import ROOT

BUNDLE = ROOT / "bundles" / "organ_segmentation_finetuning"
NAMES = ["small", "middle", "large"]
SHAPES = {2: (44, 50), 3: (30, 26, 22)}
TRUNK: dict[str, Any] = {"backbone": "dynunet", "channels": [4, 8, 8]}
TINY: dict[str, Any] = {
    **TRUNK,
    "classes": NAMES,
    "start_weights": None,
    "bfloat16": False,
    "batch_size": 2,
    "repeats": 1,
    "silent": True,
}
KINDS = pytest.mark.parametrize(("dims", "overlapping"), [(2, True), (2, False), (3, False)])
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def read(name: str) -> dict[str, Any]:
    return json.loads((BUNDLE / "configs" / f"{name}.json").read_text(encoding="ascii"))


def write_manifest(folder: Path, dims: int, overlapping: bool) -> Path:
    items = write_organ_phantoms(folder, 6, SHAPES[dims], overlapping=overlapping)
    manifest = Manifest(training=items[:3], validation=items[3:4], test=items[4:])
    manifest.write(folder / "manifest.json")
    return folder / "manifest.json"


def settings(dims: int, overlapping: bool) -> dict[str, Any]:
    view = {"working_spacing_mm": [1.5] * dims, "view_shape": [16] * dims, "window_shape": -1 if dims == 2 else 16}
    scale = {"window": None if dims == 2 else [0.0, 200.0]}
    return {**TINY, "spatial_dims": dims, "overlapping": overlapping, **view, **scale}


def train(manifest: Path, output: Path, **changes: Any) -> ConfigWorkflow:
    places = {"data_list_file_path": str(manifest), "output_dir": str(output), "ckpt_dir": str(output / "models")}
    return run_bundle(BUNDLE, "train", {**TINY, **places, "steps": 4, **changes})


def apply(config: str, weights: Path, output: Path, **changes: Any) -> ConfigWorkflow:
    """Evaluation or inference with the settings that the training wrote beside the weights."""
    places = {"weights": str(weights / "model.pt"), "output_dir": str(output)}
    own = [] if config == "inference" else [BUNDLE / "configs" / f"{config}.json"]
    extra = [*own, weights / "inference.json"]
    return run_bundle(BUNDLE, "inference", {**places, **changes}, extra_configs=extra, kind="infer")


def dice(found: np.ndarray, label: np.ndarray) -> float:
    return 2 * (found & label).sum() / (found.sum() + label.sum()) if label.any() else float("nan")


def test_inference_and_evaluation_see_what_was_trained() -> None:
    training, inference = read("train"), read("inference")
    evaluate = inference | read("evaluate")
    definition = {key: value for key, value in training["network_def"].items() if key not in ("frozen", "pretrained")}
    for other in (evaluate, inference):
        assert other["network_def"] == definition
        assert other["inferer"] == training["validate"]["inferer"]
        steps = [step for step in other["preprocessing"]["transforms"] if step["keys"] != "label"]
        kept = [step for step in training["deterministic"]["transforms"] if "label" not in json.dumps(step)]
        assert steps == kept
    extras = training["train"]["handlers"][0]["extras"]
    written = next(handler for handler in extras if "SettingsFile" in handler["_target_"])
    assert written["settings"] == {key: f"@{key}" for key in written["settings"]}
    assert {key: evaluate[key] for key in written["settings"]} == {key: training[key] for key in written["settings"]}
    assert {key: inference[key] for key in written["settings"]} == {key: training[key] for key in written["settings"]}
    asked = {key for key in definition.values() if isinstance(key, str) and key.startswith("@")}
    assert {key.removeprefix("@") for key in asked} <= set(written["settings"])


def test_published_weights_load_and_fit_the_card() -> None:
    network = ConfigParser(read("inference")).get_parsed_content("network_def")
    assert load_weights(network, BUNDLE / "models" / "model.pt").complete
    output = read("metadata")["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == len(read("inference")["classes"])


@KINDS
def test_measured_dice_is_that_of_the_files(dims: int, overlapping: bool, tmp_path: Path) -> None:
    """Train, evaluate, infer; the tables hold the Dice of the files that inference writes, on the images' own grid."""
    manifest = write_manifest(tmp_path / "data", dims, overlapping)
    output = tmp_path / "run"
    state = (
        train(manifest, output, **settings(dims, overlapping)).parser.get_parsed_content("validate::evaluator").state
    )
    assert set(state.metrics) == {"val_mean_dice", *(f"val_dice_{name}" for name in NAMES)}
    evaluated = apply("evaluate", output / "models", tmp_path / "test", data_list_file_path=str(manifest))
    apply("inference", output / "models", tmp_path / "found", images=str(manifest))
    with (tmp_path / "test" / "val_mean_dice_raw.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    items = Manifest.read(manifest).datalist("test")
    assert [row["filename"] for row in rows] == [Path(item["image"]).name for item in items]
    table = np.array([[float(row[name]) for name in NAMES] for row in rows])
    np.testing.assert_allclose(
        table, [[dice(*pair) for pair in pairs(item, tmp_path / "found")] for item in items], atol=6e-5
    )  # four decimals
    metrics = evaluated.parser.get_parsed_content("evaluator").state.metrics
    for name, column in zip(NAMES, table.T, strict=True):
        assert metrics[f"val_dice_{name}"] == pytest.approx(column.mean(), abs=6e-5)
    with (tmp_path / "test" / "metrics.csv").open(newline="") as file:
        assert {row[0]: float(row[1]) for row in csv.reader(file)} == pytest.approx(metrics)
    assert metrics["val_mean_dice"] == pytest.approx(table.mean(), abs=6e-5)


def pairs(item: dict[str, Any], folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Found and given masks of every class, as the files have them."""
    name = Path(item["image"]).name
    stem, suffix = name.split(".", 1)
    if isinstance(item["label"], list):
        found = [pixels(folder / f"{stem}_{organ}.{suffix}") for organ in NAMES]
        assert all(set(np.unique(mask)) <= {0, 255} for mask in found)
        return [(mask > 0, pixels(Path(path)) > 0) for mask, path in zip(found, item["label"], strict=True)]
    found, given = pixels(folder / name), pixels(Path(item["label"]))
    assert found.shape == given.shape
    return [(found == number, given == number) for number in (1, 2, 3)]


def pixels(path: Path) -> np.ndarray:
    if path.suffix == ".png":
        return np.asarray(Image.open(path))
    volume = nibabel.load(path)
    assert np.array_equal(volume.affine, np.eye(4))
    return np.asarray(volume.dataobj)


def test_linear_probe_keeps_the_pretrained_trunk(tmp_path: Path) -> None:
    """Started from the weights of a pretraining, frozen: its tensors are in the result, to the byte."""
    torch.manual_seed(5)
    source = BackboneNet(**TRUNK, strides=[4], norm="batch")
    torch.save(source.state_dict(), tmp_path / "pretrained.pt")
    changes = {"strides": [4], "norm": "batch", "head": "linear", "frozen": True}
    workflow = train(
        write_manifest(tmp_path / "data", 2, True),
        tmp_path,
        **{**settings(2, True), **changes, "start_weights": str(tmp_path / "pretrained.pt")},
    )
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    for name, value in source.state_dict().items():
        assert torch.equal(state[name], value), name
    learnt = {id(p) for group in workflow.parser.get_parsed_content("optimizer").param_groups for p in group["params"]}
    network = workflow.parser.get_parsed_content("network_def")
    assert learnt == {id(parameter) for parameter in network.head.parameters()}


def test_learning_fits_the_phantoms(tmp_path: Path) -> None:
    """More is found than by calling every pixel an organ, and TensorBoard gets the numbers and pictures."""
    manifest = write_manifest(tmp_path / "data", 2, False)
    common = {**settings(2, False), "working_spacing_mm": [1.0, 1.0], "view_shape": [44, 50], "silent": False}
    rate = {"learning_rate": 0.01, "head_learning_rate": 0.01, "intensity": {}, "repeats": 4}
    workflow = train(manifest, tmp_path / "run", **{**common, **rate, "steps": 60})
    (item,) = Manifest.read(manifest).datalist("validation")
    label = pixels(Path(item["label"]))
    everything = [dice(np.ones_like(label, dtype=bool), label == number) for number in (1, 2, 3)]
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert metrics["val_mean_dice"] > np.nanmean(everything)
    events = EventAccumulator(str(tmp_path / "run"), size_guidance={"images": 0}).Reload()
    assert {"val_mean_dice", "val_dice_large", "train_loss"} <= set(events.Tags()["scalars"])
    assert events.Tags()["images"]


def test_a_resumed_training_is_an_undisturbed_one(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", 2, True)
    common = {**settings(2, True), "batch_size": 3, "max_epochs": 2, "val_interval": 1, "steps": 2}
    train(manifest, tmp_path / "whole", **common)
    stopped = {"train::trainer::max_epochs": 1}
    train(manifest, tmp_path / "parts", **common, **stopped)
    train(manifest, tmp_path / "parts", **common)
    whole, parts = (torch.load(tmp_path / name / "resume.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["epoch"] == parts["epoch"] == 2
    assert whole["best"] == parts["best"]
    for name, value in whole["network"].items():
        assert torch.equal(value, parts["network"][name]), name


def test_bad_input_is_said_in_one_sentence(tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", 2, False)
    common = settings(2, False)
    with pytest.raises(ValueError, match="holds the class 3, but there are names for 1 to 2"):
        train(manifest, tmp_path / "a", **{**common, "classes": NAMES[:2]})
    with pytest.raises(ValueError, match="there are 3 mask"):
        train(write_manifest(tmp_path / "masks", 2, True), tmp_path / "b", **{**settings(2, True), "classes": ["one"]})
    entries = [
        {key: value for key, value in entry.items() if key != "label"} for entry in Manifest.read(manifest).training
    ]
    Manifest(training=entries, base_dir=tmp_path / "data").write(tmp_path / "data" / "bare.json")
    with pytest.raises(ValueError, match="the manifest has no label"):
        train(tmp_path / "data" / "bare.json", tmp_path / "c", **common)
    torch.save(BackboneNet(**TRUNK, strides=[4]).state_dict(), tmp_path / "coarse.pt")
    with pytest.raises(ValueError, match="must fill every tensor of the network"):
        train(manifest, tmp_path / "d", **{**common, "start_weights": str(tmp_path / "coarse.pt")})


@pytest.mark.slow
@pytest.mark.data
def test_label_maps_of_a_few_real_volumes(data_dir: Path, tmp_path: Path) -> None:
    """Hippocampus, head and body: more is found than by calling every voxel the class."""
    folder = data_dir / "hippocampus_mr"
    images = sorted((folder / "images").glob("*.nii.gz"))[:5]
    entries = [{"image": str(path), "label": str(folder / "labels" / path.name)} for path in images]
    Manifest(training=entries[:4], validation=entries[4:]).write(tmp_path / "manifest.json")
    changes = settings(3, False) | {
        "classes": ["anterior", "posterior"],
        "channels": [8, 16, 16],
        "working_spacing_mm": [1.0, 1.0, 1.0],
        "window": None,
        "view_shape": [32, 40, 32],
        "window_shape": [32, 48, 32],
        "val_interval": 100,
        "learning_rate": 0.01,
        "head_learning_rate": 0.01,
    }
    workflow = train(tmp_path / "manifest.json", tmp_path / "run", **{**changes, "steps": 16})
    labels = [np.asarray(nibabel.load(entry["label"]).dataobj) for entry in entries[4:]]
    everything = np.mean([[dice(np.ones(label.shape, bool), label == n) for n in (1, 2)] for label in labels])
    metrics = workflow.parser.get_parsed_content("validate::evaluator").state.metrics
    assert metrics["val_mean_dice"] > everything
