"""One-shot accuracy on the ISBI 2015 cephalograms, whole: matching and self-trained detectors, three targets.

For each template: MRE, median, p95, SDR at 2, 2.5, 3 and 4 mm against the mean of both readers, the senior and the
junior reader (the template's own marks are the mean of both), every landmark, the share of landmarks flagged as unsure
and the error of the others, and how often the 90 % radius holds, calibrated without labels on training images. The
130 images of ``test1`` that repeat no training image; see :mod:`ceph`.

    python benchmarks/ceph_accuracy.py --json accuracy.json
    python benchmarks/selftraining.py --split test1 --templates 125,010,114,050,077,144 --runs runs
    python benchmarks/ceph_accuracy.py --detectors runs/test1 --json accuracy.json
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from ceph import BUNDLE, DATA, FILE_SPACING, ROOT, TARGETS, TEMPLATES, Cephalograms
from monai.data import MetaTensor
from selftraining import images_to_train_on, write_manifest
from torch import Tensor

from medpixcl import Matcher
from medpixcl.apps.calibrate import calibrate as calibrate_radii
from medpixcl.landmarks.calibration import RadiusCalibration, coverage_of
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.matching import LandmarkMatcher
from medpixcl.networks import LandmarkNet, load_weights
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.inferers import EmbeddingModel, LandmarkInferer

DETECTOR = ROOT / "bundles" / "xray_landmark_selftraining"
MATCHING, LEARNT, DETECTED = "matching", "matching, learnt from unlabelled images", "detector"
CHOSEN = "144"
"""What ``medpixcl choose-template`` names among the 150 training images."""


@dataclass(frozen=True)
class Found:
    """Landmarks of N images: voxels (N, K, 2), unsure (N, K)."""

    voxels: Tensor
    unsure: Tensor


def match_all(
    cephalograms: Cephalograms,
    network: LevelsNet,
    pictures: Mapping[str, MetaTensor],
    templates: Sequence[str],
    unlabelled: Sequence[str],
) -> dict[str, dict[str, Found]]:
    """Landmarks of every template in every picture: by matching, and by matching that learnt from unlabelled images."""
    embed, spacing = EmbeddingModel(network), [cephalograms.spacing_mm] * 2
    learnt_from = []
    for name in unlabelled:
        picture = cephalograms.load(name)
        learnt_from.append((embed(picture.as_tensor()[None]), picture.shape[1:], spacing))
    matchers = {}
    for name in templates:
        image = cephalograms.load(name)
        batch, marks = image.as_tensor()[None], cephalograms.truth(name, image)
        for kind in (MATCHING, LEARNT):
            matcher = LandmarkMatcher().fit(embed, network.strides, batch, marks, spacing)
            matchers[kind, name] = matcher
        matcher.adapt(matcher.learn(learnt_from))
    results: dict[tuple[str, str], list] = {key: [] for key in matchers}
    for picture in pictures.values():
        levels = embed(picture.as_tensor()[None])
        for key, matcher in matchers.items():
            results[key].append(matcher.match(levels, picture.shape[1:], spacing))
    found: dict[str, dict[str, Found]] = {MATCHING: {}, LEARNT: {}}
    for (kind, name), rows in results.items():
        unsure = torch.tensor([[flag == "unsure" for flag in result.flags] for result in rows])
        found[kind][name] = Found(torch.stack([result.voxels for result in rows]), unsure)
    return found


def calibrate(cephalograms: Cephalograms, template: str, manifest: Path, reader_mm: float) -> RadiusCalibration:
    """Radii of a template's landmarks, from unlabelled training images."""
    matcher = Matcher.from_bundle(BUNDLE).fit(
        cephalograms.path(template), cephalograms.folder / "landmarks.csv", spacing_mm=FILE_SPACING
    )
    return calibrate_radii(matcher, manifest, reader_mm=reader_mm, limit=50, spacing_mm=FILE_SPACING)[0]


def detect_all(cephalograms: Cephalograms, weights: Path, pictures: Mapping[str, MetaTensor]) -> Tensor:
    """Voxels (N, K, 2) that a self-trained detector finds."""
    network = LandmarkNet(19).eval()
    load_weights(network, weights)
    inferer = LandmarkInferer(network, [cephalograms.spacing_mm] * 2)
    with torch.no_grad():
        return torch.stack([inferer(picture[None], network)["points"][0] for picture in pictures.values()])


