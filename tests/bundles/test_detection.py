"""Landmark detection: configurations agree; what is learnt from whom, what is drawn, written and measured."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from medpixcl.apps.bundles import run_bundle
from medpixcl.apps.evaluate import evaluate
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.networks import PixelEmbeddingNet
from tests.bundles.detection import BUNDLES, NAMES, apply, settings, train, write_manifest

BOTH = pytest.mark.parametrize("dims", [2, 3])
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def read(dims: int, name: str) -> dict[str, Any]:
    return json.loads((BUNDLES[dims] / "configs" / f"{name}.json").read_text(encoding="ascii"))


@BOTH
def test_inference_sees_what_was_trained(dims: int) -> None:
    training = read(dims, "train")
    written = training["detector_settings"]
    assert written == {key: f"@{key}" for key in written}
    for of_this_training in ("trained_on", "shape"):
        written.pop(of_this_training, None)
    parser = ConfigParser({**training, "data_list_file_path": "none.json"})
    values = {key: parser.get_parsed_content(key) for key in written}
    other = read(dims, "inference")
    learning = {"pretrained": "@imagenet", "trained_layers": "@trained_layers"}
    assert other["network_def"] | learning == training["network_def"]
    assert other["preprocessing"] == training["preprocessing"]
    assert {key: other[key] for key in written} == values
    asked = [value for key in ("network_def", "inferer") for value in other[key].values()]
    ids = {value.removeprefix("@") for value in asked if isinstance(value, str) and value.startswith("@")}
    assert ids - {"network_def", "views"} <= set(written)


@BOTH
def test_metadata_tells_the_shape_of_the_output(dims: int) -> None:
    output = read(dims, "metadata")["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == (1 + dims) * len(read(dims, "inference")["landmark_names"])


@BOTH
def test_two_readers_and_a_missing_landmark(dims: int, tmp_path: Path) -> None:
    """One reader lies one mm beside the other and left a landmark out; the evaluation says so beside its own error."""
    manifest = write_manifest(tmp_path / "data", dims)
    own = tmp_path / "data" / "landmarks.csv"
    other = tmp_path / "data" / "other.csv"
    with own.open(newline="") as file:
        rows = list(csv.DictReader(file))
    axis = "y_px" if dims == 2 else "z_mm"
    for row in rows:
        row[axis] = "" if row["landmark"] == "4" else str(float(row[axis]) + 1)
        if row["landmark"] == "4":
            row |= dict.fromkeys([name for name in row if name[0] in "xyz" and name[1] == "_"], "")
    with other.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    content = json.loads(manifest.read_text())
    for entry in content["training"]:
        entry["landmarks"] = {"first": "landmarks.csv", "second": "other.csv"}
    manifest.write_text(json.dumps(content))
    output = tmp_path / "run"
    workflow = train(manifest, output, dims, target={"first": 3, "second": 1})
    item = workflow.parser.get_parsed_content("train::dataset").prepared[0]
    path = item["image"].meta["filename_or_obj"]
    given = read_landmarks(own).positions_mm()[Path(path).name]
    lps = torch.tensor([given[name] for name in NAMES], dtype=torch.float64)
    wanted = lps * torch.tensor([-1, -1] if dims == 2 else [-1, -1, 1])
    wanted[:3, dims - 1] += (-1 if dims == 2 else 1) * 0.25
    torch.testing.assert_close(item["points"], wanted)
    assert item["weights"].tolist() == [1, 1, 1, 1]
    readers = {"first": str(own), "second": str(other)}
    places = {"images": str(manifest), "reference": str(own), "readers": readers}
    evaluated = apply("evaluate", output / "models", tmp_path / "test", dims, **places)
    with (tmp_path / "test" / "readers.csv").open(newline="") as file:
        table = {row["method"]: row for row in csv.DictReader(file)}
    assert list(table) == [
        "this run against first",
        "this run against second",
        "this run against mean of readers",
        "first against second",
    ]
    assert float(table["first against second"]["MRE (mm)"].split()[0]) == 1
    metrics = evaluated.parser.get_parsed_content("writer").results.metrics
    assert float(table["this run against first"]["MRE (mm)"].split()[0]) == pytest.approx(metrics["mre_mm"], abs=0.006)
    assert metrics["images"] == 2  # those of the test section
    assert "first against second" in (tmp_path / "test" / "report.html").read_text(encoding="utf-8")


@BOTH
def test_starts_from_a_pretraining_and_stops_without_it(dims: int, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", dims)
    common = settings(dims)
    source = PixelEmbeddingNet(
        spatial_dims=dims, backbone="dynunet", channels=common["channels"], embedding_size=4, norm="instance"
    )
    torch.save(source.state_dict(), tmp_path / "pretrained.pt")
    workflow = train(manifest, tmp_path / "run", dims, start_weights=str(tmp_path / "pretrained.pt"), learning_rate=0.0)
    weights = torch.load(tmp_path / "run" / "models" / "model.pt", weights_only=True)
    kept = {name for name in source.state_dict() if name in weights}
    assert kept == {name for name in weights if name.startswith("backbone.")}
    for name in kept:  # nothing of the trunk was learnt at this rate, so it is the pretraining's
        torch.testing.assert_close(weights[name], source.state_dict()[name])
    assert workflow.parser.get_parsed_content("start_loader").report.missing
    torch.save({"head.weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="of another architecture"):
        train(manifest, tmp_path / "b", dims, start_weights=str(tmp_path / "other.pt"))


def test_few_images_take_as_many_steps(tmp_path: Path) -> None:
    """The draw of one seed is nested; the epochs are as long; presets change what they should."""
    manifest = write_manifest(tmp_path / "data", 2, number=8)
    drawn = {}
    for number in (1, 3, None):
        workflow = train(manifest, tmp_path / str(number), 2, train_images=number, val_fraction=0.4)
        trainer = workflow.parser.get_parsed_content("train::trainer")
        assert trainer.state.iteration == 4
        split = workflow.parser.get_parsed_content("split")
        drawn[number] = {side: {item["image"] for item in items} for side, items in split.items()}
    assert drawn[1]["training"] == drawn[1]["validation"]
    assert {side: len(images) for side, images in drawn[3].items()} == {"training": 2, "validation": 1}
    assert {side: len(images) for side, images in drawn[None].items()} == {"training": 4, "validation": 2}
    assert drawn[1]["training"] <= drawn[3]["training"] | drawn[3]["validation"]
    test = {item["image"] for item in Manifest.read(manifest).datalist("test")}
    assert not test & set().union(*(images for sides in drawn.values() for images in sides.values()))
    for number in (1, 5, 25):
        assert read(2, f"few_shot_{number}") == {"train_images": number, "val_fraction": 0.0}
    with pytest.raises(ValueError, match="has 6 training images with landmarks; 7 are asked for"):
        train(manifest, tmp_path / "many", 2, train_images=7)


@pytest.mark.parametrize("keep_best", [False, True])
def test_a_resumed_training_is_an_undisturbed_one(keep_best: bool, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path / "data", 2)
    train(manifest, tmp_path / "whole", 2, keep_best=keep_best)
    train(manifest, tmp_path / "parts", 2, keep_best=keep_best, **{"train::trainer::max_epochs": 1})
    train(manifest, tmp_path / "parts", 2, keep_best=keep_best)
    for name in ("model.pt", "inference.json"):
        assert (tmp_path / "parts" / "models" / name).is_file()
    whole, parts = (
        torch.load(tmp_path / name / "models" / "model.pt", weights_only=True) for name in ("whole", "parts")
    )
    assert all(torch.equal(value, parts[name]) for name, value in whole.items())


@BOTH
@pytest.mark.parametrize("config", ["inference", "evaluate"])
def test_initialises_without_data(dims: int, config: str, tmp_path: Path) -> None:
    files = [str(BUNDLES[dims] / "configs" / f"{name}.json") for name in dict.fromkeys(["inference", config])]
    made = ConfigWorkflow(
        files, workflow_type="infer", logging_file=False, bundle_root=str(BUNDLES[dims]), dataset_dir=str(tmp_path)
    )
    made.initialize()
    if config == "inference":
        assert made.check_properties() == []


@pytest.mark.parametrize("upright", [pytest.param(False, marks=pytest.mark.slow), True])
def test_coarse_to_fine(upright: bool, tmp_path: Path) -> None:
    """Two stages into one folder of weights; refined landmarks lie within half a crop of the coarse ones.

    Where the crops stand upright, the settings beside the fine weights have the mean shape, which says where they lie.
    """
    manifest = write_manifest(tmp_path / "data", 3)
    models = tmp_path / "models"
    train(manifest, tmp_path / "coarse", 3, ckpt_dir=str(models), working_spacing_mm=[2.0] * 3, view_shape=[16] * 3)
    fine = BUNDLES[3] / "configs" / "fine.json"
    places = {"data_list_file_path": str(manifest), "output_dir": str(tmp_path / "fine"), "ckpt_dir": str(models)}
    mean = read(3, "mouse_head_ct_fine")["shape_mm"] if upright else None
    training = {**settings(3), **places, "shift_mm": 1.0}
    workflow = run_bundle(BUNDLES[3], "train", training, extra_configs=[fine, {"shape_mm": mean}])
    written = json.loads((models / "fine.json").read_text())["fine_shape_mm"]
    assert written is None if mean is None else torch.tensor(written).shape == (len(NAMES), 3)
    assert {path.name for path in models.iterdir()} == {"model.pt", "inference.json", "fine.pt", "fine.json"}
    for name in ("train::dataset", "validate::dataset"):
        item = workflow.parser.get_parsed_content(name)[0]
        known = item["points"][item["weights"] > 0]
        assert ((known - 9.5).abs() < 4).all(dim=1).any()  # one of them lies near the centre of a crop of 20
    found = {}
    for name, configs in (
        ("coarse", []),
        ("refined", [BUNDLES[3] / "configs" / "inference_refine.json", models / "fine.json"]),
    ):
        run_bundle(
            BUNDLES[3],
            "inference",
            {
                "images": str(manifest),
                "output_dir": str(tmp_path / name),
                "overlays": False,
                "weights": str(models / "model.pt"),
                **({"fine_weights": str(models / "fine.pt")} if configs else {}),
            },
            extra_configs=[models / "inference.json", *configs],
            kind="infer",
        )
        positions = read_landmarks(tmp_path / name / "landmarks.csv").positions_mm()
        found[name] = {(image, key): point for image, row in positions.items() for key, point in row.items()}
    both = sorted(found["coarse"].keys() & found["refined"].keys())  # without what lies outside the image
    assert len(both) > 12
    moved = (
        torch.tensor([found["refined"][key] for key in both]) - torch.tensor([found["coarse"][key] for key in both])
    ).abs()
    assert moved.max() > 0
    assert upright or moved.max() < 12


@BOTH
def test_regions_calibrated_and_counted(dims: int, tmp_path: Path) -> None:
    """Calibrated on the training images, the regions of the test images go into a table that `evaluate` can count."""
    manifest = write_manifest(tmp_path / "data", dims, number=14)
    own = str(tmp_path / "data" / "landmarks.csv")
    models = tmp_path / "run" / "models"
    train(manifest, tmp_path / "run", dims)
    regions = BUNDLES[dims] / "configs" / "inference_regions.json"
    places = {"images": str(manifest), "reference": own, "overlays": False, "weights": str(models / "model.pt")}
    for output, changes in (
        ("calibration", {"sections": ["training"]}),
        ("found", {"sections": ["test"], "region_calibration": "calibration/region_calibration.json"}),
    ):
        changes = {key: str(tmp_path / one) if key == "region_calibration" else one for key, one in changes.items()}
        run_bundle(
            BUNDLES[dims],
            "inference",
            {**places, **changes, "output_dir": str(tmp_path / output)},
            extra_configs=[models / "inference.json", regions],
            kind="infer",
        )
    report = json.loads((tmp_path / "found" / "region_coverage.json").read_text())
    counted = evaluate(tmp_path / "found" / "regions.csv", own).metrics["region_coverage"]
    assert (counted["points"], counted["measured"]) == (8, pytest.approx(report["coverage"]))
    assert report["target"] == 0.9
