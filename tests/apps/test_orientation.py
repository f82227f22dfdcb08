"""The orientation of a file changes nothing: landmarks in mm are those of the same body stored in any other way."""

import itertools
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from medpixcl import Detector, Matcher, Results
from medpixcl.apps.finder import LandmarkFinder
from medpixcl.data.phantoms import draw_phantom
from tests.data.dicom_files import write_series
from tests.tiny import MATCHING, ROOT

CODES = [
    "".join(code)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for code in itertools.product(*axes)
]  # fmt: skip
SHAPE = (22, 18, 16)
MARKS = {"a": (6.0, 5.0, 4.0), "b": (12.0, 9.0, 7.0), "c": (16.0, 12.0, 11.0)}
DETECTION = ROOT / "bundles" / "volume_landmark_detection"
TINY: dict[str, Any] = {
    "spatial_dims": 3,
    "backbone": "dynunet",
    "channels": [4, 8, 8],
    "weights": None,
    "working_spacing_mm": [1.5] * 3,
}
pytestmark = pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")


def body(degrees: float) -> nibabel.Nifti1Image:
    """A volume close to RAS, turned by some degrees about an oblique axis."""
    affine = np.eye(4)
    turn = Rotation.from_rotvec(np.array([1.0, 2.0, -1.0]) / 6**0.5 * degrees, degrees=True).as_matrix()
    affine[:3, :3], affine[:3, 3] = turn * (1.0, 1.5, 2.0), (-20.0, 7.0, 31.0)
    image = nibabel.Nifti1Image(draw_phantom(SHAPE, 3), affine)
    image.set_qform(affine, 1)
    return image


