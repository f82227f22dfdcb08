"""Radiographs against chord lengths worked out by hand, and against a ray cast sample by sample."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from medpixcl.data.drr import ConeBeam, Poses, pose_rotation, project_points, render_drr, volume_centre
from medpixcl.data.drr_labels import project_labels
from tests.reference import drr as reference

WATER = 0.02
BEAM = ConeBeam(rows=24, columns=32, pixel_mm=7.0, source_detector_mm=1000.0, source_isocentre_mm=800.0)
TILTED = ([[8.0, -12.0, 25.0]], [[6.0, -20.0, 9.0]])
STRAIGHT = ([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]])


def make_poses(turns, shifts, isocentre=(0.0, 0.0, 0.0)) -> Poses:
    return Poses(*(torch.tensor(part, dtype=torch.float64) for part in (turns, shifts, isocentre)))


def centred_affine(shape, spacing, centre=(0.0, 0.0, 0.0)) -> torch.Tensor:
    affine = torch.diag(torch.tensor([*spacing, 1.0], dtype=torch.float64))
    affine[:3, 3] = torch.tensor(centre) - affine[:3, :3] @ ((torch.tensor(shape, dtype=torch.float64) - 1) / 2)
    return affine


def voxel_mm(shape, affine) -> np.ndarray:
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    return index @ affine[:3, :3].numpy().T + affine[:3, 3].numpy()


def rays(geometry: ConeBeam, turns, shifts, isocentre=(0.0, 0.0, 0.0)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source, unit directions (rows, columns, 3) and lengths of all rays in patient mm, from the literal reference."""
    pose = (turns, shifts, isocentre)
    ends = np.array(
        [
            [
                [reference.gantry_to_patient(p, *pose) for p in reference.source_and_pixel(geometry, row, column)]
                for column in range(geometry.columns)
            ]
            for row in range(geometry.rows)
        ]
    )
    along = ends[:, :, 1] - ends[:, :, 0]
    length = np.linalg.norm(along, axis=-1)
    return ends[0, 0, 0], along / length[..., None], length


def smooth_volume(shape, seed=0) -> torch.Tensor:
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 1.5)
    return torch.from_numpy(noise / noise.std() * 400 - 300).float()[None, None]


@pytest.mark.parametrize(("turns", "shifts"), [STRAIGHT, TILTED])
@pytest.mark.parametrize("spacing", [(1.5, 1.5, 1.5), (1.0, 2.0, 1.5)])
def test_sphere_of_water_has_the_chords_and_the_surface_of_a_sphere(turns, shifts, spacing) -> None:
    radius, middle = 40.0, np.array([5.0, -7.0, 3.0])
    shape = tuple(int(110 / s) for s in spacing)
    affine = centred_affine(shape, spacing)
    filled = (radius - np.linalg.norm(voxel_mm(shape, affine) - middle, axis=-1)) / max(spacing) + 0.5
    volume = torch.from_numpy(np.clip(filled, 0, 1) * 1000 - 1000).float()[None, None]
    drr = render_drr(
        volume, affine, BEAM, make_poses(turns, shifts), step_mm=0.5, water_per_mm=WATER, surface_hu=-500.0
    )

    source, along, _ = rays(BEAM, turns[0], shifts[0])
    closest = along @ (middle - source)
    distance = np.linalg.norm(middle - source - closest[..., None] * along, axis=-1)
    half = np.sqrt(np.maximum(radius**2 - distance**2, 0))
    well_inside = distance < 0.9 * radius
    assert well_inside.sum() > 50
    image, expected, surface = (part[0, 0].numpy() for part in drr)
    np.testing.assert_allclose(image[well_inside], (2 * half * WATER)[well_inside], rtol=0.02)
    np.testing.assert_allclose(expected[well_inside], closest[well_inside], atol=0.5)
    np.testing.assert_allclose(surface[well_inside], (closest - half)[well_inside], atol=0.5)
    outside = distance > radius + max(spacing) / 2 + np.linalg.norm(spacing)  # beyond the last interpolated voxel
    assert np.isnan(expected[outside]).all()
    assert np.isnan(surface[outside]).all()
    assert (image[outside] == 0).all()


