"""Radiographs: polarity, windows, bits, pixel sizes, damaged values."""

import json
import struct
from pathlib import Path

import numpy as np
import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import DigitalXRayImageStorageForPresentation, JPEG2000Lossless

from tests.data.intake.cases import FILM, Cases, Expected, keep_in, patch, shade, write_film

CASES: Cases = {}
_case = keep_in(CASES)
GOOD = {"good.dcm": (FILM, (0.2, 0.2))}


def _good(folder: Path) -> None:
    write_film(folder / "good.dcm", PixelSpacing=[0.2, 0.2])


def _windowed(values: np.ndarray, centre: float, width: float, low: float, high: float) -> np.ndarray:
    """PS3.3 C.11.2.1.2.1."""
    share = (values - (centre - 0.5)) / (width - 1) + 0.5
    return np.clip(share, 0, 1) * (high - low) + low


def _frames_patched(path: Path, text: bytes) -> None:
    """A film whose NumberOfFrames is other bytes than the number 1."""
    write_film(path, PixelSpacing=[0.2, 0.2], NumberOfFrames=1)
    element = struct.pack("<HH", 0x28, 8) + b"IS\2\0"
    patch(path, element + b"1 ", element + text)


@_case("bad_vr_is", Expected(GOOD, {"a.dcm": "NumberOfFrames '1A' .*expected a number"}))
def _(folder: Path) -> None:
    _frames_patched(folder / "a.dcm", b"1A")
    _good(folder)


@_case("numberofframes_garbage", Expected(GOOD, {"cr.dcm": "NumberOfFrames that is not numeric"}))
def _(folder: Path) -> None:
    _frames_patched(folder / "cr.dcm", b"? ")
    _good(folder)


@_case("pixelspacing_comma_separator", Expected(GOOD, {"cr.dcm": "PixelSpacing '0.14,0.14' .*expected 2 numbers"}))
def _(folder: Path) -> None:
    patch(write_film(folder / "cr.dcm", PixelSpacing=[0.14, 0.14]), b"0.14\\0.14", b"0.14,0.14")
    _good(folder)


@_case("pixelspacing_decimal_comma", Expected(GOOD, {"cr.dcm": r"PixelSpacing '0,14\\0,14' .*decimal points"}))
def _(folder: Path) -> None:
    patch(write_film(folder / "cr.dcm", PixelSpacing=[1.14, 1.14]), b"1.14\\1.14", b"0,14\\0,14")
    _good(folder)


@_case("cr_negative_slope", Expected({"cr.dcm": (
    _windowed(30000 - 10.0 * FILM, 15000, 30000, 30000 - 10.0 * 4095, 30000), (0.2, 0.2))}, atol=0.01))  # fmt: skip
def _(folder: Path) -> None:
    """Low modality values, of high stored ones, are black."""
    write_film(folder / "cr.dcm", PixelSpacing=[0.2, 0.2], RescaleSlope=-10, RescaleIntercept=30000, WindowCenter=15000,
          WindowWidth=30000)  # fmt: skip


@_case("voi_lut_and_window", Expected({"cr.dcm": (_windowed(FILM, 2000, 4000, 0, 4095), (0.2, 0.2))}, atol=0.01))
def _(folder: Path) -> None:
    """A table that shows nothing is passed over for the window."""
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 16])
    table.add_new("LUTData", "OW", np.full(4096, 65535, "u2").tobytes())
    write_film(folder / "cr.dcm", PixelSpacing=[0.2, 0.2], WindowCenter=2000, WindowWidth=4000, VOILUTSequence=[table])


@_case("voi_lut_function_empty", Expected({"cr.dcm": (_windowed(FILM, 2000, 4000, 0, 4095), (0.2, 0.2))}, atol=0.01))
def _(folder: Path) -> None:
    write_film(folder / "cr.dcm", PixelSpacing=[0.2, 0.2], WindowCenter=2000, WindowWidth=4000, VOILUTFunction="")


@_case("window_useless", Expected({"w1c0.dcm": (FILM, (0.2, 0.2)), "outside.dcm": (FILM, (0.2, 0.2))}))
def _(folder: Path) -> None:
    write_film(folder / "w1c0.dcm", PixelSpacing=[0.2, 0.2], WindowCenter=0, WindowWidth=1)
    write_film(folder / "outside.dcm", PixelSpacing=[0.2, 0.2], WindowCenter=60000, WindowWidth=256)


@_case("j2k_overlay_bits", Expected({"cr.dcm": ((shade(128, 96) * 4000).astype("u2"), (0.2, 0.2))}))
def _(folder: Path) -> None:
    """Bits above BitsStored are no pixel data (PS3.5 8.1.1)."""
    from openjpeg.utils import encode_array

    words = (shade(128, 96) * 4000).astype("u2")
    words[10:20, 10:20] |= 0x8000
    stream = encode_array(words, photometric_interpretation=2, bits_stored=16, use_mct=False)
    dataset = pydicom.dcmread(write_film(folder / "cr.dcm", words, PixelSpacing=[0.2, 0.2]))
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(folder / "cr.dcm")