def stored(image: nibabel.Nifti1Image, code: str, folder: Path) -> Path:
    """The same body in a file whose axes run as the code says."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(code))
    turned = image.as_reoriented(change)
    turned.set_qform(turned.affine, 1)
    nibabel.save(turned, folder / f"{code}.nii")
    return folder / f"{code}.nii"


def tiny_matcher(settings: dict[str, Any] = TINY) -> Matcher:
    torch.manual_seed(0)
    return Matcher.from_bundle(MATCHING, device="cpu", settings={**settings, "embedding_size": 8})


def finder(kind: str, template: Path, marks: dict[str, Any] = MARKS, settings: dict[str, Any] = TINY) -> LandmarkFinder:
    if kind == "detect":
        torch.manual_seed(0)
        return Detector.from_bundle(DETECTION, device="cpu", settings=settings)
    return tiny_matcher(settings).fit(template, marks)


def found(one: LandmarkFinder, paths: list[Path]) -> Results:
    return one.detect(paths) if isinstance(one, Detector) else one.match(paths)


def assert_same_places(results: Results, names: Sequence[str], folder: Path) -> torch.Tensor:
    """All files have the same landmarks in mm, LPS, and their voxels are those of the file itself as ITK has them."""
    assert [one.image for one in results.landmarks] == list(names)
    expected = results.landmarks[0].mm
    assert expected.isfinite().all()
    for one in results.landmarks:
        torch.testing.assert_close(one.mm, expected, atol=2e-3, rtol=0)
        if (folder / one.image).is_file():
            file = SimpleITK.ReadImage(str(folder / one.image))
            mm = [file.TransformContinuousIndexToPhysicalPoint(place) for place in one.voxels.tolist()]
            np.testing.assert_allclose(mm, one.mm, atol=2e-3)
            assert one.shape == file.GetSize()
    return expected


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("kind", ["match", "detect"])
def test_landmarks_do_not_depend_on_the_orientation_of_the_file(tmp_path: Path, kind: str, degrees: float) -> None:
    """In all 48 ways to store a volume, whose axes are close to those of the body, or oblique."""
    image = body(degrees)
    (tmp_path / "template").mkdir()
    template = stored(image, "LPS", tmp_path / "template")
    results = found(finder(kind, template), [stored(image, code, tmp_path) for code in CODES])
    mm = assert_same_places(results, [f"{code}.nii" for code in CODES], tmp_path)
    if kind == "match":  # of a body with itself
        marked = SimpleITK.ReadImage(str(template))
        truth = [marked.TransformContinuousIndexToPhysicalPoint(place) for place in MARKS.values()]
        assert np.linalg.norm(mm.numpy() - truth, axis=1).max() < 3.0  # two voxels of the network


PLANES = {
    "axial": ((1, 0, 0, 0, 1, 0), (0, 0, 1)),
    "from the feet": ((1, 0, 0, 0, 1, 0), (0, 0, -1)),
    "coronal": ((1, 0, 0, 0, 0, -1), (0, 1, 0)),
    "sagittal": ((0, 1, 0, 0, 0, -1), (-1, 0, 0)),
    "prone": ((-1, 0, 0, 0, -1, 0), (0, 0, 1)),
}
"""Directions (LPS) of the columns and rows of DICOM slices, and from slice to slice."""


@pytest.mark.parametrize("kind", ["match", "detect"])
def test_landmarks_do_not_depend_on_the_plane_of_a_dicom_series(tmp_path: Path, kind: str) -> None:
    """The slices lie along each axis of a body of 1 x 1.5 x 2 mm, in each direction."""
    lps = (draw_phantom(SHAPE, 3) * 1000).astype(np.uint16)
    sizes, origin = np.array([1.0, 1.5, 2.0]), np.array([-20.0, 7.0, 31.0])
    for number, (name, (orientation, step)) in enumerate(PLANES.items()):
        steps = np.array([step, orientation[3:], orientation[:3]])  # from slice to slice, row to row, column to column
        axes = np.abs(steps).argmax(axis=1)
        back = steps[range(3), axes] < 0
        volume = np.flip(lps.transpose(axes), np.flatnonzero(back))
        corner = origin.copy()
        corner[axes[back]] += ((np.array(SHAPE) - 1) * sizes)[axes[back]]
        write_series(tmp_path / name, volume, orientation=orientation, step=steps[0] * sizes[axes[0]], origin=corner,
                     spacing=sizes[axes[1:]].tolist(), SeriesInstanceUID=f"1.2.{number}", RescaleSlope=1)  # fmt: skip
    shutil.copytree(tmp_path / "axial", tmp_path / "template")  # a template in the folder of a series is not searched
    results = found(finder(kind, tmp_path / "template"), [tmp_path / name for name in PLANES])
    assert_same_places(results, list(PLANES), tmp_path)


REAL = ("ct_phantom_oblique_uint8.nii.gz", "lung_small.mha", "nibabel_anatomical.nii", "pyradiomics_brain1.nrrd",
        "sct_t2_sagittal.nii.gz", "tptbox_sub-ct_label-22_ct.nii.gz")  # fmt: skip


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_volumes_stored_in_other_orientations(data_dir: Path, tmp_path: Path, name: str) -> None:
    """Turned and written by ITK; landmarks that are found in the file itself are found in each."""
    original = data_dir / "nifti_format_kit" / name
    image = SimpleITK.ReadImage(str(original))
    extent = max(size * step for size, step in zip(image.GetSize(), image.GetSpacing(), strict=True))
    settings = TINY | {"working_spacing_mm": [extent / 28] * 3}
    codes = CODES[REAL.index(name) :: 24]
    names = [name, *(f"{code}_{name}" for code in codes)]
    SimpleITK.WriteImage(image, str(tmp_path / name))
    for code in codes:
        SimpleITK.WriteImage(SimpleITK.DICOMOrient(image, code), str(tmp_path / f"{code}_{name}"))
    marks = {key: [share * size for size in image.GetSize()] for key, share in (("a", 0.3), ("b", 0.5), ("c", 0.7))}
    for kind in ("match", "detect"):
        results = found(finder(kind, original, marks, settings), [tmp_path / one for one in names])
        assert_same_places(results, names, tmp_path)


def test_the_orientation_of_the_template_changes_nothing(tmp_path: Path) -> None:
    image = body(0.0)
    query = stored(image, "ASR", tmp_path)
    marked = image.affine @ np.array([[*place, 1.0] for place in MARKS.values()]).T
    expected = None
    for code in ("RAS", "LPS", "PIR", "SLA"):
        template = stored(image, code, tmp_path)
        own = (np.linalg.inv(nibabel.load(template).affine) @ marked)[:3].T
        matcher = tiny_matcher().fit(template, dict(zip(MARKS, own.tolist(), strict=True)))
        mm = matcher.match(query).landmarks[0].mm
        expected = mm if expected is None else expected
        torch.testing.assert_close(mm, expected, atol=1e-3, rtol=0)
