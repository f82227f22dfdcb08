"""The matcher of volumes finds a body in itself however its file is stored, sampled or turned."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from scipy.spatial.transform import Rotation

from medpixcl import Matcher
from tests.tiny import VOLUME_MATCHING

SIDE = 48
"""Voxels along the longest side, for speed; the bundle takes 96."""
TOLERATED = 1.5
"""Working voxels by which a landmark may be off: three quarters of a cell of the finest level."""
CODES = ("LPS", "RIP", "ALI", "PIR", "SLA", "IPL")
"""All six orders of the axes, and both directions along each."""
SHARES = [(0.35, 0.4, 0.4), (0.65, 0.4, 0.45), (0.5, 0.65, 0.4), (0.5, 0.35, 0.6), (0.35, 0.6, 0.6), (0.6, 0.55, 0.55)]
"""Landmarks in the middle of the volume, as shares of its voxels along (i, j, k)."""
STORED = ("ct_phantom_oblique_uint8.nii.gz", "lung_small.mha", "nibabel_anatomical.nii", "pyradiomics_brain1.nrrd",
          "sct_t2_sagittal.nii.gz", "tptbox_sub-ct_label-22_ct.nii.gz")  # fmt: skip


QUICK = ("lung_small.mha", "tptbox_sub-ct_label-22_ct.nii.gz")


def limit(reason: str) -> pytest.MarkDecorator:
    """What the weights of the bundle do not manage; others may."""
    return pytest.mark.xfail(strict=False, raises=AssertionError, reason=reason)


LONG = limit("a spinal cord of 550 mm looks alike along itself, so its place along the axis is not found")
TURNED = {
    "sct_t2_sagittal.nii.gz": limit("errors of up to 1.6 voxels (1.7 where longest_side is 96)"),
    "tptbox_sub-ct_label-22_ct.nii.gz": limit(
        "the pose is not found and nothing is sure; errors of at most 1.5 voxels where longest_side is 96"
    ),
}
pytestmark = [pytest.mark.data, pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")]


def marked(path: Path) -> tuple[SimpleITK.Image, Matcher, np.ndarray, float]:
    """The volume, a matcher with it as template, the landmarks (K, 3) in mm, LPS, and the working voxel in mm."""
    image = SimpleITK.Cast(SimpleITK.ReadImage(str(path)), SimpleITK.sitkFloat32)
    voxels = np.array(SHARES) * (np.array(image.GetSize()) - 1)
    matcher = Matcher.from_bundle(VOLUME_MATCHING, device="cpu", settings={"longest_side": SIDE, "detail": 1})
    matcher.fit(path, {f"p{number}": place for number, place in enumerate(voxels.tolist())})
    voxel_mm = matcher.templates[0].image.pixdim[0].item()
    truth = np.array([image.TransformContinuousIndexToPhysicalPoint(place) for place in voxels.tolist()])
    return image, matcher, truth, voxel_mm


def found(matcher: Matcher, image: SimpleITK.Image, path: Path) -> torch.Tensor:
    SimpleITK.WriteImage(image, str(path))
    return matcher.match(path).landmarks[0].mm


def unequal(image: SimpleITK.Image) -> SimpleITK.Image:
    """The same body in voxels that are 1, 1.5 and 2 times as large along the axes, smoothed before."""
    factors, sizes = np.array([1.0, 1.5, 2.0]), np.array(image.GetSpacing())
    smooth = SimpleITK.SmoothingRecursiveGaussian(image, np.maximum(sizes * (factors - 1) / 2, 1e-3).tolist())
    shape = np.ceil(image.GetSize() / factors).astype(int).tolist()
    return SimpleITK.Resample(smooth, shape, SimpleITK.Transform(), SimpleITK.sitkLinear, image.GetOrigin(),
                              (sizes * factors).tolist(), image.GetDirection(), 0.0)  # fmt: skip


def oblique(image: SimpleITK.Image, degrees: float) -> SimpleITK.Image:
    """The same body on a grid of equal voxels whose axes are turned, and which holds the whole of it."""
    axes = Rotation.from_rotvec(np.array([1.0, 2.0, -1.0]) / 6**0.5 * degrees, degrees=True).as_matrix()
    last = np.array(image.GetSize()) - 1.0
    corners = [
        image.TransformContinuousIndexToPhysicalPoint((last * corner).tolist()) for corner in np.ndindex(2, 2, 2)
    ]
    along = np.array(corners) @ axes
    sizes = np.array(image.GetSpacing())
    step = float(max(sizes.min(), (sizes * image.GetSize()).max() / 96))
    shape = (np.ceil(np.ptp(along, axis=0) / step) + 1).astype(int).tolist()
    nothing = float(SimpleITK.GetArrayViewFromImage(image).min())
    return SimpleITK.Resample(image, shape, SimpleITK.Transform(), SimpleITK.sitkLinear,
                              (axes @ along.min(axis=0)).tolist(), [step] * 3, axes.ravel().tolist(),
                              nothing)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        *QUICK,
        *(pytest.param(name, marks=pytest.mark.slow) for name in STORED if name not in QUICK),
        pytest.param("pam50_small_t2.nii.gz", marks=[LONG, pytest.mark.slow]),
    ],
)
def test_files_of_one_body(data_dir: Path, tmp_path: Path, name: str) -> None:
    """Whatever the order and direction of its axes; and in voxels of three sizes."""
    image, matcher, truth, voxel_mm = marked(data_dir / "nifti_format_kit" / name)
    itself = found(matcher, image, tmp_path / "itself.nii.gz")
    assert np.linalg.norm(itself - truth, axis=1).max() < TOLERATED * voxel_mm
    for code in CODES:
        other = found(matcher, SimpleITK.DICOMOrient(image, code), tmp_path / f"{code}.nii.gz")
        torch.testing.assert_close(other, itself, rtol=0, atol=2e-3)
    sampled = found(matcher, unequal(image), tmp_path / "unequal.nii.gz")
    assert np.linalg.norm(sampled - truth, axis=1).max() < TOLERATED * voxel_mm


@pytest.mark.parametrize(
    "name",
    [
        *STORED[:2],
        *(pytest.param(name, marks=pytest.mark.slow) for name in STORED[2:4]),
        *(pytest.param(name, marks=[why, pytest.mark.slow]) for name, why in TURNED.items()),
    ],
)
def test_a_body_on_an_oblique_grid(data_dir: Path, tmp_path: Path, name: str) -> None:
    """The network sees it turned by 25 degrees, since an oblique volume stays oblique."""
    image, matcher, truth, voxel_mm = marked(data_dir / "nifti_format_kit" / name)
    turned = found(matcher, oblique(image, 25.0), tmp_path / "oblique.nii.gz")
    assert np.linalg.norm(turned - truth, axis=1).max() < TOLERATED * voxel_mm
