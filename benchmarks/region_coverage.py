"""Do 90 % regions hold 90 % of the true places? Cephalograms, detectors and one-shot matching of the shipped bundles.

``python benchmarks/region_coverage.py [--split test1] [--images 130] [--repeats 50]``

In every repeat 50 random images calibrate, the others are measured. With ``--split train``, the default, the images are
training images of ISBI 2015, which the self-trained detector and the matching have seen without their labels: settings
are chosen there. ``--split test1`` is for the final table and adds the detector trained on all annotated training
images. It takes two to three seconds for an image on one core.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

import timing  # noqa: F401  first, for one thread  # isort: skip
import torch
from ceph import Cephalograms
from torch import Tensor

from medpixcl.landmarks.calibration import conformal_quantile
from medpixcl.landmarks.regions import calibrate_regions, covered, region_size
from medpixcl.matching import LandmarkMatcher
from medpixcl.networks import LandmarkNet, load_weights
from medpixcl.networks.inferers import LandmarkInferer

TEMPLATE, SPACING, COVERAGE, CALIBRATING = "125", [0.5, 0.5], 0.9, 50
BUNDLES = Path(__file__).parents[1] / "bundles"
SELF_TRAINED = {"self-trained detector": BUNDLES / "xray_landmark_selftraining" / "models" / "model.pt"}
TRAINED = {"trained detector": BUNDLES / "cephalometric_landmark_detection" / "models" / "model.pt"}
DETECTORS = {"train": SELF_TRAINED, "test1": SELF_TRAINED | TRAINED}
"""Of each split those that have not seen its labels."""
MATCHING = "one-shot matching"
NAMES = [str(number) for number in range(1, 20)]
COLUMNS = (
    "held",
    "median mm",
    "mean mm",
    "held by circles",
    "median mm",
    "mean mm",
    "unsure",
    "mm, unsure",
    "mm, sure",
)


def spreads(
    cephalograms: Cephalograms, images: list[str], weights: Mapping[str, Path]
) -> dict[str, tuple[Tensor, Tensor]]:
    """True less found positions in mm (N, K, 2) and covariances (N, K, 2, 2), of each detector and of the matching."""
    detectors = {kind: LandmarkNet(19).eval() for kind in weights}
    for kind, network in detectors.items():
        load_weights(network, weights[kind])
    embed = cephalograms.matcher().model
    template = cephalograms.load(TEMPLATE)
    marks = cephalograms.truth(TEMPLATE, template)
    matcher = LandmarkMatcher().fit(embed, embed.strides, template.as_tensor()[None], marks, SPACING)
    found: dict[str, list[tuple[Tensor, Tensor]]] = {kind: [] for kind in (*detectors, MATCHING)}
    for name in images:
        picture = cephalograms.load(name)
        true, batch = cephalograms.truth(name, picture), picture.as_tensor()[None]
        for kind, network in detectors.items():
            detected = LandmarkInferer(network, SPACING)(batch, network)
            found[kind].append((true - detected["points"][0], detected["covariance_mm2"][0]))
        matched = matcher.match(embed(batch), picture.shape[1:], SPACING)
        found[MATCHING].append((true - matched.voxels, matched.covariance_mm2))
    return {
        kind: (
            torch.stack([away for away, _ in rows]).double() * SPACING[0],
            torch.stack([c for _, c in rows]).double(),
        )
        for kind, rows in found.items()
    }


def one_split(away: Tensor, covariance: Tensor, order: Tensor) -> list[float]:
    """Numbers of ``COLUMNS``."""
    known, new = order[:CALIBRATING], order[CALIBRATING:]
    errors = torch.linalg.vector_norm(away, dim=-1)
    calibration = calibrate_regions(away[known], covariance[known], NAMES, coverage=COVERAGE)
    regions = calibration.regions_of(NAMES, covariance[new])
    sizes, unsure = region_size(regions), calibration.unsure(NAMES, regions)
    radii = conformal_quantile(errors[known], COVERAGE)
    numbers = [covered(away[new], regions).mean(), sizes.median(), sizes.mean()]
    numbers += [(errors[new] <= radii).double().mean(), radii.median(), radii.mean()]
    numbers += [unsure.double().mean(), errors[new][unsure].mean(), errors[new][~unsure].mean()]
    return [float(number) for number in numbers]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=tuple(DETECTORS), default="train")
    parser.add_argument("--images", type=int, default=130)
    parser.add_argument("--repeats", type=int, default=50)
    options = parser.parse_args()
    cephalograms, generator = Cephalograms(), torch.Generator().manual_seed(0)
    free = [name for name in cephalograms.images(options.split) if name != TEMPLATE]
    images = [free[number] for number in torch.randperm(len(free), generator=generator)[: options.images].tolist()]
    if len(images) <= CALIBRATING:
        raise SystemExit(f"{len(images)} images are too few: {CALIBRATING} calibrate, the others are measured")
    with torch.no_grad():
        found = spreads(cephalograms, images, DETECTORS[options.split])
    for kind, (away, covariance) in found.items():
        orders = [torch.randperm(len(images), generator=generator) for _ in range(options.repeats)]
        table = torch.tensor([one_split(away, covariance, order) for order in orders])
        print(f"\n{kind}: {len(images)} images, MRE {float(torch.linalg.vector_norm(away, dim=-1).mean()):.2f} mm")
        for title, mean, spread in zip(COLUMNS, table.nanmean(0).tolist(), table.std(0).tolist(), strict=True):
            print(f"  {title:16s} {mean:6.3f} (sd over splits {spread:.3f})")


if __name__ == "__main__":
    main()