def detectors_of(folder: Path | None, templates: Sequence[str]) -> Iterator[tuple[str, Path]]:
    """Template and weights of every detector there is: of a run of ``selftraining.py``, else the bundle's own."""
    if folder is None:
        yield CHOSEN, DETECTOR / "models" / "model.pt"
        return
    for name in templates:
        if (weights := folder / name / "models" / "model.pt").is_file():
            yield name, weights


def line(rows: Mapping) -> str:
    """MRE, median, p95 and SDR as cells of a table."""
    rates = " / ".join(f"{rows['sdr_percent'][limit]:.1f}" for limit in ("2", "2.5", "3", "4"))
    return f"{rows['mre_mm']:.2f} | {rows['median_mm']:.2f} | {rows['p95_mm']:.2f} | {rates}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="test1")
    parser.add_argument("--templates", default=",".join((*TEMPLATES, CHOSEN)))
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--detectors", type=Path, help="runs of selftraining.py; the shipped detector when not given")
    parser.add_argument("--unlabelled", type=int, default=50, help="training images to learn from without labels")
    parser.add_argument("--reader-mm", type=float, default=0.0, help="known spread of readers, for the radii")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    readers = {target: Cephalograms(data=options.data, target=target) for target in TARGETS}
    cephalograms, templates = readers[TARGETS[0]], options.templates.split(",")
    network = cephalograms.matcher(options.weights).network
    names = [name for name in cephalograms.images(options.split) if name not in templates]
    pictures = {name: cephalograms.load(name) for name in names}
    truth = {
        target: torch.stack([reader.truth(name, picture) for name, picture in pictures.items()])
        for target, reader in readers.items()
    }
    landmarks = [str(number + 1) for number in range(truth[TARGETS[0]].shape[1])]
    results: dict[str, dict] = {MATCHING: {}, LEARNT: {}, DETECTED: {}}

    def measure(kind: str, template: str, voxels: Tensor) -> Tensor:
        for target, true in truth.items():
            errors = torch.linalg.vector_norm(voxels - true, dim=2) * cephalograms.spacing_mm
            results[kind].setdefault(template, {})[target] = rows = summarise_errors(errors, landmarks)
            print(f"{kind} | {template} | {target} | {line(rows)}", flush=True)
        return torch.linalg.vector_norm(voxels - truth[TARGETS[0]], dim=2) * cephalograms.spacing_mm

    print(
        f"{options.split}: {len(names)} images\n| template | target | MRE | median | p95 | SDR 2 / 2.5 / 3 / 4 mm (%)"
    )
    manifest = Path(options.json or "accuracy.json").with_suffix(".manifest.json")
    write_manifest(cephalograms, images_to_train_on(cephalograms, names), manifest)
    unlabelled = cephalograms.unlabelled(options.split, options.unlabelled, templates)
    for kind, by_template in match_all(cephalograms, network, pictures, templates, unlabelled).items():
        for template, found in by_template.items():
            errors = measure(kind, template, found.voxels)
            certainty = {
                "unsure_percent": 100 * float(found.unsure.double().mean()),
                "mre_mm_of_the_rest": float(errors[~found.unsure].mean()),
            }
            if kind == MATCHING:
                calibration = calibrate(cephalograms, template, manifest, options.reader_mm)
                flags = [["unsure" if unsure else "" for unsure in row] for row in found.unsure.tolist()]
                radii = torch.stack([calibration.radii_of(calibration.names, row) for row in flags])
                certainty["radius_90_holds_percent"] = 100 * coverage_of(errors, radii.to(errors))
                certainty["radius_90_median_mm"] = float(radii.nanmedian())
            results[kind][template]["certainty"] = certainty
            print(f"    {', '.join(f'{key} {value:.2f}' for key, value in certainty.items())}", flush=True)
    for template, weights in detectors_of(options.detectors, templates):
        measure(DETECTED, template, detect_all(cephalograms, weights, pictures))
    for kind, rows in results.items():
        means = [row[TARGETS[0]]["mre_mm"] for row in rows.values()]
        if len(means) > 1:
            print(f"{kind}: mean {np.mean(means):.2f} mm, standard deviation {np.std(means, ddof=1):.2f} mm")
    if options.json:
        facts = {"split": options.split, "images": names, "unlabelled": unlabelled}
        options.json.write_text(json.dumps(facts | results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