@pytest.mark.parametrize(("turns", "shifts"), [STRAIGHT, TILTED])
def test_box_is_exact(turns, shifts) -> None:
    """Integral, entry and middle of a full box, whose faces are the outer faces of its voxels."""
    shape, spacing, hu = (20, 24, 16), (3.0, 2.0, 4.0), 250.0
    affine = centred_affine(shape, spacing)
    drr = render_drr(torch.full((1, 1, *shape), hu), affine, BEAM, make_poses(turns, shifts), water_per_mm=WATER)

    source, along, _ = rays(BEAM, turns[0], shifts[0])
    half = np.array(shape) * spacing / 2
    with np.errstate(divide="ignore"):
        faces = np.stack([(-half - source) / along, (half - source) / along])
    near, far = faces.min(axis=0).max(axis=-1), faces.max(axis=0).min(axis=-1)
    hit = far - near > 0.1
    assert 50 < hit.sum() < hit.size
    image, expected, surface = (part[0, 0].numpy() for part in drr)
    np.testing.assert_allclose(image[hit], ((far - near) * WATER * (1 + hu / 1000))[hit], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(expected[hit], ((near + far) / 2)[hit], atol=0.01)
    np.testing.assert_allclose(surface[hit], near[hit], atol=0.01)
    missed = far < near
    assert np.isnan(expected[missed]).all()
    assert (image[missed] == 0).all()


def test_matter_behind_the_detector_is_not_seen() -> None:
    geometry = ConeBeam(rows=1, columns=1, pixel_mm=1.0, source_detector_mm=110.0, source_isocentre_mm=100.0)
    affine = centred_affine((10, 40, 10), (2.0, 2.0, 2.0))
    drr = render_drr(torch.zeros(1, 1, 10, 40, 10), affine, geometry, make_poses(*STRAIGHT), water_per_mm=WATER)
    torch.testing.assert_close(drr.image.item(), (40 + 10) * WATER)
    torch.testing.assert_close(drr.depth_expected.item(), 85.0)


def test_rays_agree_with_the_literal_reference() -> None:
    volume, turns, shifts, isocentre = smooth_volume((14, 12, 16)), *TILTED, (30.0, -10.0, 55.0)
    affine = centred_affine(volume.shape[2:], (5.0, 7.0, 4.0), isocentre)
    affine[:3, :3] = pose_rotation(torch.tensor([[10.0, 20.0, 30.0]], dtype=torch.float64))[0] @ affine[:3, :3]
    drr = render_drr(
        volume, affine, BEAM, make_poses(turns, shifts, isocentre), step_mm=0.5, water_per_mm=WATER, surface_hu=0.0
    )
    pose, met = (turns[0], shifts[0], isocentre), 0
    for row, column in [(12, 16), (11, 20), (9, 12), (14, 18), (3, 30)]:
        integral, expected, surface = reference.cast_ray(
            volume[0, 0].numpy(),
            affine.numpy(),
            BEAM,
            pose,
            row,
            column,
            water_per_mm=WATER,
            surface_hu=0.0,
            step_mm=0.25,
        )
        found = [part[0, 0, row, column].item() for part in drr]
        met += not np.isnan(surface)
        wanted = [integral, np.nan if np.isnan(surface) else expected, surface]
        np.testing.assert_allclose(found, wanted, rtol=2e-3, atol=5e-3)
    assert met >= 3


@pytest.mark.parametrize(("turns", "shifts"), [STRAIGHT, TILTED, ([[0.0, 90.0, 0.0]], [[-15.0, 60.0, 4.0]])])
def test_a_small_ball_is_drawn_where_its_centre_is_projected(turns, shifts) -> None:
    shape, isocentre = (48, 48, 48), (-20.0, 40.0, 100.0)
    affine = centred_affine(shape, (2.0, 2.0, 2.0), isocentre)
    ball = np.array(isocentre) + np.array([17.3, -21.8, 11.1])
    away = np.linalg.norm(voxel_mm(shape, affine) - ball, axis=-1)
    volume = torch.from_numpy(2000 * np.exp(-((away / 4) ** 2)) - 1000).float()[None, None]
    geometry = ConeBeam(rows=70, columns=90, pixel_mm=2.5, source_detector_mm=1000.0, source_isocentre_mm=700.0)
    poses = make_poses(turns, shifts, isocentre)
    image = render_drr(volume, affine, geometry, poses, step_mm=1.0).image[0, 0].double()
    rows, columns = torch.meshgrid(*map(torch.arange, image.shape), indexing="ij")
    drawn = torch.stack([(image * rows).sum(), (image * columns).sum()]) / image.sum()

    projected = project_points(torch.from_numpy(ball)[None], geometry, poses)
    assert projected.visible.all()
    torch.testing.assert_close(projected.points[0, 0], drawn, atol=0.03, rtol=0)
    by_hand = reference.project(ball, geometry, (turns[0], shifts[0], isocentre))
    np.testing.assert_allclose(projected.points[0, 0].numpy(), by_hand, atol=1e-9)


def test_magnification_and_view() -> None:
    """100 mm at the isocentre measure 125 mm on the detector; left is to the right, feet are below."""
    points = torch.tensor([[0.0, 0.0, 0.0], [-100.0, 0.0, 0.0], [0.0, 0.0, -40.0], [0.0, 300.0, -40.0]])
    geometry = ConeBeam(rows=101, columns=301, pixel_mm=1.0, source_detector_mm=1000.0, source_isocentre_mm=800.0)
    centre, left, feet, front = project_points(points, geometry, make_poses(*STRAIGHT)).points[0].tolist()
    assert centre == [50.0, 150.0]
    assert left == [50.0, 275.0]
    assert feet == [100.0, 150.0]
    assert front == [130.0, 150.0]


def test_turns_follow_the_right_hand_one_after_the_other() -> None:
    """About R the front goes up; about A the head goes to the right; about S the right goes to the front."""
    eye, quarter = torch.eye(3), torch.eye(3) * 90
    turned = pose_rotation(quarter)
    torch.testing.assert_close(turned[0] @ eye[1], eye[2])
    torch.testing.assert_close(turned[1] @ eye[2], eye[0])
    torch.testing.assert_close(turned[2] @ eye[0], eye[1])
    both = pose_rotation(torch.tensor([[90.0, 0.0, 90.0]]))[0]
    torch.testing.assert_close(both @ eye[1], eye[2])  # first about R, then about S, which leaves S alone


def test_visible_is_on_the_detector_and_between_it_and_the_source() -> None:
    geometry = ConeBeam(rows=11, columns=21, pixel_mm=1.0, source_detector_mm=100.0, source_isocentre_mm=50.0)
    points = torch.tensor(
        [[0.0, 0, 0], [4.9, 0, 0], [5.1, 0, 0], [0, 0, -2.4], [0, 0, 2.6], [0, 60, 0], [0, -50, 0], [0, -51, 0]]
    )
    seen = project_points(points, geometry, make_poses(*STRAIGHT)).visible[0]
    assert seen.tolist() == [True, True, False, True, False, False, True, False]


@pytest.mark.parametrize("axes", [(0,), (1, 2), (0, 1, 2)])
def test_the_order_of_the_voxels_does_not_matter(axes) -> None:
    volume = smooth_volume((10, 14, 12))
    affine = centred_affine((10, 14, 12), (6.0, 4.0, 5.0))
    poses = make_poses(*TILTED)
    flipped = affine.clone()
    for axis in axes:
        flipped[:3, 3] += affine[:3, axis] * (volume.shape[2 + axis] - 1)
        flipped[:3, axis] *= -1
    stored = volume.flip([axis + 2 for axis in axes]).permute(0, 1, 4, 2, 3)
    stored_affine = flipped[:, [2, 0, 1, 3]]
    wanted = render_drr(volume, affine, BEAM, poses)
    found = render_drr(stored, stored_affine, BEAM, poses)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, atol=2e-3, rtol=1e-4, equal_nan=True)


