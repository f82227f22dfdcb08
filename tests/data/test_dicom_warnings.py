"""pydicom's warnings quote header values, such as a patient's name: nobody is shown them, and no log has a value."""

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.sr import write_sr
from medpixcl.data.landmarks.sr_reading import read_sr_rows
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.scan import scan, scan_to_file
from medpixcl.landmarks.points import LandmarkSet
from tests.data.dicom_files import NOBODY, write_dicom, write_series
from tests.data.landmarks.test_formats import radiograph
from tests.data.test_dicom_geometry import NOISE, along, enhanced

_HARMFUL = {"StudyDate": "DA", "StudyTime": "TM", "FrameOfReferenceUID": "UI", "PatientAge": "AS", "ImageType": "CS",
            "StudyInstanceUID": "UI", "StudyID": "SH", "AcquisitionNumber": "IS", "BodyPartExamined": "CS"}  # fmt: skip
"""Elements whose value pydicom checks when it is converted."""


def spoilt(path: Path, **also: str) -> Path:
    """Put the name where pydicom expects a date, an identifier or a code, past its checks of what is written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        for keyword, vr in (_HARMFUL | also).items():
            element = pydicom.DataElement(keyword, "LO", NOBODY)
            element.VR = vr
            element._value = NOBODY
            dataset[keyword] = element
        pydicom.dcmwrite(path, dataset)
    return path


@pytest.fixture
def told(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that holds the name is warned, printed or logged at any level, here or by a library."""
    caplog.set_level(logging.DEBUG)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    streams = capfd.readouterr()
    texts = [*(str(one.message) for one in caught), streams.out, streams.err, caplog.text]
    assert not [text for text in texts if "Secret" in text]


def test_pydicom_does_warn(tmp_path: Path) -> None:
    """So that the tests below can fail."""
    path = spoilt(write_dicom(tmp_path / "a.dcm", NOISE[0], Modality="CR"))
    with pytest.warns(UserWarning, match="Secret"):
        str(pydicom.dcmread(path))


def test_radiographs(tmp_path: Path, told: None) -> None:
    path = spoilt(write_dicom(tmp_path / "a.dcm", NOISE[0], Modality="CR", PixelSpacing=[0.2, 0.2]))
    assert read_image(path).shape == (1, 4, 5)
    scan_to_file(tmp_path, tmp_path / "m.json")
    assert "Secret" not in (tmp_path / "m.json").read_text()


@pytest.mark.parametrize("workers", [None, pytest.param(1, marks=pytest.mark.slow)])
def test_series(tmp_path: Path, told: None, workers: int | None) -> None:
    for file in write_series(tmp_path / "ct", NOISE):
        spoilt(file)
    assert read_image(tmp_path / "ct").shape == (1, 5, 4, 12)
    assert len(scan(tmp_path, workers=workers).training) == 1


def test_tilted_series(tmp_path: Path, told: None) -> None:
    for file in write_series(tmp_path / "ct", NOISE, step=(0, 0.5, 2.5)):
        spoilt(file)
    assert len(scan(tmp_path, resample_tilt=tmp_path / "new").training) == 1


def test_frames_of_one_file(tmp_path: Path, told: None) -> None:
    """Elements of the file that nobody asks for are not even converted."""
    path = spoilt(enhanced(tmp_path / "a.dcm", NOISE, along(2.5 * np.arange(12))), InstanceNumber="IS")
    assert read_image(path).shape == (1, 5, 4, 12)
    assert len(scan(path).training) == 1


def test_files_that_are_refused(tmp_path: Path, told: None) -> None:
    for keyword, vr in (("PixelSpacing", "DS"), ("Rows", "US"), ("NumberOfFrames", "IS"), ("RescaleSlope", "DS")):
        path = spoilt(write_dicom(tmp_path / f"{keyword}.dcm", NOISE[0], Modality="CR", PixelSpacing=[0.2, 0.2]))
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 11] if keyword == "Rows" else content)
        if keyword != "Rows":
            spoilt(path, **{keyword: vr})
        with pytest.raises(ImageFileError) as caught:
            read_image(path)
        assert "Secret" not in str(caught.value)
    assert "Secret" not in json.dumps(scan(tmp_path).rejected)


def test_reports(tmp_path: Path, told: None) -> None:
    """Read, compared with the image that they refer to, and written from its header."""
    source = radiograph(tmp_path, "a.dcm")
    affine = torch.as_tensor(read_image(source).meta["original_affine"])
    points = LandmarkSet(("a",), torch.tensor([[3.0, 4.0]]))
    for keep_patient in (False, True):
        write_sr(
            tmp_path / "sr" / "a.dcm", ImageLandmarks("a", points, affine, (20, 30), (source,)),
            keep_patient=keep_patient,
        )  # fmt: skip
    report = spoilt(tmp_path / "sr" / "a.dcm")
    assert len(read_sr_rows(report)) == 1
    kept = pydicom.dcmread(source)
    uids = {name: str(kept[name].value) for name in ("StudyInstanceUID",)}
    spoilt(source)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(source)
        dataset.StudyInstanceUID = uids["StudyInstanceUID"]
        dataset.save_as(source)
    found = read_landmarks(report).for_image(source, affine, (20, 30))
    assert found.voxels.tolist() == [[3.0, 4.0]]
    write_sr(tmp_path / "again.dcm", ImageLandmarks("a", points, affine, (20, 30), (source,)))
