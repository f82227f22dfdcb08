"""Landmarks that belong to another image, and tables whose numbers are not what they seem, are refused by name."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import torch
from monai.transforms import Compose
from PIL import Image

from medpixcl.apps.loaded_images import loaded_image
from medpixcl.coordinates import image_affine
from medpixcl.data.images import read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.sr import write_sr
from medpixcl.data.landmarks.table import ImageLandmarks
from medpixcl.data.scan import scan
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching.annotated_image import AnnotatedImage
from tests.data.dicom_files import write_dicom, write_series
from tests.data.landmarks.test_formats import radiograph

POINTS = LandmarkSet(("a", "b"), torch.tensor([[3.0, 4.0, 1.0], [10.0, 12.0, 2.0]]))
FLAT = LandmarkSet(POINTS.names, POINTS.voxels[:, :2])
AFFINE = image_affine((0.5, 0.5))


def coco(path: Path, **image: Any) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.png", **image}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [10, 5, 2]}],
        "categories": [{"id": 1, "name": "head", "keypoints": ["s"]}],
    }
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize(("width", "height"), [(96, 128), (24, 32), (64, 48), (48, 65)])
def test_coco_of_another_size_is_refused(tmp_path: Path, width: int, height: int) -> None:
    """Resized or turned after the annotation, or cut: the keypoints are those of another grid."""
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 48), dtype=np.uint8)).save(tmp_path / "a.png")
    path = coco(tmp_path / "c.json", width=width, height=height)
    sentence = (
        rf"c\.json: annotation 1: landmark 's' was marked on an image of {height} x {width} pixels, and a\.png has"
    )
    with pytest.raises(ValueError, match=sentence):
        scan(tmp_path / "a.png", spacing_mm=0.5, landmarks=path)


@pytest.mark.parametrize(
    "size", [{"width": 96}, {"height": 128}, {"width": "96", "height": "128"}, {"width": 96.0, "height": 64.0},
             {"width": 48, "height": "32"}, {"width": "", "height": 65}],
)  # fmt: skip
def test_coco_of_another_side_is_refused(tmp_path: Path, size: dict[str, Any]) -> None:
    """Also where the file states one side alone, or as text or with a point."""
    points = read_landmarks(coco(tmp_path / "c.json", **size))
    with pytest.raises(
        ValueError, match=r"was marked on an image of (\d+|\?) x (\d+|\?) pixels, and a\.png has 64 x 48"
    ):
        points.for_image("a.png", AFFINE, (64, 48))


@pytest.mark.parametrize(
    "size", [{"width": 48, "height": 64}, {}, {"width": 0, "height": 0}, {"width": None}, {"height": 64},
             {"width": "48", "height": 64.0}, {"width": "wide", "height": -64}, {"width": True, "height": [64]}],
)  # fmt: skip
def test_coco_of_the_same_or_no_size_is_read(tmp_path: Path, size: dict[str, Any]) -> None:
    points = read_landmarks(coco(tmp_path / "c.json", **size)).for_image("a.png", AFFINE, (64, 48))
    assert points.voxels.tolist() == [[5.0, 10.0]]


def report(folder: Path, name: str, source: Path, points: LandmarkSet, shape: tuple[int, ...]) -> Path:
    files = tuple(sorted(source.iterdir())) if source.is_dir() else (source,)
    affine = torch.as_tensor(read_image(source).meta["original_affine"])
    write_sr(folder / f"{name}.dcm", ImageLandmarks(name, points, affine, shape, files))
    return folder / f"{name}.dcm"


def test_a_report_of_another_radiograph_is_refused(tmp_path: Path) -> None:
    """It bears the name of the image, and refers to another SOP instance."""
    own, other = radiograph(tmp_path, "a.dcm"), radiograph(tmp_path, "b.dcm")
    path = report(tmp_path / "sr", "a", own, FLAT, (20, 30))
    assert read_landmarks(path).for_image(own, AFFINE, (20, 30)).voxels.tolist() == FLAT.voxels.tolist()
    other.replace(own)
    with pytest.raises(ValueError, match=r"group 1: landmark 'a' was marked on another DICOM image than a\.dcm"):
        read_landmarks(path).for_image(own, AFFINE, (20, 30))


@pytest.mark.parametrize("named", [True, False])
def test_an_image_in_memory_is_the_file_that_it_was_read_from(tmp_path: Path, named: bool) -> None:
    own, other = radiograph(tmp_path, "a.dcm"), radiograph(tmp_path / "b", "a.dcm")
    path = report(tmp_path / "sr", "a", own, FLAT, (20, 30))
    for source in (own, other):
        image = loaded_image(read_image(source), name="a.dcm" if named else "")
        if source == own:
            assert (
                AnnotatedImage({"image": image}, str(path), Compose([])).points.voxels.tolist() == FLAT.voxels.tolist()
            )
        else:
            with pytest.raises(ValueError, match=r"was marked on another DICOM image than a\.dcm"):
                AnnotatedImage({"image": image}, str(path), Compose([]))
    bare = loaded_image(np.asarray(read_image(own)), name="a", spacing_mm=0.5)  # nothing says which file it was
    assert len(AnnotatedImage({"image": bare}, str(path), Compose([])).points.names) == 2


def test_a_report_of_another_frame_is_refused(tmp_path: Path) -> None:
    source = radiograph(tmp_path, "a.dcm")
    path = report(tmp_path / "sr", "a", source, FLAT, (20, 30))
    content = pydicom.dcmread(path)
    for item in content.iterall():
        if item.keyword == "ReferencedSOPSequence":
            item.value[0].ReferencedFrameNumber = [7]
    content.save_as(path)
    with pytest.raises(ValueError, match=r"landmark 'a' was marked on frame 7 of a\.dcm"):
        read_landmarks(path).for_image(source, AFFINE, (20, 30))


def test_a_report_does_not_fit_an_image_that_is_not_dicom(tmp_path: Path) -> None:
    path = report(tmp_path / "sr", "a", radiograph(tmp_path, "a.dcm"), FLAT, (20, 30))
    Image.new("L", (30, 20)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"was marked on a DICOM image, and a\.png is none"):
        read_landmarks(path).for_image(tmp_path / "a.png", AFFINE, (20, 30))


@pytest.mark.parametrize("frame", ["1.2.826.7", "1.2.826.8"])
def test_a_report_of_a_series_needs_its_frame_of_reference(tmp_path: Path, frame: str) -> None:
    shape = (30, 20, 4)
    volume = np.arange(np.prod(shape)).reshape(shape[::-1])
    write_series(tmp_path / "CT", volume, FrameOfReferenceUID="1.2.826.7", StudyInstanceUID="1.2.826.9")
    path = report(tmp_path / "sr", "CT", tmp_path / "CT", POINTS, shape)
    if frame != "1.2.826.7":
        for file in (tmp_path / "CT").iterdir():
            file.unlink()
        write_series(tmp_path / "CT", volume, FrameOfReferenceUID=frame, StudyInstanceUID="1.2.826.9")
    affine = torch.as_tensor(read_image(tmp_path / "CT").affine)
    if frame == "1.2.826.7":
        found = read_landmarks(path).for_image(tmp_path / "CT", affine, shape)
        torch.testing.assert_close(found.voxels, POINTS.voxels.double(), atol=1e-3, rtol=0)
    else:
        with pytest.raises(ValueError, match="was marked in another frame of reference than that of CT"):
            read_landmarks(path).for_image(tmp_path / "CT", affine, shape)


@pytest.mark.parametrize(
    "rows",
    [
        "image,landmark,x_px,y_px,score,flag\na.png,s,10,5,20,5",
        "image,landmark,x_mm,y_mm,score\na.png,s,10,5,20",
        "image,landmark,x_px,y_px,score,flag\na.png,s,10,20,0,5",
        "image,landmark,x_px,y_px,z_px,flag,score\na.png,s,10,5,20,5,30",
        "image,landmark,x_px,y_px\na.png,s,10,5,20,5",
        'image,landmark,x_px,y_px\na.png,s,"10,5","20,5"',
        'image,landmark,x_px,y_px\na.png,s,"1,000",20',
        "image,landmark,x_px,y_px\na.png,s,1_0,20",
        "image,landmark,x_px,y_px\na.png,s,0x10,20",
    ],
)
def test_decimal_commas_in_a_csv_are_refused(tmp_path: Path, rows: str) -> None:
    (tmp_path / "lm.csv").write_text(rows + "\n")
    with pytest.raises(ValueError, match=r"lm\.csv: line 2.*(is a comma a decimal point\?|expected numbers)"):
        read_landmarks(tmp_path / "lm.csv")


@pytest.mark.parametrize("score", ["", "0.25", "1", "nan", "high"])
def test_scores_and_flags_of_our_own_stay(tmp_path: Path, score: str) -> None:
    (tmp_path / "lm.csv").write_text(f"image,landmark,x_px,y_px,score,flag\na.png,s,10,5,{score},unsure\n")
    assert read_landmarks(tmp_path / "lm.csv").for_image("a.png", AFFINE, (64, 48)).voxels.tolist() == [[5.0, 10.0]]


FCSV = "# CoordinateSystem = LPS\n# columns = id,x,y,z,label\n"


def test_decimal_commas_in_a_fcsv_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.fcsv").write_text(FCSV + "1,10,5,20,5,0,s\n")
    with pytest.raises(ValueError, match=r"a\.fcsv: line 3 has 7 cells for 5 columns; is a comma a decimal point\?"):
        read_landmarks(tmp_path / "a.fcsv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lm.csv", "image,landmark,x_px,y_px,x_px\na.png,s,1,2,3\n"),
        ("lm.csv", "image,landmark,x_mm, x_mm,y_mm\na.png,s,1,2,3\n"),
        ("a.fcsv", "# columns = id,x,y,z,x,label\n1,10,5,0,20,s\n"),
    ],
)
def test_a_column_twice_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=rf"{name} has the column 'x.*' twice"):
        read_landmarks(tmp_path / name)


MARKUPS = {"markups": [{"type": "Fiducial", "controlPoints": [{"label": "Müller", "position": [1, 2, 0]}]}]}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.fcsv", FCSV + "1,10,5,0,Müller\n"),
        ("lm.csv", "image,landmark,x_px,y_px\na.png,Müller,1,2\n"),
        ("a.mrk.json", json.dumps(MARKUPS, ensure_ascii=False)),
        ("c.json", '{"images": [], "annotations": [], "note": "Müller"}'),
    ],
)
def test_another_encoding_is_named_with_the_file(tmp_path: Path, name: str, text: str, encoding: str) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    with pytest.raises(ValueError, match=rf"{name} is not UTF-8 text; save it in UTF-8"):
        read_landmarks(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "start", "line"), [("lm.csv", "image,landmark,x_px,y_px\na.png,", 2), ("a.fcsv", FCSV + "1,10,5,20,", 3)]
)
def test_what_is_no_table_is_named(tmp_path: Path, name: str, start: str, line: int) -> None:
    (tmp_path / name).write_text(start + "s" * 200_000 + "\n")
    with pytest.raises(ValueError, match=rf"{name}: line {line} cannot be read as CSV \(field larger"):
        read_landmarks(tmp_path / name)


def test_one_image_without_its_own_size_does_not_ask_for_dicom(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.zeros((20, 30)), PixelSpacing=[0.5, 0.5], Modality="CR")
    (tmp_path / "lm.csv").write_text("image,landmark,x_px,y_px\na.dcm,s,1,2\n")
    assert read_landmarks(tmp_path / "lm.csv").for_image(tmp_path / "a.dcm", AFFINE, (20, 30)).names == ("s",)
