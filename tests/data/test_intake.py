"""What hospital folders hold: grey values, voxel sizes and reasons of every kind that was once read wrong.

Each case runs on files built here and, where the data set ``intake_cases`` is there, on its own folder.
"""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch

from medpixcl.apps.evaluate import evaluate
from medpixcl.coordinates import flip_ras_lps, voxel_to_mm
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Entry, Manifest
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_series
from tests.data.intake import pictures, radiographs, series, tables, volumes
from tests.data.intake.cases import write_film
from tests.data.intake.series import SLICES
from tests.data.scanned import reasons

CASES = pictures.CASES | radiographs.CASES | series.CASES | tables.CASES | volumes.CASES
_NO_IMAGES = (".csv", ".json", ".fcsv", ".raw")


@pytest.fixture(params=["built", pytest.param("folder", marks=pytest.mark.data)])
def case(request: pytest.FixtureRequest, tmp_path: Path, data_dir: Path) -> "Folder":
    """Folders of the cases, from their names."""
    if request.param == "built":
        return Folder(tmp_path)
    return Folder(data_dir / "intake_cases", there=True)


class Folder:
    """Folders of cases, built or as they are."""

    def __init__(self, root: Path, *, there: bool = False) -> None:
        self.root, self.there = root, there

    def __call__(self, name: str) -> Path:
        folder = self.root / name / "input"
        if not self.there:
            folder.mkdir(parents=True)
            CASES[name][0](folder)
        return folder


def files_of(entry: Entry) -> str:
    """Name of an image: its path, or that of its first file."""
    return entry["image"] if isinstance(entry["image"], str) else entry["image"][0]


def read(manifest: Manifest, entry: Entry) -> np.ndarray:
    paths = entry["image"]
    full = manifest.base_dir / paths if isinstance(paths, str) else [manifest.base_dir / one for one in paths]
    return read_image(full, spacing_mm=entry["spacing_mm"])[0].numpy()


@pytest.mark.parametrize("name", CASES)
def test_grey_values_and_reasons(case: Folder, name: str) -> None:
    expected = CASES[name][1]
    manifest = scan(case(name), spacing_mm=expected.spacing_mm)
    assert {files_of(entry) for entry in manifest.training} == expected.images.keys()
    for entry in manifest.training:
        values, spacing = expected.images[files_of(entry)]
        assert entry["spacing_mm"] == pytest.approx(spacing, abs=1e-6)
        found = read(manifest, entry)
        assert found.shape == values.shape
        np.testing.assert_allclose(found, values, atol=expected.atol, rtol=1e-6)
    rejected = reasons(manifest)
    assert {path for path in rejected if not path.endswith(_NO_IMAGES)} == expected.reasons.keys()
    for path, sentence in expected.reasons.items():
        assert re.search(sentence, rejected[path]), rejected[path]


@pytest.mark.data
def test_every_folder_of_the_data_set_is_a_case(data_dir: Path) -> None:
    assert {path.name for path in (data_dir / "intake_cases").iterdir() if path.is_dir()} == CASES.keys()


@pytest.mark.parametrize("name", [name for name, (_, one) in CASES.items() if one.spacing_mm is not None])
def test_a_pixel_size_is_never_guessed(case: Folder, name: str) -> None:
    manifest = scan(case(name))
    assert not manifest.training
    images = CASES[name][1].images
    assert {path for path, reason in reasons(manifest).items() if "no pixel spacing" in reason} == images.keys()


