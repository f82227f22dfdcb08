"""One-shot matching on the ISBI 2015 cephalograms: error of the shipped weights and of the frozen ImageNet start.

Every template is matched to the images of a split, with and without geometric consistency, through the transforms, the
network and the matcher of ``bundles/xray_landmark_matching``; see :mod:`ceph` for the splits.

    python benchmarks/ceph_matching.py --split test1 --json metrics.json
"""

import argparse
import json
from pathlib import Path

import torch
from ceph import BUNDLE, DATA, TARGETS, Cephalograms, one_line, summaries
from torch import Tensor

from medpixcl.landmarks.metrics import paired_bootstrap
from medpixcl.networks import BackboneNet

FROZEN, PRETRAINED = "frozen ImageNet features", "pretrained"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0])
    parser.add_argument("--templates", default="125,010,114")
    parser.add_argument("--unlabelled", type=int, default=0, help="learn from so many training images; 0 is off")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    templates = options.templates.split(",")
    cephalograms = Cephalograms(data=options.data, target=options.target)
    trained = cephalograms.matcher(options.weights).network
    images = [name for name in cephalograms.images(options.split) if name not in templates]
    unlabelled = cephalograms.unlabelled(options.split, options.unlabelled, templates)
    results: dict[str, object] = {"split": options.split, "target": options.target, "images": images}
    results["unlabelled"] = unlabelled
    joined: dict[tuple[str, str], Tensor] = {}
    print(f"{options.split}: {len(images)} images, target {options.target}, unlabelled images: {len(unlabelled)}")
    for title, network in (
        (FROZEN, BackboneNet(encoder_only=True, pretrained=True, strides=[4, 8, 16, 32]).eval()),
        (PRETRAINED, trained),
    ):
        errors = cephalograms.matching_errors(network, images, templates, unlabelled=unlabelled)
        for mode, by_template in errors.items():
            rows = summaries(by_template)
            results[f"{title}, {mode}"] = rows
            joined[title, mode] = torch.cat(list(by_template.values()), dim=1)
            print(f"{title:26s} {mode:11s} {one_line(rows)}", flush=True)
    for mode in ("argmax", "consistent"):
        gain = paired_bootstrap(joined[FROZEN, mode], joined[PRETRAINED, mode])
        results[f"gain, {mode}"] = gain
        print(f"gain over the frozen start, {mode}: {gain['gain']['mre_mm']:.2f} mm {gain['interval_95']['mre_mm']}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
