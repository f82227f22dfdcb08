"""Volumes of several kinds to pretrain one network on: CT, MR and micro-CT, each resampled to a common size in voxels.

Mouse heads at 0.3 and 0.6 mm, hippocampi at 1 mm, CT at 3 and 6 mm. The files say voxels of 1 mm, so that the lengths
of a configuration count in voxels for all. Annotations are not read; nothing is taken of the volumes that
``volume_matching.py`` searches (labelled mouse heads, test and validation hippocampi, the thorax).

    python benchmarks/mixed_volumes.py -o volumes
    medpixcl pretrain ct_infoaug_pretraining --config examples/mixed_volumes.json -o runs/mixed --data ...

with each of the five manifests in a ``--data`` of its own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
from ceph import DATA, ROOT

from medpixcl.coordinates import working_affine
from medpixcl.data.manifest import Manifest
from medpixcl.transforms import LoadImageMMd, WorkingSpacingd


def kinds(data: Path) -> dict[str, tuple[Sequence[Path], float]]:
    """Files of every kind, and the spacing in mm to which they are resampled."""
    heads = data / "mouse_head_ct"
    mouse = sorted([*(heads / "unlabelled").glob("*.nii.gz"), *(heads / "template").glob("*.nii.gz")])
    listed = Manifest.read(ROOT / "data_manifests" / "hippocampus_mr.json", base_dir=data / "hippocampus_mr").training
    hippocampi = [data / "hippocampus_mr" / entry["image"] for entry in listed]
    bodies = [
        path
        for path in sorted((data / "ct_volumes_3mm").glob("*_3mm.nii.gz"))
        if "labels" not in path.name and "thorax" not in path.name
    ]
    return {
        "mouse_0.3": (mouse, 0.3),
        "mouse_0.6": (mouse, 0.6),
        "hippocampus_1": (hippocampi, 1.0),
        "ct_3": (bodies, 3.0),
        "ct_6": (bodies, 6.0),
    }


def write(files: Sequence[Path], spacing_mm: float, folder: Path) -> None:
    """Write the volumes, and a manifest beside the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    for file in files:
        item = LoadImageMMd("image")({"image": str(file)})
        image = WorkingSpacingd("image", [spacing_mm] * 3)(item)["image"]
        affine = working_affine(image).numpy().copy()
        affine[:3] /= spacing_mm
        nib.save(nib.Nifti1Image(image.numpy()[0].astype(np.float32), affine), folder / file.name)
        entries.append({"image": str(folder / file.name)})
    Manifest(training=entries).write(folder.with_suffix(folder.suffix + ".json"))


def main() -> None:
    """Write all kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/volumes"))
    options = parser.parse_args()
    for name, (files, spacing_mm) in kinds(options.data).items():
        write(files, spacing_mm, options.output.absolute() / name)
        print(f"{name}: {len(files)} volumes")


if __name__ == "__main__":
    main()