def test_batch_equals_one_by_one_in_any_chunks() -> None:
    volume, affine = smooth_volume((10, 14, 12)), centred_affine((10, 14, 12), (6.0, 4.0, 5.0))
    turns, shifts = [[0.0, 0, 0], [10.0, 5, -20], [0.0, 45, 90]], [[0.0, 0, 0], [3.0, -50, 8], [0.0, 0, 9]]
    together = render_drr(volume, affine, BEAM, make_poses(turns, shifts))
    assert together.image.shape == (3, 1, 24, 32)
    for number in range(3):
        pose = make_poses(turns[number : number + 1], shifts[number : number + 1])
        alone = render_drr(volume, affine, BEAM, pose, max_samples=997)
        for whole, part in zip(together, alone, strict=True):
            torch.testing.assert_close(whole[number : number + 1], part, atol=1e-3, rtol=1e-5, equal_nan=True)


@pytest.mark.gpu
def test_gpu_gives_the_same_radiograph() -> None:
    volume, affine = smooth_volume((10, 14, 12)), centred_affine((10, 14, 12), (6.0, 4.0, 5.0))
    wanted = render_drr(volume, affine, BEAM, make_poses(*TILTED))
    found = render_drr(volume.cuda(), affine, BEAM, make_poses(*TILTED))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a.cpu(), b, atol=2e-3, rtol=1e-4, equal_nan=True)


