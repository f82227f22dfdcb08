"""Self-training with the bundle that fits the images."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from medpixcl import Detector, adapt, scan
from medpixcl.apps.detect import detection_bundle
from medpixcl.apps.selftrain import selftrain
from medpixcl.data.phantoms import write_landmark_phantoms
from tests.tiny import SELFTRAINING, VOLUME_SELFTRAINING, medpixcl

QUICK: dict[str, Any] = {
    "longest_side": 24,
    "view_shape": [24, 24, 24],
    "template_repeats": 1,
    "learn_appearance": False,
    "relabel_views": [[0.0, 1.0]],
}
SHAPE = (40, 38, 36)
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five volumes of one anatomy, and their landmarks."""
    folder = tmp_path_factory.mktemp("volumes")
    write_landmark_phantoms(folder, 5, SHAPE)
    return folder


@pytest.fixture(scope="module")
def adapted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an adaptation to volumes, with the bundles that are taken for them."""
    output = tmp_path_factory.mktemp("adapted")
    template = folder / "phantom_000.nii.gz"
    adapt([template], folder / "landmarks.csv", folder, output, epochs=1, device="cpu", settings=QUICK)
    return output


def test_spacing_follows_the_template(adapted: Path) -> None:
    """The longest side has 24 voxels, unless the volume would then have fewer than a cube of half that side."""
    settings = json.loads((adapted / "models" / "inference.json").read_text())
    assert settings["spatial_dims"] == 3
    assert settings["working_spacing_mm"] == pytest.approx([SHAPE[0] / 24] * 3)


def test_detector_of_volumes_finds_its_bundle(adapted: Path, folder: Path, tmp_path: Path) -> None:
    weights = adapted / "models" / "model.pt"
    detector = Detector.from_bundle(weights=weights, device="cpu")
    assert detector.facts["bundle"] == VOLUME_SELFTRAINING.name
    assert detector.names == ("1", "2", "3", "4")
    medpixcl("detect", "--weights", weights, "--images", folder, "-o", tmp_path / "found", "--set", "overlays=false")
    with (tmp_path / "found" / "landmarks.csv").open(newline="", encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == 5 * 4


def test_bundle_by_weights_or_images(adapted: Path, folder: Path, tmp_path: Path) -> None:
    write_landmark_phantoms(tmp_path / "pictures", 1, (24, 24))
    assert detection_bundle(folder) == VOLUME_SELFTRAINING.name
    assert detection_bundle(tmp_path / "pictures") == SELFTRAINING.name
    assert detection_bundle(tmp_path / "pictures", adapted / "models" / "model.pt") == VOLUME_SELFTRAINING.name


@pytest.mark.parametrize(("shape", "bundle"), [(SHAPE, SELFTRAINING), ((24, 24), VOLUME_SELFTRAINING)])
def test_bundle_for_other_images_is_refused(shape: tuple[int, ...], bundle: Path, tmp_path: Path) -> None:
    images = write_landmark_phantoms(tmp_path, 2, shape)
    scan(tmp_path, spacing_mm=1.0).write(tmp_path / "manifest.json")
    wanted = VOLUME_SELFTRAINING if len(shape) == 3 else SELFTRAINING
    with pytest.raises(ValueError, match=f"{len(shape)} axes, and {bundle.name} trains .* take {wanted.name}"):
        selftrain(
            images[0]["image"],
            tmp_path / "landmarks.csv",
            tmp_path / "manifest.json",
            tmp_path / "run",
            bundle=bundle,
            spacing_mm=None if len(shape) == 3 else 1.0,
        )
    assert not (tmp_path / "run").exists()
