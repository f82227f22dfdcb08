"""The bundle of self-training: its configurations agree, with each other and with the matching bundle."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, run

from medpixcl.data.phantoms import write_landmark_phantoms
from tests.tiny import MATCHING, SELFTRAINING, VOLUME_MATCHING, VOLUME_SELFTRAINING

BUNDLES = pytest.mark.parametrize("bundle", [SELFTRAINING, VOLUME_SELFTRAINING], ids=lambda path: path.name)
STARTS = {SELFTRAINING: MATCHING, VOLUME_SELFTRAINING: VOLUME_MATCHING}
NETWORK = ("spatial_dims", "backbone", "channels", "norm")
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="ascii"))


def different(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


@BUNDLES
def test_inference_sees_what_was_trained(bundle: Path) -> None:
    """The same network and preparation, at the same spacing unless that follows the template."""
    train, inference = read(bundle, "train"), read(bundle, "inference")
    assert {key: inference[key] for key in NETWORK} == {key: train[key] for key in NETWORK}
    assert inference["network_def"] | {"landmarks": "$len(@landmark_names)"} == train["network_def"]
    assert inference["preprocessing"] == train["deterministic"]
    if bundle == SELFTRAINING:
        assert inference["working_spacing_mm"] == train["working_spacing_mm"]


@BUNDLES
def test_starts_from_the_network_of_the_matching(bundle: Path) -> None:
    train, matching = read(bundle, "train"), read(STARTS[bundle], "inference")
    assert train["start_weights"]["bundle"] == STARTS[bundle].name
    assert train["embedding"] == matching["network_def"]
    followed = ("longest_side",) if bundle == VOLUME_SELFTRAINING else ("working_spacing_mm",)
    shared = (*NETWORK, "embedding_size", *followed)
    assert {key: train[key] for key in shared} == {key: matching[key] for key in shared}
    crop = {"_target_": "medpixcl.transforms.CropUniformEdgesd", "keys": "image"}
    steps = [dict(one) for one in train["deterministic"]["transforms"] if one != crop]
    prepared = [dict(one) for one in matching["preprocessing"]["transforms"]]
    prepared[1].pop("longest_side", None)  # the training knows the spacing of its template
    assert steps == prepared
    matched = {key: train["matcher"].get(key) for key in ("levels", "upright")}
    assert matched == {key: matching.get(key) for key in ("levels", "upright")}


@BUNDLES
def test_metadata_tells_the_shape_of_the_output(bundle: Path) -> None:
    inference, metadata = read(bundle, "inference"), read(bundle, "metadata")
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == (1 + inference["spatial_dims"]) * len(inference["landmark_names"])


@BUNDLES
def test_published_weights_load(bundle: Path) -> None:
    parser = ConfigParser(read(bundle, "inference"))
    state = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    parser.get_parsed_content("network_def").load_state_dict(state)
    assert (bundle / "models" / "model.pt").stat().st_size < 16 * 2**20


def test_detection_writes_what_matching_writes(tmp_path: Path) -> None:
    write_landmark_phantoms(tmp_path / "data", 2, (64, 64))
    run(
        config_file=str(SELFTRAINING / "configs" / "inference.json"),
        bundle_root=str(SELFTRAINING),
        logging_file=False,
        images=str(tmp_path / "data"),
        pixel_mm=1.0,
        output_dir=str(tmp_path / "out"),
    )
    with (tmp_path / "out" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["landmark"] for row in rows] == 2 * [str(number + 1) for number in range(19)]
    assert len(list((tmp_path / "out" / "markups").glob("*.mrk.json"))) == 2
    assert len(list((tmp_path / "out" / "overlays").glob("*.png"))) == 2
    assert "template" not in (tmp_path / "out" / "report.html").read_text(encoding="utf-8").split("<main>")[0].lower()


@BUNDLES
@pytest.mark.parametrize("config", ["inference", "evaluate"])
def test_initialises_without_data(config: str, bundle: Path, tmp_path: Path) -> None:
    """Every property that MONAI requires can be built on an empty folder."""
    files = [str(bundle / "configs" / f"{name}.json") for name in dict.fromkeys(["inference", config])]
    made = ConfigWorkflow(
        files, workflow_type="infer", logging_file=False, bundle_root=str(bundle), dataset_dir=str(tmp_path)
    )
    made.initialize()
    assert made.check_properties() == []


@BUNDLES
def test_properties_of_training(bundle: Path, tmp_path: Path) -> None:
    files = [str(bundle / "configs" / f"{name}.json") for name in ("train", "smoke")]
    made = ConfigWorkflow(
        files, workflow_type="train", logging_file=False, bundle_root=str(bundle), output_dir=str(tmp_path)
    )
    made.initialize()
    assert made.check_properties() == []
