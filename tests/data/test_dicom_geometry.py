"""Slices on a regular grid: rounded positions are accepted, missing slices are not; frames of one file are slices."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom import Dataset
from pydicom.uid import EnhancedCTImageStorage

from medpixcl.coordinates import flip_ras_lps, voxel_to_mm
from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_dicom, write_series
from tests.data.test_dicom import assert_same_as_itk

NOISE = np.random.default_rng(0).integers(0, 2000, (12, 4, 5))
OBLIQUE = (0.8, 0.6, 0.0, -0.36, 0.48, 0.8)


def positions(folder: Path, places: list[np.ndarray], orientation: tuple = (1, 0, 0, 0, 1, 0)) -> Path:
    for index, place in enumerate(places):
        write_dicom(
            folder / f"{index:03d}", NOISE[index], Modality="CT", PixelSpacing=[0.5, 0.75],
            ImageOrientationPatient=[float(one) for one in orientation],
            ImagePositionPatient=[float(one) for one in place],
        )  # fmt: skip
    return folder


def along(places: np.ndarray) -> list[np.ndarray]:
    return [np.array([-10.0, -20.0, place]) for place in places]


@pytest.mark.parametrize(
    ("step", "decimals"), [(1.25, 1), (0.625, 1), (0.75, 1), (2.0, 1), (0.6, 2), (0.333, 2), (3.3333, 1), (5.4, 0)]
)
def test_positions_rounded_by_the_scanner_are_one_grid(tmp_path: Path, step: float, decimals: int) -> None:
    """The mean distance is that of the scanner to a twentieth of the rounding; no voxel lies off by more than that."""
    image = read_image(positions(tmp_path, along(np.round(100 + 0.03 + step * np.arange(12), decimals))))
    rounding = 0.5 * 10.0**-decimals
    assert image.pixdim[2] == pytest.approx(step, abs=rounding / 5)
    ends = flip_ras_lps(voxel_to_mm(np_points([[0, 0, 0], [0, 0, 11]]), image.affine))
    np.testing.assert_allclose(ends[:, 2], [100.03, 100.03 + 11 * step], atol=rounding + 1e-6)


def np_points(points: list[list[int]]) -> Any:
    import torch

    return torch.tensor(points, dtype=torch.float64)


def test_rounding_of_oblique_positions_moves_slices_sideways_too(tmp_path: Path) -> None:
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    places = [np.round(np.array([5.0, 6, 7]) + 1.25 * index * normal, 1) for index in range(12)]
    assert read_image(positions(tmp_path, places, OBLIQUE)).pixdim[2] == pytest.approx(1.25, abs=0.01)


@pytest.mark.parametrize("missing", [1, 5, 10])
@pytest.mark.parametrize("step", [0.5, 1.25, 5.0])
def test_a_missing_slice_is_found_wherever_it_was(tmp_path: Path, missing: int, step: float) -> None:
    places = np.round(step * np.delete(np.arange(12), missing), 1)
    with pytest.raises(ImageFileError, match=r"expected one distance, with every slice within .* is one missing"):
        read_image(positions(tmp_path, along(places)))


def test_distances_that_grow_are_refused(tmp_path: Path) -> None:
    """Thin slices followed by thick ones, as old protocols of the head have them."""
    places = np.concatenate([3.0 * np.arange(6), 15 + 5.0 * np.arange(1, 7)])
    with pytest.raises(ImageFileError, match=r"3\.00 to 5\.00 mm apart"):
        read_image(positions(tmp_path, along(places)))


def test_slices_that_lie_on_a_curve_are_refused(tmp_path: Path) -> None:
    places = [np.array([0.05 * index**2, 0.0, 2.5 * index]) for index in range(12)]
    with pytest.raises(ImageFileError, match="shifted unevenly"):
        read_image(positions(tmp_path, places))


def enhanced(
    path: Path, volume: np.ndarray, places: list[np.ndarray], *, orientation: tuple = (1, 0, 0, 0, 1, 0), **frame: Any
) -> Path:
    """A multi-frame object (PS3.3 A.38, A.36); ``frame`` has a list of values for each further attribute of frames."""
    write_dicom(path, volume[0], Modality="CT", NumberOfFrames=len(volume), SOPClassUID=EnhancedCTImageStorage,
                PixelData=volume.astype("<u2").tobytes())  # fmt: skip
    dataset = pydicom.dcmread(path)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = [0.5, 0.75], 2.5
    plane.ImageOrientationPatient = [float(one) for one in orientation]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    groups = []
    for index, place in enumerate(places):
        group, position, values, content = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [float(one) for one in place]
        values.RescaleSlope, values.RescaleIntercept = 1 + index, -1024
        content.InStackPositionNumber = index + 1
        for keyword, numbers in frame.items():
            setattr(content, keyword, numbers[index])
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        group.FrameContentSequence = [content]
        elsewhere = Dataset()  # as one maker repeats the frame's header, half a pixel away
        elsewhere.ImagePositionPatient, elsewhere.RescaleSlope = [float(one) + 0.5 for one in place], 7
        group.private_block(0x2005, "MAKER", create=True).add_new(0x0F, "SQ", [elsewhere])
        groups.append(group)
    dataset.SharedFunctionalGroupsSequence, dataset.PerFrameFunctionalGroupsSequence = [shared], groups
    dataset.save_as(path)
    return path


def test_frames_of_an_enhanced_image_are_the_slices_of_a_volume(tmp_path: Path) -> None:
    """In any order of the frames, each with the rescale of its own."""
    normal = np.cross(OBLIQUE[:3], OBLIQUE[3:])
    order = [3, 0, 2, 1]
    places = [np.array([5.0, 6, 7]) + 2.5 * place * normal for place in order]
    image = read_image(enhanced(tmp_path / "a.dcm", NOISE[:4], places, orientation=OBLIQUE))
    assert image.meta["modality"] == "CT"
    assert image.pixdim.tolist() == pytest.approx([0.75, 0.5, 2.5])
    for frame, place in enumerate(order):
        np.testing.assert_allclose(image[0, :, :, place].numpy(), NOISE[frame].T * (1.0 + frame) - 1024)
    corner = flip_ras_lps(voxel_to_mm(np_points([[4, 3, 2]]), image.affine))[0]
    by_hand = (
        np.array([5.0, 6, 7]) + 2 * 2.5 * normal + 4 * 0.75 * np.array(OBLIQUE[:3]) + 3 * 0.5 * np.array(OBLIQUE[3:])
    )
    np.testing.assert_allclose(corner, by_hand, atol=1e-6)


def test_scan_lists_an_enhanced_image_and_refuses_what_is_several(tmp_path: Path) -> None:
    places = along(2.5 * np.arange(4))
    enhanced(tmp_path / "good.dcm", NOISE[:4], places)
    enhanced(tmp_path / "times.dcm", NOISE[:8], places * 2, TemporalPositionIndex=[1] * 4 + [2] * 4)
    enhanced(tmp_path / "two.dcm", NOISE[:2], places[:2])
    enhanced(tmp_path / "gap.dcm", NOISE[:4], along(2.5 * np.array([0, 1, 2, 5])))
    enhanced(tmp_path / "fewer.dcm", NOISE[:4], places[:3])
    write_dicom(
        tmp_path / "film.dcm", NOISE[0], Modality="XA", NumberOfFrames=12, PixelData=NOISE.astype("<u2").tobytes()
    )
    manifest = scan(tmp_path)
    assert [(one["image"], one["shape"]) for one in manifest.training] == [("good.dcm", [5, 4, 4])]
    refused = {one["path"]: one["reason"] for one in manifest.rejected}
    for name, sentence in {
        "times.dcm": "differ in TemporalPositionIndex (2 values)", "two.dcm": "too few", "gap.dcm": "is one missing?",
        "fewer.dcm": "4 frames with 3 places in space", "film.dcm": "is a multi-frame DICOM image of 12 frames",
    }.items():  # fmt: skip
        assert sentence in refused.pop(name)
    assert not refused


def test_enhanced_slices_of_one_frame_make_a_series(tmp_path: Path) -> None:
    for index, place in enumerate(along(2.5 * np.arange(4))):
        enhanced(tmp_path / f"{index}.dcm", NOISE[index : index + 1], [place])
    (entry,) = scan(tmp_path).training
    assert (entry["shape"], entry["spacing_mm"]) == ([5, 4, 4], [0.75, 0.5, 2.5])
    np.testing.assert_array_equal(read_image(tmp_path)[0, :, :, 2].numpy(), NOISE[2].T - 1024.0)


def test_an_enhanced_picture_of_one_frame_is_a_picture(tmp_path: Path) -> None:
    enhanced(tmp_path / "a.dcm", NOISE[:1], along(np.zeros(1)))
    dataset = pydicom.dcmread(tmp_path / "a.dcm")
    dataset.Modality, dataset.ImagerPixelSpacing = "XA", [0.3, 0.3]
    dataset.save_as(tmp_path / "a.dcm")
    assert scan(tmp_path).training[0]["shape"] == [4, 5]


@pytest.mark.parametrize("extra", [NOISE[0].nbytes, 2, 10])
def test_excess_padding_of_slices_is_ignored(tmp_path: Path, extra: int) -> None:
    for file in write_series(tmp_path, NOISE):
        dataset = pydicom.dcmread(file)
        dataset.PixelData += b"\0" * extra
        dataset.save_as(file)
    np.testing.assert_array_equal(read_image(tmp_path)[0, 2, 1].numpy(), NOISE[:, 1, 2] * 2.0 - 1024)


@pytest.mark.parametrize("empty", [("RescaleSlope",), ("RescaleIntercept",), ("RescaleSlope", "RescaleIntercept")])
def test_an_empty_rescale_is_none(tmp_path: Path, empty: tuple[str, ...]) -> None:
    write_series(tmp_path, NOISE, **dict.fromkeys(empty, ""))
    slope, intercept = (1 if "RescaleSlope" in empty else 2), (0 if "RescaleIntercept" in empty else -1024)
    np.testing.assert_array_equal(read_image(tmp_path)[0, 2, 1].numpy(), NOISE[:, 1, 2] * slope + intercept)


@pytest.mark.data
@pytest.mark.parametrize(
    "name",
    ["series/d2n_hyperfine_anatomical_001/001.dcm", "series/d2n_philips_enhanced_anatomical_001/IM-0001-0170-0001.dcm",
     "multiframe/enhanced_ct_3frames_24x38.dcm"],
)  # fmt: skip
def test_real_multi_frame_image_agrees_with_itk(data_dir: Path, name: str) -> None:
    path = data_dir / "dicom_kit" / name
    reference = SimpleITK.ReadImage(str(path))
    assert_same_as_itk(read_image(path), reference[..., 0] if reference.GetDimension() == 4 else reference)
