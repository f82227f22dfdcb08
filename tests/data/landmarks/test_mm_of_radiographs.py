"""Points in mm made in a program on ITK: if its pixel size is another one, that is said, or the points are refused."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from pydicom import uid

from medpixcl.data.dicom_header import read_header
from medpixcl.data.images import read_image
from medpixcl.data.itk_spacing import itk_spacing
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_dicom

RAMP = np.arange(2400, dtype=np.uint16).reshape(60, 40)
PIXEL, IMAGER, SCANNED = {"PixelSpacing": [0.12, 0.13]}, {"ImagerPixelSpacing": [0.15, 0.16]}, {
    "NominalScannedPixelSpacing": [0.1, 0.11]
}  # fmt: skip
FACTOR = {"EstimatedRadiographicMagnificationFactor": 1.25}


def marked(folder: Path, position: tuple[float, float], **elements: object) -> Path:
    """A radiograph and a Slicer file with a point at (x, y) mm, LPS."""
    write_dicom(folder / "a.dcm", RAMP, **{
        "Modality": "DX", "SOPClassUID": uid.DigitalXRayImageStorageForPresentation, **elements
    })  # fmt: skip
    point = {"label": "1", "position": [*position, 0.0], "positionStatus": "defined"}
    markups = {"markups": [{"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]}]}
    (folder / "a.mrk.json").write_text(json.dumps(markups))
    return folder / "a.dcm"


@pytest.mark.parametrize(
    "kind",
    [uid.ComputedRadiographyImageStorage, uid.DigitalXRayImageStorageForPresentation,
     uid.DigitalMammographyXRayImageStorageForPresentation, uid.DigitalIntraOralXRayImageStorageForPresentation,
     uid.XRayAngiographicImageStorage, uid.XRayRadiofluoroscopicImageStorage, uid.SecondaryCaptureImageStorage,
     uid.UltrasoundImageStorage],
)  # fmt: skip
@pytest.mark.parametrize("elements", [PIXEL, IMAGER, SCANNED, PIXEL | IMAGER, PIXEL | SCANNED, {}])
def test_the_pixel_size_of_itk_is_known(tmp_path: Path, kind: uid.UID, elements: dict) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, Modality="CR", SOPClassUID=kind, **elements)
    assert itk_spacing(read_header(path)) == pytest.approx(SimpleITK.ReadImage(str(path)).GetSpacing()[1::-1])


@pytest.mark.parametrize(
    ("elements", "mm", "source"),
    [
        (IMAGER | FACTOR, (0.12, 0.128), r"0\.12 x 0\.128 mm \(ImagerPixelSpacing / magnification 1\.25\)"),
        (PIXEL | IMAGER, (0.12, 0.13), r"0\.12 x 0\.13 mm \(PixelSpacing\)"),
        (PIXEL, (0.12, 0.13), r"\(PixelSpacing\).* show this radiograph with 1 x 1 mm"),
        (SCANNED, (0.1, 0.11), r"\(NominalScannedPixelSpacing\)"),
    ],
)
def test_reading_says_whose_mm_they_are(tmp_path: Path, elements: dict, mm: tuple, source: str) -> None:
    path = marked(tmp_path, (20 * mm[1], 30 * mm[0]), **elements)
    image = read_image(path)
    with pytest.warns(UserWarning, match=source):
        found = read_landmarks(tmp_path / "a.mrk.json").for_image(path, image.affine, image.shape[1:])
    np.testing.assert_allclose(found.voxels.numpy(), [[30, 20]], atol=1e-9)
    # made in ITK at the pixel (30, 20), which it shows 1 mm large: beyond the image here
    if elements in (PIXEL, SCANNED):
        marked(tmp_path, (20, 30), **elements)
        with pytest.raises(ValueError, match=r"outside the image .* programs on ITK, such as 3D Slicer, show this"):
            scan(tmp_path, landmarks=tmp_path / "a.mrk.json")


REPEATED = IMAGER | {"PixelSpacing": [0.15, 0.16]}


@pytest.mark.parametrize(
    "elements", [IMAGER, REPEATED, REPEATED | FACTOR | {"PixelSpacingCalibrationType": "FIDUCIAL"}]
)
def test_nothing_is_said_where_the_mm_agree(tmp_path: Path, elements: dict) -> None:
    path = marked(tmp_path, (20 * 0.16, 30 * 0.15), **elements)
    image = read_image(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_landmarks(tmp_path / "a.mrk.json").for_image(path, image.affine, image.shape[1:])
    np.testing.assert_allclose(found.voxels.numpy(), [[30, 20]], atol=1e-9)
