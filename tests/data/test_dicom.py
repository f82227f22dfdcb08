"""DICOM: radiographs as a person sees them, series as volumes with the right place, all else refused."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
import torch

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm
from medpixcl.data.images import ImageFileError, MissingSpacingError, read_image
from tests.data.dicom_files import NOBODY, write_dicom, write_series

RAMP = np.arange(20, dtype=np.uint16).reshape(4, 5) * 100


def itk_series(files: list[str]) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(files)
    return reader.Execute()


def assert_same_as_itk(image: torch.Tensor, reference: SimpleITK.Image) -> None:
    values = SimpleITK.GetArrayFromImage(reference).transpose().astype(np.float32)
    np.testing.assert_allclose(image[0].numpy(), values, rtol=1e-5, atol=1e-3)
    last = [size - 1 for size in reference.GetSize()]
    for index in ([0, 0, 0], [3, 1, 2], last):
        mine = flip_ras_lps(voxel_to_mm(torch.tensor([index], dtype=torch.float64), image.affine))
        np.testing.assert_allclose(mine[0], reference.TransformIndexToPhysicalPoint(index), atol=2e-3)


@pytest.mark.parametrize(
    ("orientation", "step"),
    [
        ((1, 0, 0, 0, 1, 0), (0, 0, 2.5)),
        ((1, 0, 0, 0, 0, -1), (0, 2.5, 0)),
        ((0, 1, 0, 0, 0, -1), (-2.5, 0, 0)),
        ((0.8, 0.6, 0, 0, 0, 1), (1.5, -2.0, 0)),
        ((0.8, 0.6, 0, -0.36, 0.48, 0.8), (0.96, -1.28, 1.2)),
    ],
)
def test_series_agrees_with_itk(tmp_path: Path, orientation: tuple, step: tuple) -> None:
    volume = np.random.default_rng(0).integers(0, 2000, (6, 4, 5))
    write_series(tmp_path, volume, orientation=orientation, step=step)
    ordered = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path))
    image = read_image(tmp_path)
    assert image.shape == (1, 5, 4, 6)
    assert image.meta["modality"] == "CT"
    assert_same_as_itk(image, itk_series(list(ordered)))


def test_list_of_files_is_read_in_any_order(tmp_path: Path) -> None:
    volume = np.random.default_rng(0).integers(0, 2000, (5, 4, 5))
    files = write_series(tmp_path, volume)
    image = read_image(files[::-1])
    np.testing.assert_array_equal(image[0, 2, 1].numpy(), volume[:, 1, 2] * 2.0 - 1024)
    assert torch.equal(image.as_tensor(), read_image(tmp_path).as_tensor())


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"positions": (0, 1, 2, 4)}, r"the slices are 2\.50 to 5\.00 mm apart; expected one distance"),
        ({"positions": (0, 1, 2, 3.5)}, r"the slices are 2\.50 to 3\.75 mm apart"),
        ({"positions": (0, 1, 1, 2)}, r"1 slice\(s\) lie where another one lies"),
        ({"step": (0, 0.6, 2.5)}, r"gantry tilt of 13\.5 degrees"),
        ({"SeriesInstanceUID": None}, None),
        ({"positions": (0, 1, 2, 3.03)}, None),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, r"is a colour image \(RGB\)"),
        ({"ImagePositionPatient": None}, "slice has no ImagePositionPatient"),
        ({"PixelSpacing": None}, "slice has no PixelSpacing"),
        ({"ImageOrientationPatient": [0.0, 0, 0, 0, 0, 0]}, "is not two perpendicular unit vectors"),
        ({"ImageOrientationPatient": [1.0, 0, 0, 0.6, 0.8, 0]}, "is not two perpendicular unit vectors"),
        ({"PixelSpacing": [0.0, 1.0]}, r"has PixelSpacing \[0\.0, 1\.0\]; expected two positive sizes"),
        ({"NumberOfFrames": 4}, "is a multi-frame DICOM image of 4 frames"),
        ({"Modality": "SEG"}, "is a DICOM segmentation"),
        ({"PixelData": b"\0\0"}, "has pixel data that cannot be decoded"),
    ],
)
def test_series_must_be_regular(tmp_path: Path, change: dict, sentence: str | None) -> None:
    write_series(tmp_path, np.zeros((4, 4, 5)), **change)
    if sentence is None:
        assert read_image(tmp_path).shape == (1, 5, 4, 4)
        return
    with pytest.raises(ImageFileError, match=sentence) as caught:
        read_image(tmp_path)
    assert NOBODY not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"pixels": np.zeros((5, 5))}, r"the slices differ in size \(\[\(4, 5\), \(5, 5\)\]\)"),
        ({"ImageOrientationPatient": [0.0, 1, 0, -1, 0, 0]}, "the slices differ in orientation"),
        ({"PixelSpacing": [0.6, 0.75]}, "the slices differ in pixel size"),
        ({"SeriesInstanceUID": "1.2.4"}, "the slices belong to several series; give those of one"),
        ({"Modality": "DX", "ImageOrientationPatient": None}, "is a DICOM picture, not a slice"),
    ],
)
def test_one_odd_slice_spoils_a_series(tmp_path: Path, change: dict, sentence: str) -> None:
    write_series(tmp_path, np.zeros((4, 4, 5)))
    odd = {"Modality": "CT", "ImageOrientationPatient": [1.0, 0, 0, 0, 1, 0], "ImagePositionPatient": [-10.0, -20, 40],
           "PixelSpacing": [0.5, 0.75], "pixels": np.zeros((4, 5))} | change  # fmt: skip
    elements = {name: value for name, value in odd.items() if value is not None}
    write_dicom(tmp_path / "odd", **elements)
    with pytest.raises(ImageFileError, match=sentence):
        read_image(tmp_path)


def test_too_few_slices_are_refused(tmp_path: Path) -> None:
    files = write_series(tmp_path, np.zeros((2, 4, 5)))
    with pytest.raises(ImageFileError, match=r"series of 2 slice\(s\): too few; expected at least 3"):
        read_image(tmp_path)
    with pytest.raises(ImageFileError, match="is one slice of a volume; give the folder"):
        read_image(files[0])


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ImageFileError, match="is a folder without DICOM files"):
        read_image(tmp_path)


@pytest.mark.parametrize(
    ("elements", "spacing", "source"),
    [
        ({"PixelSpacing": [0.2, 0.3], "ImagerPixelSpacing": [0.4, 0.6]}, (0.2, 0.3), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.4, 0.6]}, (0.4, 0.6), "ImagerPixelSpacing"),
        ({"ImagerPixelSpacing": [0.4, 0.6], "EstimatedRadiographicMagnificationFactor": 2}, (0.2, 0.3),
         "ImagerPixelSpacing / magnification 2"),
        ({"PixelSpacing": [0.2, 0.3], "EstimatedRadiographicMagnificationFactor": 2}, (0.2, 0.3), "PixelSpacing"),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "NominalScannedPixelSpacing"),
        ({}, (0.7, 0.9), "given"),
    ],
)  # fmt: skip
def test_pixel_size_of_a_radiograph_and_where_it_comes_from(
    tmp_path: Path, elements: dict, spacing: tuple[float, float], source: str
) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, Modality="DX", **elements)
    image = read_image(path, spacing_mm=(0.7, 0.9))
    assert image.pixdim.tolist() == pytest.approx(spacing)
    assert image.meta["spacing_source"] == source
    assert image.meta["modality"] == "DX"


def test_radiograph_of_unknown_pixel_size_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingSpacingError, match="has no pixel spacing; give spacing_mm"):
        read_image(write_dicom(tmp_path / "a.dcm", RAMP, Modality="CR"))


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, Modality="CR", PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(read_image(path, spacing_mm=1)[0].numpy(), 1900 - RAMP.astype(np.float32))


def test_rescale_and_window_are_applied(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.3.2, LINEAR_EXACT: ((x - centre) / width + 0.5) * range + lowest, clipped."""
    path = write_dicom(
        tmp_path / "a.dcm", RAMP, Modality="DX", BitsStored=12, HighBit=11, RescaleSlope=2, RescaleIntercept=-500,
        WindowCenter=[1000, 5], WindowWidth=[2000, 5], VOILUTFunction="LINEAR_EXACT",
    )  # fmt: skip
    rescaled = RAMP * 2.0 - 500
    lowest, highest = -500.0, 4095 * 2.0 - 500
    expected = np.clip((rescaled - 1000) / 2000 + 0.5, 0, 1) * (highest - lowest) + lowest
    np.testing.assert_allclose(read_image(path, spacing_mm=1)[0].numpy(), expected, rtol=1e-6)


