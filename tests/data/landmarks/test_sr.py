"""DICOM SR against readers that are not ours: highdicom's own, and pydicom item by item."""

import hashlib
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import torch

from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.sr import NoReportError, write_sr
from medpixcl.data.landmarks.sr_reading import read_sr_rows
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.series import dicom_files
from medpixcl.landmarks.points import LandmarkSet
from tests.data.dicom_files import NOBODY, write_dicom
from tests.data.landmarks.test_formats import NAMES, VOXELS, landmarks_of, radiograph

ENHANCED_MR = "1.2.840.10008.5.1.4.1.1.4.1"
PATIENT = ("PatientName", "PatientID", "AccessionNumber", "StudyDate")


def written(tmp_path: Path, dims: int, **options: object) -> tuple[ImageLandmarks, Path]:
    one = landmarks_of(tmp_path, dims)
    path = tmp_path / "reports" / "case.dcm"
    write_sr(path, one, **options)
    return one, path


@pytest.mark.parametrize("dims", [2, 3])
def test_highdicom_reads_the_same_points(tmp_path: Path, dims: int) -> None:
    one, path = written(tmp_path, dims)
    report = highdicom.sr.srread(path)
    assert isinstance(report, highdicom.sr.ComprehensiveSR if dims == 2 else highdicom.sr.Comprehensive3DSR)
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == ["sella", "Pörion, left"]
    for group, place in zip(groups, (0, 2), strict=True):
        (score,) = group.get_measurements()
        assert score.value == pytest.approx([0.75, 0.0, 0.125][place])
        point = group.roi.value if dims == 2 else group.roi.value[0]
        if dims == 2:  # the centre of the first pixel lies at (0.5, 0.5); column first
            row, column = VOXELS[place, :2].tolist()
            np.testing.assert_allclose(np.ravel(point), [column + 0.5, row + 0.5], atol=1e-5)
        else:
            np.testing.assert_allclose(np.ravel(point), one.lps_mm[place], atol=1e-4)
            assert group.roi.frame_of_reference_uid == "1.2.826.0.3"
    (missing,) = report.content.get_image_measurement_groups()
    assert missing.tracking_identifier == "nasion"
    meanings = [(item.name.meaning, item.value.meaning) for item in missing.get_qualitative_evaluations()]
    assert meanings == [("Landmark state", "Missing"), ("Landmark remark", "no match")]
    evidence = {instance for _, _, instance, _ in report.get_evidence()}
    assert evidence == {str(pydicom.dcmread(file).SOPInstanceUID) for file in one.files}


def test_the_centre_of_the_first_pixel(tmp_path: Path) -> None:
    """PS3.3 C.18.6: the top left corner of the image is (0, 0), the centre of its first pixel (0.5, 0.5)."""
    source = radiograph(tmp_path)
    corner = LandmarkSet(("corner", "end"), torch.tensor([[0.0, 0.0], [19.0, 29.0]]))
    affine = torch.as_tensor(read_image(source).meta["original_affine"])
    write_sr(tmp_path / "out.dcm", ImageLandmarks("lateral.dcm", corner, affine, (20, 30), (source,)))
    data = [list(item.GraphicData) for item in drawn(pydicom.dcmread(tmp_path / "out.dcm"))]
    assert data == [[0.5, 0.5], [29.5, 19.5]]


def test_beyond_the_edge_there_are_no_positions(tmp_path: Path) -> None:
    """PS3.3 C.18.6: values lie within 0\\0 and Columns\\Rows, so half a pixel beyond the outer centres."""
    source = radiograph(tmp_path)
    points = LandmarkSet(("edge", "above", "right"), torch.tensor([[19.5, 29.5], [-0.51, 3.0], [3.0, 29.51]]))
    affine = torch.as_tensor(read_image(source).meta["original_affine"])
    write_sr(tmp_path / "out.dcm", ImageLandmarks("lateral.dcm", points, affine, (20, 30), (source,)))
    content = highdicom.sr.srread(tmp_path / "out.dcm").content
    assert [group.tracking_identifier for group in content.get_planar_roi_measurement_groups()] == ["edge"]
    states = [group.get_qualitative_evaluations()[0].value.meaning for group in content.get_image_measurement_groups()]
    assert states == ["Outside the image"] * 2
    assert [row.px for row in read_sr_rows(tmp_path / "out.dcm")] == [(29.5, 19.5), None, None]


