"""The settings beside a detector's weights: data of known names and types, or one sentence that names the file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from medpixcl.landmarks import PseudoLandmarks
from medpixcl.matching import ShapeStatistics
from medpixcl.training import SettingsFile
from medpixcl.training.settings_file import read_settings

SETTINGS: dict[str, Any] = {
    "landmark_names": ["sella", "5 % point", "a@b", "naïve 名", 'it\'s "quoted"', "two\nlines"],
    "working_spacing_mm": [2.0, 2.0],
    "spatial_dims": 2,
    "backbone": "dynunet",
    "channels": [4, 8],
    "norm": "instance",
    "fine_norm": ["group", {"num_groups": 8}],
    "configuration_stride": None,
    "use_offsets": True,
    "trained_on": {"images": 3, "start": "infoaug"},
}


def test_written_settings_are_read_again_by_both(tmp_path: Path) -> None:
    """By this package as data, and by MONAI as a configuration: to the same values."""
    engine = Engine(lambda engine, batch: None)
    SettingsFile(str(tmp_path / "inference.json"), SETTINGS).attach(engine)
    engine.run([0])
    assert read_settings(tmp_path / "inference.json") == SETTINGS
    parser = ConfigParser(ConfigParser.load_config_file(tmp_path / "inference.json"))
    assert {key: parser.get_parsed_content(key) for key in SETTINGS} == SETTINGS


FAULTS = [
    ({"landmark_names": ["$__import__('os').system('true')"]}, r"landmark_names\[0\] is .*begins with \$, @ or %"),
    ({"landmark_names": ["1", "@device"]}, r"landmark_names\[1\] is '@device'"),
    ({"backbone": "%spacing_mm"}, r"backbone is '%spacing_mm'"),
    ({"landmark_names": ["tooth #12"]}, r".*or holds #; give it another name"),
    ({"trained_on": {"images": 1, "start": "$5"}}, r"trained_on\['start'\] is '\$5'"),
    ({"overlays": False}, r"Additional properties are not allowed \('overlays' was unexpected\)"),
    ({"channels": "many"}, r"channels: 'many' is not of type"),
    ({"spatial_dims": True}, r"spatial_dims: True is not of type"),
    ({"landmark_names": [1]}, r"landmark_names: 0: 1 is not of type 'string'"),
    ({"backbone": {"_target_": "os.getcwd"}}, r"backbone: .* is not of type 'string'"),
    ({"norm": ["group", {"_target_": "os.getcwd"}]}, r"norm: .* is not valid"),
    ({"norm": ["group", {"num_groups": "$5"}]}, r"norm: .* is not valid"),
    ({"norm": ["group"]}, r"norm: .* is not valid"),
]


@pytest.mark.parametrize(("settings", "sentence"), FAULTS)
def test_what_is_refused(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    """When it is read, and before a training that would write it."""
    file = tmp_path / "inference.json"
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=rf"inference\.json: {sentence}"):
        read_settings(file)
    with pytest.raises(ValueError, match=rf"inference\.json: {sentence}"):
        SettingsFile(str(file), settings)


@pytest.mark.parametrize("content", [b"{,}", b"\xff", b"[" * 100_000, b"[]", b""])
def test_other_files(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "inference.json"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=r"inference\.json.*; give the settings file that the training wrote"):
        read_settings(file)


def test_shape_of_pseudo_landmarks_is_added_at_the_end(tmp_path: Path) -> None:
    """Those of weight 0 are left out: the mean shape is that of the triangle, not of the wrong corner."""
    names, triangle = ["a", "b", "c"], torch.tensor([[0.0, 0.0], [30.0, 0.0], [0.0, 40.0]])
    labels = PseudoLandmarks(names)
    engine = Engine(lambda engine, batch: labels.set("image 3", triangle + 500 * torch.eye(3, 2), torch.eye(3)[2]))
    for number in range(3):
        labels.set(f"image {number}", triangle + 7 * number, torch.ones(3))
    SettingsFile(str(tmp_path / "inference.json"), SETTINGS, labels).attach(engine)
    engine.run([0])
    shape = ShapeStatistics.from_data(read_settings(tmp_path / "inference.json")["shape"])
    assert (shape.names, shape.images) == (tuple(names), 4)
    sides = torch.pdist(shape.mean_mm).sort().values
    torch.testing.assert_close(sides, torch.tensor([30.0, 40.0, 50.0], dtype=torch.float64), atol=0.05, rtol=0)


def test_shape_of_restored_pseudo_landmarks(tmp_path: Path) -> None:
    """A training that went on from a state writes the file of an undisturbed one."""
    names, images = ["a", "b", "c"], [f"/data/image_{number}.png" for number in range(20)]
    found = 50 * torch.rand((20, 3, 2), generator=torch.Generator().manual_seed(0))
    labels, restored = PseudoLandmarks(names), PseudoLandmarks(names)
    for image, points in zip(images, found, strict=True):
        labels.set(image, points, torch.ones(3))
    restored.load_state_dict(labels.state_dict())
    restored.place(images)
    files = tmp_path / "undisturbed.json", tmp_path / "restored.json"
    for file, one in zip(files, (labels, restored), strict=True):
        engine = Engine(lambda engine, batch: None)
        SettingsFile(str(file), SETTINGS, one).attach(engine)
        engine.run([0])
    assert files[0].read_bytes() == files[1].read_bytes()
