"""The one place that writes landmarks of images, whatever the formats.

| name | file | holds |
|---|---|---|
| ``csv`` | ``landmarks.csv`` | all images, see :mod:`medpixcl.data.landmarks.csv_file` |
| ``json`` | ``landmarks.json`` | all images, see :mod:`medpixcl.data.landmarks.json_file` |
| ``coco`` | ``landmarks.coco.json`` | all pictures, see :mod:`medpixcl.data.landmarks.coco` |
| ``mrk.json`` | ``markups/<image>.mrk.json`` | one image, see :mod:`medpixcl.data.landmarks.slicer` |
| ``sr`` | ``sr/<image>.dcm`` | one DICOM image, see :mod:`medpixcl.data.landmarks.sr` |
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path, PurePosixPath

from medpixcl.data.identity import image_stem
from medpixcl.data.landmarks.coco import WHY_NO_VOLUME, write_coco
from medpixcl.data.landmarks.csv_file import landmark_rows, write_landmarks_csv
from medpixcl.data.landmarks.json_file import write_landmarks_json
from medpixcl.data.landmarks.slicer import write_markups
from medpixcl.data.landmarks.sr import NoReportError, require_highdicom, write_sr
from medpixcl.data.landmarks.table import ImageLandmarks

DEFAULT_FORMATS = ("csv", "mrk.json")


@dataclass(frozen=True)
class NotWritten:
    """An image whose landmarks a format cannot hold.

    Attributes:
        image: Its name.
        format: The format.
        reason: Why.
    """

    image: str
    format: str
    reason: str


def checked_formats(formats: Sequence[str]) -> tuple[str, ...]:
    """The formats without repeats; fails before anything is computed for them.

    Raises:
        ValueError: If one is unknown, or there is none.
        ModuleNotFoundError: If one needs a package that is not installed.

    Example:
        >>> checked_formats(["csv", "coco", "csv"])
        ('csv', 'coco')
    """
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
    """Write landmarks of images into a folder, in all the formats wanted.

    Args:
        folder: Where; made if it is missing.
        images: Landmarks of each image; names are unique, and all are 2D or all are 3D where ``csv`` is wanted.
        formats: Names from the table above.
        keep_patient: Copy patient and study into DICOM SR.

    Returns:
        What a format cannot hold, with the reason: a volume in COCO, an image that is no DICOM in an SR.

    Raises:
        ValueError: If a format is unknown, there is no image, or 2D and 3D are mixed in a CSV.
        ModuleNotFoundError: If a format needs a package that is not installed.
    """
    wanted = checked_formats(formats)
    if not images:
        raise ValueError(f"{folder}: no landmarks to write.")
    return [lack for name in wanted for lack in _WRITERS[name](Path(folder), images, keep_patient)]


def table_rows(one: ImageLandmarks) -> list[dict[str, str]]:
    """Rows of one image for :func:`medpixcl.data.landmarks.csv_file.write_landmarks_csv`, with its extras."""
    rows = landmark_rows(one.image, one.points, one.affine)
    return [row | extra for row, extra in zip(rows, one.extras, strict=True)] if one.extras else rows


def _csv(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    write_landmarks_csv(folder / "landmarks.csv", [row for one in images for row in table_rows(one)])
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
    for one, name in zip(images, _file_names(images), strict=True):
        write_markups(folder / "markups" / f"{name}.mrk.json", one.points, one.affine)
    return []


def _reports(folder: Path, images: Sequence[ImageLandmarks], keep_patient: bool) -> list[NotWritten]:
    left_out = []
    for one, name in zip(images, _file_names(images), strict=True):
        try:
            write_sr(folder / "sr" / f"{name}.dcm", one, keep_patient=keep_patient)
        except NoReportError as error:
            left_out.append(NotWritten(one.image, "sr", error.reason))
    return left_out


def _file_names(images: Sequence[ImageLandmarks]) -> list[str]:
    """Names without suffix for files of one image each; with suffix where two would be the same."""
    for one in images:
        if one.image.startswith("/") or ".." in PurePosixPath(one.image).parts:
            raise ValueError(f"the image is called {one.image!r}, which leads out of the folder; rename it")
    stems = Counter(image_stem(one.image) for one in images)
    return [stem if stems[stem := image_stem(one.image)] == 1 else one.image for one in images]


_WRITERS = {"csv": _csv, "json": _json, "mrk.json": _markups, "coco": _coco, "sr": _reports}