def test_modality_lut_is_applied(tmp_path: Path) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 16]
    table.ModalityLUTType = "US"
    table.add_new("LUTData", "US", [10, 20, 40, 80])
    path = write_dicom(tmp_path / "a.dcm", np.array([[0, 1], [2, 9]]), Modality="CR", ModalityLUTSequence=[table])
    assert read_image(path, spacing_mm=1)[0].tolist() == [[10.0, 20.0], [40.0, 80.0]]


def test_file_without_preamble_is_read(tmp_path: Path) -> None:
    path = write_dicom(tmp_path / "a.dcm", RAMP, Modality="CR", PixelSpacing=[1.0, 1.0])
    dataset = pydicom.dcmread(path)
    bare = tmp_path / "bare"
    pydicom.dcmwrite(bare, pydicom.Dataset(dataset), implicit_vr=True, little_endian=True, enforce_file_format=False)
    assert bare.read_bytes()[128:132] != b"DICM"
    assert torch.equal(read_image(bare).as_tensor(), read_image(path).as_tensor())


@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.9, 0.99])
def test_cut_off_file_gives_one_sentence(tmp_path: Path, share: float) -> None:
    path = write_dicom(tmp_path / "a.dcm", np.zeros((64, 64)), Modality="CR", PixelSpacing=[1.0, 1.0])
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ImageFileError) as caught:
        read_image(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert NOBODY not in str(caught.value)


@pytest.mark.data
@pytest.mark.parametrize(
    "name", ["ct_abdomen_no_extension", "mr_hippocampus_crop_tiny", "d2n_generic_anatomical_001",
             "d2n_generic_anatomical_002_non_isotropic", "d2n_hitachi_anatomical_001",
             "d2n_generic_compressed_j2k_001", "d2n_generic_compressed_rle_001"],
)  # fmt: skip
def test_real_series_agrees_with_itk(data_dir: Path, name: str) -> None:
    folder = data_dir / "dicom_kit" / "series" / name
    files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    if not files:  # a series without an identifier, as anonymisers leave it
        files = sorted(str(path) for path in folder.iterdir())
        files.sort(key=lambda path: pydicom.dcmread(path, stop_before_pixels=True).ImagePositionPatient[2])
    assert_same_as_itk(read_image(folder), itk_series(list(files)))


@pytest.mark.data
def test_lossless_syntaxes_of_one_slice_agree(data_dir: Path, tmp_path: Path) -> None:
    """Nine encodings of one MR slice; the two in JPEG lossless name the missing package."""
    expected = pydicom.dcmread(data_dir / "dicom_kit/transfer_syntaxes/mr_same_image/1.dcm").pixel_array
    decoded, refused = 0, []
    for path in sorted((data_dir / "dicom_kit/transfer_syntaxes/mr_same_image").iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.Modality = "OT"  # as a picture, so that one slice is enough
        del dataset.ImageOrientationPatient
        for tag in ("WindowCenter", "WindowWidth"):
            if tag in dataset:
                delattr(dataset, tag)
        dataset.save_as(tmp_path / path.name)
        try:
            np.testing.assert_array_equal(read_image(tmp_path / path.name)[0].numpy(), expected)
            decoded += 1
        except ImageFileError as error:
            refused.append(error.reason)
    assert decoded == 7
    assert len(refused) == 2
    assert all("pylibjpeg-libjpeg" in reason for reason in refused)


@pytest.mark.data
@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("xray/cr_mono1_modality_lut_sequence_jpegll.dcm", "to decode it, install one of: .*pylibjpeg-libjpeg"),
        ("other/sc_rgb.dcm", "is a colour image"),
        ("other/us_palette_color.dcm", r"is a colour image \(PALETTE COLOR\)"),
        ("other/seg_liver_3frames.dcm", "is a DICOM segmentation"),
        ("multiframe/mr_16frames_8bit.dcm", "is a multi-frame DICOM image of 16 frames"),
        ("multiframe/enhanced_ct_2frames.dcm", r"2 frame\(s\): too few"),
        ("broken/DICOMDIR", "is a DICOM object without pixels"),
        ("broken/no_pixel_data_sr.dcm", r"is a DICOM object without pixels \(SR\)"),
        ("broken/ct_no_geometry.dcm", "is one slice of a volume"),
        ("broken/zero_bytes.dcm", "is empty"),
        ("broken/not_dicom.md", "is not an image"),
    ],
)
def test_real_file_that_is_no_image_is_refused(data_dir: Path, path: str, sentence: str) -> None:
    with pytest.raises(ImageFileError, match=sentence):
        read_image(data_dir / "dicom_kit" / path, spacing_mm=1)


