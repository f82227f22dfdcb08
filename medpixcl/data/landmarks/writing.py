"""Write landmarks of images in the chosen formats.

| name | file | holds |
|---|---|---|
| ``csv`` | ``landmarks.csv`` | all images, see :mod:`medpixcl.data.landmarks.csv_file` |
| ``json`` | ``landmarks.json`` | all images, see :mod:`medpixcl.data.landmarks.json_file` |
| ``coco`` | ``landmarks.coco.json`` | all pictures, see :mod:`medpixcl.data.landmarks.coco` |
| ``mrk.json`` | ``markups/<image>.mrk.json`` | one image, see :mod:`medpixcl.data.landmarks.slicer` |
| ``sr`` | ``sr/<image>.dcm`` | one DICOM image, see :mod:`medpixcl.data.landmarks.sr` |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from medpixcl.data.identity import unique_stems
from medpixcl.data.landmarks.coco import WHY_NO_VOLUME, write_coco
from medpixcl.data.landmarks.csv_file import landmark_rows, write_landmarks_csv
from medpixcl.data.landmarks.json_file import write_landmarks_json
from medpixcl.data.landmarks.reading import RUN_MARKUPS, RUN_TABLE
from medpixcl.data.landmarks.slicer import write_markups
from medpixcl.data.landmarks.sr import NoReportError, require_highdicom, write_sr
from medpixcl.data.landmarks.table import ImageLandmarks

DEFAULT_FORMATS = ("csv", "mrk.json")


@dataclass(frozen=True)
class NotWritten:
    """An image whose landmarks a format cannot hold.

    Attributes:
        image: Name of the image.
        format: Name of the format.
        reason: Reason why the format cannot hold the landmarks.
    """

    image: str
    format: str
    reason: str


def checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """Check names of formats and remove repeats, before anything is computed.

    Raises:
        ValueError: If a format is unknown, or there is none.
        ModuleNotFoundError: If a format needs a package that is not installed.

    Example:
        >>> checked_formats(["csv", "coco", "csv"])
        ('csv', 'coco')
    """
    listed = isinstance(formats, Sequence) and not isinstance(formats, str)
    if not listed or not all(isinstance(name, str) for name in formats):
        raise ValueError(f"formats is {formats!r}; expected a list of names, such as ['csv', 'json'].")
    unknown = [name for name in formats if name not in _WRITERS]
    if unknown or not formats:
        found = f"unknown format {', '.join(unknown)}" if unknown else "no format"
        raise ValueError(f"{found} of landmarks to write; expected some of {', '.join(_WRITERS)}.")
    if "sr" in formats:
        require_highdicom()
    return tuple(dict.fromkeys(formats))


def write_landmarks(
    folder: str | PathLike[str],
    images: Sequence[ImageLandmarks],
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    keep_patient: bool = False,
) -> list[NotWritten]:
    """Write landmarks of images into a folder, in several formats.

    Args:
        folder: Folder of the files; it is made if it does not exist.
        images: Landmarks of each image; names are unique, and for ``csv`` all images are 2D or all are 3D.
        formats: Names of formats from the table above.
        keep_patient: Whether DICOM SR keeps the patient and study of the image.

    Returns:
        Images that a format cannot hold, with the reason: a volume in COCO, an image that is not DICOM in an SR.

    Raises:
        ValueError: If a format is unknown, there is no image, or 2D and 3D are mixed in a CSV.
        ModuleNotFoundError: If a format needs a package that is not installed.
    """
    wanted = checked_formats(formats)
    if not images:
        raise ValueError(f"{folder}: no landmarks to write.")
    return [lack for name in wanted for lack in _WRITERS[name](Path(folder), images, keep_patient)]


def table_rows(one: ImageLandmarks) -> list[dict[str, str]]:
    """Format one image's rows, with its extras, for :func:`medpixcl.data.landmarks.csv_file.write_landmarks_csv`."""
    rows = landmark_rows(one.image, one.points, one.affine)
    return [row | extra for row, extra in zip(rows, one.extras, strict=True)] if one.extras else rows


def _csv(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    write_landmarks_csv(folder / RUN_TABLE, [row for one in images for row in table_rows(one)])
    return []


def _json(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    write_landmarks_json(folder / "landmarks.json", images)
    return []


def _coco(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    pictures = [one for one in images if one.points.dims == 2]
    if pictures:
        write_coco(folder / "landmarks.coco.json", pictures)
    return [NotWritten(one.image, "coco", WHY_NO_VOLUME) for one in images if one.points.dims != 2]


def _markups(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    names = unique_stems(one.image for one in images)
    for one in images:
        write_markups(folder / RUN_MARKUPS / f"{names[one.image]}.mrk.json", one.points, one.affine)
    return []


def _reports(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    left_out = []
    names = unique_stems(one.image for one in images)
    for one in images:
        try:
            write_sr(folder / "sr" / f"{names[one.image]}.dcm", one, keep_patient=keep_patient)
        except NoReportError as error:
            left_out.append(NotWritten(one.image, "sr", error.reason))
    return left_out


_WRITERS = {"csv": _csv, "json": _json, "mrk.json": _markups, "coco": _coco, "sr": _reports}
