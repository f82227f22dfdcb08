"""Radiographs as a person sees them, with the best pixel size; expected values are those of DICOM PS3.3 by hand."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataelem import RawDataElement
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEG2000Lossless, JPEGLSLossless, RLELossless

from medpixcl.data.images import ImageFileError, MissingSpacingError, read_image
from medpixcl.data.scan import scan
from tests.data.dicom_files import NOBODY, write_dicom
from tests.data.scanned import reasons

RAMP = np.arange(48, dtype=np.uint16).reshape(6, 8) * 80
"""Stored values 0 to 3760: 12 bits."""


def radiograph(folder: Path, pixels: np.ndarray = RAMP, **elements: Any) -> Path:
    bits = {"BitsStored": 12, "HighBit": 11, "Modality": "DX", "PixelSpacing": [0.2, 0.2]}
    return write_dicom(folder / "a.dcm", pixels, **{**bits, **elements})


def seen(folder: Path, pixels: np.ndarray = RAMP, **elements: Any) -> np.ndarray:
    return read_image(radiograph(folder, pixels, **elements))[0].numpy()


def rising(values: np.ndarray) -> float:
    """+1 where bright means a high stored value, -1 for a negative."""
    return float(np.corrcoef(values.ravel(), RAMP.ravel())[0, 1])


def lut(entries: np.ndarray, first: int = 0, bits: int = 16, vr: str = "US") -> pydicom.Dataset:
    table = pydicom.Dataset()
    table.add_new("LUTDescriptor", "US", [len(entries) % 2**16, first, bits])
    if vr == "OW":
        table.add_new("LUTData", "OW", entries.tobytes())
    else:
        table.add_new("LUTData", "US", entries.tolist())
    return table


WINDOW = {"WindowCenter": 2000, "WindowWidth": 3000}


@pytest.mark.parametrize(
    ("elements", "sign"),
    [
        ({}, 1),
        (WINDOW, 1),
        ({"PhotometricInterpretation": "MONOCHROME1"}, -1),
        ({"PhotometricInterpretation": "MONOCHROME1", **WINDOW}, -1),
        # The output of a falling rescale is what a window takes: its low values, of high stored ones, are black.
        ({"RescaleSlope": -10, "RescaleIntercept": 40000, "WindowCenter": 20000, "WindowWidth": 38000}, -1),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095}, -1),
        ({"RescaleSlope": -1, "RescaleIntercept": 4095, "PhotometricInterpretation": "MONOCHROME1", **WINDOW}, 1),
        ({"RescaleSlope": -0.5, "RescaleIntercept": 0, "WindowCenter": -1000, "WindowWidth": 1900,
          "VOILUTFunction": "SIGMOID"}, -1),
        # PS3.3 C.8.11.1.1.2: INVERSE goes with MONOCHROME1 and says the same, not twice.
        ({"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"}, -1),
        ({"PresentationLUTShape": "INVERSE", **WINDOW}, -1),
        ({"PresentationLUTShape": "IDENTITY"}, 1),
        ({"VOILUTSequence": [lut(np.arange(4096)[::-1].copy())]}, -1),
        ({"VOILUTSequence": [lut(np.arange(4096)[::-1].copy())], "PhotometricInterpretation": "MONOCHROME1"}, 1),
    ],
)  # fmt: skip
def test_polarity(tmp_path: Path, elements: dict, sign: int) -> None:
    assert rising(seen(tmp_path, **elements)) * sign > 0.95


@pytest.mark.parametrize(
    "useless",
    [
        {"WindowCenter": 0, "WindowWidth": 1}, {"WindowCenter": 60000, "WindowWidth": 256},
        {"WindowCenter": -500, "WindowWidth": 10}, {"WindowCenter": 2000, "WindowWidth": 1},
        {"WindowCenter": 2000, "WindowWidth": 0}, {"WindowCenter": 2000, "WindowWidth": -5},
        {"WindowCenter": 2000.5, "WindowWidth": 0, "VOILUTFunction": "LINEAR_EXACT"},
        {"VOILUTSequence": [lut(np.full(4096, 65535))]}, {"VOILUTSequence": [lut(np.zeros(4096, int))]},
        {"VOILUTSequence": [lut(np.arange(256), first=8000)]},
        {"WindowCenter": None, "WindowWidth": 400}, {"WindowCenter": [], "WindowWidth": []},
    ],
)  # fmt: skip
def test_a_window_that_shows_nothing_falls_back_to_the_full_range(tmp_path: Path, useless: dict) -> None:
    np.testing.assert_array_equal(seen(tmp_path, **useless), RAMP)


def test_the_next_window_is_used_where_the_first_shows_nothing(tmp_path: Path) -> None:
    both = seen(tmp_path, VOILUTSequence=[lut(np.full(4096, 9))], WindowCenter=[0, 2000], WindowWidth=[1, 3000])
    np.testing.assert_array_equal(both, seen(tmp_path, **WINDOW))
    assert len(np.unique(both)) > 3


@pytest.mark.parametrize("function", [None, "", "LINEAR"])
def test_an_empty_window_function_is_linear(tmp_path: Path, function: str | None) -> None:
    """PS3.3 C.11.2.1.2.1, from black at centre - 0.5 - (width - 1) / 2."""
    values = seen(tmp_path, **WINDOW, VOILUTFunction=function)
    expected = np.clip((RAMP - 1999.5) / 2999 + 0.5, 0, 1) * 4095
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize(
    "table",
    [
        lut(np.arange(256).astype("<u2"), first=100, bits=8),
        lut(np.arange(256).astype("u1"), first=100, bits=8, vr="OW"),  # two entries packed in a word
        lut(np.arange(256).astype("<u2"), first=100, bits=8, vr="OW"),
    ],
)
def test_lookup_table_of_8_bits_in_each_of_its_encodings(tmp_path: Path, table: pydicom.Dataset) -> None:
    """PS3.3 C.11.1.1.1: values before the first mapped one get the first entry, those beyond the last one the last."""
    pixels = np.array([[0, 100, 101, 200], [355, 356, 400, 4000]])
    expected = [[0, 0, 1, 100], [255, 255, 255, 255]]
    assert seen(tmp_path, pixels, VOILUTSequence=[table]).tolist() == expected
    assert seen(tmp_path, pixels, ModalityLUTSequence=[table]).tolist() == expected


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("limit", [None, 4095])
def test_padding_is_black_and_moves_no_grey_value(tmp_path: Path, photometric: str, limit: int | None) -> None:
    """PS3.3 C.7.5.1.1.2: padding is no part of the image, whatever value stands there."""
    pixels = RAMP.copy()
    pixels[:, 0] = 4090
    pixels[0, 0] = 4090 if limit is None else 4095
    values = seen(
        tmp_path, pixels, PhotometricInterpretation=photometric, PixelPaddingValue=4090, PixelPaddingRangeLimit=limit
    )
    anatomy = RAMP[:, 1:].astype(np.float32)
    expected = anatomy.max() - anatomy if photometric == "MONOCHROME1" else anatomy
    np.testing.assert_array_equal(values[:, 1:], expected)
    assert (values[:, 0] == expected.min()).all()


def test_signed_padding_is_found_whatever_its_vr(tmp_path: Path) -> None:
    pixels = RAMP.astype(np.int16) - 1000
    pixels[:, 0] = -2000
    path = radiograph(tmp_path, pixels, PixelRepresentation=1, BitsStored=16, HighBit=15)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    dataset.save_as(path)
    assert read_image(path).min() == -920.0


@pytest.mark.parametrize("value", [0, 17, 4095])
def test_a_picture_of_one_value_is_refused(tmp_path: Path, value: int) -> None:
    path = radiograph(tmp_path, np.full((5, 6), value), **WINDOW)
    with pytest.raises(ImageFileError, match=f"shows nothing: all of its pixels have the value {value}"):
        read_image(path)


IMAGER = {"PixelSpacing": None, "ImagerPixelSpacing": [0.15, 0.3]}
FACTOR = {"EstimatedRadiographicMagnificationFactor": 1.25}
DISTANCES = {"DistanceSourceToDetector": 1500, "DistanceSourceToPatient": 1200}


@pytest.mark.parametrize(
    ("elements", "spacing", "source"),
    [
        (IMAGER, (0.15, 0.3), "ImagerPixelSpacing"),
        (IMAGER | FACTOR, (0.12, 0.24), "ImagerPixelSpacing / magnification 1.25"),
        (IMAGER | DISTANCES, (0.12, 0.24), "ImagerPixelSpacing / magnification 1.25 (Distance"),
        (IMAGER | FACTOR | {"DistanceSourceToDetector": 9}, (0.12, 0.24), "ImagerPixelSpacing / magnification 1.25"),
        (IMAGER | DISTANCES | {"DistanceSourceToPatient": 0}, (0.15, 0.3), "ImagerPixelSpacing"),
        (IMAGER | DISTANCES | {"DistanceSourceToPatient": 1700}, (0.15, 0.3), "ImagerPixelSpacing"),
        # PS3.3 10.7.1.3: equal values mean that nothing was calibrated
        (IMAGER | FACTOR | {"PixelSpacing": [0.15, 0.3]}, (0.12, 0.24), "ImagerPixelSpacing / magnification 1.25"),
        (IMAGER | DISTANCES | {"PixelSpacing": [0.15, 0.3]}, (0.12, 0.24), "ImagerPixelSpacing / magnification 1.25 ("),
        (IMAGER | {"PixelSpacing": [0.15, 0.3]}, (0.15, 0.3), "PixelSpacing"),
        (IMAGER | FACTOR | {"PixelSpacing": [0.13, 0.26]}, (0.13, 0.26), "PixelSpacing"),
        (IMAGER | FACTOR | {"PixelSpacing": [0.15, 0.3], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.15, 0.3),
         "PixelSpacing"),
        (IMAGER | {"PixelSpacing": [0.0, 0.0]}, (0.15, 0.3), "ImagerPixelSpacing"),
        (IMAGER | {"PixelSpacing": [0.0, 0.2]}, (0.15, 0.3), "ImagerPixelSpacing"),
        ({"PixelSpacing": [0.0, 0.0], "NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1),
         "NominalScannedPixelSpacing"),
        ({"PixelSpacing": [0.0, 0.0]}, (0.5, 0.5), "given"),
        ({"PixelSpacing": []}, (0.5, 0.5), "given"),
        ({"PixelSpacing": None, "PixelAspectRatio": [2, 1]}, (1.0, 0.5), "given"),
        ({"PixelSpacing": None, "PixelAspectRatio": [1, 1]}, (0.5, 0.5), "given"),
        ({"PixelAspectRatio": [2, 1]}, (0.2, 0.2), "PixelSpacing"),
    ],
)  # fmt: skip
def test_pixel_size_and_its_origin(tmp_path: Path, elements: dict, spacing: tuple[float, float], source: str) -> None:
    radiograph(tmp_path, **elements)
    (entry,) = scan(tmp_path, spacing_mm=0.5).training
    assert entry["spacing_mm"] == pytest.approx(spacing, abs=1e-6)
    assert entry["spacing_source"].startswith(source)
    image = read_image(tmp_path / "a.dcm", spacing_mm=0.5)
    assert image.meta["spacing_source"] == entry["spacing_source"]


def test_zero_spacing_alone_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(MissingSpacingError):
        read_image(radiograph(tmp_path, PixelSpacing=[0.0, 0.0]))


def test_given_pixel_size_against_the_aspect_ratio_is_refused(tmp_path: Path) -> None:
    path = radiograph(tmp_path, PixelSpacing=None, PixelAspectRatio=[2, 1])
    assert read_image(path, spacing_mm=(0.6, 0.3)).pixdim.tolist() == pytest.approx([0.6, 0.3])
    with pytest.raises(ImageFileError, match=r"has PixelAspectRatio 2 : 1, and the given pixel size is 0.3 x 0.6 mm"):
        read_image(path, spacing_mm=(0.3, 0.6))


MALFORMED = [
    ("PixelSpacing", "DS", b"0,14\\0,14 ", r"has PixelSpacing '0,14\\0,14' \(VR DS\); expected 2 numbers"),
    ("PixelSpacing", "DS", b"0.14,0.14 ", "has PixelSpacing '0.14,0.14'"),
    ("PixelSpacing", "DS", b"0.14", "has PixelSpacing '0.14'"),
    ("PixelSpacing", "DS", b"0.1\\0.1\\0.1 ", "expected 2 numbers"),
    ("PixelSpacing", "UT", b"0.14\\0.14 ", r"\(VR UT\)"),
    ("PixelSpacing", "DS", b"nan\\nan ", "expected 2 numbers"),
    ("PixelSpacing", "DS", b"-.2\\-.2 ", "expected two positive sizes in mm"),
    ("PixelSpacing", "DS", NOBODY.encode(), "has PixelSpacing that is not numeric"),
    ("ImagerPixelSpacing", "DS", b"0,2\\0,2 ", "has ImagerPixelSpacing '0,2"),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"1,05", "has EstimatedRadiographicMagnificationFactor '1,05'"),
    ("EstimatedRadiographicMagnificationFactor", "DS", b"0.5 ", "a projection magnifies, expected 1 to 20"),
    ("NumberOfFrames", "IS", b"1A", "has NumberOfFrames '1A'"),
    ("NumberOfFrames", "IS", b"-1", "has NumberOfFrames -1"),
    ("RescaleSlope", "DS", b"1,5 ", "has RescaleSlope '1,5'"),
    ("RescaleSlope", "DS", b"0 ", "has RescaleSlope 0"),
    ("WindowCenter", "DS", b"20,5", "has WindowCenter '20,5'"),
    ("BitsStored", "US", b"\x20\x00", "has BitsStored 32"),
    ("Rows", "US", b"\x07\x00\x08\x00", r"has Rows .* expected a number"),
]


@pytest.mark.parametrize(("keyword", "vr", "value", "sentence"), MALFORMED)
def test_a_malformed_value_rejects_its_file_alone(
    tmp_path: Path, keyword: str, vr: str, value: bytes, sentence: str
) -> None:
    """The value as it stands in a file, which no library would write."""
    write_dicom(tmp_path / "good.dcm", RAMP, Modality="CR", PixelSpacing=[0.2, 0.2])
    path = radiograph(tmp_path, PixelSpacing=None, ImagerPixelSpacing=[0.2, 0.2], WindowCenter=9, WindowWidth=9)
    dataset = pydicom.dcmread(path)
    tag = pydicom.datadict.tag_for_keyword(keyword)
    dataset[tag] = RawDataElement(pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True)
    dataset.save_as(path)
    manifest = scan(tmp_path)
    assert [one["image"] for one in manifest.training] == ["good.dcm"]
    with pytest.raises(ImageFileError, match=sentence) as caught:
        read_image(path)
    assert reasons(manifest) == {"a.dcm": caught.value.reason}
    assert NOBODY not in caught.value.reason


@pytest.mark.parametrize("modality", ["DX", "CR", "MG", "PX", "IO", "RG", "RF", "XA"])
def test_a_projection_with_an_orientation_is_a_picture(tmp_path: Path, modality: str) -> None:
    place = {"ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0], "ImagePositionPatient": [0.0, 0, 0]}
    radiograph(tmp_path, Modality=modality, **place)
    assert [one["shape"] for one in scan(tmp_path).training] == [[6, 8]]


@pytest.mark.parametrize("extra", [b"\0" * 2, b"\1\2" * 7, b"\0" * RAMP.nbytes, b"\0" * (3 * RAMP.nbytes)])
def test_padding_behind_the_pixels_is_ignored(tmp_path: Path, extra: bytes) -> None:
    """PS3.5 8.1.1: a reader shall accept and ignore what follows the last pixel."""
    np.testing.assert_array_equal(seen(tmp_path, PixelData=RAMP.tobytes() + extra), RAMP)


@pytest.mark.parametrize("frames", [None, 1])
def test_more_frames_than_the_header_states_are_refused(tmp_path: Path, frames: int | None) -> None:
    path = radiograph(tmp_path, NumberOfFrames=frames, PixelData=np.stack([RAMP, RAMP // 2, RAMP // 3]).tobytes())
    with pytest.raises(ImageFileError, match="pixel data hold 3 frames of 6 x 8, and its header states 1"):
        read_image(path)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high", [11, 14])
def test_bits_outside_of_those_stored_are_no_pixels(tmp_path: Path, signed: bool, high: int) -> None:
    """PS3.5 8.1.1: an old overlay above the pixel, or below it where the high bit is not the lowest possible."""
    values = RAMP.astype(np.int32) - (1880 if signed else 0)
    shift = high - 11
    words = ((values & 0xFFF) << shift).astype(np.uint16)
    words[2:4, 2:4] |= np.uint16(1 << 15)
    path = radiograph(tmp_path, words, HighBit=high, PixelRepresentation=int(signed))
    np.testing.assert_array_equal(read_image(path)[0].numpy(), values)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("high", [11, 12, 14])
def test_bits_outside_of_those_stored_after_rle(tmp_path: Path, signed: bool, high: int) -> None:
    """RLE packs the bytes as they stand, so that the pixel stays where HighBit says."""
    values = RAMP.astype(np.int32) - (1880 if signed else 0)
    words = ((values & 0xFFF) << (high - 11)).astype(np.uint16)
    words[2:4, 2:4] |= np.uint16(1 << 15)
    path = radiograph(tmp_path, words, HighBit=high, PixelRepresentation=int(signed))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image(path)[0].numpy(), values)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("stream", [0, 1])
@pytest.mark.parametrize("header", [0, 1])
def test_the_sign_is_that_of_the_header_as_in_itk(tmp_path: Path, syntax: UID, stream: int, header: int) -> None:
    """Also where the compressed stream says otherwise."""
    values = np.tile(RAMP.astype(np.int32) - (1880 if stream else 0), (12, 8))
    path = radiograph(tmp_path, (values & 0xFFF).astype(np.uint16), PixelRepresentation=stream)
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax)
    dataset.PixelRepresentation = header
    dataset.save_as(path)
    expected = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))[0]
    np.testing.assert_array_equal(read_image(path)[0].numpy(), expected)


@pytest.mark.parametrize("elements", [
    {"PhotometricInterpretation": "monochrome1"}, {"Modality": "dx", "PresentationLUTShape": "Inverse"},
    {"Modality": "cr", "PhotometricInterpretation": "Monochrome1", "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0]},
])  # fmt: skip
def test_small_letters_say_the_same(tmp_path: Path, elements: dict) -> None:
    """Some exports write coded values so, against PS3.5 6.2."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pydicom, which writes them
        found = seen(tmp_path, **elements)
    np.testing.assert_array_equal(found, RAMP.max() - RAMP.astype(np.float32))


