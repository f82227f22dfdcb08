"""Read landmark files: CSV, JSON, COCO, Slicer ``.mrk.json`` and ``.fcsv``, DICOM SR, or a folder of them."""

from collections.abc import Callable
from dataclasses import replace
from os import PathLike
from pathlib import Path

from medpixcl._json import parsed_json
from medpixcl.data.dicom_header import is_dicom
from medpixcl.data.landmarks.coco import read_coco_rows
from medpixcl.data.landmarks.csv_file import read_csv_rows
from medpixcl.data.landmarks.json_file import FORMAT, read_json_rows
from medpixcl.data.landmarks.row import LandmarkRow
from medpixcl.data.landmarks.slicer import read_fcsv_rows, read_markups_rows
from medpixcl.data.landmarks.sr_reading import is_report, read_sr_rows
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.paths import checked_path
from medpixcl.data.result_folders import REJECTED_TABLE
from medpixcl.data.text import utf8_text
from medpixcl.limits import regular_file

Reader = Callable[[Path], list[LandmarkRow]]
RUN_TABLE, RUN_MARKUPS = "landmarks.csv", "markups"
"""Names of the table of a run, and of the folder with its Slicer files."""


def read_landmarks(path: str | PathLike[str], unreadable: list[str] | None = None) -> LandmarkFile:
    """Read landmarks of one or many images.

    Args:
        path: CSV file (see :mod:`medpixcl.data.landmarks.csv_file`), JSON file of this package or of COCO, Slicer file
            or DICOM SR named after its image, or a folder. In a folder, Slicer files are read if there are any, else
            the CSV files, else the JSON files, else the reports; in the output folder of a run, its ``landmarks.csv``.
        unreadable: List that is extended by why a file of a folder cannot be read, while the others are; None refuses
            the whole folder.

    Raises:
        ValueError: If the landmarks cannot be read; the message names the file and the line.
    """
    path = checked_path(path, "the landmark file")
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected a landmark file or a folder of them.")
    if path.is_dir():
        rows = [row for file in _landmark_files(path) for row in _rows_of_one(file, path, unreadable)]
    else:
        rows = _rows(regular_file(path))
    if not rows:
        raise ValueError(unreadable[0] if unreadable else f"{path} holds no landmarks.")
    return LandmarkFile(path, rows)


def markups_of_run(folder: Path) -> Path | None:
    """Folder with the Slicer files of a run; None if ``folder`` is no output folder of a run, or has none."""
    return folder / RUN_MARKUPS if _is_run(folder) and (folder / RUN_MARKUPS).is_dir() else None


def _is_run(folder: Path) -> bool:
    return all((folder / name).is_file() for name in (RUN_TABLE, REJECTED_TABLE))


def _rows(file: Path) -> list[LandmarkRow]:
    reader = _reader(file)
    if reader is None:
        raise ValueError(f"{file} is no landmark file; expected .csv, .mrk.json or .fcsv, COCO, or a DICOM SR.")
    return reader(file)


def _rows_of_one(file: Path, folder: Path, unreadable: list[str] | None) -> list[LandmarkRow]:
    """Rows of one file of a folder."""
    try:
        return [_placed(row, file, folder) for row in _rows(file)]
    except ValueError as error:
        if unreadable is None:
            raise
        unreadable.append(str(error))
        return []


def _placed(row: LandmarkRow, file: Path, folder: Path) -> LandmarkRow:
    """The row of a file in a subfolder, its image named relative to the folder."""
    below = file.parent.relative_to(folder)
    return replace(row, image=(below / row.image).as_posix()) if below.parts else row


def _reader(file: Path) -> Reader | None:
    """Find the format by suffix, or by content if the suffix is ambiguous."""
    name = file.name.lower()
    if name.endswith(".csv"):
        return read_csv_rows
    if name.endswith(".fcsv"):
        return read_fcsv_rows
    if name.endswith(".json"):
        return _own_or_coco(file) or read_markups_rows
    return read_sr_rows if is_dicom(file) else None


def _own_or_coco(file: Path) -> Reader | None:
    try:
        content = parsed_json(utf8_text(file))
    except ValueError:
        return None
    if not isinstance(content, dict) or "markups" in content:
        return None
    if content.get("format") == FORMAT:
        return read_json_rows
    return read_coco_rows if {"images", "annotations"} <= content.keys() else None


def _landmark_files(folder: Path) -> list[Path]:
    """Landmark files of the folder itself; if it has none, those of its subfolders that belong to one image each."""
    if _is_run(folder):
        return [folder / RUN_TABLE]
    kinds: list[Callable[[Path], object]] = [
        lambda file: file.name.lower().endswith((".mrk.json", ".fcsv")),
        lambda file: file.suffix.lower() == ".csv" and file.name != REJECTED_TABLE,
        lambda file: file.suffix.lower() == ".json" and _own_or_coco(file),
        is_report,
    ]
    below = folder.rglob("*"), [kinds[0], kinds[-1]]
    for files, wanted in [below] if markups_of_run(folder.parent) == folder else [(folder.iterdir(), kinds), below]:
        visible = sorted(file for file in files if file.is_file() and not file.name.startswith("."))
        for kind in wanted:
            if found := [file for file in visible if kind(file)]:
                return found
    raise ValueError(f"{folder} holds no landmark file; expected .mrk.json, .fcsv, .csv, .json or DICOM SR.")