@_case(
    "frames_without_numberofframes_xray", Expected({}, {"a.dcm": "hold 3 frames of 64 x 48, and its header states 1"})
)
def _(folder: Path) -> None:
    frames = np.stack([FILM, FILM // 2, FILM // 3])
    write_film(folder / "a.dcm", PixelSpacing=[0.2, 0.2], PixelData=frames.tobytes())


@_case("xray_with_orientation", Expected({"dx.dcm": (FILM, (0.2, 0.2))}))
def _(folder: Path) -> None:
    write_film(folder / "dx.dcm", Modality="DX", PixelSpacing=[0.2, 0.2], ImageOrientationPatient=[1, 0, 0, 0, 0, -1],
          ImagePositionPatient=[0, 0, 0])  # fmt: skip


@_case("zero_pixelspacing_good_imager", Expected({"dx.dcm": (FILM, (0.15, 0.15))}))
def _(folder: Path) -> None:
    write_film(folder / "dx.dcm", PixelSpacing=[0, 0], ImagerPixelSpacing=[0.15, 0.15])


@_case("magnification_pixelspacing_equals_imager", Expected({"dx.dcm": (FILM, (0.12, 0.12))}))
def _(folder: Path) -> None:
    """PS3.3 10.7.1.3: what only repeats the size at the detector is not calibrated."""
    write_film(folder / "dx.dcm", PixelSpacing=[0.15, 0.15], ImagerPixelSpacing=[0.15, 0.15],
          EstimatedRadiographicMagnificationFactor=1.25)  # fmt: skip


@_case("pixel_aspect_ratio", Expected({"sc.dcm": (FILM, (1.0, 0.5))}, spacing_mm=0.5))
def _(folder: Path) -> None:
    """PS3.3 C.7.6.3.1.7: height to width."""
    write_film(folder / "sc.dcm", PixelAspectRatio=[2, 1])


@_case("slicer_points_on_cr_dx", Expected(
    {f"{name}.dcm": (FILM, (size, size)) for name, size in (("imager_factor", 0.12), ("pixel_and_imager", 0.12),
     ("pixel_only", 0.12), ("nominal", 0.1), ("imager_only", 0.15))}))  # fmt: skip
def _(folder: Path) -> None:
    """The mm of ITK in the files of points; which of them are read, and how, is in test_intake."""
    imager, pixel = {"ImagerPixelSpacing": [0.15, 0.15]}, {"PixelSpacing": [0.12, 0.12]}
    for name, elements, size in (
        ("imager_factor", {**imager, "EstimatedRadiographicMagnificationFactor": 1.25}, 0.15),
        ("pixel_and_imager", {**pixel, **imager}, 0.15), ("pixel_only", pixel, 1.0),
        ("nominal", {"NominalScannedPixelSpacing": [0.1, 0.1]}, 1.0), ("imager_only", imager, 0.15),
    ):  # fmt: skip
        write_film(
            folder / f"{name}.dcm", Modality="DX", SOPClassUID=DigitalXRayImageStorageForPresentation, **elements
        )
        point = {"label": "p", "position": [20 * size, 30 * size, 0.0]}
        markups = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]}
        (folder / f"{name}.mrk.json").write_text(json.dumps({"markups": [markups]}))


@_case("tiff_dicom_dual_personality", Expected({"cr.dcm": (FILM.max() - FILM.astype("f4"), (0.143, 0.143))}))
def _(folder: Path) -> None:
    """PS3.10 7.1: what stands before the prefix does not tell what the file is."""
    path = write_film(folder / "cr.dcm", PhotometricInterpretation="MONOCHROME1", PixelSpacing=[0.143, 0.143])
    content = bytearray(path.read_bytes())
    offset = content.index(FILM.tobytes())
    tags = {256: 48, 257: 64, 258: 16, 259: 1, 262: 1, 273: offset, 277: 1, 278: 64, 279: FILM.nbytes}
    directory = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()
    )
    content[:8] = b"II*\0" + struct.pack("<I", len(content) + 12)
    trailing = struct.pack("<HH2s2xI", 0xFFFC, 0xFFFC, b"OB", len(directory) + 4)
    path.write_bytes(bytes(content) + trailing + directory + b"\0" * 4)


@_case("sequence_truncated_header", Expected({}, {"a.dcm": "is cut off"}))
def _(folder: Path) -> None:
    path = write_film(folder / "a.dcm", PixelSpacing=[0.2, 0.2])
    path.write_bytes(path.read_bytes()[:200])
