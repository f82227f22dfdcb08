"""Landmark files in and out: CSV, Slicer ``.mrk.json`` and ``.fcsv``, or a folder of them."""

from os import PathLike
from pathlib import Path

from medpixcl.data.landmark_csv import landmark_rows, read_csv_rows, write_landmarks_csv
from medpixcl.data.landmark_table import LandmarkFile, LandmarkRow
from medpixcl.data.naming import image_stem
from medpixcl.data.slicer import read_fcsv_rows, read_markups_rows, write_markups

__all__ = [
    "LandmarkFile",
    "LandmarkRow",
    "image_stem",
    "landmark_rows",
    "read_landmarks",
    "write_landmarks_csv",
    "write_markups",
]

_READERS = {".csv": read_csv_rows, ".json": read_markups_rows, ".fcsv": read_fcsv_rows}


def read_landmarks(path: str | PathLike[str]) -> LandmarkFile:
    """Read landmarks of one or many images.

    Args:
        path: A CSV (see :mod:`medpixcl.data.landmark_csv`), a Slicer file named after its image, or a folder: of its
            Slicer files if there are any, else of its CSV files.

    Raises:
        ValueError: One sentence that names the file and the line.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist; expected a landmark file or a folder of them.")
    files = [path] if path.is_file() else _landmark_files(path)
    rows: list[LandmarkRow] = []
    for file in files:
        reader = _READERS.get(file.suffix.lower())
        if reader is None:
            raise ValueError(f"{file} is no landmark file; expected .csv, .mrk.json or .fcsv.")
        rows += reader(file)
    if not rows:
        raise ValueError(f"{path} holds no landmarks.")
    return LandmarkFile(path, rows)


def _landmark_files(folder: Path) -> list[Path]:
    visible = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    slicer = [file for file in visible if file.name.lower().endswith((".mrk.json", ".fcsv"))]
    files = slicer or [file for file in visible if file.suffix.lower() == ".csv"]
    if not files:
        raise ValueError(f"{folder} holds no landmark file; expected .mrk.json, .fcsv or .csv.")
    return files
