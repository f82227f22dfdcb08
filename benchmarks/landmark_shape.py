"""Shape of the landmarks for the shipped detectors: statistics of their training images alone.

``python benchmarks/landmark_shape.py trained -o bundles/cephalometric_landmark_detection/configs/shape.json``
``python benchmarks/landmark_shape.py self-trained -o bundles/xray_landmark_selftraining/configs/shape.json``
``python benchmarks/landmark_shape.py hippocampi -o bundles/volume_landmark_detection/configs/shape.json``

The first takes the readers' mean, which that detector was trained on; the second what the self-trained detector itself
finds in these images, since it was trained without their annotations; the third the landmarks of the 60 training
volumes. A new training writes the shape of its own landmarks beside its weights. ``python -m tests.bundles.formatting``
then lays the files out.
"""

import argparse
import json
from pathlib import Path

import timing  # noqa: F401  first, for one thread  # isort: skip
import torch
from ceph import DATA, ROOT, Cephalograms
from torch import Tensor

from medpixcl import Detector, Manifest, read_landmarks
from medpixcl.matching import ShapeStatistics

NAMES = [str(number) for number in range(1, 20)]
KINDS = ("trained", "self-trained", "hippocampi")


def hippocampi() -> tuple[Tensor, list[str]]:
    """Landmarks of the training volumes in mm, LPS+, (N, K, 3), and their names."""
    table = read_landmarks(DATA / "hippocampus_mr" / "landmarks.csv")
    manifest = Manifest.read(ROOT / "data_manifests" / "hippocampus_mr.json", base_dir=DATA / "hippocampus_mr")
    places, names = table.positions_mm(), list(table.names)
    keys = [table.find(entry["image"]) for entry in manifest.datalist("training")]
    return torch.tensor([[places[str(key)][name] for name in names] for key in keys], dtype=torch.float64), names


def positions(cephalograms: Cephalograms, kind: str) -> Tensor:
    """Landmarks of the training images in mm, LPS+, (N, K, 2)."""
    images = cephalograms.images("train")
    if kind == "self-trained":
        detector = Detector.from_bundle("xray_landmark_selftraining", settings={"shape": None})
        found = detector.detect([cephalograms.path(name) for name in images], spacing_mm=cephalograms.spacing_mm)
        return torch.stack([one.mm for one in found.landmarks])
    table = cephalograms.table.positions_mm()
    rows = {Path(image).stem: [row[name] for name in NAMES] for image, row in table.items()}
    return torch.tensor([rows[name] for name in images], dtype=torch.float64)


def main() -> None:
    """Compute and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    volumes = options.kind == "hippocampi"
    points, names = hippocampi() if volumes else (positions(Cephalograms(), options.kind), NAMES)
    shape = ShapeStatistics.of(points, names)
    assert shape is not None, "every landmark is marked in these images"
    options.output.write_text(json.dumps(shape.to_data()), encoding="ascii")


if __name__ == "__main__":
    main()
