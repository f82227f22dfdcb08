"""Random views, affine and elastic, against one ``grid_sample``, MONAI and batchgeneratorsv2.

``python benchmarks/bench_views.py [--json FILE] [--rounds 15]``

One view of 96^3 out of a volume of 160^3, and one of 224^2 out of 512^2, of one key; ours gives the coordinate map as
well. Parameters are drawn anew for every view, by all but the floor. batchgeneratorsv2 takes part if it can be
imported (``pip install batchgeneratorsv2``).

Before anything is timed, views are compared with SciPy's interpolation at the positions in their coordinate maps.

Aims, in 3D: at most 1.5 times the floor, at least 5 times as fast as MONAI's ``RandAffined`` and ``Rand3DElasticd``,
and not slower than batchgeneratorsv2. Tables end with what was reached; nothing fails.
"""

import argparse
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Rand2DElasticd, Rand3DElasticd, RandAffined
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import voxel_to_grid
from medpixcl.transforms import RandPixelViewsd, RandViewd
from medpixcl.views import View, ViewRanges, coordinate_map, resample, view_positions

try:
    from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
except ImportError:
    SpatialTransform = None

DEGREES, SCALES, ELASTIC = 20.0, (0.75, 1.33), 2.0
FLOOR = "grid_sample (floor)"
OURS = "ours, with coordinate map"
ALONE = "ours, without (RandViewd)"
BOTH = "ours, both views (RandPixelViewsd)"
MONAI = "MONAI RandAffined, RandElasticd"
MONAI_ONE = "MONAI RandElasticd alone"
NNUNET = "batchgeneratorsv2"


@dataclass(frozen=True)
class Case:
    """One table: shapes of image and view, and whether the views bend."""

    title: str
    image: tuple[int, ...]
    view: tuple[int, ...]
    elastic: bool = True

    @property
    def elastic_mm(self) -> float:
        """Standard deviation at the control points."""
        return ELASTIC if self.elastic else 0.0


CASES = [
    Case("3D, 96^3 out of 160^3, affine and elastic", (160,) * 3, (96,) * 3),
    Case("3D, 96^3 out of 160^3, affine", (160,) * 3, (96,) * 3, elastic=False),
    Case("2D, 224^2 out of 512^2, affine and elastic", (512,) * 2, (224,) * 2),
]


class Ours:
    """One view with its coordinate map: what :class:`RandPixelViewsd` does for each side."""

    def __init__(self, case: Case, image: Tensor) -> None:
        self.image, self.affine = image[None], torch.eye(image.ndim)[None]
        self.ranges = ViewRanges(case.view, DEGREES, SCALES, elastic_mm=case.elastic_mm)
        self.state = np.random.RandomState(0)

    def draw(self) -> View:
        """Geometry of the next view."""
        shape = np.array(self.image.shape[2:])
        return self.ranges.sample(self.state, (shape - 1) / 2, np.ones(len(shape)))

    def positions(self) -> Tensor:
        """Image voxels of the next view."""
        view = self.draw()
        return view_positions(
            view.matrix[None], view.shape, None if view.displacement is None else view.displacement[None]
        )

    def __call__(self) -> tuple[Tensor, Tensor]:
        """View and coordinate map."""
        positions = self.positions()
        return resample(self.image, positions), coordinate_map(positions, self.affine, self.image.shape[2:])


def monai_elastic(case: Case) -> Any:
    """Elastic deformation alone, of the strength that MONAI's examples have."""
    options = {"keys": "image", "prob": 1.0, "spatial_size": case.view, "mode": "bilinear", "padding_mode": "zeros"}
    if len(case.view) == 2:
        return partial(Rand2DElasticd, spacing=(40, 40), magnitude_range=(1, 2), **options)
    return partial(Rand3DElasticd, sigma_range=(5, 8), magnitude_range=(50, 150), **options)


def monai_ranges(case: Case) -> dict[str, Any]:
    """Ranges of turn and scale as ours."""
    dims = len(case.view)
    turns = 1 if dims == 2 else 3
    return {"rotate_range": [np.radians(DEGREES)] * turns, "scale_range": [(-0.25, 0.33)] * dims}


def monai_affine(case: Case) -> RandAffined:
    """Turn, scale and crop."""
    options = {"mode": "bilinear", "padding_mode": "zeros", "cache_grid": True}
    return RandAffined("image", prob=1.0, spatial_size=case.view, **monai_ranges(case), **options)


