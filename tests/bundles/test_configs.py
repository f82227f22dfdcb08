"""What holds for the configurations of all bundles."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from medpixcl.apps.bundle_search import BundleError
from medpixcl.apps.bundles import read_bundle
from medpixcl.apps.renamed import RENAMED
from medpixcl.networks import PixelEmbeddingNet
from tests.bundles.formatting import formatted
from tests.tiny import (
    MATCHING,
    PRETRAINING,
    ROOT,
    SELFTRAINING,
    VOLUME_MATCHING,
    VOLUME_PRETRAINING,
    VOLUME_SELFTRAINING,
)

BUNDLES = sorted(path for path in (ROOT / "bundles").iterdir() if path.is_dir())
CONFIGS = sorted((ROOT / "bundles").glob("*/configs/*.json"))
TRAINING = [path for path in CONFIGS if path.stem == "train"]
EMBEDDING = pytest.mark.parametrize(
    "bundle", [PRETRAINING, MATCHING, VOLUME_PRETRAINING, VOLUME_MATCHING], ids=lambda path: path.name
)
NETWORK = ("spatial_dims", "backbone", "channels", "norm", "embedding_size")
BY_NAME = {"ids": lambda path: "/".join(path.relative_to(ROOT / "bundles").with_suffix("").parts[::2])}


def read(bundle: Path, name: str) -> dict[str, Any]:
    return json.loads((bundle / "configs" / f"{name}.json").read_text(encoding="ascii"))


def values(content: Any) -> list[Any]:
    """All values of a configuration that hold no others, and all dictionaries."""
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return [content, *(value for one in inner for value in values(one))]


@pytest.mark.parametrize("path", CONFIGS, **BY_NAME)
def test_layout(path: Path) -> None:
    """As ``python -m tests.bundles.formatting`` writes it."""
    text = path.read_text(encoding="ascii")
    assert text == formatted(text)


@pytest.mark.parametrize("path", CONFIGS, **BY_NAME)
def test_nothing_is_named_by_its_position(path: Path) -> None:
    assert re.findall(r"(?:handlers|transforms)(?:::|#)\d", path.read_text(encoding="ascii")) == []


@pytest.mark.parametrize("path", CONFIGS, **BY_NAME)
def test_no_path_leaves_the_bundle(path: Path) -> None:
    """Another bundle is named, not looked for in a folder beside this one."""
    texts = [value for value in values(json.loads(path.read_text())) if isinstance(value, str)]
    assert [text for text in texts if "/.." in text or text.startswith("..")] == []


@pytest.mark.parametrize("path", CONFIGS, **BY_NAME)
def test_public_names_have_two_parts(path: Path) -> None:
    """``medpixcl.package.Name``, so that files may move."""
    components = [value for value in values(json.loads(path.read_text())) if isinstance(value, dict)]
    own = [value["_target_"] for value in components if str(value.get("_target_")).startswith("medpixcl.")]
    assert [target for target in own if target.count(".") != 2] == []


@pytest.mark.parametrize("path", TRAINING, **BY_NAME)
def test_one_component_holds_the_handlers(path: Path) -> None:
    (handlers,) = json.loads(path.read_text())["train"]["handlers"]
    assert handlers["_target_"] == "medpixcl.training.TrainingHandlers"


@pytest.mark.parametrize("path", TRAINING, **BY_NAME)
def test_training_writes_into_its_output_folder(path: Path) -> None:
    """By default, so that no training overwrites the weights that the bundle ships; overlays do not change that."""
    parser = ConfigParser(json.loads(path.read_text()))
    parser.update({"bundle_root": "BUNDLE", "output_dir": "RUN"})
    assert parser.get_parsed_content("ckpt_dir") == "RUN/models"
    overlays = [other for other in path.parent.glob("*.json") if other.stem not in ("train", "evaluate")]
    assert [other.name for other in overlays if "ckpt_dir" in json.loads(other.read_text())] == []
    written = [value["path"] for value in values(json.loads(path.read_text())) if "Weights" in _target(value)]
    assert all(value.startswith("$@ckpt_dir") or value == "@start_weights" for value in written)


def _component(value: Any) -> str:
    return value.get("_target_", "") if isinstance(value, dict) else ""


def _target(value: Any) -> str:
    return value.get("_target_", "") if isinstance(value, dict) and "path" in value else ""


@pytest.mark.parametrize("path", CONFIGS, **BY_NAME)
def test_no_old_name_is_left(path: Path) -> None:
    content = json.loads(path.read_text())
    assert [key for key in content if key in RENAMED] == []


@pytest.mark.parametrize(("key", "said"), [("spacing_mm", "working_spacing_mm"), ("siamese::bfloat16", "wrapped")])
def test_an_old_name_is_refused_with_the_new_one(key: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=rf"^the setting {key} has another name now: give {said}"):
        read_bundle(PRETRAINING, "train", {key: 1})
    (tmp_path / "mine.json").write_text(json.dumps({key: 1}))
    with pytest.raises(BundleError, match=said):
        read_bundle(PRETRAINING, "train", {}, extra_configs=[tmp_path / "mine.json"])


def test_the_example_of_a_second_phase_sets_what_there_is() -> None:
    example = json.loads((ROOT / "examples" / "ceph_refine.json").read_text(encoding="utf-8"))
    assert set(example) <= set(read(MATCHING, "train"))
    parser = read_bundle(MATCHING, "train", {}, extra_configs=[ROOT / "examples" / "ceph_refine.json"])
    assert Path(parser.get_parsed_content("start_weights")).samefile(PRETRAINING / "models" / "model.pt")


@EMBEDDING
def test_inference_sees_what_was_trained(bundle: Path) -> None:
    """The same network, at the same spacing unless that follows the template, on images prepared in the same way."""
    train, inference = read(bundle, "train"), read(bundle, "inference")
    assert {key: inference[key] for key in NETWORK} == {key: train[key] for key in NETWORK}
    prepared = train["deterministic"]["transforms"][:3]
    if bundle == VOLUME_MATCHING:
        assert inference["working_spacing_mm"] is None
        prepared[1]["longest_side"] = "$@longest_side and @detail * @longest_side"
    else:
        assert inference["working_spacing_mm"] == train["working_spacing_mm"]
    assert inference["preprocessing"]["transforms"] == prepared
    definition = {key: value for key, value in train["network_def"].items() if key != "pretrained"}
    assert inference["network_def"] == definition


@EMBEDDING
def test_metadata_tells_the_shape_of_the_embedding(bundle: Path) -> None:
    inference, metadata = read(bundle, "inference"), read(bundle, "metadata")
    network = PixelEmbeddingNet(**{key: inference[key] for key in NETWORK})
    output = metadata["network_data_format"]["outputs"]["pred"]
    assert output["num_channels"] == inference["embedding_size"] * len(network.strides)
    size = metadata["network_data_format"]["inputs"]["image"]["spatial_shape"]
    assert size == [f"{max(network.strides)}*n"] * inference["spatial_dims"]
    cells = f"{max(network.strides) // min(network.strides)}*n"
    assert output["spatial_shape"] == [cells] * inference["spatial_dims"]


@pytest.mark.parametrize(
    ("flat", "volume"),
    [(PRETRAINING, VOLUME_PRETRAINING), (MATCHING, VOLUME_MATCHING), (SELFTRAINING, VOLUME_SELFTRAINING)],
    ids=["pretraining", "matching", "selftraining"],
)
@pytest.mark.parametrize("name", ["train", "inference", "evaluate", "multi_gpu_train"])
def test_twins_differ_in_values_alone(flat: Path, volume: Path, name: str) -> None:
    """A bundle for volumes has the components of its twin for pictures; what it adds is named here."""
    own, other = read(volume, name), read(flat, name)
    added = {"longest_side", "detail", "upright"} if "upright" in own else {"longest_side"} & own.keys()
    assert own.keys() - other.keys() == added
    assert other.keys() - own.keys() == set()
    components = [target for target in map(_component, values(own)) if target]
    if isinstance(own.get("working_spacing_mm"), dict):  # it follows the template
        components.remove(own["working_spacing_mm"]["_target_"])
    assert components == [target for target in map(_component, values(other)) if target]
