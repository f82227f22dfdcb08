"""Slices of a tilted gantry come to lie on a regular grid; expected values are those of a function of space."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm
from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_series
from tests.tiny import medpixcl

SPACING = (0.5, 0.75)
ORIGIN = np.array([-10.0, -20.0, 30.0])


def field(points: np.ndarray) -> np.ndarray:
    """Grey value at places in mm, LPS: linear, so that linear interpolation gives it exactly, but for the rounding."""
    return 4000 + points @ np.array([30.0, 50.0, 40.0])


def tilted_series(
    folder: Path, step: tuple[float, float, float], orientation: tuple = (1, 0, 0, 0, 1, 0)
) -> np.ndarray:
    """Slices that sample the field at their own places."""
    k, r, c = np.meshgrid(np.arange(9), np.arange(20), np.arange(16), indexing="ij")
    across, down = np.array(orientation[:3]), np.array(orientation[3:])
    points = (
        ORIGIN + k[..., None] * np.array(step) + r[..., None] * down * SPACING[0] + c[..., None] * across * SPACING[1]
    )
    volume = np.rint(field(points))
    write_series(folder, volume, step=step, origin=ORIGIN, spacing=SPACING, orientation=orientation,
                 RescaleSlope=1, RescaleIntercept=0)  # fmt: skip
    return volume


@pytest.mark.parametrize(
    ("step", "orientation", "degrees"),
    [
        ((0, 0.6, 2.5), (1, 0, 0, 0, 1, 0), "13.5"),
        ((0, -0.9, 2.5), (1, 0, 0, 0, 1, 0), "19.8"),
        ((0.7, 0.6, 2.5), (1, 0, 0, 0, 1, 0), "20.2"),
        ((0, 0, 3.0), (1, 0, 0, 0, 0.96, -0.28), "16.3"),  # the table moves along the body, the planes are tilted
    ],
)
def test_the_grid_has_the_values_of_space(tmp_path: Path, step: tuple, orientation: tuple, degrees: str) -> None:
    volume = tilted_series(tmp_path / "p1" / "ct", step, orientation)
    with pytest.raises(ImageFileError, match=f"gantry tilt of {degrees} degrees"):
        read_image(tmp_path / "p1" / "ct")
    (entry,) = scan(tmp_path, resample_tilt=tmp_path / "new").training
    assert entry["image"] == "new/p1/ct.nii.gz"
    image = read_image(tmp_path / entry["image"])
    normal = np.cross(orientation[:3], orientation[3:])
    assert image.pixdim.tolist() == pytest.approx([0.75, 0.5, float(np.dot(step, normal))], abs=1e-4)
    axes = (image.affine[:3, :3] / image.pixdim).double()
    torch.testing.assert_close(axes.T @ axes, torch.eye(3, dtype=torch.float64), atol=1e-5, rtol=0)

    voxels = torch.stack(torch.meshgrid(*[torch.arange(n).double() for n in image.shape[1:]], indexing="ij"), dim=-1)
    points = flip_ras_lps(voxel_to_mm(voxels.view(-1, 3), image.affine)).view(voxels.shape).numpy()
    inside = _inside(points, step, orientation)
    assert inside.sum() > 0.9 * (volume.size - 2 * 9 * (20 + 16))
    np.testing.assert_allclose(image[0].numpy()[inside], field(points)[inside], atol=0.6)
    assert image.min() == volume.min()


def _inside(points: np.ndarray, step: tuple, orientation: tuple) -> np.ndarray:
    """True for places between the pixel centres of a slice, in its plane."""
    axes = np.array([orientation[:3], orientation[3:], step], dtype=np.float64)
    c, r, k = np.moveaxis((points - ORIGIN) @ np.linalg.inv(axes), -1, 0)
    c, r = c / SPACING[1], r / SPACING[0]
    eps = 1e-3
    return (c > -eps) & (c < 15 + eps) & (r > -eps) & (r < 19 + eps) & (np.abs(k - np.rint(k)) < eps)


def test_the_command_line_writes_beside_the_manifest_again_and_again(tmp_path: Path) -> None:
    tilted_series(tmp_path / "in" / "a", (0, 0.6, 2.5))
    tilted_series(tmp_path / "in" / "b", (0, 0, 2.5))
    output = tmp_path / "in" / "m.json"
    for _ in range(2):
        assert medpixcl("scan", tmp_path / "in", "-o", output, "--resample-tilt") == 0
        images = [one["image"] for one in Manifest.read(output).training]
        assert images == ["m_resampled/a.nii.gz", "b"]


def test_a_gap_is_no_tilt(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", np.ones((5, 4, 5)), step=(0, 0.6, 2.5), positions=[0, 1, 2, 4, 5])
    manifest = scan(tmp_path, resample_tilt=tmp_path / "new")
    assert not manifest.training
    assert "is one missing?" in manifest.rejected[0]["reason"]
