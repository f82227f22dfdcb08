"""What a detection says of positions that cannot be right: outside the image, or in contradiction to one another."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.inferers import Inferer
from monai.transforms import Compose
from PIL import Image

from medpixcl.apps import Detector, Output
from medpixcl.landmarks.points import outside_image
from medpixcl.matching import ShapeStatistics
from medpixcl.transforms import LoadImageMMd

NAMES = [str(number) for number in range(8)]
SHAPE = torch.tensor([[10, 10], [12, 60], [40, 15], [45, 55], [70, 20], [75, 62], [55, 38], [25, 40]]).double()
"""Rows and columns."""


class Known(Inferer):
    """Finds given points, one image after the other."""

    def __init__(self, points: list[torch.Tensor]) -> None:
        super().__init__()
        self.found = iter(points)

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        points = next(self.found)[None]
        known = torch.ones(1, len(NAMES))
        spread = torch.eye(2).expand(1, len(NAMES), 2, 2)
        return {"points": points, "covariance_mm2": spread, "confidence": known, "spread_mm": 0 * known}


def detector(points: list[torch.Tensor], names: list[str] = NAMES) -> Detector:
    """A detector of these points that knows their shape."""
    generator = torch.Generator().manual_seed(0)
    examples = SHAPE.flip(1) + torch.randn(20, 8, 2, generator=generator)  # x and y in mm
    shape = ShapeStatistics.of(examples, names)
    assert shape is not None
    prepare = Compose([LoadImageMMd(keys="image")])
    network = torch.nn.Linear(1, 1)
    return Detector(network, Known(points), prepare, NAMES, output=Output(formats=["csv"]), shape=shape.to_data())


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{number}.png" for number in range(3)]
    for number, file in enumerate(files):
        picture = Image.new("L", (80, 90), number)
        picture.putpixel((40, 45), 200)  # a picture of one value is refused
        picture.save(file)
    return files


def test_flags_are_the_same_in_table_and_report(images: list[Path], tmp_path: Path) -> None:
    """One landmark 30 mm off, one outside the image, and a mirrored image, in which none is trusted."""
    off, outside = SHAPE.clone(), SHAPE.clone()
    off[2, 1] += 30
    outside[5, 1] = 80.2  # the last pixel ends at 79.5
    mirrored = torch.stack([SHAPE[:, 0], 79 - SHAPE[:, 1]], dim=1)
    results = detector([off, outside, mirrored]).detect(images, spacing_mm=1.0)
    results.write(tmp_path / "out", overlays=False)
    flags = [list(one.flags) for one in results.landmarks]
    assert flags[0] == ["unsure" if name == "2" else "" for name in NAMES]
    assert flags[1] == ["missing" if name == "5" else "" for name in NAMES]
    assert flags[2] == ["unsure"] * len(NAMES)
    with (tmp_path / "out" / "landmarks.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["flag"] for row in rows] == [flag for row in flags for flag in row]
    assert [row["x_px"] for row in rows if row["flag"] == "missing"] == [""]
    (said,) = results.warnings
    assert said.startswith("most landmarks of 1 of 3 images do not fit what the detector learnt")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert said in page
    assert "template" not in page
    assert "matched" not in page


def test_without_a_shape_of_its_own_landmarks(images: list[Path]) -> None:
    """The shape of other landmarks says nothing."""
    off = SHAPE.clone()
    off[2, 1] += 30
    results = detector([off] * 3, [f"other {name}" for name in NAMES]).detect(images, spacing_mm=1.0)
    assert [one.flags for one in results.landmarks] == [("",) * len(NAMES)] * 3
    assert results.warnings == []


@pytest.mark.data
@pytest.mark.parametrize("bundle", ["cephalometric_landmark_detection", "xray_landmark_selftraining"])
def test_shipped_detectors_know_a_wrong_image(bundle: str, data_dir: Path, tmp_path: Path) -> None:
    """A cephalogram as it is; then mirrored, with twice its pixel size, and a chest radiograph."""
    right = data_dir / "ceph_isbi2015" / "images" / "160.png"
    mirrored, chest = tmp_path / "mirrored.png", next((data_dir / "cxr_nih" / "images").glob("*.png"))
    Image.open(right).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    shipped = Detector.from_bundle(bundle)
    assert shipped.detect(right, spacing_mm=0.5).landmarks[0].flags.count("") >= 17
    for file, spacing_mm in ((mirrored, 0.5), (right, 1.0), (chest, 1.0)):
        results = shipped.detect(file, spacing_mm=spacing_mm)
        (one,) = results.landmarks
        assert set(one.flags) <= {"unsure", "missing"}
        assert not outside_image(one.voxels, one.shape).any()
        assert len(results.warnings) == 1


@pytest.mark.parametrize("bundle", ["cephalometric_landmark_detection", "xray_landmark_selftraining"])
def test_black_bars_change_nothing(bundle: str, tmp_path: Path) -> None:
    """A picture with bars of 20 mm and with bars of 60 mm, on a white page: the same places, scores and regions."""
    content = np.random.default_rng(0).integers(30, 255, (120, 100), dtype=np.uint8)
    for bars in (40, 120):  # of 0.5 mm
        page = np.pad(np.pad(content, bars), 0 if bars == 40 else 7, constant_values=255)
        Image.fromarray(page).save(tmp_path / f"{bars}.png")
    found = Detector.from_bundle(bundle, device="cpu").detect(tmp_path, spacing_mm=0.5)
    wide, narrow = found.landmarks  # by name: 120, 40
    torch.testing.assert_close(wide.voxels - narrow.voxels, torch.full_like(wide.voxels, 87), equal_nan=True)
    torch.testing.assert_close(wide.scores, narrow.scores)
    torch.testing.assert_close(wide.covariance_mm2, narrow.covariance_mm2, equal_nan=True)
    assert not wide.voxels.isnan().all()