@pytest.mark.data
@pytest.mark.parametrize("damaged", ["ct_truncated_half.dcm", "ct_empty_pixel_data.dcm"])
def test_series_with_a_damaged_slice_is_refused(data_dir: Path, tmp_path: Path, damaged: str) -> None:
    """Three copies of the damaged file, moved apart, make a regular series without pixels."""
    dataset = pydicom.dcmread(data_dir / "dicom_kit" / "broken" / damaged, stop_before_pixels=True)
    whole = (data_dir / "dicom_kit" / "broken" / damaged).read_bytes()
    position = str(dataset.ImagePositionPatient[2]).encode()
    assert whole.count(position) >= 1
    for number in range(3):
        moved = str(number).encode().rjust(len(position), b"0")
        at = whole.rindex(position, 0, whole.index(b"\x20\x00\x37\x00"))
        (tmp_path / f"{number}.dcm").write_bytes(whole[:at] + moved + whole[at + len(position) :])
    with pytest.raises(ImageFileError, match=r"is cut off|has pixel data that cannot be decoded"):
        read_image(tmp_path)


@pytest.mark.data
def test_radiograph_is_bright_where_dense(data_dir: Path) -> None:
    """The chest CR is stored inverted; as a person sees it the mediastinum is brighter than the air beside it."""
    image = read_image(data_dir / "dicom_kit/xray/cr_chest_mono1_10bit.dcm", spacing_mm=1)[0]
    stored = pydicom.dcmread(data_dir / "dicom_kit/xray/cr_chest_mono1_10bit.dcm").pixel_array
    assert np.corrcoef(image.numpy().ravel(), stored.ravel())[0, 1] < -0.9


@pytest.mark.data
def test_bare_radiograph_equals_the_one_with_preamble(data_dir: Path) -> None:
    folder = data_dir / "dicom_kit" / "xray"
    bare = read_image(folder / "cr_chest_mono1_no_preamble_no_extension", spacing_mm=1)
    whole = read_image(folder / "cr_chest_mono1_10bit.dcm", spacing_mm=1)
    assert torch.equal(bare.as_tensor(), whole.as_tensor())