def test_volume_centre_is_the_mean_of_all_voxel_positions() -> None:
    affine = centred_affine((3, 4, 6), (2.0, 3.0, 1.0))
    affine[:3, 3] = torch.tensor([7.0, -2.0, 5.0])
    mean = voxel_mm((3, 4, 6), affine).reshape(-1, 3).mean(axis=0)
    np.testing.assert_allclose(volume_centre(affine, (3, 4, 6)).numpy(), mean)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rows": 0}, "positive"),
        ({"pixel_mm": 0.0}, "positive"),
        ({"source_isocentre_mm": 1200.0}, "source_isocentre_mm is 1200"),
        ({"source_isocentre_mm": 0.0}, "above 0"),
    ],
)
def test_impossible_machines_are_refused(options, message) -> None:
    sizes = {"rows": 4, "columns": 4, "pixel_mm": 1.0, "source_detector_mm": 1000.0, "source_isocentre_mm": 900.0}
    with pytest.raises(ValueError, match=message):
        ConeBeam(**{**sizes, **options})


@pytest.mark.parametrize(
    "options", [{"step_mm": 0.0}, {"water_per_mm": -1.0}, {"max_samples": 0}, {"surface_hu": -1000.0}]
)
def test_impossible_options_are_refused(options) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        render_drr(torch.zeros(1, 1, 2, 2, 2), torch.eye(4), BEAM, make_poses(*STRAIGHT), **options)


def test_poses_with_holes_are_refused() -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        project_points(torch.zeros(1, 3), BEAM, make_poses([[0.0, float("nan"), 0.0]], [[0.0, 0.0, 0.0]]))
    with pytest.raises(ValueError, match="1 rotations and 2 translations"):
        project_points(torch.zeros(1, 3), BEAM, make_poses([[0.0, 0.0, 0.0]], [[0.0, 0.0, 0.0]] * 2))


@pytest.mark.parametrize(("turns", "shifts"), [STRAIGHT, TILTED])
def test_shadow_of_a_labelled_sphere_is_where_its_chords_are_long(turns, shifts) -> None:
    """Away from the rim by more than a voxel can change a chord, the shadow is decided; a structure of two adds up."""
    radius, middle, shape = 40.0, np.array([5.0, -7.0, 3.0]), (100, 100, 100)
    affine = centred_affine(shape, (1.0, 1.0, 1.0))
    away = voxel_mm(shape, affine) - middle
    ball = np.linalg.norm(away, axis=-1) < radius
    labels = torch.from_numpy(np.where(ball, np.where(away[..., 0] > 0, 3, 8), 0))[None, None]
    poses = make_poses(turns, shifts)
    shadows = project_labels(labels, affine, BEAM, poses, [[3, 8], [3], [5]], minimum_mm=30.0)[0]
    source, along, _ = rays(BEAM, turns[0], shifts[0])
    nearest = np.linalg.norm(np.cross(along, middle - source), axis=-1)
    chord = 2 * np.sqrt(np.maximum(radius**2 - nearest**2, 0))
    assert shadows[0].numpy()[chord > 36].all()
    assert not shadows[0].numpy()[chord < 24].any()
    assert (shadows[1] <= shadows[0]).all()
    assert 0 < shadows[1].sum() < shadows[0].sum()
    assert not shadows[2].any()