def nnunet(case: Case, image: Tensor) -> Callable[[], Any]:
    """The transform of nnU-Net, turn and scale as ours."""
    transform = SpatialTransform(
        case.view,
        0,
        random_crop=False,
        p_elastic_deform=float(case.elastic),
        p_rotation=1,
        rotation=(-np.radians(DEGREES), np.radians(DEGREES)),
        p_scaling=1,
        scaling=SCALES,
        p_synchronize_scaling_across_axes=1,
    )
    return lambda: transform(image=image)


def candidates(case: Case) -> dict[str, Callable[[], Any]]:
    """Calls that give a view each."""
    image = torch.rand(1, *case.image, generator=torch.Generator().manual_seed(0))
    ours = Ours(case, image)
    item: dict[Hashable, Any] = {"image": MetaTensor(image)}
    positions = ours.positions()
    grid = voxel_to_grid(positions.flatten(1, -2), case.image).view_as(positions).contiguous()
    ranges: dict[str, Any] = {"rotation_degrees": DEGREES, "scale_range": SCALES, "elastic_mm": case.elastic_mm}
    calls: dict[str, Callable[[], Any]] = {
        FLOOR: partial(F.grid_sample, image[None], grid, align_corners=False),
        OURS: ours,
        ALONE: partial(RandViewd("image", case.view, **ranges), item),
        BOTH: partial(RandPixelViewsd("image", case.view, **ranges), item),
    }
    if case.elastic:
        calls[MONAI] = partial(Compose([monai_affine(case), monai_elastic(case)()]), item)
        calls[MONAI_ONE] = partial(monai_elastic(case)(**monai_ranges(case)), item)
    else:
        calls["MONAI RandAffined"] = partial(monai_affine(case), item)
    if SpatialTransform is not None:
        calls[NNUNET] = nnunet(case, image)
    return calls


def errors(case: Case, results: dict[str, Any]) -> dict[str, float]:
    """Largest difference of ours from SciPy at the positions of the coordinate map; the image is uniform noise."""
    image = torch.rand(1, *case.image, generator=torch.Generator().manual_seed(0))[0].numpy()
    both = results[BOTH]
    shown = {OURS: results[OURS], BOTH: (both["image_query"].as_tensor()[None], both["coords_image_query"][None])}
    found = {}
    for name, (view, coords) in shown.items():
        expected = map_coordinates(image, coords[0, :-1].numpy(), order=1, mode="grid-constant")
        found[name] = float(np.abs(view[0, 0].numpy() - expected).max())
    if max(found.values()) > 1e-3:
        raise SystemExit(f"views are not what their coordinate maps say: {found}")
    return found


def reached(case: Case, rows: dict[str, Any]) -> dict[str, str]:
    """Aims and what was measured, medians over the rounds."""
    ratio = {name: row["median_ratio"] for name, row in rows.items()}
    aims = {}
    if len(case.view) == 3:
        aims["one view, at most 1.5 times the floor"] = f"{ratio[OURS]:.2f}"
        aims["both views, at most 1.5 times two floors"] = f"{ratio[BOTH] / 2:.2f}"
    for name in (MONAI, MONAI_ONE, "MONAI RandAffined", NNUNET):
        if name in ratio:
            times = f"{ratio[name] / ratio[OURS]:.1f}, without coordinate map {ratio[name] / ratio[ALONE]:.1f}"
            aims[f"times as fast as {name}"] = times
    return aims


def main() -> None:
    """Measure all tables and, where asked, write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="File to write the tables to.")
    parser.add_argument("--rounds", type=int, default=15, help="Number of timed calls of each candidate.")
    arguments = parser.parse_args()
    if SpatialTransform is None:
        print("batchgeneratorsv2 is not installed and not measured")
    tables = []
    for case in CASES:
        check = partial(errors, case)
        table = timing.compare(case.title, candidates(case), reference=FLOOR, check=check, rounds=arguments.rounds)
        timing.show(table)
        for aim, found in reached(case, table["rows"]).items():
            print(f"  {aim}: {found}")
        tables.append(table)
    if arguments.json:
        timing.save(arguments.json, tables, packages=["torch", "monai", "numpy"])


if __name__ == "__main__":
    main()
