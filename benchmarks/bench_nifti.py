"""A compressed NIfTI volume to a tensor, against MONAI's ``LoadImage`` with ``NibabelReader``.

``python benchmarks/bench_nifti.py [--json FILE] [--rounds 3] [--slices 128]``

The volume is made on the spot: smooth structures and noise as in a CT, 512 x 512 x 128 of 16 bits, about 49 MB packed.

Before anything is timed: voxels and affine are equal to the last bit.

Holds: reading takes at most half of MONAI's time. Packed data must be inflated by all; ``inflate`` is that part alone.
"""

import argparse
import gzip
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import nibabel
import numpy as np
from monai.data import NibabelReader
from monai.transforms import LoadImage
from scipy.ndimage import gaussian_filter

from medpixcl.data.images import read_image

LARGEST_RATIO = 0.5


def write_volume(path: Path, slices: int) -> None:
    """A volume of smooth structures and noise, 16 bits, oblique."""
    state = np.random.default_rng(0)
    smooth = gaussian_filter(state.normal(size=(512, 512, slices)).astype(np.float32), 3)
    values = 8000 * smooth + state.normal(scale=12, size=smooth.shape)
    affine = np.array([[0.7, 0.0, 0.0, -180.0], [0.0, 0.7, 0.0, -170.0], [0.0, 0.0, 1.5, 40.0], [0.0, 0.0, 0.0, 1.0]])
    image = nibabel.Nifti1Image(values.astype(np.int16), affine)
    image.set_qform(affine, 1)
    nibabel.save(image, path)


def equal(results: dict[str, Any]) -> dict[str, float]:
    """Largest differences of voxels and affine; none is allowed."""
    ours, monai = results["ours"], results["MONAI NibabelReader"]
    errors = {
        "voxels": float((ours.as_tensor() - monai.as_tensor()).abs().max()),
        "affine": float((ours.affine - monai.affine).abs().max()),
    }
    if ours.shape != monai.shape or ours.dtype != monai.dtype or any(errors.values()):
        raise SystemExit(f"not the same image: {errors}, {ours.shape} against {monai.shape}")
    return errors


def main() -> None:
    """Measure and, where asked, write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="File to write the table to.")
    parser.add_argument("--rounds", type=int, default=3, help="Number of timed calls of each candidate.")
    parser.add_argument("--slices", type=int, default=128, help="Number of slices of the volume.")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        write_volume(path, chosen.slices)
        packed = path.read_bytes()
        candidates = {
            "ours": partial(read_image, path),
            "MONAI NibabelReader": partial(LoadImage(reader=NibabelReader(), ensure_channel_first=True), path),
            "inflate": partial(gzip.decompress, packed),
        }
        title = f"{path.name}, {len(packed) / 1e6:.0f} MB"
        table = timing.compare(title, candidates, reference="MONAI NibabelReader", check=equal, rounds=chosen.rounds)
    timing.show(table)
    if chosen.json is not None:
        timing.save(chosen.json, [table], packages=["monai", "nibabel", "numpy", "torch"])
    if table["rows"]["ours"]["ratio"] > LARGEST_RATIO:
        raise SystemExit(f"reading takes more than {LARGEST_RATIO} of MONAI's time")


if __name__ == "__main__":
    main()
