"""Slices of a run on volumes: positions of files in the pictures, and the pictures that are written."""

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.inferers import Inferer
from monai.transforms import Compose

from medpixcl.apps import Detector, Output
from medpixcl.apps.results import Results
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.reports.planes import FOUND, MARKED, TILE
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd
from tests.reports.test_planes import marks, tile_at

AFFINE = np.array([[0.0, -0.5, 0.0, 9.0], [-0.5, 0.0, 0.0, 4.0], [0.0, 0.0, 0.5, -7.0], [0.0, 0.0, 0.0, 1.0]])
SPOT = np.array([21, 18, 25])
PREPARE = Compose([LoadImageMMd(keys="image"), WorkingSpacingd(keys="image", spacing_mm=[1.0, 1.0, 1.0])])


class Known(Inferer):
    """Finds one landmark at a given working voxel, and misses a second."""

    def __init__(self, voxel: torch.Tensor) -> None:
        self.points = torch.stack([voxel, torch.full((3,), torch.nan)])[None].float()

    def __call__(self, inputs: torch.Tensor, network: torch.nn.Module, *args: Any, **kwargs: Any) -> dict[str, Any]:
        known = torch.tensor([[1.0, torch.nan]])
        covariance = torch.eye(3).expand(1, 2, 3, 3)
        return {"points": self.points, "covariance_mm2": covariance, "confidence": known, "spread_mm": 0 * known}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A bright spot of 9 voxels of 0.5 mm, in an image whose axes run to the back, the left and the head."""
    values = np.zeros((40, 44, 48), dtype=np.float32)
    values[tuple(slice(place - 4, place + 5) for place in SPOT)] = 100
    path = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, AFFINE), path)
    return path


@pytest.fixture
def results(volume: Path, tmp_path: Path) -> Results:
    """A detection that is 4 mm too far to the patient's right, and knows the true position of both landmarks."""
    x, y, z = (AFFINE @ [*SPOT, 1])[:3]
    reference = tmp_path / "truth.csv"
    rows = [f"head.nii.gz,{name},{-x:.4f},{-y:.4f},{z:.4f}" for name in ("spot", "lost")]
    reference.write_text("\n".join(["image,landmark,x_mm,y_mm,z_mm", *rows]))
    image = PREPARE({"image": str(volume)})["image"]
    voxel = np.linalg.inv(np.asarray(image.affine)) @ [x + 4, y, z, 1]
    network = torch.nn.Linear(1, 1)
    detector = Detector(network, Known(torch.from_numpy(voxel[:3])), PREPARE, ["spot", "lost"], output=Output())
    return detector.detect(volume, reference=reference)


def test_reference_lies_on_the_spot(results: Results) -> None:
    """To the right of what was found by 4 mm, and where the picture is bright; a lost landmark is shown there, too."""
    one = results.landmarks[0]
    figure = results.planes(one, results.read(one))
    found, true = marks(figure, FOUND), marks(figure, MARKED)
    assert (len(found), len(true)) == (3, 2 + 3)
    pixels = 4 * TILE / 16  # 16 voxels of 1 mm are the least size; half of the extent of 20, 22 and 24 mm is less
    np.testing.assert_allclose(true[:2] - found[:2], [[pixels, 0]] * 2, atol=0.01)
    for x, y in np.round(true).astype(int):
        assert np.asarray(figure.axes[0].images[0].get_array())[y, x] > 0.9
    assert tile_at(figure, found[2]).max() == 0, "the sagittal slice lies beside the spot"


def test_template_stands_beside(results: Results, volume: Path) -> None:
    points = LandmarkSet(("lost", "spot"), torch.from_numpy(np.stack([SPOT + np.nan, SPOT])))
    results.templates = [AnnotatedImage({"image": str(volume)}, points, PREPARE)]
    results.reference = None
    one = results.landmarks[0]
    figure = results.planes(one, results.read(one))
    given = marks(figure, MARKED)
    assert len(given) == 3
    for place in given:
        tile = tile_at(figure, place)
        assert tile[TILE // 2, TILE // 2] > 0.9
        assert tile.mean() < 0.2


def test_what_is_written(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "out")
    assert (tmp_path / "out" / "planes" / "head.png").read_bytes().startswith(b"\x89PNG")
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<details") == 1
    assert "Slices through every landmark" in page
    results.write(tmp_path / "none", overlays=False)
    assert not (tmp_path / "none" / "planes").exists()
