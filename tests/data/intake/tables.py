"""Landmarks of another image, or numbers that are not what they seem."""

import json
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image

from tests.data.dicom_files import write_dicom
from tests.data.intake.cases import BYTES, FILM, Cases, Expected, keep_in, shade, write_film

CASES: Cases = {}
_case = keep_in(CASES)


@_case("same_name_other_patient", Expected(
    {f"p{n:03d}/ceph.png": ((shade(64 + 4 * n, 60) * 255).astype("u1"), (0.5, 0.5)) for n in range(1, 5)},
    spacing_mm=0.5))  # fmt: skip
def _(folder: Path) -> None:
    for n in range(1, 5):
        (folder / f"p{n:03d}").mkdir()
        Image.fromarray((shade(64 + 4 * n, 60) * 255).astype("u1")).save(folder / f"p{n:03d}" / "ceph.png")
    (folder / "landmarks.csv").write_text(
        "image,landmark,x_px,y_px\np001/ceph.png,sella,10,20\np001/ceph.png,nasion,30,40\n"
    )


@_case("coco_size_differs", Expected({"a.png": (BYTES, (0.5, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    Image.fromarray(BYTES).save(folder / "a.png")
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 96, "height": 128}],
        "categories": [{"id": 1, "name": "c", "keypoints": ["s"]}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "keypoints": [40, 30, 2]}],
    }
    (folder / "coco.json").write_text(json.dumps(content))


@_case("csv_decimal_comma_optional_columns", Expected({"a.png": (BYTES, (0.5, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    Image.fromarray(BYTES).save(folder / "a.png")
    (folder / "lm.csv").write_text("image,landmark,x_px,y_px,score,flag\na.png,s,10,5,20,5\n")


@_case("fcsv_cp1252", Expected())
def _(folder: Path) -> None:
    columns = b"# CoordinateSystem = 0\n# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID\n"
    (folder / "a.fcsv").write_bytes(columns + b"1,-5,-10,0,0,0,0,1,1,1,0,s\xfcd,,\n")


@_case("sr_of_another_image", Expected({"images/a.dcm": (FILM, (0.2, 0.2))}, {"sr/a.dcm": "without pixels"}))
def _(folder: Path) -> None:
    """Points on two instances that are not the image of that name, one of them on frame 7."""
    write_film(folder / "images" / "a.dcm", PixelSpacing=[0.2, 0.2])
    groups = [_group("s", "9.9.9.9", [10.5, 20.5]), _group("t", "8.8.8.8", [30.5, 20.5], 7)]
    measurements = _item("CONTAINER", "126010", ContentSequence=groups)
    elements = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.88.33", "Modality": "SR", "ValueType": "CONTAINER"}
    absent = dict.fromkeys(("PixelData", "Rows", "Columns"))
    write_dicom(folder / "sr" / "a.dcm", FILM, ContentSequence=[measurements], **elements, **absent)


def _item(kind: str, concept: str = "", **elements: Any) -> pydicom.Dataset:
    item = pydicom.Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", kind
    if concept:
        code = pydicom.Dataset()
        code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = concept, "DCM", concept
        item.ConceptNameCodeSequence = [code]
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item


def _group(name: str, instance: str, place: list[float], frame: int | None = None) -> pydicom.Dataset:
    """A point of TID 1500 on an instance."""
    reference = pydicom.Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1", instance
    if frame:
        reference.ReferencedFrameNumber = frame
    image = _item("IMAGE", ReferencedSOPSequence=[reference])
    point = _item("SCOORD", "111030", GraphicType="POINT", GraphicData=place, ContentSequence=[image])
    return _item("CONTAINER", "125007", ContentSequence=[_item("TEXT", "112039", TextValue=name), point])
