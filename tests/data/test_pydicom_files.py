"""pydicom's own test files, those of its wheel: each is read as pydicom reads it, or refused with a true reason."""

import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from medpixcl.data.dicom import is_slice
from medpixcl.data.dicom_header import Header, is_dicom, read_whole
from medpixcl.data.dicom_pixels import modality_values, stored_values
from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.scan import scan

ROOT = Path(pydicom.__file__).parent / "data" / "test_files"
FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*") if path.is_file() and is_dicom(path))
REASONS = {
    r"examples_(jpeg2k|palette|rgb|ybr)|ExplVR_BigEnd\.|GDCMJ2K|SC_(rgb|jpeg|ybr)": "is a colour image",
    "liver": "is a DICOM segmentation",
    "rtdose|badVR": "is a DICOM dose distribution",
    "rtstruct": "is a DICOM set of contours",
    "JPEG2000-emb": "holds a compressed picture of 1024 x 3722445056 pixels, and its header states 1024 x 256",
    "SR|reports|rtplan|NoMeta|ECG|waveform|DICOMDIR$|DICOMDIR-|priv|UN_seq|charset|meta": "without pixels",
    "TINY_ALPHA/PT": "without Rows and Columns",
    r"JPE?G-?(lossy|Extended)": "is compressed as JPEG Extended .*install one of: .*pylibjpeg",
    "MR_truncated": r"cut off|one slice of a volume",
    "JPEGLSNear|J2K|JPEG2000|CR[123]|image_dfl": "has no pixel spacing|shows nothing|one slice of a volume",
    "CT|MR|overlay": "one slice of a volume",
}


def reason(name: str) -> str:
    return next(sentence for pattern, sentence in REASONS.items() if re.search(pattern, name))


def test_the_files_are_there() -> None:
    assert len(FILES) > 150


@pytest.mark.parametrize("name", FILES)
def test_file_is_read_or_refused_with_its_reason(name: str) -> None:
    try:
        image = read_image(ROOT / name)
    except ImageFileError as error:
        refused = error.reason
    else:
        assert image.ndim == 3
        assert image.isfinite().all()
        assert image.min() < image.max()
        return
    assert re.search(reason(name), refused), refused


def test_grey_values_are_those_of_pydicom() -> None:
    """Of every grey file that pydicom decodes: pixel_array, then slope and intercept by hand."""
    compared = 0
    for name in FILES:
        dataset = pydicom.dcmread(ROOT / name, force=True)
        if dataset.get("PhotometricInterpretation") not in ("MONOCHROME1", "MONOCHROME2") or name.startswith("badVR"):
            continue
        if dataset.BitsAllocated not in (8, 16):
            continue
        try:
            expected = dataset.pixel_array.astype(np.float64)
        except Exception:
            continue
        expected = expected * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
        header = read_whole(ROOT / name)
        found = modality_values(header, stored_values(header))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-6, err_msg=name)
        compared += 1
    assert compared > 40


def test_a_scan_of_all_ends_with_every_file_listed() -> None:
    """The folder holds three regular series among files of all kinds; no patient is named."""
    manifest = scan(ROOT, spacing_mm=1)
    used = {
        file
        for one in manifest.training
        for file in ([one["image"]] if isinstance(one["image"], str) else one["image"])
    }
    refused = {one["path"] for one in manifest.rejected}
    for name in FILES:
        folders = {parent.as_posix() for parent in Path(name).parents}
        assert used & {name, *folders} or refused & {name, *folders}, name
    assert len(manifest.training) >= 5


def test_a_slice_is_told_from_a_picture() -> None:
    kinds = {
        name: is_slice(Header(pydicom.dcmread(ROOT / name), ROOT / name))
        for name in ("CT_small.dcm", "MR_small.dcm", "dicomdirtests/77654033/CR1/6154", "image_dfl.dcm")
    }
    assert list(kinds.values()) == [True, True, False, False]
