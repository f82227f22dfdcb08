"""Registration as a baseline: error and time beside matching, on cephalograms, and alone on hippocampi.

Cephalograms: template 125, the first of the 40 development images. Hippocampi: the first training volume is the
template, the test volumes are searched. Nothing is trained or chosen here.

    python benchmarks/registration.py ceph --images 20
    python benchmarks/registration.py hippocampus --images 25
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from ceph import DATA, FILE_SPACING, ROOT, Cephalograms

from medpixcl import Matcher, Results
from medpixcl.apps.register import AFFINE, CONVEXADAM, ELASTIX, Registration
from medpixcl.data.manifest import Manifest

TEMPLATE = "125"


def say(title: str, results: Results, seconds: float) -> None:
    """Print error and time of one way."""
    assert results.metrics is not None
    within, each = results.metrics["sdr_percent"]["2"], seconds / len(results.landmarks)
    print(f"| {title} | {results.metrics['mre_mm']:.2f} | {within:.1f} | {each:.1f} |", flush=True)


def registered(
    template: Path, marks: Path, images: Sequence[Path], methods: Sequence[str], spacing_mm: float | None
) -> None:
    """Measure some methods of registration."""
    for method in methods:
        registration = Registration(method).fit(template, marks, spacing_mm=spacing_mm)
        start = time.monotonic()
        found = registration.match(images, spacing_mm=spacing_mm, reference=marks)
        say(f"register --method {method}", found, time.monotonic() - start)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("ceph", "hippocampus"))
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--images", type=int, default=20, help="number of images")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print("| way | MRE (mm) | within 2 mm (%) | s an image |\n|---|---|---|---|")
    if options.what == "hippocampus":
        folder = options.data / "hippocampus_mr"
        listed = Manifest.read(ROOT / "data_manifests" / "hippocampus_mr.json", base_dir=folder)
        template, *others = (folder / entry["image"] for entry in [listed.training[0], *listed.test[: options.images]])
        registered(template, folder / "landmarks.csv", others, (AFFINE, CONVEXADAM, ELASTIX), None)
        return
    cephalograms = Cephalograms(data=options.data)
    marks, template = cephalograms.folder / "landmarks.csv", cephalograms.path(TEMPLATE)
    images = [cephalograms.path(name) for name in cephalograms.images("dev")[: options.images]]
    matcher, start = Matcher.from_bundle().fit(template, marks, spacing_mm=FILE_SPACING), time.monotonic()
    found = matcher.match(images, spacing_mm=FILE_SPACING, reference=marks)
    say("match", found, time.monotonic() - start)
    registered(template, marks, images, (AFFINE, ELASTIX), FILE_SPACING)


if __name__ == "__main__":
    main()
