"""Small DICOM files made on the spot."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

NOBODY = "Secret^Patient"
"""Stands in every header; must turn up in no message and no output."""


def write_dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    """Write one 16-bit grey image; an element given as None is left out."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PatientName = dataset.PatientID = NOBODY
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, 0
    dataset.PixelData = pixels.astype("<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            dataset.pop(name, None)
        else:
            setattr(dataset, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path,
    volume: np.ndarray,
    *,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: Sequence[float] = (0, 0, 2.5),
    origin: Sequence[float] = (-10, -20, 30),
    spacing: Sequence[float] = (0.5, 0.75),
    positions: Sequence[float] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write a volume (slice, row, column) as CT slices, in shuffled file order.

    Args:
        positions: How many steps each slice lies from the origin; 0, 1, 2... unless given.
    """
    places = range(len(volume)) if positions is None else positions
    files = []
    for number, (pixels, place) in enumerate(zip(volume, places, strict=True)):
        position = [start + place * one for start, one in zip(origin, step, strict=True)]
        name = f"im{(number * 7) % 101:03d}"
        files.append(
            write_dicom(
                folder / name,
                pixels,
                **{
                    "Modality": "CT",
                    "ImageOrientationPatient": [float(value) for value in orientation],
                    "ImagePositionPatient": [round(float(value), 6) for value in position],
                    "PixelSpacing": list(spacing),
                    "RescaleSlope": 2,
                    "RescaleIntercept": -1024,
                    **elements,
                },
            )
        )
    return files
