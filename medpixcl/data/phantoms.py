"""Small synthetic images to try a configuration without real data."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ELLIPSES = 12


def draw_phantom(shape: Sequence[int], seed: int) -> np.ndarray:
    """Draw random soft-edged ellipses (ellipsoids) on a dark background, float32 between 0 and 1.

    Args:
        shape: Spatial shape, 2D or 3D.
        seed: Random seed for the shapes.
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
        folder: Folder of the images; it is made if it does not exist.
        number: Number of images.
        shape: Spatial shape.
        seed: Random seed of the first image; each further image takes the next one.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    datalist = []
    for index in range(number):
        image = draw_phantom(shape, seed + index)
        path = folder / f"phantom_{index:03d}.{'png' if len(shape) == 2 else 'nii.gz'}"
        _write_unit_image(image, path)
        datalist.append({"image": str(path), "spacing_mm": [1.0] * len(shape)})
    return datalist


def write_depth_phantoms(folder: str | Path, number: int, shape: Sequence[int], *, seed: int = 0) -> list[dict]:
    """Write 2D phantoms as :func:`write_phantoms` does, each with a depth picture in mm (16 bits, 0 where unknown).

    Brighter pixels are deeper; the background has no depth.

    Args:
        folder: Folder of the images; its subfolder ``depth`` gets the depth pictures under the images' names.
        number: Number of images.
        shape: Spatial shape, 2D.
        seed: Random seed of the first image; each further image takes the next one.

    Returns:
        Datalist whose items name their depth picture under ``exogenous``.
    """
    places = Path(folder) / "depth"
    places.mkdir(parents=True, exist_ok=True)
    datalist = write_phantoms(folder, number, shape, seed=seed)
    for index, item in enumerate(datalist):
        image = draw_phantom(shape, seed + index)
        depth = np.where(image > 0.05, np.round(1000 + 200 * image), 0).astype(np.uint16)
        path = places / Path(item["image"]).name
        Image.fromarray(depth).save(path)
        item["exogenous"] = {"depth": str(path)}
    return datalist


def write_landmark_phantoms(
    folder: str | Path, number: int, shape: Sequence[int], *, landmarks: int = 4, seed: int = 0
) -> list[dict]:
    """Write images of one synthetic anatomy with variations, 1 mm per pixel, and their ``landmarks.csv``.

    The anatomy is a set of bright rings (shells) of different sizes with landmarks at their centres. All rings are
    turned, scaled and shifted together, and each moves a little on its own.

    Args:
        folder: Folder of the images; it is made if it does not exist.
        number: Number of images.
        shape: Spatial shape; 2D images are written as PNG, 3D images as NIfTI.
        landmarks: Number of rings, each with one landmark.
        seed: Random seed for the anatomy and its variations.

    Returns:
        Datalist whose items have ``image``, ``spacing_mm`` and ``landmarks``.
    """
    folder, size, dims = Path(folder), np.array(shape), len(shape)
    folder.mkdir(parents=True, exist_ok=True)
    state = np.random.default_rng(seed)
    angles = 2 * np.pi * np.arange(landmarks) / landmarks
    circle = [np.cos(angles), np.sin(angles), *([np.cos(2 * angles)] if dims == 3 else [])]
    anatomy = 0.28 * np.stack(circle, axis=1) + state.normal(0, 0.02, (landmarks, dims))
    radii = np.linspace(0.04, 0.12, landmarks) * size.min()
    rows = ["image,landmark,x_px,y_px,spacing_mm" if dims == 2 else "image,landmark,x_mm,y_mm,z_mm,spacing_mm"]
    datalist = []
    for index in range(number):
        turn, scale = state.uniform(-0.15, 0.15), state.uniform(0.9, 1.1)
        matrix = np.eye(dims)
        matrix[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        places = scale * anatomy @ matrix.T + 0.5
        places += state.normal(0, 0.015, (landmarks, dims)) + state.normal(0, 0.02, dims)
        points = places * (size - 1)
        path = folder / f"phantom_{index:03d}.{'png' if dims == 2 else 'nii.gz'}"
        image = np.clip(_rings(points, radii, size) + state.normal(0, 0.02, size), 0, 1)
        _write_unit_image(image, path)
        in_file_order = points[:, ::-1] if dims == 2 else points * [-1, -1, 1]  # column, row; mm, LPS+
        rows += [
            f"{path.name},{name + 1},{','.join(f'{value:.4f}' for value in point)},1"
            for name, point in enumerate(in_file_order)
        ]
        own = {"image": str(path), "spacing_mm": [1.0] * dims, "landmarks": str(folder / "landmarks.csv")}
        datalist.append(own)
    (folder / "landmarks.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return datalist


def _write_unit_image(image: np.ndarray, path: Path) -> None:
    """Values of 0 to 1 as PNG or NIfTI, 1 mm per pixel."""
    if image.ndim == 2:
        Image.fromarray(np.round(image * 255).astype(np.uint8)).save(path)
    else:
        import nibabel

        nibabel.save(nibabel.Nifti1Image(image.astype(np.float32), np.eye(4)), path)


def _rings(points: np.ndarray, radii: np.ndarray, shape: np.ndarray) -> np.ndarray:
    """Soft rings round points (K, 2), 0 to 1."""
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    image = np.full(tuple(shape), 0.1)
    for point, radius in zip(points, radii, strict=True):
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, point, strict=True)))
        image += 0.8 * np.exp(-(((distance - radius) / 1.5) ** 2))
    return image


