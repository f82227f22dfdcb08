"""Read landmarks from a DICOM structured report with pydicom: all named measurement groups, with or without a point."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medpixcl.data.dicom_header import is_dicom, read_dataset, read_header, readable
from medpixcl.data.identity import image_stem
from medpixcl.data.landmarks.row import LandmarkRow, finite_numbers
from medpixcl.data.landmarks.same_image import MarkedOn
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.text import shown

if TYPE_CHECKING:
    from pydicom import Dataset

_REPORTS = "1.2.840.10008.5.1.4.1.1.88."
_GROUP, _NAME = "125007", "112039"
_HALF_PIXEL = 0.5


def is_report(path: Path) -> bool:
    """True for a DICOM structured report."""
    return is_dicom(path) and read_header(path).text("SOPClassUID").startswith(_REPORTS)


def read_sr_rows(path: Path) -> list[LandmarkRow]:
    """Read the points of a report, each under its Tracking Identifier; a group without one is a missing landmark.

    The report belongs to the image that it is named after, and must refer to it: a 2D point by SOP Instance UID and
    frame, a 3D point by frame of reference. Points of a 2D report are in pixels of that image, points of a 3D report in
    mm, LPS+.

    Raises:
        ValueError: If the file is not a report, holds no measurement group, or a group has no name or several points.
    """
    if not is_report(path):
        raise ValueError(f"{path} is no DICOM structured report; expected one with landmarks.")
    with readable(path, "is a damaged DICOM report"):
        groups = [one for one in _items(read_dataset(path, stop_before_pixels=True)) if _concept(one) == _GROUP]
        if not groups:
            raise ImageFileError(path, "is a DICOM report without measurement groups; expected landmarks (TID 1500).")
        return [_row(path, group, f"group {number}") for number, group in enumerate(groups, start=1)]


def _items(node: "Dataset") -> Iterator["Dataset"]:
    """All content items below a node."""
    for item in node.get("ContentSequence", []):
        yield item
        yield from _items(item)


def _concept(item: "Dataset") -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].get("CodeValue", "")) if names else ""


def _row(path: Path, group: "Dataset", line: str) -> LandmarkRow:
    items = list(_items(group))
    name = next((str(item.TextValue).strip() for item in items if _concept(item) == _NAME and "TextValue" in item), "")
    if not name:
        raise ImageFileError(path, f"{line} has no Tracking Identifier; it names the landmark.")
    drawn = [item for item in items if item.get("ValueType") in ("SCOORD", "SCOORD3D")]
    if not drawn:
        return LandmarkRow(image=image_stem(path.name), landmark=name, line=line)
    if len(drawn) > 1 or drawn[0].get("GraphicType") != "POINT":
        kinds = ", ".join(str(item.get("GraphicType")) for item in drawn)
        raise ImageFileError(path, f"{line} ({shown(name)}) is drawn as {shown(kinds)}; expected one POINT.")
    values = tuple(float(value) for value in drawn[0].GraphicData)
    flat = drawn[0].ValueType == "SCOORD"
    if not finite_numbers(values, *((2, 2) if flat else (3, 3))):
        raise ImageFileError(path, f"{line} ({shown(name)}) has no position of {2 if flat else 3} numbers.")
    image, marked_on = image_stem(path.name), _marked_on(drawn[0])
    if not flat:
        return LandmarkRow(image=image, landmark=name, line=line, mm=values, marked_on=marked_on)
    pixels = tuple(value - _HALF_PIXEL for value in values)
    return LandmarkRow(image=image, landmark=name, line=line, px=pixels, marked_on=marked_on)


def _marked_on(point: "Dataset") -> MarkedOn:
    """The image that a point refers to: of the item it is selected from, or its frame of reference (PS3.3 C.18)."""
    references = (one for item in _items(point) for one in item.get("ReferencedSOPSequence", []))
    image: Any = next(references, {})
    frames = image.get("ReferencedFrameNumber") or ()
    return MarkedOn(
        instance=str(image.get("ReferencedSOPInstanceUID", "")),
        frames=tuple(map(int, frames)) if isinstance(frames, Iterable) else (int(frames),),
        frame_of_reference=str(point.get("ReferencedFrameOfReferenceUID", "")),
    )
