"""The configurations of the two bundles agree where they tell the same thing."""

import json
from pathlib import Path
from typing import Any

import pytest

from medpixcl.networks import PixelEmbeddingNet
from tests.tiny import MATCHING, PRETRAINING, ROOT

BUNDLES = [PRETRAINING, MATCHING]
NETWORK = ("spatial_dims", "backbone", "channels", "norm", "embedding_size")


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="ascii"))


def different(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    return {key for key in one.keys() | other.keys() if one.get(key) != other.get(key)}


def test_both_train_alike() -> None:
    """The matching bundle goes on from the published weights, with a smaller step and for less long."""
    keys = {"start_weights", "imagenet", "learning_rate", "max_epochs", "ckpt_dir"}
    first, second = read(PRETRAINING, "train"), read(MATCHING, "train")
    assert different(first, second) == keys
    assert (first["start_weights"], first["imagenet"]) == (None, True)
    assert (second["start_weights"], second["imagenet"]) == ("$@bundle_root + '/models/model.pt'", False)
    assert second["learning_rate"] < first["learning_rate"]
    assert second["max_epochs"] < first["max_epochs"]


def test_the_example_of_a_second_phase_sets_what_there_is() -> None:
    example = json.loads((ROOT / "examples" / "ceph_refine.json").read_text(encoding="utf-8"))
    assert set(example) <= set(read(MATCHING, "train"))
    assert example["start_weights"].endswith("/../xray_infoaug_pretraining/models/model.pt'")


@pytest.mark.parametrize("name", ["multi_gpu_train", "smoke"])
def test_same_overrides_of_training(name: str) -> None:
    assert read(PRETRAINING, name) == read(MATCHING, name)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_inference_sees_what_was_trained(bundle: Path) -> None:
    """The same network, at the same spacing, on images prepared in the same way."""
    train, inference = read(PRETRAINING, "train"), read(bundle, "inference")
    assert {key: inference[key] for key in NETWORK} == {key: train[key] for key in NETWORK}
    assert inference["working_spacing_mm"] == train["spacing_mm"]
    prepared = json.dumps(inference["preprocessing"]["transforms"]).replace("@working_spacing_mm", "@spacing_mm")
    assert json.loads(prepared) == train["deterministic"]["transforms"][:3]
    definition = {key: value for key, value in train["network_def"].items() if key != "pretrained"}
    assert inference["network_def"] == definition


@pytest.mark.parametrize("name", ["LICENSE", "configs/logging.conf", "docs/data_license.txt"])
def test_same_files(name: str) -> None:
    assert (PRETRAINING / name).read_bytes() == (MATCHING / name).read_bytes()


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda path: path.name)
def test_metadata_tells_the_shape_of_the_embedding(bundle: Path) -> None:
    inference, metadata = read(bundle, "inference"), read(bundle, "metadata")
    network = PixelEmbeddingNet(**{key: inference[key] for key in NETWORK})
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == inference["embedding_size"] * len(network.strides)
    size = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    assert size == [f"{max(network.strides)}*n"] * 2
    assert output["spatial_shape"] == [f"{max(network.strides) // min(network.strides)}*n"] * 2