def drawn(node: pydicom.Dataset) -> list[pydicom.Dataset]:
    """The coordinates of a report, item by item."""
    below = [found for item in node.get("ContentSequence", []) for found in drawn(item)]
    return [node, *below] if node.get("ValueType") in ("SCOORD", "SCOORD3D") else below


@pytest.mark.parametrize("dims", [2, 3])
def test_no_patient_unless_asked(tmp_path: Path, dims: int) -> None:
    _, path = written(tmp_path, dims)
    assert NOBODY.encode() not in path.read_bytes()
    header = pydicom.dcmread(path)
    assert [str(header.get(name) or "") for name in PATIENT] == [""] * len(PATIENT)
    assert header.PatientIdentityRemoved == "YES"
    assert {str(header.StudyInstanceUID)} == {"1.2.826.0.1" if dims == 2 else "1.2.826.0.2"}
    _, path = written(tmp_path, dims, keep_patient=True)
    header = pydicom.dcmread(path)
    assert (str(header.PatientName), header.PatientID) == (NOBODY, NOBODY)
    assert "PatientIdentityRemoved" not in header
    if dims == 2:
        assert (header.AccessionNumber, header.StudyDate) == ("A-77", "20010203")


def test_a_name_in_another_character_set_is_kept(tmp_path: Path) -> None:
    source = radiograph(tmp_path, "latin.dcm", SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")
    affine = torch.as_tensor(read_image(source).meta["original_affine"])
    one = ImageLandmarks("latin.dcm", LandmarkSet(NAMES, VOXELS[:, :2]), affine, (20, 30), (source,))
    write_sr(tmp_path / "out.dcm", one, keep_patient=True)
    assert str(pydicom.dcmread(tmp_path / "out.dcm").PatientName) == "Müller^Zoë"


def test_written_again_it_has_the_same_identifiers(tmp_path: Path) -> None:
    one, path = written(tmp_path, 2)
    first = identifiers(path)
    write_sr(path, one)
    assert identifiers(path) == first
    moved = LandmarkSet(NAMES, one.points.voxels + 1, one.points.scores, one.points.flags)
    write_sr(path, ImageLandmarks(one.image, moved, one.affine, one.shape, one.files))
    assert identifiers(path)[0] != first[0]  # another content is another report
    assert identifiers(path)[1:] == first[1:]  # of the same landmarks
    assert len(set(first)) == len(first)


def identifiers(path: Path) -> list[str]:
    header = pydicom.dcmread(path)
    groups = highdicom.sr.srread(path).content
    both = [*groups.get_planar_roi_measurement_groups(), *groups.get_image_measurement_groups()]
    return [str(header.SOPInstanceUID), str(header.SeriesInstanceUID), *[str(group.tracking_uid) for group in both]]


def test_a_frame_of_several(tmp_path: Path) -> None:
    source = write_dicom(
        tmp_path / "cine.dcm", np.zeros((20, 30)), SOPClassUID=ENHANCED_MR, NumberOfFrames=5, StudyInstanceUID="1.2.3.4"
    )
    affine = torch.eye(4, dtype=torch.float64)
    one = ImageLandmarks("cine.dcm", LandmarkSet(NAMES, VOXELS[:, :2]), affine, (20, 30), (source,))
    write_sr(tmp_path / "out.dcm", one, frame=4)
    content = highdicom.sr.srread(tmp_path / "out.dcm").content
    images = [item.ContentSequence[0].ReferencedSOPSequence[0] for item in drawn(pydicom.dcmread(tmp_path / "out.dcm"))]
    assert [image.ReferencedFrameNumber for image in images] == [4, 4]
    assert len(content.get_planar_roi_measurement_groups()) == 2
    assert [row.px for row in read_sr_rows(tmp_path / "out.dcm")] == [(2.0, 1.0), None, (0.5, 6.25)]
    with pytest.raises(NoReportError, match=r"cine\.dcm: has 1 file\(s\) of 5 frame\(s\), and points on frame 6"):
        write_sr(tmp_path / "out.dcm", one, frame=6)


def test_what_cannot_be_reported(tmp_path: Path) -> None:
    affine, points = torch.eye(4, dtype=torch.float64), LandmarkSet(NAMES, VOXELS[:, :2])
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n")
    for files in ((), (tmp_path / "a.png",)):
        with pytest.raises(NoReportError, match=r"a\.png: is no DICOM image, and a DICOM SR refers to one; write csv"):
            write_sr(tmp_path / "out.dcm", ImageLandmarks("a.png", points, affine, (20, 30), files))
    bare = write_dicom(tmp_path / "bare.dcm", np.zeros((20, 30)))
    with pytest.raises(NoReportError, match="has no StudyInstanceUID, which a DICOM SR refers to"):
        write_sr(tmp_path / "out.dcm", ImageLandmarks("bare.dcm", points, affine, (20, 30), (bare,)))
    solid = LandmarkSet(NAMES, VOXELS)
    with pytest.raises(NoReportError, match="has no StudyInstanceUID, FrameOfReferenceUID, which"):
        write_sr(tmp_path / "out.dcm", ImageLandmarks("bare.dcm", solid, affine, (20, 30, 5), (bare,)))
    assert not (tmp_path / "out.dcm").exists()


def test_other_files_are_no_reports(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no DICOM structured report"):
        read_landmarks(radiograph(tmp_path))
    _, path = written(tmp_path, 2)
    report = pydicom.dcmread(path)
    drawn(report)[0].GraphicType = "POLYLINE"
    report.save_as(path)
    with pytest.raises(ValueError, match=r"group 1 \(sella\) is drawn as POLYLINE; expected one POINT"):
        read_landmarks(path)
    report.ContentSequence = []
    report.save_as(path)
    with pytest.raises(ValueError, match="is a DICOM report without measurement groups"):
        read_landmarks(path)


REAL = ("xray/dx_mono1_small.dcm", "xray/cr_chest_mono1_10bit.dcm", "series/mr_hippocampus_crop_tiny")


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_images(tmp_path: Path, data_dir: Path, name: str) -> None:
    """MONOCHROME1 radiographs and a series of a scanner: the points come back, the images stay as they are."""
    source = data_dir / "dicom_kit" / name
    files = tuple(dicom_files(source)) if source.is_dir() else (source,)
    before = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    image = read_image(source, allow_missing_spacing=True)
    dims = image.ndim - 1
    affine = torch.as_tensor(image.meta["original_affine"])
    one = ImageLandmarks(source.name, LandmarkSet(NAMES, VOXELS[:, :dims]), affine, tuple(image.shape[1:]), files)
    path = tmp_path / f"{source.stem}.dcm"
    write_sr(path, one)
    again = read_landmarks(path).for_image(source, affine, one.shape)
    torch.testing.assert_close(again.voxels, one.points.voxels, atol=1e-3, rtol=0, equal_nan=True)
    original, report = pydicom.dcmread(files[0], stop_before_pixels=True), path.read_bytes()
    secrets = {str(original.get(key) or "") for key in (*PATIENT, "InstitutionName", "ReferringPhysicianName")}
    assert not [secret for secret in secrets if len(secret) > 3 and secret.encode() in report]
    assert [hashlib.sha256(file.read_bytes()).hexdigest() for file in files] == before
