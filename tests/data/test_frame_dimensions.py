"""Several volumes in one multi-frame file are never read as one: the reason names what tells them apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.content import PixelMeasuresSequence, PlaneOrientationSequence, PlanePositionSequence
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.sr.codedict import codes

from medpixcl.data.images import ImageFileError, read_image
from medpixcl.data.scan import scan
from tests.data.dicom_files import write_series
from tests.data.test_dicom_geometry import NOISE, along, enhanced

SLICES = 4
Z = 2.5 * np.arange(SLICES)


def with_dimensions(path: Path, names: Sequence[str], indices: Sequence[Sequence[int]]) -> Path:
    """Declare dimensions, and number every frame along them."""
    dataset = pydicom.dcmread(path)
    items = []
    for name in names:
        item = Dataset()
        item.DimensionIndexPointer = tag_for_keyword(name)
        items.append(item)
    dataset.DimensionIndexSequence = items
    for group, index in zip(dataset.PerFrameFunctionalGroupsSequence, indices, strict=True):
        group.FrameContentSequence[0].DimensionIndexValues = list(index)
    dataset.save_as(path)
    return path


def with_macro(path: Path, macro: str, **values: Sequence[Any]) -> Path:
    """Put attributes of every frame into a functional group of theirs."""
    dataset = pydicom.dcmread(path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        item = Dataset()
        for keyword, of_frames in values.items():
            setattr(item, keyword, of_frames[number])
        setattr(group, macro, [item])
    dataset.save_as(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(ImageFileError) as caught:
        read_image(path)
    (one,) = scan(path).rejected
    assert one["reason"] == caught.value.reason
    return caught.value.reason


@pytest.mark.parametrize("by_place", [True, False])
def test_dimensions_of_the_file_tell_volumes_apart(tmp_path: Path, by_place: bool) -> None:
    """Whichever index runs faster, and without any other attribute that differs."""
    places = np.repeat(Z, 3) if by_place else np.tile(Z, 3)
    times = np.tile([1, 2, 3], SLICES) if by_place else np.repeat([1, 2, 3], SLICES)
    slices = np.argsort(np.argsort(places, kind="stable"), kind="stable") // 3 + 1
    path = enhanced(tmp_path / "a.dcm", NOISE, along(places))
    with_dimensions(path, ["StackID", "InStackPositionNumber", "TemporalPositionIndex"],
                    [(1, int(place), int(time)) for place, time in zip(slices, times, strict=True)])  # fmt: skip
    reason = refused(path)
    assert "3 volumes (of 4, 4, 4 slices), which differ in TemporalPositionIndex (3 values)" in reason
    assert "dcm2niix" in reason


@pytest.mark.parametrize(
    ("macro", "keyword", "values"),
    [
        ("MRDiffusionSequence", "DiffusionBValue", [0.0, 1000.0]),
        ("MREchoSequence", "EffectiveEchoTime", [2.4, 4.8]),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset", [0.0, 31.5]),
        ("CardiacSynchronizationSequence", "NominalCardiacTriggerDelayTime", [10.0, 410.0]),
        ("MRModifierSequence", "InversionTimes", [150.0, 800.0]),
        ("MRImageFrameTypeSequence", "ComplexImageComponent", ["MAGNITUDE", "PHASE"]),
        ("CTReconstructionSequence", "ConvolutionKernel", ["SHARP", "SOFT"]),
    ],
)
@pytest.mark.parametrize("between", [0.0, 1.25])
def test_an_attribute_tells_volumes_apart(
    tmp_path: Path, macro: str, keyword: str, values: list[Any], between: float
) -> None:
    """Also where the slices of one volume lie between those of the other: on one regular grid, of two contrasts."""
    path = enhanced(tmp_path / "a.dcm", NOISE[:8], along(np.concatenate([Z, Z + between])))
    with_macro(path, macro, **{keyword: [values[0]] * SLICES + [values[1]] * SLICES})
    with_dimensions(path, ["InStackPositionNumber", keyword], [(n % SLICES + 1, n // SLICES + 1) for n in range(8)])
    assert f"2 volumes (of 4, 4 slices), which differ in {keyword} (2 values)" in refused(path)


def test_the_order_of_the_frames_alone(tmp_path: Path) -> None:
    """The number of the file is not that of its frames."""
    path = enhanced(tmp_path / "a.dcm", NOISE[:8], along(np.tile(Z, 2)))
    dataset = pydicom.dcmread(path)
    dataset.InstanceNumber = 7
    dataset.save_as(path)
    assert "2 volumes (of 4, 4 slices), which differ in the order of the frames alone;" in refused(path)


def test_types_and_orientations_tell_volumes_apart(tmp_path: Path) -> None:
    path = enhanced(tmp_path / "dixon.dcm", NOISE[:8], along(np.tile(Z, 2)))
    kinds = [["ORIGINAL", "PRIMARY", "DIXON", kind] for kind in ("WATER", "FAT") for _ in range(SLICES)]
    with_macro(path, "MRImageFrameTypeSequence", FrameType=kinds)
    assert "which differ in image type;" in refused(path)
    path = enhanced(tmp_path / "planes.dcm", NOISE[:8], along(np.tile(Z, 2)), StackID=["1"] * 4 + ["2"] * 4)
    with_macro(
        path, "PlaneOrientationSequence",
        ImageOrientationPatient=[[1.0, 0, 0, 0, 1, 0]] * 4 + [[0.0, 1, 0, 0, 0, -1]] * 4,
    )  # fmt: skip
    dataset = pydicom.dcmread(path)
    del dataset.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence
    dataset.save_as(path)
    assert "which differ in orientation, StackID (2 values);" in refused(path)


def test_dimensions_of_one_volume_stay_one(tmp_path: Path) -> None:
    """Parts that lie one beside the other, an index of every slice, and indices that no frame has."""
    for name, dimension, indices in (
        ("parts", "FrameAcquisitionNumber", [1, 1, 2, 2]),
        ("slices", "TemporalPositionIndex", [1, 2, 3, 4]),
        ("places", "ImagePositionPatient", [4, 3, 2, 1]),
        ("one", "StackID", [1, 1, 1, 1]),
    ):
        path = enhanced(tmp_path / f"{name}.dcm", NOISE[:4], along(Z))
        with_dimensions(path, [dimension], [(index,) for index in indices])
        assert read_image(path).shape == (1, 5, 4, 4), name
    path = enhanced(tmp_path / "fewer.dcm", NOISE[:4], along(Z))
    with_dimensions(path, ["StackID", "TemporalPositionIndex"], [(index,) for index in (1, 2, 1, 2)])
    assert read_image(path).shape == (1, 5, 4, 4)


@pytest.mark.parametrize("maps", [1, 2])
def test_parametric_maps_that_highdicom_writes(tmp_path: Path, maps: int) -> None:
    """One map is a volume, whose values are those written; two are two volumes."""
    sources = [
        pydicom.dcmread(file) for file in sorted(write_series(tmp_path / "series", NOISE[:4], SliceThickness=2.5))
    ]
    for one in sources:
        one.StudyInstanceUID, one.FrameOfReferenceUID, one.SeriesNumber, one.InstanceNumber = "1.2", "1.3", 1, 1
        one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = one.AccessionNumber = one.StudyID = ""
        one.ReferringPhysicianName = ""
    values = np.random.default_rng(1).random((SLICES, 4, 5, maps)).astype(np.float32)
    names = [("K", "transfer"), ("V", "volume")][:maps]
    mappings = [
        [highdicom.pm.RealWorldValueMapping(name, text, codes.UCUM.NoUnits, (0.0, 1.0), slope=1, intercept=0)]
        for name, text in names
    ]
    written = highdicom.pm.ParametricMap(
        sources, values if maps > 1 else values[..., 0], "1.2.3.4", 2, "1.2.3.5", 1, "m", "n", "v", "s",
        contains_recognizable_visual_features=False, real_world_value_mappings=mappings if maps > 1 else mappings[0],
        voi_lut_transformations=[highdicom.VOILUTTransformation(window_center=0.5, window_width=1.0)],
        pixel_measures=PixelMeasuresSequence(pixel_spacing=[0.5, 0.75], slice_thickness=2.5),
        plane_orientation=PlaneOrientationSequence("PATIENT", [1, 0, 0, 0, 1, 0]),
        plane_positions=[PlanePositionSequence("PATIENT", [-10, -20, 30 + 2.5 * n]) for n in range(SLICES)],
    )  # fmt: skip
    written.save_as(tmp_path / "map.dcm")
    if maps == 1:
        image = read_image(tmp_path / "map.dcm")
        np.testing.assert_array_equal(image[0].numpy(), values[..., 0].transpose(2, 1, 0))
        assert image.pixdim.tolist() == [0.75, 0.5, 2.5]
    else:
        assert "2 volumes (of 4, 4 slices), which differ in the order of the frames alone" in refused(
            tmp_path / "map.dcm"
        )
