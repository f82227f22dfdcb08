"""Small made-up images to try a configuration on, where no data are at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ELLIPSES = 12


def draw_phantom(shape: Sequence[int], seed: int) -> np.ndarray:
    """Random soft-edged ellipses (ellipsoids) on a dark ground, float32 between 0 and 1.

    Args:
        shape: Spatial shape, 2D or 3D.
        seed: Of the random shapes.
    """
    state = np.random.default_rng(seed)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    image = np.zeros(tuple(shape))
    for _ in range(ELLIPSES):
        centre = state.uniform(-0.7, 0.7, len(shape))
        radius = state.uniform(0.1, 0.5, len(shape))
        distance = sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius, strict=True))
        image += state.uniform(0.1, 0.5) / (1 + np.exp(np.minimum(20 * (distance - 1), 500)))
    image += state.normal(0, 0.01, image.shape)
    return np.clip(image / image.max(), 0, 1).astype(np.float32)


def write_phantoms(folder: str | Path, number: int, shape: Sequence[int], *, seed: int = 0) -> list[dict]:
    """Write phantoms as PNG (2D) or NIfTI (3D), 1 mm per pixel, and return their datalist.

    Args:
        folder: Made if it is not there.
        number: Of images.
        shape: Spatial shape.
        seed: Of the first image.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    datalist = []
    for index in range(number):
        image = draw_phantom(shape, seed + index)
        path = folder / f"phantom_{index:03d}.{'png' if len(shape) == 2 else 'nii.gz'}"
        if len(shape) == 2:
            Image.fromarray(np.round(image * 255).astype(np.uint8)).save(path)
        else:
            import nibabel

            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), path)
        datalist.append({"image": str(path), "spacing_mm": [1.0] * len(shape)})
    return datalist
