"""Stage 2 on the ISBI 2015 cephalograms: one-shot matching against the detector self-trained from it.

For every template the bundle ``xray_landmark_selftraining`` trains on the 150 training images; with ``--split dev``
without the 40 that are measured and the repeats of them. Images of ``test1`` are never trained on. Settings of the
bundle may be put over its own, to compare them:

    python benchmarks/selftraining.py --split dev --templates 125,114 --runs /tmp/runs --set max_epochs=10
"""

import argparse
import csv
import json
import time
from pathlib import Path

import torch
from ceph import DATA, FILE_SPACING, ROOT, TARGETS, Cephalograms, one_line, summaries
from torch import Tensor

from medpixcl.apps.bundles import parse_settings, run_bundle
from medpixcl.data.manifest import Manifest
from medpixcl.landmarks.metrics import paired_bootstrap
from medpixcl.networks import LandmarkNet, load_weights
from medpixcl.networks.inferers import LandmarkInferer

BUNDLE = ROOT / "bundles" / "xray_landmark_selftraining"


def images_to_train_on(cephalograms: Cephalograms, measured: list[str]) -> list[str]:
    """Training images that are not measured and show no picture that is."""
    with (cephalograms.folder / "splits.csv").open(encoding="utf-8", newline="") as stream:
        repeats = {row["id"]: row["duplicate_of"] for row in csv.DictReader(stream) if row["duplicate_of"]}
    pictures = {repeats.get(name, name) for name in measured}
    return [name for name in cephalograms.images("train") if repeats.get(name, name) not in pictures]


def write_manifest(cephalograms: Cephalograms, names: list[str], path: Path) -> None:
    """Manifest of some images, without their landmarks."""
    entries = [{"image": str(cephalograms.path(name)), "spacing_mm": [FILE_SPACING] * 2} for name in names]
    Manifest(training=entries).write(path)


def train(cephalograms: Cephalograms, template: str, manifest: Path, run: Path, settings: dict) -> LandmarkNet:
    """The detector of one template; a run that was stopped goes on."""
    places = {
        "template": str(cephalograms.path(template)),
        "landmarks": str(cephalograms.folder / "landmarks.csv"),
        "pixel_mm": FILE_SPACING,
        "data_list_file_path": str(manifest),
        "output_dir": str(run),
        "ckpt_dir": str(run / "models"),
        "working_spacing_mm": [cephalograms.spacing_mm] * 2,
    }
    workflow = run_bundle(BUNDLE, "train", places | settings)
    network = workflow.parser.get_parsed_content("network_def")
    load_weights(network, run / "models" / "model.pt")
    return network.eval()


def detection_errors(cephalograms: Cephalograms, network: LandmarkNet, images: list[str]) -> Tensor:
    """Errors in mm, shape (images, landmarks)."""
    inferer = LandmarkInferer(network, [cephalograms.spacing_mm] * 2)
    rows = []
    for name in images:
        image = cephalograms.load(name)
        with torch.no_grad():
            found = inferer(image[None], network)["points"][0]
        rows.append(torch.linalg.vector_norm(found - cephalograms.truth(name, image), dim=1) * cephalograms.spacing_mm)
    return torch.stack(rows)


def main() -> None:
    """Train, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0])
    parser.add_argument("--templates", default="125,114")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Folder of the trainings; they are resumed.")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="Setting of the bundle.")
    parser.add_argument("--spacing-mm", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data, spacing_mm=options.spacing_mm, target=options.target)
    templates = options.templates.split(",")
    measured = [name for name in cephalograms.images(options.split) if name not in templates]
    network = cephalograms.matcher().network
    before = cephalograms.matching_errors(network, measured, templates, modes=["consistent"])["consistent"]
    print(f"{options.split}: {len(measured)} images\nmatching {one_line(summaries(before))}", flush=True)
    folder = options.runs.absolute() / options.split
    manifest = folder / "manifest.json"
    write_manifest(cephalograms, images_to_train_on(cephalograms, measured), manifest)
    after, seconds = {}, {}
    for template in templates:
        start = time.monotonic()
        detector = train(cephalograms, template, manifest, folder / template, parse_settings(options.set))
        seconds[template] = time.monotonic() - start
        after[template] = detection_errors(cephalograms, detector, measured)
        gain = paired_bootstrap(before[template], after[template])
        print(f"{template}: {seconds[template]:.0f} s; gain {gain['gain']['mre_mm']:.2f} mm", flush=True)
    print(f"stage 2  {one_line(summaries(after))}")
    if options.json:
        results = {"split": options.split, "target": options.target, "settings": options.set, "seconds": seconds}
        results |= {"matching": summaries(before), "stage 2": summaries(after)}
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
