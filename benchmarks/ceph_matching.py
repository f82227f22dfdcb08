"""One-shot matching on the ISBI 2015 cephalograms: error of the shipped weights and of the frozen ImageNet start.

Every template is matched to the images of a split, with and without geometric consistency, through the transforms, the
network and the matcher of ``bundles/xray_landmark_matching``. ``test1`` leaves out the 20 images that repeat a training
image; ``dev`` is 40 training images that are neither templates nor repeated in test1: settings are chosen there.

    python benchmarks/ceph_matching.py --split test1 --json metrics.json
"""

import argparse
import csv
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from monai.bundle import ConfigParser
from torch import Tensor

from medpixcl.data.landmark_files import read_landmarks
from medpixcl.engines.matching import LevelsInferer
from medpixcl.landmarks.metrics import paired_bootstrap, summarise_errors
from medpixcl.matching import LandmarkMatcher
from medpixcl.networks import EncoderEmbeddingNet, load_weights

ROOT = Path(__file__).parents[1]
BUNDLE = ROOT / "bundles" / "xray_landmark_matching"
SPACING = 0.5
DEV_IMAGES = 40


def images_of(data: Path, split: str, templates: list[str]) -> list[str]:
    """Names of the images that are measured."""
    with (data / "splits.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    training = {row["id"] for row in rows if row["official_split"] == "train"}
    if split == "test1":
        return [r["id"] for r in rows if r["official_split"] == "test1" and r["duplicate_of"] not in training]
    repeated = {row["duplicate_of"] for row in rows}
    free = sorted(training - repeated - set(templates))
    return sorted(np.random.default_rng(0).permutation(free)[:DEV_IMAGES].tolist())


def measure(
    network: torch.nn.Module,
    load: Callable[[str], Tensor],
    truth: dict[str, Tensor],
    images: list[str],
    templates: list,
) -> dict[str, dict[str, Tensor]]:
    """Errors in mm, by mode and template, shape (images, landmarks)."""
    inferer = LevelsInferer()

    def embed(image: Tensor) -> list[Tensor]:
        with torch.no_grad():
            return inferer(image, network)

    spacing = [SPACING, SPACING]
    matchers = {
        (mode, name): LandmarkMatcher(mode=mode).fit(embed, network.strides, load(name), truth[name], spacing)
        for mode in ("argmax", "consistent")
        for name in templates
    }
    errors: dict[str, dict[str, list[Tensor]]] = {}
    for image in images:
        picture = load(image)
        levels = embed(picture)
        for (mode, name), matcher in matchers.items():
            found = matcher.match(levels, picture.shape[2:], spacing).voxels
            distance = torch.linalg.vector_norm(found - truth[image], dim=1) * SPACING
            errors.setdefault(mode, {}).setdefault(name, []).append(distance)
    return {mode: {name: torch.stack(rows) for name, rows in rows_of.items()} for mode, rows_of in errors.items()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("MEDPIXCL_DATA", ROOT.parent / "shared/data")))
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--target", choices=("landmarks", "landmarks_senior", "landmarks_junior"), default="landmarks")
    parser.add_argument("--templates", default="125,010,114")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    data, templates = options.data / "ceph_isbi2015", options.templates.split(",")
    config = ConfigParser(ConfigParser.load_config_file(str(BUNDLE / "configs" / "inference.json")))
    config["bundle_root"] = str(BUNDLE)
    prepare, trained = config.get_parsed_content("preprocessing"), config.get_parsed_content("network_def").eval()
    load_weights(trained, options.weights)
    networks = {"frozen ImageNet features": EncoderEmbeddingNet().eval(), "pretrained": trained}

    def load(name: str) -> Tensor:
        item = {"image": str(data / "images" / f"{name}.png"), "spacing_mm": SPACING}
        return prepare(item)["image"].as_tensor()[None]

    images = images_of(data, options.split, templates)
    table = read_landmarks(data / f"{options.target}.csv")
    affine, shape = torch.eye(4, dtype=torch.float64), load(images[0]).shape[2:]
    truth = {
        name: table.for_image(data / "images" / f"{name}.png", affine, shape).voxels.float()
        for name in [*images, *templates]
    }
    names = [str(number + 1) for number in range(len(truth[images[0]]))]
    results: dict[str, dict] = {"split": options.split, "target": options.target, "images": images}
    joined: dict[tuple[str, str], Tensor] = {}
    print(f"{options.split}: {len(images)} images, target {options.target}")
    for title, network in networks.items():
        for mode, by_template in measure(network, load, truth, images, templates).items():
            rows = {name: summarise_errors(errors, names) for name, errors in by_template.items()}
            results[f"{title}, {mode}"] = rows
            joined[title, mode] = torch.cat(list(by_template.values()), dim=1)
            each = "  ".join(f"{n}: {r['mre_mm']:.2f} / {r['sdr_percent']['2']:.1f}" for n, r in rows.items())
            mre, sdr = (
                np.mean(v) for v in zip(*[(r["mre_mm"], r["sdr_percent"]["2"]) for r in rows.values()], strict=True)
            )
            spread = np.std([r["mre_mm"] for r in rows.values()], ddof=1) if len(rows) > 1 else 0.0
            print(f"{title:26s} {mode:11s} {each}  | mean {mre:.2f} (spread {spread:.2f}) / {sdr:.1f}", flush=True)
    for mode in ("argmax", "consistent"):
        gain = paired_bootstrap(joined["frozen ImageNet features", mode], joined["pretrained", mode])
        results[f"gain, {mode}"] = gain
        print(f"gain over the frozen start, {mode}: {gain['gain']['mre_mm']:.2f} mm {gain['interval_95']['mre_mm']}")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