@pytest.mark.parametrize("name", ["nifti_acdc_sform_unit_scale", "nifti_both_codes_zero", "nifti_sform_qform_disagree"])
def test_contradicting_volumes_lie_where_itk_puts_them(case: Folder, name: str) -> None:
    """With a notice, since others may put them elsewhere."""
    folder = case(name)
    path = next(folder.glob("a.nii*"))
    image, reference = read_image(path), SimpleITK.ReadImage(str(path))
    corners = torch.tensor([[0.0, 0, 0], [5, 3, 2], [11, 9, 7]], dtype=torch.float64)
    theirs = [reference.TransformContinuousIndexToPhysicalPoint(one) for one in corners.tolist()]
    np.testing.assert_allclose(flip_ras_lps(voxel_to_mm(corners, image.affine)), theirs, atol=1e-4)
    (entry,) = scan(folder).training
    assert re.search("ITK and 3D Slicer", entry["notice"])


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("imager_factor", (37.5, 25.0)), ("pixel_and_imager", (37.5, 25.0)), ("imager_only", (30.0, 20.0)),
     ("pixel_only", "outside the image .* programs on ITK"), ("nominal", "outside the image .* programs on ITK")],
)  # fmt: skip
def test_points_in_the_mm_of_itk(case: Folder, name: str, outcome: tuple[float, float] | str) -> None:
    """Marked at column 20, row 30 in a viewer on ITK: a notice, or refused, unless the mm agree."""
    folder = case("slicer_points_on_cr_dx")
    image, points = read_image(folder / f"{name}.dcm"), read_landmarks(folder / f"{name}.mrk.json")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if isinstance(outcome, str):
            with pytest.raises(ValueError, match=outcome):
                points.for_image(folder / f"{name}.dcm", image.affine, image.shape[1:])
            return
        found = points.for_image(folder / f"{name}.dcm", image.affine, image.shape[1:])
    np.testing.assert_allclose(found.voxels.numpy(), [outcome], atol=1e-4)
    assert any("programs on ITK" in str(one.message) for one in caught) == (name != "imager_only")


def test_landmarks_of_one_patient_stay_with_that_patient(case: Folder, tmp_path: Path) -> None:
    folder = case("same_name_other_patient")
    manifest = scan(folder, spacing_mm=0.5, landmarks=folder / "landmarks.csv")
    assert [bool(entry["landmarks"]) for entry in manifest.training] == [True, False, False, False]
    header = "image,landmark,x_mm,y_mm\n"
    (tmp_path / "pred.csv").write_text(f"{header}p002/ceph.png,a,11,10\np002/ceph.png,b,20,21\n")
    (tmp_path / "ref.csv").write_text(f"{header}p001/ceph.png,a,10,10\np001/ceph.png,b,20,20\n")
    with pytest.raises(ValueError, match="none of the 1 predicted images is among the 1 reference images"):
        evaluate(tmp_path / "pred.csv", tmp_path / "ref.csv")


@pytest.mark.parametrize(
    ("name", "image", "table", "sentence"),
    [
        ("coco_size_differs", "a.png", "coco.json", r"marked on an image of 128 x 96 pixels, and a\.png has 64 x 48"),
        ("csv_decimal_comma_optional_columns", "a.png", "lm.csv", r"lm\.csv: line 2.*decimal"),
        ("fcsv_cp1252", "", "a.fcsv", r"a\.fcsv.*UTF-8"),
        ("sr_of_another_image", "images", "sr/a.dcm", r"landmark 's' was marked on another DICOM image than a\.dcm"),
    ],
)
def test_landmarks_that_cannot_be_right_are_refused(
    case: Folder, name: str, image: str, table: str, sentence: str
) -> None:
    folder = case(name)
    with pytest.raises(ValueError, match=sentence):
        scan(folder / image, spacing_mm=0.5, landmarks=folder / table)


def test_names_that_are_not_utf8_anywhere_in_a_path(tmp_path: Path) -> None:
    """Of a folder, of one slice, of a radiograph: what has such a name is named, the rest is used."""
    strange = os.fsdecode(b"M\xfcller")
    write_series(tmp_path / strange, SLICES[:4].view("u2"), SeriesInstanceUID="1.1")
    files = write_series(tmp_path / "ct", SLICES[:4].view("u2") + 7, SeriesInstanceUID="1.2")
    files[2].rename(files[2].with_name(strange))
    write_film(tmp_path / f"{strange}.dcm", PixelSpacing=[0.2, 0.2])
    write_film(tmp_path / "good.dcm", PixelSpacing=[0.3, 0.3])
    manifest = scan(tmp_path)
    manifest.write(tmp_path / "m.json")
    assert [entry["image"] for entry in Manifest.read(tmp_path / "m.json").training] == ["good.dcm"]
    found = reasons(manifest)
    assert set(found) == {r"M\xfcller", "ct", r"M\xfcller.dcm"}
    assert all("is not UTF-8; rename it" in reason for reason in found.values())
