"""Damaged headers of DICOM: each costs its own file, for a reason that is foreseen."""

import warnings
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.uid import ImplicitVRLittleEndian, RLELossless

from medpixcl.data.dicom_geometry import SliceGeometry
from medpixcl.data.examination import Examination, Usable, examine
from medpixcl.data.sources import group_slices, recognise
from medpixcl.data.unusable import Unusable
from tests.data.dicom_files import NOBODY, write_dicom, write_series
from tests.data.test_dicom_geometry import along, enhanced


def kinds_of_dicom(folder: Path) -> dict[str, Path]:
    noise = np.random.default_rng(0).integers(0, 2000, (4, 8, 8))
    film = write_dicom(folder / "film", noise[0], Modality="DX", PixelSpacing=[0.2, 0.2], WindowCenter=[900, 5],
                       WindowWidth=[800, 5], PixelPaddingValue=3, NumberOfFrames=1)  # fmt: skip
    frames = enhanced(folder / "frames", noise, along(2.5 * np.arange(4)))
    for source in (film, frames):
        dataset = pydicom.dcmread(source)
        dataset.compress(RLELossless, encoding_plugin="pydicom")
        dataset.save_as(folder / f"packed {source.name}")
    dataset = pydicom.dcmread(film)
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(folder / "implicit", dataset, implicit_vr=True, little_endian=True)
    write_series(folder / "slice", noise)[0].rename(folder / "one slice")
    return {path.name: path for path in folder.iterdir() if path.is_file()}


def looked_at(path: Path, others: Path) -> Usable | Unusable:
    """What a scan says of a file, which may be a slice of the same series as some others."""
    found = recognise(path)
    if isinstance(found, SliceGeometry):
        (found, *_), _ = group_slices([found, *map(recognise, others.iterdir())])
    return found if isinstance(found, Unusable) else examine(Examination(found, 1.0))


@pytest.mark.parametrize("name", ["film", "frames", "packed film", "packed frames", "implicit", "one slice"])
def test_whatever_is_damaged_costs_one_file(tmp_path: Path, name: str) -> None:
    """Bytes of the header that are changed, lost or added: an image, or one foreseen reason; no word names anybody."""
    path, state = kinds_of_dicom(tmp_path)[name], np.random.default_rng(0)
    whole, refused = path.read_bytes(), 0
    for trial in range(80):
        damaged = bytearray(whole)
        for place in state.integers(132, whole.index(b"\xe0\x7f\x10\0") + 12, 1 + trial % 3).tolist():
            noise = state.bytes(1 + trial % 4)
            damaged[place : place + (0 if trial % 2 else len(noise))] = b"" if trial % 5 == 0 else noise
        path.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what pydicom warns of repeats values of the header
            found = looked_at(path, tmp_path / "slice")
        if isinstance(found, Unusable):
            refused += 1
            assert not found.trace, found.trace
            assert NOBODY not in found.reason
            assert "\n" not in found.reason
    assert refused > 10
