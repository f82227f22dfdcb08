"""Which DICOM slices form a volume together: never two scans in turns, never half of one."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from medpixcl.data.manifest import Manifest
from medpixcl.data.scan import scan
from tests.data.dicom_files import NOBODY, write_dicom, write_series

NOISE = np.random.default_rng(0).integers(0, 2000, (6, 4, 5))
STEP = 2.5


def one_scan(
    folder: Path, places: list[float], prefix: str = "a", numbers: list[int] | None = None, **elements
) -> None:
    """One slice for each place (mm along the body), named ``<prefix><number>``, numbered in this order."""
    for index, place in enumerate(places):
        number = index + 1 if numbers is None else numbers[index]
        write_dicom(
            folder / f"{prefix}{index:03d}",
            np.full((4, 5), 10 * (index + 1)) + np.arange(5),
            **{
                "Modality": "CT", "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.75],
                "ImagePositionPatient": [-10.0, -20.0, place], "InstanceNumber": number, **elements,
            },
        )  # fmt: skip


def steps(count: int, start: float = 0.0, step: float = STEP) -> list[float]:
    return [start + step * place for place in range(count)]


def found(manifest: Manifest) -> list[tuple[int, float]]:
    """Number of slices and their distance, of every volume."""
    return sorted((one["shape"][2], round(one["spacing_mm"][2], 3)) for one in manifest.training)


def reasons(manifest: Manifest) -> str:
    return "\n".join(f"{one['path']} {one['reason']}" for one in manifest.rejected)


@pytest.mark.parametrize("folders", [("a", "b"), ("x/1", "x/2", "x/3"), ("1", "2", "3", "4", "5", "6")])
@pytest.mark.parametrize("alternating", [True, False])
def test_a_series_in_several_folders_is_one_volume(tmp_path: Path, folders: tuple[str, ...], alternating: bool) -> None:
    """A SeriesInstanceUID is unique in the world (PS3.3 C.7.3.1): where its files lie says nothing."""
    files = write_series(tmp_path / "all", NOISE)
    for number, file in enumerate(files):
        folder = folders[number % len(folders)] if alternating else folders[number * len(folders) // len(files)]
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        file.rename(tmp_path / folder / file.name)
    (tmp_path / "all").rmdir()
    manifest = scan(tmp_path)
    assert found(manifest) == [(6, 2.5)]
    assert not manifest.rejected


@pytest.mark.parametrize(
    "difference",
    [
        {"SeriesNumber": 2}, {"StudyInstanceUID": "1.9"}, {"FrameOfReferenceUID": "1.9"}, {"PatientID": "other"},
        {"PatientName": "Other^Person"}, {"AcquisitionNumber": 2}, {"TemporalPositionIdentifier": 2},
        {"EchoNumbers": 2}, {"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, {"ConvolutionKernel": "B80f"},
        {"PixelSpacing": [0.6, 0.75]},
    ],
)  # fmt: skip
@pytest.mark.parametrize("series", ["1.2.3", None])
@pytest.mark.parametrize("offset", [1.25, 0.0, 0.3])
def test_two_scans_under_one_identifier_never_alternate(
    tmp_path: Path, difference: dict, series: str | None, offset: float
) -> None:
    common = {
        "SeriesInstanceUID": series, "SeriesNumber": 1, "StudyInstanceUID": "1.8", "FrameOfReferenceUID": "1.8",
        "AcquisitionNumber": 1, "TemporalPositionIdentifier": 1, "EchoNumbers": 1, "ConvolutionKernel": "B30f",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
    }  # fmt: skip
    one_scan(tmp_path, steps(5), "a", **common)
    one_scan(tmp_path, steps(5, offset), "b", **{**common, **difference})
    manifest = scan(tmp_path)
    assert found(manifest) == [(5, 2.5), (5, 2.5)], reasons(manifest)
    for one in manifest.training:
        assert len({Path(file).name[0] for file in one["image"]}) == 1


@pytest.mark.parametrize("lost", ["SeriesNumber", "StudyInstanceUID", "FrameOfReferenceUID"])
@pytest.mark.parametrize("number", [1, 3])
def test_an_identifier_that_some_slices_lost_splits_no_series(tmp_path: Path, lost: str, number: int) -> None:
    common = {"SeriesNumber": 1, "StudyInstanceUID": "1.8", "FrameOfReferenceUID": "1.8"}
    one_scan(tmp_path, steps(4), "a", **common)
    one_scan(tmp_path, steps(number, 4 * STEP), "b", [5, 6, 7][:number], **{**common, lost: None})
    manifest = scan(tmp_path)
    assert found(manifest) == [(4 + number, 2.5)], reasons(manifest)


@pytest.mark.parametrize("lost", ["SeriesNumber", "StudyInstanceUID", "FrameOfReferenceUID"])
def test_without_a_series_a_lost_identifier_still_tells_scans_apart(tmp_path: Path, lost: str) -> None:
    common = {"SeriesNumber": 1, "StudyInstanceUID": "1.8", "FrameOfReferenceUID": "1.8", "SeriesInstanceUID": None}
    one_scan(tmp_path, steps(5), "a", [0] * 5, **common)
    one_scan(tmp_path, steps(5, 1.25), "b", [0] * 5, **{**common, lost: None})
    assert found(scan(tmp_path)) == [(5, 2.5), (5, 2.5)]


@pytest.mark.parametrize("name", ["SECRET^PATIENT", "Secret^Patient^^^", "Secret  Patient"])
def test_spellings_of_a_name_are_one_patient(tmp_path: Path, name: str) -> None:
    one_scan(tmp_path, steps(4), "a", PatientName="Secret^Patient", PatientID="7")
    one_scan(tmp_path, steps(3, 4 * STEP), "b", [5, 6, 7], PatientName=name, PatientID="7")
    assert found(scan(tmp_path)) == [(7, 2.5)]


def test_slices_of_one_place_are_refused_for_that(tmp_path: Path) -> None:
    """A slice that was taken again and again, as to watch contrast agent come, and two such places."""
    one_scan(tmp_path / "one", [0.0] * 5)
    one_scan(tmp_path / "two", [0.0, 2.5] * 4, SeriesInstanceUID="1.9")
    manifest = scan(tmp_path)
    assert not manifest.training
    told = {one["path"]: one["reason"] for one in manifest.rejected}
    assert told.keys() == {"one", "two"}
    assert "4 slice(s) lie where another one lies" in told["one"]
    assert "6 slice(s) lie where another one lies" in told["two"]


def test_two_scans_that_nothing_tells_apart_are_refused(tmp_path: Path) -> None:
    """Their numbers repeat in turns: no scanner numbers one volume so."""
    one_scan(tmp_path, steps(5), "a")
    one_scan(tmp_path, steps(5, 1.25), "b")
    manifest = scan(tmp_path)
    assert not manifest.training
    assert "repeat in turns along the slices" in reasons(manifest)


def test_without_a_series_identifier_the_order_of_the_numbers_must_fit(tmp_path: Path) -> None:
    """Two scans numbered through, 1 to 5 and 6 to 10, halfway between each other."""
    one_scan(tmp_path, steps(5), "a", SeriesInstanceUID=None)
    assert found(scan(tmp_path)) == [(5, 2.5)]
    one_scan(tmp_path, steps(5, 1.25), "b", [6, 7, 8, 9, 10], SeriesInstanceUID=None)
    manifest = scan(tmp_path)
    assert not manifest.training
    assert "SeriesInstanceUID is missing" in reasons(manifest)


def test_two_scans_in_folders_of_their_own_under_one_identifier(tmp_path: Path) -> None:
    """As above, but the folder tells them apart; and so it does at the same places."""
    one_scan(tmp_path / "p1", steps(5))
    one_scan(tmp_path / "p2", steps(5, 1.25))
    assert found(scan(tmp_path)) == [(5, 2.5), (5, 2.5)]
    one_scan(tmp_path / "p2", steps(5))
    assert [one["image"] for one in scan(tmp_path).training] == ["p1", "p2"]


@pytest.mark.parametrize(
    ("acquisitions", "numbers"),
    [
        ([1, 1, 1, 2, 2, 2], [1, 2, 3, 4, 5, 6]),  # step and shoot
        ([1, 2, 1, 2, 1, 2], [1, 2, 3, 4, 5, 6]),  # odd slices first, then even ones
        ([1, 2, 1, 2, 1, 2], [6, 5, 4, 3, 2, 1]),
        ([1, 1, 1, 2, 2, 2], [1, 2, 3, 1, 2, 3]),  # two stations, each numbered from 1
        ([1, 1, 1, 1, 1, 1], [1, 4, 2, 5, 3, 6]),  # numbered in the order of time
        ([1, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]),  # removed with the names
    ],
)
def test_one_volume_taken_in_parts_stays_one(tmp_path: Path, acquisitions: list[int], numbers: list[int]) -> None:
    for index, (acquisition, number) in enumerate(zip(acquisitions, numbers, strict=True)):
        one_scan(tmp_path, [index * STEP], f"s{index}", [number], AcquisitionNumber=acquisition)
    assert found(scan(tmp_path)) == [(6, 2.5)]


def test_time_points_and_echoes_become_volumes(tmp_path: Path) -> None:
    """Two echoes at three time points, all at the same places."""
    for time in range(3):
        for echo in range(2):
            numbers = [100 * time + 10 * echo + index for index in range(4)]
            elements = {"TemporalPositionIdentifier": time + 1, "EchoTime": 4.6 * (echo + 1), "Modality": "MR"}
            one_scan(tmp_path, steps(4), f"t{time}e{echo}_", numbers, **elements)
    manifest = scan(tmp_path)
    assert found(manifest) == [(4, 2.5)] * 6
    for one in manifest.training:
        assert len({Path(file).name[:4] for file in one["image"]}) == 1


@pytest.mark.parametrize("by_place", [True, False])
def test_repeats_without_any_sign_but_their_numbers(tmp_path: Path, by_place: bool) -> None:
    """Diffusion: numbered place by place, or direction by direction."""
    for direction in range(3):
        numbers = [1 + (index * 3 + direction if by_place else direction * 4 + index) for index in range(4)]
        one_scan(tmp_path, steps(4), f"d{direction}_", numbers, Modality="MR")
    manifest = scan(tmp_path)
    assert found(manifest) == [(4, 2.5)] * 3
    for one in manifest.training:
        assert len({Path(file).name[:2] for file in one["image"]}) == 1


@pytest.mark.parametrize(
    ("odd", "sentence"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "ImageOrientationPatient": [1.0, 0, 0, 0, 0, -1]},
         "is a localizer"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
        ({"ImageOrientationPatient": [0.0, 1, 0, 0, 0, -1]}, "differs in orientation from the other 5 slices"),
        ({"PixelSpacing": [1.0, 1.0]}, "differs in pixel size from the other 5 slices"),
        ({"ImageType": ["DERIVED", "SECONDARY", "REFORMATTED"]}, "differs in image type from the other 5 slices"),
        ({"pixels": np.ones((8, 8))}, "differs in size from the other 5 slices"),
        ({"Modality": "OT", "SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "is a colour image"),
    ],
)  # fmt: skip
def test_an_odd_slice_is_set_aside_by_name(tmp_path: Path, odd: dict, sentence: str) -> None:
    one_scan(tmp_path, steps(5))
    elements = {
        "Modality": "CT", "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.75],
        "ImagePositionPatient": [-10.0, -20.0, 5.0], "InstanceNumber": 9, "pixels": np.ones((4, 5)),
    }  # fmt: skip
    write_dicom(tmp_path / "odd", **{**elements, **odd})
    manifest = scan(tmp_path)
    assert found(manifest) == [(5, 2.5)]
    assert reasons(manifest).startswith("odd ")
    assert sentence in reasons(manifest)


def test_stacks_of_several_orientations_become_volumes(tmp_path: Path) -> None:
    """An MR series of discs of the spine: three slices each, at its own angle."""
    for number, angle in enumerate((0.0, 0.2, 0.4)):
        across = np.array([0, -np.sin(angle), np.cos(angle)])
        for index in range(3):
            position = (40 * number * np.array([0, 0, 1]) + 4 * index * across).round(5)
            orientation = [1.0, 0, 0, 0, float(np.cos(angle)), float(np.sin(angle))]
            one_scan(tmp_path, [0], f"{number}{index}", [3 * number + index], Modality="MR",
                     ImagePositionPatient=list(map(float, position)), ImageOrientationPatient=orientation)  # fmt: skip
    assert found(scan(tmp_path)) == [(3, 4.0)] * 3


def test_copies_of_slices_are_set_aside_and_a_missing_slice_is_not_hidden(tmp_path: Path) -> None:
    one_scan(tmp_path / "ct", steps(5))
    copy = (tmp_path / "ct" / "a002").read_bytes()
    (tmp_path / "ct" / "copy of a002").write_bytes(copy)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a002").write_bytes(copy)
    manifest = scan(tmp_path)
    assert found(manifest) == [(5, 2.5)]
    assert reasons(manifest).splitlines() == [
        "ct/copy of a002 is a copy of slice ct/a002.", "elsewhere/a002 is a copy of slice ct/a002.",
    ]  # fmt: skip
    (tmp_path / "ct" / "a003").unlink()
    manifest = scan(tmp_path)
    assert not manifest.training
    assert "2.50 to 5.00 mm apart" in reasons(manifest)


def test_a_copied_folder_is_a_repeat_of_its_image(tmp_path: Path) -> None:
    for file in write_series(tmp_path / "a", NOISE):
        (tmp_path / "b").mkdir(exist_ok=True)
        (tmp_path / "b" / file.name).write_bytes(file.read_bytes())
    manifest = scan(tmp_path)
    assert [one["image"] for one in manifest.training] == ["a", "b"]
    assert len({one["duplicate_group"] for one in manifest.training} - {None}) == 1


def test_no_identifier_of_a_patient_reaches_the_manifest(tmp_path: Path) -> None:
    one_scan(tmp_path / "scan", steps(4))
    one_scan(tmp_path / "scan", steps(4), "b", PatientID="Other^Person")
    one_scan(tmp_path / "scan", [90.0], "c", PatientID="0815-4711")
    manifest = scan(tmp_path / "scan")
    manifest.write(tmp_path / "m.json")
    text = (tmp_path / "m.json").read_text()
    assert not any(name in text for name in (NOBODY, "Other^Person", "0815-4711"))


@pytest.mark.parametrize("name", ["AA/empty", "CT/empty", "ZZ/empty"])
@pytest.mark.parametrize("content", ["empty", "absent"])
def test_a_copy_without_pixels_is_refused_for_that(tmp_path: Path, name: str, content: str) -> None:
    """Wherever it lies: the slice with pixels is the one that is used."""
    files = write_series(tmp_path / "CT", NOISE)
    dataset = pydicom.dcmread(files[1])
    if content == "absent":
        del dataset.PixelData
    else:
        dataset.PixelData = b""
    (tmp_path / name).parent.mkdir(exist_ok=True)
    dataset.save_as(tmp_path / name)
    manifest = scan(tmp_path)
    assert [one["shape"][2] for one in manifest.training] == [len(NOISE)]
    (refused,) = manifest.rejected
    assert refused["path"] == name
    assert "has no pixel data" in refused["reason"]
