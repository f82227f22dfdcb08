"""Slices: over folders, mixed, with odd ones, with rounded or damaged values."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom

from tests.data.dicom_files import write_dicom
from tests.data.intake.cases import Cases, Expected, keep_in, patch, shade

CASES: Cases = {}
_case = keep_in(CASES)
SLICES = np.stack([(shade(32, 24) * 1000 + 40 * k).astype("i2") for k in range(10)])


def _slice(path: Path, k: int, **elements: Any) -> Path:
    place = {
        "Modality": "CT",
        "PixelRepresentation": 1,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [-10, -20, 100 + 2.5 * k],
        "PixelSpacing": [1, 1],
        "InstanceNumber": k + 1,
    }
    return write_dicom(path, SLICES[k].view("u2"), **{**place, **elements})


def _series(folder: Path, number: int, name: Callable[[int], str] = "{:04d}.dcm".format, **elements: Any) -> None:
    for k in range(number):
        _slice(folder / name(k), k, **elements)


def _volume(number: int) -> np.ndarray:
    return SLICES[:number].transpose(2, 1, 0)


FOUR, SIX, TEN = ((_volume(n), (1, 1, 2.5)) for n in (4, 6, 10))


@_case("position_comma", Expected({}, {f"{k:04d}.dcm": "ImagePositionPatient '-10,5" for k in range(4)}))
def _(folder: Path) -> None:
    for k in range(4):
        position = [-10.5, -20.5, 100.5 + k]
        patch(_slice(folder / f"{k:04d}.dcm", k, ImagePositionPatient=position), b"-10.5", b"-10,5")


@_case("series_with_tiff_preamble", Expected({".": FOUR}))
def _(folder: Path) -> None:
    _series(folder, 4)
    for path in folder.iterdir():
        path.write_bytes(b"II*\0T\x18\x08\0".ljust(128, b"\0") + path.read_bytes()[128:])


@_case("ct_slices_with_excess_data", Expected({".": FOUR}))
def _(folder: Path) -> None:
    """PS3.5 8.1.1: padding behind the pixels is to be ignored."""
    _series(folder, 4)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.PixelData += b"\0" * len(dataset.PixelData)
        dataset.save_as(path)


@_case("rescale_empty", Expected({".": FOUR}))
def _(folder: Path) -> None:
    _series(folder, 4, RescaleSlope="", RescaleIntercept="")


@_case("localizer_in_series", Expected({"0000.dcm": SIX}, {"scout.dcm": "is a localizer"}))
def _(folder: Path) -> None:
    _series(folder, 6)
    _slice(folder / "scout.dcm", 6, ImageOrientationPatient=[1, 0, 0, 0, 0, -1], ImagePositionPatient=[-10, 0, 200],
           ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])  # fmt: skip


@_case("position_noise_one_decimal", Expected({".": (_volume(8), (1, 1, 1.254762))}))
def _(folder: Path) -> None:
    """Slices 1.25 mm apart, written to one decimal; the distance is that of the line of least squares."""
    for k in range(8):
        _slice(folder / f"{k:04d}.dcm", k, ImagePositionPatient=[-10, -20, round(100 + 1.25 * k, 1)])


@_case("series_one_folder_per_slice", Expected({"00000000/1.dcm": SIX}))
def _(folder: Path) -> None:
    _series(folder, 6, "{:08d}/1.dcm".format)


@_case("series_over_two_folders_alternating", Expected({"BB/0000.dcm": TEN}))
def _(folder: Path) -> None:
    _series(folder, 10, lambda k: f"{'AA' if k % 2 else 'BB'}/{k:04d}.dcm")


@_case("series_over_two_folders_halves", Expected({"DIR0/0000.dcm": TEN}))
def _(folder: Path) -> None:
    _series(folder, 10, lambda k: f"DIR{k // 5}/{k:04d}.dcm")


@_case("series_uid_deleted_interleaved", Expected(
    {f"{one}_0000.dcm": (np.full((24, 32, 5), 100 * one), (1, 1, 2.5)) for one in (1, 2)}))  # fmt: skip
def _(folder: Path) -> None:
    for series in (1, 2):
        for k in range(5):
            place = [-10, -20, 100 + 2.5 * k + 1.25 * (series - 1)]
            _slice(folder / f"{series}_{k:04d}.dcm", k, SeriesInstanceUID=None, SeriesNumber=series,
                   AcquisitionNumber=series, ImagePositionPatient=place,
                   PixelData=np.full((32, 24), 100 * series, "i2").tobytes())  # fmt: skip
