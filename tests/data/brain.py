"""Whether the volume demo's templates are installed, and a small wheel that stands in for theirs."""

import hashlib
from importlib import metadata
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medpixcl.data import demo_brain

INSTALLED = next(metadata.distributions(name="autoafids"), None) is not None
needs_brain = pytest.mark.skipif(not INSTALLED, reason=f"no brain templates: {demo_brain.WHEEL.install}")

SHAPE, SIGMA_MM = (80, 96, 90), 3.0
AFFINE = np.array([[-2.0, 0, 0, 78], [0, 2.0, 0, -110], [0, 0, 2.0, -80], [0, 0, 0, 1]])
PLACES = {
    "AC": (0.0, 3.0, -5.0),
    "R MB": (41.0, -30.0, 12.0),
    "L MB": (-38.0, -25.0, 20.0),
    "culmen": (3.0, -60.0, -30.0),
    "genu of CC": (-4.0, 45.0, 33.0),
}
"""Landmarks of the stand-in, RAS+ mm; a bright ball stands at each."""


def mm_of_voxels() -> np.ndarray:
    """RAS+ position of every voxel, (I, J, K, 3)."""
    return nibabel.affines.apply_affine(AFFINE, np.moveaxis(np.indices(SHAPE), 0, -1))


def draw_balls() -> np.ndarray:
    """Balls of Gaussian profile on black, 0 to 10000."""
    mm = mm_of_voxels()
    balls = [np.exp(-0.5 * ((mm - place) ** 2).sum(-1) / SIGMA_MM**2) for place in PLACES.values()]
    return (10_000 * np.sum(balls, axis=0)).clip(0, 10_000)


def install_stand_in(folder: Path, patch: pytest.MonkeyPatch, t1w: np.ndarray, t2w: np.ndarray) -> None:
    """Install a wheel of that name in a folder, and take its files for the expected ones."""
    data, info = folder / "autoafids" / "resources", folder / "autoafids-0.1.4.dist-info"
    data.mkdir(parents=True)
    info.mkdir()
    for name, volume in ((demo_brain.T1W, t1w), (demo_brain.T2W, t2w)):
        nibabel.save(nibabel.Nifti1Image(volume.round().astype(np.int16), AFFINE), data / name)
    lines = ["# Markups fiducial file version = 4.6", "# CoordinateSystem = 0"]
    lines += ["# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID"]
    for number, (name, (x, y, z)) in enumerate(PLACES.items(), 1):
        lines.append(f"node_{number},{x},{y},{z},0,0,0,1,1,1,0,{number},{name},volume")
    (data / demo_brain.AFIDS).write_text("\n".join([*lines, ""]), encoding="utf-8")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: autoafids\nVersion: 0.1.4\n", encoding="utf-8")
    names = demo_brain.WHEEL.checksums.keys()
    record = "".join(f"autoafids/resources/{name},,\n" for name in names)
    (info / "RECORD").write_text(record, encoding="utf-8")
    for name in names:
        patch.setitem(demo_brain.WHEEL.checksums, name, hashlib.sha256((data / name).read_bytes()).hexdigest())
    patch.syspath_prepend(folder)
