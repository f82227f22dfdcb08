"""The kinds of input of hospital folders that were once read wrong: each is built in code, with what is right and why.

The folders of the data set ``intake_cases`` hold the same files under the same names.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.data.dicom_files import write_dicom


@dataclass(frozen=True)
class Expected:
    """What a scan of a case finds.

    Attributes:
        images: Grey values and voxel size in mm, by the path of the image or of its first file.
        reasons: Pattern of the reason by the path of a rejected file.
        spacing_mm: Pixel size given to the scan.
        atol: Largest difference of grey values.
    """

    images: dict[str, tuple[np.ndarray, Sequence[float]]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)
    spacing_mm: float | None = None
    atol: float = 0.0


Build = Callable[[Path], None]
"""Writes the files of a case into a folder."""
Cases = dict[str, tuple[Build, Expected]]


def keep_in(cases: Cases) -> Callable[[str, Expected], Callable[[Build], Build]]:
    """Decorator that adds the function of a case to a collection."""

    def named(name: str, expected: Expected) -> Callable[[Build], Build]:
        def keep(build: Build) -> Build:
            cases[name] = build, expected
            return build

        return keep

    return named


def shade(rows: int = 64, columns: int = 48) -> np.ndarray:
    """A smooth picture without symmetry, 0 to 1."""
    y, x = np.mgrid[:rows, :columns]
    spot = np.exp(-((x - columns * 0.3) ** 2 + (y - rows * 0.6) ** 2) / (2 * (rows * 0.12) ** 2))
    return np.clip(0.5 * spot + 0.4 * (x / columns) + 0.1 * (y / rows), 0, 1)


BYTES, FILM = (shade() * 255).astype("u1"), (shade() * 4000).astype("u2")


def write_film(path: Path, pixels: np.ndarray = FILM, **elements: Any) -> Path:
    """Write a radiograph of 12 bits."""
    bits = {"BitsStored": 12, "HighBit": 11, "Modality": "CR", "SeriesInstanceUID": "1.2.3.4.7"}
    return write_dicom(path, pixels, **{**bits, **elements})


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Replace bytes of a file by as many others."""
    content = path.read_bytes()
    assert old in content
    assert len(old) == len(new)
    path.write_bytes(content.replace(old, new))