def write_organ_phantoms(
    folder: str | Path, number: int, shape: Sequence[int], *, organs: int = 3, overlapping: bool = True, seed: int = 0
) -> list[dict]:
    """Write images of one synthetic anatomy of ellipsoids with variations, 1 mm per pixel, and their labels.

    Args:
        folder: Folder of the images; its subfolder ``labels`` gets the labels.
        number: Number of images.
        shape: Spatial shape; 2D images are written as PNG, 3D images as NIfTI.
        organs: Number of ellipsoids, each with its own size and brightness.
        overlapping: If True, images are sums as in radiographs, and each organ has its mask. If False, later organs
            hide earlier ones, and the label is one map.
        seed: Random seed for the anatomy and its variations.

    Returns:
        Datalist whose items have ``image``, ``spacing_mm`` and ``label``.
    """
    places, size = Path(folder) / "labels", np.array(shape)
    places.mkdir(parents=True, exist_ok=True)
    suffix, state = "png" if len(shape) == 2 else "nii.gz", np.random.default_rng(seed)
    centres = 0.5 + state.uniform(-0.2, 0.2, (organs, len(shape)))
    radii = np.linspace(0.12, 0.25, organs)[:, None] * state.uniform(0.8, 1.2, (organs, len(shape)))
    axes = np.meshgrid(*[np.arange(n) for n in shape], indexing="ij")
    datalist = []
    for index in range(number):
        path = Path(folder) / f"phantom_{index:03d}.{suffix}"
        moved = (centres + state.normal(0, 0.03, centres.shape)) * (size - 1)
        distances = [
            sum(((axis - c) / r) ** 2 for axis, c, r in zip(axes, centre, radius * size, strict=True))
            for centre, radius in zip(moved, radii, strict=True)
        ]
        masks = np.stack(distances) < 1
        brightness = np.linspace(0.2, 0.5, organs)
        numbers = np.max([mask * (organ + 1) for organ, mask in enumerate(masks)], axis=0)
        image = np.tensordot(brightness, masks, 1) if overlapping else np.array([0, *brightness])[numbers]
        _write_pixels(path, 255 * np.clip(image + state.normal(0.05, 0.02, shape), 0, 1))
        if overlapping:
            label = [str(places / f"phantom_{index:03d}_{organ + 1}.{suffix}") for organ in range(organs)]
            for one, mask in zip(label, masks, strict=True):
                _write_pixels(Path(one), 255 * mask)
        else:
            _write_pixels(places / path.name, numbers)
        whole: dict = {"label": label if overlapping else str(places / path.name)}
        datalist.append({"image": str(path), "spacing_mm": [1.0] * len(shape), **whole})
    return datalist


def _write_pixels(path: Path, values: np.ndarray) -> None:
    """8 bits, as PNG (2D) or NIfTI (3D)."""
    whole = np.round(values).astype(np.uint8)
    if whole.ndim == 2:
        Image.fromarray(whole).save(path)
    else:
        import nibabel

        nibabel.save(nibabel.Nifti1Image(whole, np.eye(4)), path)