@pytest.mark.parametrize("bits", [12, 10])
def test_bits_above_those_stored_are_cleared_after_jpeg_2000(tmp_path: Path, bits: int) -> None:
    from openjpeg.utils import encode_array

    pixels = np.tile(RAMP % 2**bits, (12, 8))
    words = pixels.copy()
    words[10:20, 10:20] |= 0x8000
    stream = encode_array(words, photometric_interpretation=2, bits_stored=16, use_mct=False)
    path = radiograph(tmp_path, words, BitsStored=bits, HighBit=bits - 1)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream + b"\0" * (len(stream) % 2)])
    dataset["PixelData"].is_undefined_length = True
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.save_as(path)
    np.testing.assert_array_equal(read_image(path)[0].numpy(), pixels)


@pytest.mark.parametrize("preamble", [b"II*\0", b"MM\0*", b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM"])
@pytest.mark.parametrize("name", ["a.dcm", "a.tif", "a.png"])
def test_what_stands_before_the_prefix_does_not_count(tmp_path: Path, preamble: bytes, name: str) -> None:
    """PS3.10 7.1: the preamble shall not be used to tell what a file is."""
    path = radiograph(tmp_path, PhotometricInterpretation="MONOCHROME1")
    content = path.read_bytes()
    path.unlink()
    (tmp_path / name).write_bytes(preamble.ljust(128, b"\0") + content[128:])
    image = read_image(tmp_path / name)
    assert image.meta["modality"] == "DX"
    np.testing.assert_array_equal(image[0].numpy(), RAMP.max() - RAMP.astype(np.float32))
