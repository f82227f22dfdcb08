"""Heatmaps of landmarks: made, and their covariances measured, against `landmarker` and MONAI's ``GenerateHeatmap``.

``python benchmarks/bench_heatmaps.py [--json FILE] [--rounds 3] [--measured 19]``

`landmarker` (0.4.1; ``pip install landmarker``) is no dependency: where it cannot be imported its rows are left out.
Its fit takes about half a second for a landmark; ``--measured`` says how many are measured at once.

Before anything is timed: ours and landmarker's maps agree within 1e-5; MONAI rounds to the pixel, so its maps are only
held against ours at landmarks that are rounded. Covariances agree within 1 % of the true ones.

Holds: making 4 x 19 maps of 512 x 512 takes at most a tenth of either peer; measuring a covariance at most a thousandth
of landmarker's fit.
"""

import argparse
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import torch
from monai.transforms import GenerateHeatmap
from torch import Tensor

from medpixcl.landmarks.heatmaps import decode_heatmaps, encode_heatmaps, heatmap_covariance

IMAGES, LANDMARKS, SIGMA = 4, 19, 3.0
CASES = {"4 x 19 maps of 512 x 512": (IMAGES, LANDMARKS, (512, 512)), "14 maps of 96 x 96 x 96": (1, 14, (96, 96, 96))}
RADIUS = 15
"""Pixels to either side of the peak that a covariance is measured in: five standard deviations."""


def random_points(images: int, count: int, shape: tuple[int, ...]) -> Tensor:
    """Places between the pixels, away from the border by six standard deviations."""
    generator, margin = torch.Generator().manual_seed(0), 6 * SIGMA
    unit = torch.rand(images, count, len(shape), generator=generator)
    return margin + unit * (torch.tensor(shape) - 1 - 2 * margin)


def ours(points: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Peak one, pixels of 1 mm."""
    return encode_heatmaps(points, shape, stride=1, sigma_mm=SIGMA, spacing_mm=[1.0] * len(shape), normalise=False)


def by_monai(points: Tensor, shape: tuple[int, ...]) -> Tensor:
    """One call for each image."""
    transform = GenerateHeatmap(sigma=SIGMA, spatial_shape=shape)
    return torch.stack([transform(image) for image in points])


def makers(points: Tensor, shape: tuple[int, ...]) -> dict[str, Any]:
    """Candidates that make heatmaps."""
    candidates = {"ours": partial(ours, points, shape), "MONAI GenerateHeatmap": partial(by_monai, points, shape)}
    if find_spec("landmarker"):
        from landmarker.heatmap import GaussianHeatmapGenerator

        generator = GaussianHeatmapGenerator(points.shape[1], sigmas=SIGMA, heatmap_size=shape)
        candidates["landmarker"] = partial(generator, points)
    return candidates


def check_maps(points: Tensor, shape: tuple[int, ...], results: dict[str, Tensor]) -> dict[str, float]:
    """Greatest differences of values, and how far the decoded landmarks are off."""
    made = results["ours"]
    errors = {}
    if "landmarker" in results:
        errors["values, landmarker"] = float((made - results["landmarker"]).abs().max())
    rounded = points[:1].round()
    errors["values at rounded landmarks, MONAI"] = float((ours(rounded, shape) - by_monai(rounded, shape)).abs().max())
    if max(errors.values()) > 1e-2 or errors.get("values, landmarker", 0) > 1e-5:
        raise SystemExit(f"the maps differ: {errors}")
    for name, maps in results.items():
        found, _ = decode_heatmaps(maps, stride=1, method="quadratic")
        errors[f"pixels off, {name}"] = float(torch.linalg.vector_norm(found - points, dim=-1).max())
    if errors["pixels off, ours"] > 0.02:
        raise SystemExit(f"the landmarks do not come back: {errors}")
    return errors


def tilted_maps(count: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Gaussians twice as long as wide, turned by 30 degrees, (1, count, *shape), and their covariance."""
    angle = torch.tensor(torch.pi / 6)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)
    covariance = turn @ torch.diag(torch.tensor([SIGMA, SIGMA / 2]).square()) @ turn.T
    grid = torch.stack(torch.meshgrid(*[torch.arange(n, dtype=torch.float32) for n in shape], indexing="ij"), dim=-1)
    away = grid - random_points(1, count, shape)[0, :, None, None]
    return torch.einsum("k...d,de,k...e->k...", away, covariance.inverse(), away).div(-2).exp()[None], covariance


def measurers(maps: Tensor) -> dict[str, Any]:
    """Candidates that measure covariances."""
    candidates: dict[str, Any] = {
        "ours": partial(heatmap_covariance, maps, stride=1, spacing_mm=[1.0, 1.0], radius=RADIUS)
    }
    if find_spec("landmarker"):
        from landmarker.heatmap import coord_cov_from_gaussian_ls

        candidates["landmarker, fit"] = lambda: coord_cov_from_gaussian_ls(maps)[1]
    return candidates


def check_covariances(true: Tensor, results: dict[str, Tensor]) -> dict[str, float]:
    """Greatest error of each, relative to the largest true one."""
    errors = {name: float((found - true).abs().max() / true.max()) for name, found in results.items()}
    if max(errors.values()) > 0.01:
        raise SystemExit(f"the covariances are wrong: {errors}")
    return errors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measured", type=int, default=LANDMARKS)
    options = parser.parse_args()
    tables = []
    for title, (images, count, shape) in CASES.items():
        points = random_points(images, count, shape)
        check = partial(check_maps, points, shape)
        tables.append(
            timing.compare(title, makers(points, shape), reference="ours", check=check, rounds=options.rounds)
        )
    maps, true = tilted_maps(options.measured, (512, 512))
    tables.append(
        timing.compare(
            f"covariances of {options.measured} maps of 512 x 512",
            measurers(maps),
            reference="ours",
            check=partial(check_covariances, true),
            rounds=options.rounds,
        )
    )
    for table in tables:
        timing.show(table)
        print("  " + ", ".join(f"{name}: {error:.2g}" for name, error in table["errors"].items()))
    if options.json:
        packages = ["torch", "monai", *(["landmarker"] if find_spec("landmarker") else [])]
        timing.save(options.json, tables, packages=packages)


if __name__ == "__main__":
    main()
