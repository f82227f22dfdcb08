"""Every format keeps every landmark, missing ones too: 2D and 3D, anisotropic, oblique."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from medpixcl.coordinates import image_affine
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.landmarks.writing import NotWritten, checked_formats, write_landmarks
from medpixcl.landmarks.points import LandmarkSet
from tests.data.dicom_files import NOBODY, write_dicom, write_series

DX = "1.2.840.10008.5.1.4.1.1.1.1"
ROTATED = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
"""Row and column direction of slices that are tilted about two axes."""
NAMES = ("sella", "nasion", "Pörion, left")
VOXELS = torch.tensor([[1.0, 2.0, 3.0], [torch.nan] * 3, [6.25, 0.5, 3.875]], dtype=torch.float64)
FILES = {
    "csv": "landmarks.csv",
    "json": "landmarks.json",
    "coco": "landmarks.coco.json",
    "mrk.json": "markups",
    "sr": "sr",
}
PRECISION = {"csv": 1e-4, "json": 1e-12, "coco": 0.0, "mrk.json": 1e-5, "sr": 1e-4}
"""In voxels; a report holds single precision."""
OF_DIMS = {2: ("csv", "json", "coco", "mrk.json", "sr"), 3: ("csv", "json", "mrk.json", "sr")}
CASES = [(dims, name) for dims, formats in OF_DIMS.items() for name in formats]


def radiograph(folder: Path, name: str = "lateral.dcm", **elements: object) -> Path:
    """A small radiograph with pixels that are not square."""
    pixels = np.arange(20 * 30).reshape(20, 30)
    identity = {
        "StudyInstanceUID": "1.2.826.0.1",
        "PatientName": NOBODY,
        "AccessionNumber": "A-77",
        "StudyDate": "20010203",
    }
    return write_dicom(
        folder / name,
        pixels,
        **{"SOPClassUID": DX, "Modality": "DX", "PixelSpacing": [0.5, 0.25], **identity, **elements},
    )


def slices(folder: Path) -> list[Path]:
    """An oblique series of anisotropic voxels."""
    normal = np.cross(ROTATED[:3], ROTATED[3:])
    return write_series(
        folder / "series",
        np.random.default_rng(0).integers(0, 900, (6, 8, 10)),
        orientation=ROTATED,
        step=tuple(2.5 * normal),
        StudyInstanceUID="1.2.826.0.2",
        FrameOfReferenceUID="1.2.826.0.3",
    )


def landmarks_of(folder: Path, dims: int, names: tuple[str, ...] = NAMES) -> ImageLandmarks:
    source = radiograph(folder) if dims == 2 else slices(folder)
    image = read_image(source)
    first = source if dims == 2 else source[0]
    return ImageLandmarks(
        image=first.relative_to(folder).as_posix(),
        points=LandmarkSet(names, VOXELS[:, :dims], torch.tensor([0.75, 0.0, 0.125]), ("", "no match", "unsure")),
        affine=torch.as_tensor(image.meta["original_affine"]),
        shape=tuple(image.shape[1:]),
        files=(source,) if dims == 2 else tuple(source),
    )


@pytest.mark.parametrize(("dims", "name"), CASES)
def test_landmarks_come_back(tmp_path: Path, dims: int, name: str) -> None:
    one = landmarks_of(tmp_path, dims)
    assert write_landmarks(tmp_path / "out", [one], [name]) == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILES[name]]
    file = read_landmarks(tmp_path / "out" / FILES[name])
    again = file.for_image(one.files[0], one.affine, one.shape)
    assert again.names == NAMES
    torch.testing.assert_close(again.voxels, one.points.voxels, atol=PRECISION[name], rtol=0, equal_nan=True)


@pytest.mark.parametrize(("dims", "name"), [case for case in CASES if case != (2, "sr")])
def test_positions_are_lps_in_every_format(tmp_path: Path, dims: int, name: str) -> None:
    """By hand: PS3.3 C.7.6.2.1.1 from the headers of the slices; column and row times pixel size for the picture."""
    one = landmarks_of(tmp_path, dims)
    write_landmarks(tmp_path / "out", [one], [name])
    found = next(iter(read_landmarks(tmp_path / "out" / FILES[name]).positions_mm().values()))
    if dims == 2:
        expected = {"sella": (2.0 * 0.25, 1.0 * 0.5), "Pörion, left": (0.5 * 0.25, 6.25 * 0.5)}
    else:
        headers = sorted(
            (pydicom.dcmread(path) for path in one.files),
            key=lambda h: float(np.dot(h.ImagePositionPatient, np.cross(ROTATED[:3], ROTATED[3:]))),
        )
        origin, row, column = (np.array(v, float) for v in (headers[0].ImagePositionPatient, ROTATED[:3], ROTATED[3:]))
        across = 2.5 * np.cross(row, column)
        expected = {
            label: tuple(origin + i * 0.75 * row + j * 0.5 * column + k * across)
            for label, (i, j, k) in zip(NAMES, VOXELS.tolist(), strict=True) if label != "nasion"
        }  # fmt: skip
    assert found.keys() == expected.keys()
    for label, place in expected.items():
        assert found[label][:dims] == pytest.approx(place, abs=2e-4)


def test_extras_are_columns_and_fields(tmp_path: Path) -> None:
    one = landmarks_of(tmp_path, 2)
    radii = tuple({"radius_mm": cell} for cell in ("2.5000", "", "1.0000"))
    full = ImageLandmarks(one.image, one.points, one.affine, one.shape, one.files, radii)
    write_landmarks(tmp_path / "out", [full], ["csv", "json"])
    assert (tmp_path / "out" / "landmarks.csv").read_text().splitlines()[0].endswith(",score,flag,radius_mm")
    content = json.loads((tmp_path / "out" / "landmarks.json").read_text(encoding="utf-8"))
    records = content["images"][0]["landmarks"]
    assert [record["radius_mm"] for record in records] == [2.5, None, 1.0]
    assert records[0] | {"mm": None} == {
        "landmark": "sella", "px": [2.0, 1.0], "mm": None, "score": 0.75, "flag": "", "radius_mm": 2.5,
    }  # fmt: skip
    assert records[1]["px"] is records[1]["mm"] is None
    assert records[1]["flag"] == "no match"


def test_what_a_format_cannot_hold_is_listed(tmp_path: Path) -> None:
    dicom = landmarks_of(tmp_path, 2)
    picture = ImageLandmarks(
        "lateral.png", dicom.points, image_affine((1.0, 1.0)), (20, 30), (tmp_path / "lateral.png",)
    )
    (tmp_path / "lateral.png").write_bytes(b"\x89PNG\r\n")
    left_out = write_landmarks(tmp_path / "out", [dicom, picture], ["sr", "mrk.json", "coco"])
    assert [(one.image, one.format) for one in left_out] == [("lateral.png", "sr")]
    assert left_out[0].reason.startswith("is no DICOM image")
    assert [path.name for path in (tmp_path / "out" / "sr").iterdir()] == ["lateral.dcm.dcm"]
    assert sorted(path.name for path in (tmp_path / "out" / "markups").iterdir()) == [
        "lateral.dcm.mrk.json",
        "lateral.png.mrk.json",
    ]
    volume = landmarks_of(tmp_path, 3)
    assert write_landmarks(tmp_path / "volume", [volume], ["coco"]) == [
        NotWritten(volume.image, "coco", "is a volume, and COCO keypoints are 2D; write csv, json, mrk.json or sr.")
    ]


def test_a_folder_of_results_is_read_by_its_table(tmp_path: Path) -> None:
    one = landmarks_of(tmp_path, 2)
    write_landmarks(tmp_path / "out", [one], ["csv", "json", "coco"])
    (tmp_path / "out" / "rejected.csv").write_text("image,format,reason\na.png,,is empty.\n")
    assert read_landmarks(tmp_path / "out").images == (one.image,)
    (tmp_path / "out" / "landmarks.csv").unlink()
    (tmp_path / "out" / "landmarks.coco.json").unlink()
    (tmp_path / "out" / "metrics.json").write_text("{}")
    assert read_landmarks(tmp_path / "out").names == NAMES


def test_formats_are_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown format fcsv of landmarks to write; expected some of csv, json, mrk"):
        write_landmarks(tmp_path, [], ["csv", "fcsv"])
    with pytest.raises(ValueError, match="no landmarks to write"):
        write_landmarks(tmp_path, [], ["csv"])


def test_without_highdicom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said before anything is computed; reports are read all the same."""
    one = landmarks_of(tmp_path, 2)
    write_landmarks(tmp_path / "out", [one], ["sr"])
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"highdicom, which is not installed: pip install 'medpixcl\[dicom-sr\]'"
    ):
        checked_formats(["csv", "sr"])
    assert read_landmarks(tmp_path / "out" / "sr").names == NAMES


