"""`detect --format` on a folder of everything: one row per landmark and image, a reason for every other file."""

import csv
import json
from collections import Counter
from pathlib import Path

import highdicom
import numpy as np
import pytest
from PIL import Image

from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.phantoms import draw_phantom, write_landmark_phantoms
from tests.data.dicom_files import NOBODY, write_dicom, write_series
from tests.test_cli import match
from tests.tiny import ROOT, medpixcl

DX = "1.2.840.10008.5.1.4.1.1.1.1"
DETECTOR = ROOT / "bundles" / "xray_landmark_selftraining"
LANDMARKS = [str(number + 1) for number in range(19)]
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Radiographs, MONOCHROME1 among them, a picture, a volume, and what is no image; the picture twice as another."""
    folder = tmp_path / "images"
    write_landmark_phantoms(folder, 1, (64, 48))
    (picture,) = folder.glob("*.png")
    pixels = np.asarray(Image.open(picture).convert("L")).astype(int)
    shared = {"SOPClassUID": DX, "Modality": "DX", "PixelSpacing": [1.0, 1.0], "StudyInstanceUID": "1.2.3.4"}
    write_dicom(folder / "dense.dcm", pixels, **shared)
    write_dicom(folder / "inverted", 255 - pixels, PhotometricInterpretation="MONOCHROME1", **shared)
    write_dicom(folder / "nameless.dcm", pixels, **{**shared, "StudyInstanceUID": None})
    write_dicom(folder / "cine.dcm", pixels, NumberOfFrames=3, **shared)
    write_series(folder / "ct", np.zeros((4, 8, 8)))
    (folder / "empty.png").write_bytes(b"")
    (folder / "notes.txt").write_text("not an image")
    picture.rename(folder / "picture.png")
    for other in folder.glob("*.csv"):
        other.unlink()
    return folder


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_mixed_folder_in_every_format(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    options = (
        "--bundle",
        DETECTOR,
        "--spacing-mm",
        1,
        "--format",
        "csv,json,mrk.json,coco,sr",
        "--set",
        "overlays=false",
    )
    assert medpixcl("detect", "--images", mixed, "-o", out, *options) == 3
    rows = table(out / "landmarks.csv")
    searched = ["dense.dcm", "inverted", "nameless.dcm", "picture.png"]
    assert Counter((row["image"], row["landmark"]) for row in rows) == dict.fromkeys(
        [(image, name) for image in searched for name in LANDMARKS], 1
    )
    reasons = {(row["image"], row["format"]): row["reason"] for row in table(out / "rejected.csv")}
    refused_files = {"cine.dcm", "empty.png", "notes.txt"}
    assert {image for image, name in reasons if not name} == {
        *refused_files,
        *[i for i, n in reasons if i.startswith("ct")],
    }
    assert any(image.startswith("ct") for image, _ in reasons)
    assert reasons["cine.dcm", ""].startswith("is a multi-frame DICOM image of 3 frames")
    assert {key: reason[:22] for key, reason in reasons.items() if key[1]} == {
        ("nameless.dcm", "sr"): "has no StudyInstanceUI",
        ("picture.png", "sr"): "is no DICOM image, and",
    }
    printed = capsys.readouterr().out
    assert "no sr of picture.png: is no DICOM image" in printed
    assert "rejected empty.png: is empty" in printed
    same_positions(out, rows)


def same_positions(out: Path, rows: list[dict[str, str]]) -> None:
    """Every file says the same of the first image, and the turned grey values change nothing."""
    expected = {
        row["landmark"]: (float(row["x_px"]), float(row["y_px"])) for row in rows if row["image"] == "dense.dcm"
    }
    for row in rows:
        if row["image"] == "inverted":
            assert (float(row["x_px"]), float(row["y_px"])) == pytest.approx(expected[row["landmark"]], abs=0.05)
    for name in ("landmarks.json", "landmarks.coco.json", "markups"):
        found = read_landmarks(out / name)
        key = found.find("dense.dcm")
        assert {label: place[:2] for label, place in found.positions_mm()[key].items()} == {
            label: pytest.approx(place, abs=1e-3) for label, place in expected.items()
        }, name
    groups = highdicom.sr.srread(out / "sr" / "dense.dcm").content.get_planar_roi_measurement_groups()
    points = {group.tracking_identifier: np.ravel(group.roi.value) - 0.5 for group in groups}
    assert points == {label: pytest.approx(place, abs=1e-3) for label, place in expected.items()}
    everything = b"".join(file.read_bytes() for file in out.rglob("*") if file.is_file())
    assert NOBODY.encode() not in everything
    assert json.loads((out / "landmarks.coco.json").read_text())["images"][0]["file_name"] == "dense.dcm"


def test_patient_is_kept_on_demand(mixed: Path, tmp_path: Path) -> None:
    options = ("--bundle", DETECTOR, "--format", "sr", "--keep-patient", "--set", "overlays=false")
    assert medpixcl("detect", "--images", mixed / "dense.dcm", "-o", tmp_path / "out", *options) == 0
    assert NOBODY.encode() in (tmp_path / "out" / "sr" / "dense.dcm").read_bytes()
    assert NOBODY.encode() not in (tmp_path / "out" / "landmarks.csv").read_bytes()
    assert table(tmp_path / "out" / "rejected.csv") == []


@pytest.mark.parametrize(
    ("formats", "sentence"),
    [
        ("csv,xml", "unknown format xml of landmarks to write; expected some of csv, json, mrk.json, coco, sr."),
        (",", "no format of landmarks to write"),
        ("sr", "no image to search is DICOM, and a DICOM SR refers to one; leave out sr."),
    ],
)
def test_bad_formats(
    mixed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], formats: str, sentence: str
) -> None:
    places = ("--images", mixed / "picture.png", "-o", tmp_path / "out", "--bundle", DETECTOR, "--spacing-mm", 1)
    assert medpixcl("detect", *places, "--format", formats) == 2
    assert sentence in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_series_gets_a_report_in_space(tmp_path: Path) -> None:
    """An oblique CT series found in its copy: the report has the positions of the table, in the frame of reference."""
    volume = (draw_phantom((10, 24, 26), 7) * 900).astype(int)
    tilted = (0.8, 0.6, 0.0, -0.48, 0.64, 0.6)
    normal = np.cross(tilted[:3], tilted[3:])
    shared = {"StudyInstanceUID": "1.2.3.4", "FrameOfReferenceUID": "1.2.3.5"}
    for name in ("template", "images/copy"):
        write_series(tmp_path / name, volume, orientation=tilted, step=tuple(2.0 * normal), **shared)
    affine = read_image(tmp_path / "template").affine.numpy()
    lps = (np.array([[5, 6, 4], [20, 9, 7]]) @ affine[:3, :3].T + affine[:3, 3]) * [-1, -1, 1]
    lines = [f"template,p{k},{x},{y},{z}" for k, (x, y, z) in enumerate(lps)]
    (tmp_path / "landmarks.csv").write_text("\n".join(["image,landmark,x_mm,y_mm,z_mm", *lines, ""]))
    places = {"template": tmp_path / "template", "landmarks": tmp_path / "landmarks.csv"}
    places |= {"images": tmp_path / "images", "output": tmp_path / "out"}
    dims = ("--set", "spatial_dims=3", "--set", "working_spacing_mm=null", "--set", "overlays=false")
    assert match(places, *dims, "--format", "sr,coco") == 0
    rows = table(tmp_path / "out" / "landmarks.csv")
    (path,) = (tmp_path / "out" / "sr").rglob("*.dcm")
    report = highdicom.sr.srread(path)
    groups = report.content.get_planar_roi_measurement_groups()
    assert [group.tracking_identifier for group in groups] == [row["landmark"] for row in rows] == ["p0", "p1"]
    for group, row in zip(groups, rows, strict=True):
        place = [float(row[f"{axis}_mm"]) for axis in "xyz"]
        np.testing.assert_allclose(np.ravel(group.roi.value), place, atol=1e-3)
    assert len(report.get_evidence()) == 10
    assert [(row["image"], row["format"]) for row in table(tmp_path / "out" / "rejected.csv")] == [
        (rows[0]["image"], "coco")
    ]
    found = read_landmarks(tmp_path / "out" / "sr").positions_mm()
    assert found == {
        rows[0]["image"]: {
            row["landmark"]: pytest.approx([float(row[f"{a}_mm"]) for a in "xyz"], abs=1e-3) for row in rows
        }
    }
