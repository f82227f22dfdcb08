"""The orientation of a file changes nothing: landmarks in mm are those of the same body stored in any other way."""

import itertools
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scipy.spatial.transform import Rotation

from medpixcl import Detector, Matcher, Results
from medpixcl.apps.finder import LandmarkFinder
from medpixcl.data.phantoms import draw_phantom
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


def tiny_matcher() -> Matcher:
    torch.manual_seed(0)
    return Matcher.from_bundle(MATCHING, device="cpu", settings={**TINY, "embedding_size": 8})


def finder(kind: str, template: Path) -> LandmarkFinder:
    if kind == "detect":
        torch.manual_seed(0)
        return Detector.from_bundle(DETECTION, device="cpu", settings=TINY)
    return tiny_matcher().fit(template, MARKS)


def found(one: LandmarkFinder, paths: list[Path]) -> Results:
    return one.detect(paths) if isinstance(one, Detector) else one.match(paths)


@pytest.mark.parametrize("degrees", [0.0, 20.0])
@pytest.mark.parametrize("kind", ["match", "detect"])
def test_landmarks_do_not_depend_on_the_orientation_of_the_file(tmp_path: Path, kind: str, degrees: float) -> None:
    image = body(degrees)
    codes = CODES[:: 5 if degrees == 0 else 11]
    (tmp_path / "template").mkdir()
    template = stored(image, "LPS", tmp_path / "template")
    results = found(finder(kind, template), [stored(image, code, tmp_path) for code in codes])
    assert [one.image for one in results.landmarks] == [f"{code}.nii" for code in codes]
    expected = results.landmarks[0].mm
    assert expected.isfinite().all()
    for one in results.landmarks:
        torch.testing.assert_close(one.mm, expected, atol=1e-3, rtol=0)
        file = nibabel.load(tmp_path / one.image)  # voxels are those of the file itself
        mm = one.voxels.numpy() @ file.affine[:3, :3].T + file.affine[:3, 3]
        np.testing.assert_allclose(mm * [-1, -1, 1], one.mm, atol=1e-3)
        assert one.shape == file.shape


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