@pytest.mark.parametrize(
    "text",
    ['{"format": "medpixcl landmarks", "version": 2, "frame": "LPS", "unit": "mm", "images": []}',
     '{"format": "medpixcl landmarks", "version": 1, "frame": "LPS", "unit": "mm", "images": [{"image": "a"}]}',
     '{"format": "medpixcl landmarks", "version": 1, "frame": "LPS", "unit": "mm", "images": [{"image": "a", '
     '"landmarks": [{"landmark": "b", "px": [1, NaN], "mm": null}]}]}'],
    ids=["version", "field", "number"],
)  # fmt: skip
def test_damaged_json(tmp_path: Path, text: str) -> None:
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(ValueError, match=r"l\.json is no landmark file of medpixcl, or is damaged"):
        read_landmarks(tmp_path / "l.json")


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("keep_patient", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_dciodvfy_finds_no_error(tmp_path: Path, dims: int, keep_patient: bool) -> None:
    one = landmarks_of(tmp_path, dims)
    write_landmarks(tmp_path / "out", [one], ["sr"], keep_patient=keep_patient)
    (report,) = (tmp_path / "out" / "sr").rglob("*.dcm")
    done = subprocess.run(["dciodvfy", "-new", str(report)], capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if line.startswith(("Error", "Abort"))] == []
    assert ("ComprehensiveSR" if dims == 2 else "Comprehensive3DSR") in said
    warnings = [line for line in said if line.startswith("Warning")]
    known = ("<99MEDPIXCL>", "needed to build DICOMDIR", "Retired Person Name form", "StudyID", "PatientID")
    assert [line for line in warnings if not any(words in line for words in known)] == []
