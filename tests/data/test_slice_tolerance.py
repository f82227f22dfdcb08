"""How far slices may lie from their places is for the user to say, but no missing slice is hidden by it."""

from pathlib import Path
from typing import Any

import jaxtyping
import numpy as np
import pytest
import SimpleITK
from typer.testing import CliRunner

from medpixcl.cli.program import app
from medpixcl.data.annotated import split_annotated
from medpixcl.data.datalist import items_of
from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan
from medpixcl.transforms import LoadImageMMd
from tests.data.dicom_files import write_dicom
from tests.data.test_dicom_geometry import NOISE, along, enhanced, positions

SHAKY = np.array([0.0, 0.21, -0.24, 0.1, -0.19, 0.22, 0.0, -0.2, 0.23, -0.1, 0.18, -0.15])
"""Distances in mm of slices from their places, as of a scanner that moves the table by hand."""


def test_a_tolerance_accepts_slices_that_lie_off_their_places(tmp_path: Path) -> None:
    folder = positions(tmp_path, along(1.5 * np.arange(12) + SHAKY))
    with pytest.raises(ImageFileError, match=r"within 0\.15 mm of its place"):
        read_image(folder)
    with pytest.raises(ImageFileError, match=r"within 0\.2 mm|within 0\.20 mm"):
        read_image(folder, tolerance_mm=0.2)
    image = read_image(folder, tolerance_mm=0.3)
    slope = np.polyfit(np.arange(12), 1.5 * np.arange(12) + SHAKY, 1)[0]  # the line of least squares
    assert image.pixdim[2] == pytest.approx(slope, abs=1e-6)
    np.testing.assert_array_equal(image[0].numpy(), NOISE.transpose(2, 1, 0).astype(np.float32))


def test_a_tolerance_may_be_stricter_than_the_default(tmp_path: Path) -> None:
    folder = positions(tmp_path, along(np.round(1.25 * np.arange(12), 1)))
    assert read_image(folder).shape == (1, 5, 4, 12)
    with pytest.raises(ImageFileError, match=r"within 0\.02 mm of its place"):
        read_image(folder, tolerance_mm=0.02)


@pytest.mark.parametrize("number", [4, 8, 12])
@pytest.mark.parametrize("missing", [[1], [2], [1, 2]])
@pytest.mark.parametrize("share", [0.2, 0.3, 0.49])
def test_no_tolerance_hides_a_missing_slice(tmp_path: Path, number: int, missing: list[int], share: float) -> None:
    """Of few slices the line through them leaves all within half a distance, so that the tolerance alone would not."""
    places = 2.0 * np.delete(np.arange(number), missing)
    if len(places) < 3:
        return
    with pytest.raises(ImageFileError, match=r"is one missing|a missing slice explains better"):
        read_image(positions(tmp_path, along(places)), tolerance_mm=2 * share)


@pytest.mark.parametrize("tolerance", [1.0, 1.5, 1000])
def test_a_tolerance_of_half_the_distance_is_refused(tmp_path: Path, tolerance: float) -> None:
    folder = positions(tmp_path, along(2.0 * np.arange(12)))
    with pytest.raises(ImageFileError, match=r"half of the slice distance \(2\.00 mm\) or more.*below 1\.00"):
        read_image(folder, tolerance_mm=tolerance)


@pytest.mark.parametrize("tolerance", [0, -1, float("nan"), float("inf"), True, "0.3", [0.3]])
def test_a_tolerance_that_is_no_size_is_refused(tmp_path: Path, tolerance: Any) -> None:
    folder = positions(tmp_path, along(2.0 * np.arange(12)))
    jaxtyping.config.update("jaxtyping_disable", True)  # the type checks of the tests would come first
    try:
        for call in (read_image, scan):
            with pytest.raises(ValueError, match=r"tolerance_mm is .*expected a positive number in mm"):
                call(folder, tolerance_mm=tolerance)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


def test_the_manifest_keeps_the_tolerance_of_its_dicom_volumes(tmp_path: Path) -> None:
    """So that training and matching read the series as the scan did; other images have none."""
    positions(tmp_path / "shaky", along(1.5 * np.arange(12) + SHAKY))
    enhanced(tmp_path / "frames.dcm", NOISE, along(1.5 * np.arange(12) + SHAKY))
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(NOISE.astype(np.int16)), str(tmp_path / "v.nii.gz"))
    write_dicom(tmp_path / "cr.dcm", NOISE[0], Modality="CR", PixelSpacing=[0.2, 0.2])
    assert {one["path"] for one in scan(tmp_path).rejected} == {"shaky", "frames.dcm"}
    manifest = scan(tmp_path, tolerance_mm=0.3)
    kept = {one["image"]: one.get("tolerance_mm") for one in manifest.training}
    assert kept == {"shaky": 0.3, "frames.dcm": 0.3, "v.nii.gz": None, "cr.dcm": None}
    manifest.write(tmp_path / "m.json")
    items = [one for one in items_of(Manifest.read(tmp_path / "m.json").datalist("training")) if "tolerance_mm" in one]
    loaded = [LoadImageMMd("image")(item) for item in items]
    assert [tuple(one["image"].shape) for one in loaded] == [(1, 5, 4, 12)] * 2
    assert all("tolerance_mm" not in one for one in loaded)  # items of one batch have the same keys


def test_an_annotated_series_is_trained_on_with_its_tolerance(tmp_path: Path) -> None:
    positions(tmp_path / "shaky", along(1.5 * np.arange(12) + SHAKY))
    (tmp_path / "points.csv").write_text("image,landmark,x_px,y_px,z_px\nshaky,apex,2,1,5\n")
    scan(tmp_path, tolerance_mm=0.3, landmarks=tmp_path / "points.csv").write(tmp_path / "m.json")
    (item,) = split_annotated(tmp_path / "m.json", fraction=0)["training"]
    assert LoadImageMMd("image")(item)["image"].shape == (1, 5, 4, 12)


def test_the_command_passes_the_tolerance_on(tmp_path: Path) -> None:
    folder = positions(tmp_path / "shaky", along(1.5 * np.arange(12) + SHAKY))
    result = CliRunner().invoke(app, ["scan", str(folder), "-o", str(tmp_path / "m.json"), "--tolerance-mm", "0.3"])
    assert result.exit_code == 0, result.output
    (entry,) = Manifest.read(tmp_path / "m.json").training
    assert entry["tolerance_mm"] == 0.3
