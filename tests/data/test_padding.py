"""PixelPaddingValue of slices: no outlier among what was imaged, no other voxel changed (PS3.3 C.7.5.1.1.2)."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medpixcl.data.images import read_image
from tests.data.dicom_files import write_series
from tests.data.test_dicom_geometry import along, enhanced

HU = np.random.default_rng(0).integers(-1024, 2000, (20, 6, 8))
CIRCLE = np.hypot(*np.meshgrid(np.arange(8) - 3.5, np.arange(6) - 2.5)) < 3


def series(
    folder: Path, padding: int, *, signed: bool, vr: str | None = None, limit: int | None = None, slope: int = 1
) -> Path:
    """A CT with padding outside of a circle; stored HU (signed) or HU + 1024."""
    stored = np.where(CIRCLE, HU if signed else HU + 1024, padding)
    if limit is not None:
        stored[:, 0, 0] = limit
    for file in write_series(
        folder, stored.astype(np.int16 if signed else np.uint16), PixelRepresentation=int(signed),
        RescaleSlope=slope, RescaleIntercept=0 if signed else -1024,
    ):  # fmt: skip
        dataset = pydicom.dcmread(file)
        for keyword, value in (("PixelPaddingValue", padding), ("PixelPaddingRangeLimit", limit)):
            if value is not None:
                kind = vr or ("SS" if signed else "US")
                dataset.add_new(keyword, kind, value % 2**16 if kind == "US" else value)
        dataset.save_as(file)
    return folder


def assert_no_outlier(folder: Path) -> None:
    values = read_image(folder)[0].numpy()
    inside = np.broadcast_to(CIRCLE, HU.shape).transpose(2, 1, 0)
    np.testing.assert_array_equal(values[inside], HU.transpose(2, 1, 0)[inside])
    assert (values[~inside] == HU[:, CIRCLE].min()).all()


@pytest.mark.parametrize("vr", [None, "US", "SS"])
@pytest.mark.parametrize(
    ("padding", "limit"), [(-2000, None), (-32768, None), (-2000, -1900), (-1900, -2000), (9999, None)]
)
def test_signed_padding_whatever_its_vr(tmp_path: Path, padding: int, limit: int | None, vr: str | None) -> None:
    assert_no_outlier(series(tmp_path, padding, signed=True, vr=vr, limit=limit))


@pytest.mark.parametrize(("padding", "limit"), [(63536, None), (65535, 65000), (40000, None)])
def test_unsigned_padding(tmp_path: Path, padding: int, limit: int | None) -> None:
    assert_no_outlier(series(tmp_path, padding, signed=False, limit=limit))


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_in_other_transfer_syntaxes(tmp_path: Path, syntax: Any, signed: bool) -> None:
    """In implicit VR, PixelRepresentation alone says which sign the padding has."""
    for file in series(tmp_path, -2000 if signed else 63536, signed=signed).iterdir():
        dataset = pydicom.dcmread(file)
        if syntax.is_compressed:
            dataset.compress(syntax)
            dataset.save_as(file)
        else:
            if not syntax.is_little_endian:
                dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
            dataset.file_meta.TransferSyntaxUID = syntax
            pydicom.dcmwrite(
                file, dataset, implicit_vr=syntax.is_implicit_VR, little_endian=syntax.is_little_endian,
                enforce_file_format=True, overwrite=True,
            )  # fmt: skip
    assert_no_outlier(tmp_path)


@pytest.mark.parametrize("padding", [-1024, -1030, 0])
def test_padding_among_the_other_values_stays(tmp_path: Path, padding: int) -> None:
    """The voxels are then those of ITK, which does not look at the padding."""
    series(tmp_path, padding, signed=True)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    expected = SimpleITK.GetArrayFromImage(reader.Execute()).transpose()
    np.testing.assert_array_equal(read_image(tmp_path)[0].numpy(), expected)


def test_padding_after_a_rescale_of_its_own(tmp_path: Path) -> None:
    """The value counts as stored, before slope and intercept."""
    values = read_image(series(tmp_path, -2000, signed=True, slope=2))[0].numpy()
    assert values.min() == 2 * HU[:, CIRCLE].min()


def test_a_slice_of_padding_alone_and_a_volume_of_it(tmp_path: Path) -> None:
    folder = series(tmp_path / "one", -2000, signed=True)
    dataset = pydicom.dcmread(file := sorted(folder.iterdir())[3])
    dataset.PixelData = np.full((6, 8), -2000, np.int16).tobytes()
    dataset.save_as(file)
    assert read_image(folder).min() == pytest.approx(HU[:, CIRCLE].min(), abs=20)
    for file in (folder := series(tmp_path / "all", -2000, signed=True)).iterdir():
        dataset = pydicom.dcmread(file)
        dataset.PixelData = np.full((6, 8), -2000, np.int16).tobytes()
        dataset.save_as(file)
    assert read_image(folder).unique().tolist() == [-2000]


def test_padding_of_a_multi_frame_image(tmp_path: Path) -> None:
    stored = np.random.default_rng(1).integers(100, 2000, (4, 4, 5))
    stored[:, 0] = 65000
    path = enhanced(tmp_path / "a.dcm", stored, along(2.5 * np.arange(4)))
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65000)
    dataset.save_as(path)
    expected = stored * np.arange(1, 5)[:, None, None] - 1024.0  # each frame has a slope of its own
    expected[:, 0] = expected[:, 1:].min()
    np.testing.assert_array_equal(read_image(path)[0].numpy(), expected.transpose(2, 1, 0))
