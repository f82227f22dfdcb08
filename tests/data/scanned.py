"""Files to scan, and what a scan says of them."""

from pathlib import Path

import numpy as np
from PIL import Image

from medpixcl.data.manifest import Manifest


def picture(path: Path, seed: int, size: tuple[int, int] = (24, 32)) -> Path:
    """Write a picture of noise, another one for every seed, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, size, dtype=np.uint8)).save(path)
    return path


def reasons(manifest: Manifest) -> dict[str, str]:
    """Reason for every rejected path."""
    return {one["path"]: one["reason"] for one in manifest.rejected}
