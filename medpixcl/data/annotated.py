"""Choose annotated images for training and read their target landmarks.

An entry of a manifest names the file of its landmarks, or one file for each of several readers. The target of the
training is one reader, or the weighted mean of several.
"""

import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import PointsMM
from medpixcl.coordinates import spatial_affine, voxel_to_mm
from medpixcl.data.datalist import ITEM_KEYS, Datalist, hold_out, items_of
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Manifest
from medpixcl.landmarks.points import rows_by_name

Files = str | Mapping[str, str]
"""A landmark file, or the file of each reader by name."""
Target = str | Mapping[str, float | int] | None
"""Name of a reader; ``mean`` of all; or the weight of each."""
ANNOTATED_KEYS = (*ITEM_KEYS, "landmarks")
MEAN = "mean"


def split_annotated(
    path: str | os.PathLike[str], *, fraction: float | int = 0.1, seed: int = 0, images: int | None = None
) -> dict[str, Datalist]:
    """Split the annotated images into training and validation; the test section is never touched.

    A validation section of the manifest is used as it is. Without one, a share of the training images is held out,
    rounded down. If that share is zero images, the training images themselves are used for validation, which then only
    shows how well they are fitted. Repeats of one picture stay on one side.

    Args:
        path: Manifest file.
        fraction: Share of the images held out for validation, from 0 to below 1.
        seed: Random seed for choosing the images and for holding some of them out.
        images: Number of training images to draw, including those held out; None uses all.

    Returns:
        ``training`` and ``validation``: items with image, how to read it, and landmark file (or files by reader).

    Raises:
        ValueError: If the training section has no annotated image, or fewer than ``images``, or ``fraction`` is not
            between 0 and 1.
    """
    manifest = Manifest.read(path)
    training, validation = (
        [entry for entry in manifest.datalist(section) if entry.get("landmarks")]
        for section in ("training", "validation")
    )
    if not training:
        raise ValueError(
            f"{path} has no training image with landmarks; make a manifest with `medpixcl scan --landmarks`"
        )
    if images is not None:
        training = draw_images(training, images, seed=seed, path=path)
    if not 0 <= fraction < 1:
        raise ValueError(f"fraction is {fraction}; expected a share from 0 to below 1, such as 0.1")
    if not validation:
        training, validation = hold_out(training, int(fraction * len(training) + 1e-9), seed=seed)
    sides = {"training": training, "validation": validation or training}
    return {side: items_of(entries, ANNOTATED_KEYS) for side, entries in sides.items()}


def draw_images(
    entries: Datalist, number: int, *, seed: int, path: str | os.PathLike[str] = "the manifest"
) -> Datalist:
    """Draw some entries at random and keep their order; with one seed, a larger draw contains the smaller ones.

    Raises:
        ValueError: If there are fewer than ``number`` entries.
    """
    if not 1 <= number <= len(entries):
        raise ValueError(f"{path} has {len(entries)} training images with landmarks; {number} are asked for")
    order = torch.randperm(len(entries), generator=torch.Generator().manual_seed(seed)).tolist()
    return [entries[index] for index in sorted(order[:number])]


def landmark_names(path: str | os.PathLike[str], default: Sequence[str]) -> list[str]:
    """List the landmarks that occur in a manifest's training images, in the order of their files.

    Args:
        path: Manifest file.
        default: Names to return if the file does not exist, so that a network can be built.
    """
    if not Path(path).is_file():
        return list(default)
    entries = [entry for entry in Manifest.read(path).datalist("training") if entry.get("landmarks")]
    files = dict.fromkeys(file for entry in entries for file in reader_files(entry["landmarks"]).values())
    names = list(dict.fromkeys(name for file in files for name in _table(file, _changed(file)).names))
    return names or list(default)


def reader_files(landmarks: Files) -> dict[str, str]:
    """Map each reader to their landmark file; a single file belongs to the reader ``mean``."""
    return {MEAN: landmarks} if isinstance(landmarks, str) else dict(landmarks)


def target_weights(readers: Sequence[str], target: Target) -> dict[str, float]:
    """Return the weight of each reader, without those of weight 0.

    Args:
        readers: Names of the readers.
        target: Reader, readers' mean or weights, see :data:`Target`; None is the mean.

    Raises:
        ValueError: If the target names another reader, or a weight is negative or all are 0.

    Example:
        >>> target_weights(["senior", "junior"], "mean"), target_weights(["senior", "junior"], "senior")
        ({'senior': 1.0, 'junior': 1.0}, {'senior': 1.0})
    """
    if target is None or (target == MEAN and MEAN not in readers):
        return dict.fromkeys(readers, 1.0)
    wanted = {target: 1.0} if isinstance(target, str) else {name: float(weight) for name, weight in target.items()}
    if unknown := [name for name in wanted if name not in readers]:
        raise ValueError(f"target names the reader {unknown[0]!r}; the manifest has {', '.join(readers)}")
    chosen = {name: weight for name, weight in wanted.items() if weight != 0}
    if not chosen or min(chosen.values()) < 0:
        raise ValueError(f"the weights of the readers are {wanted}; expected none below 0, and one above")
    return chosen


def weighted_mean(points: Float[Tensor, "r k d"], weights: Sequence[float | int]) -> Float[Tensor, "k d"]:
    """Weighted mean of several readers' landmarks; a reader without a landmark is skipped, NaN if all lack it.

    Args:
        points: Landmarks of R readers, shape (R, K, D), NaN where missing.
        weights: Positive weight of each of the R readers.

    Example:
        >>> weighted_mean(torch.tensor([[[1.0], [5.0]], [[3.0], [torch.nan]]]), [1, 3])
        tensor([[2.5000],
                [5.0000]])
    """
    there = ~points.isnan().any(dim=2, keepdim=True)
    shares = there * torch.tensor(list(weights)).to(points)[:, None, None]
    total = shares.sum(dim=0)
    mean = (shares * points.nan_to_num(0)).sum(dim=0) / total
    return torch.where(total > 0, mean, torch.nan)


def target_points(
    landmarks: Files, target: Target, names: Sequence[str], image: str, affine: Tensor, shape: Sequence[int]
) -> PointsMM:
    """Read the target landmarks of one image.

    Args:
        landmarks: Landmark file of the image, or the file of each reader.
        target: Reader, readers' mean or weights, see :data:`Target`.
        names: Names of the K landmarks to read, in the order of the result.
        image: Path of the image.
        affine: Matrix from voxels of the image file to mm, RAS+, (4, 4).
        shape: Spatial shape of the image file.

    Returns:
        Positions in mm, RAS+, shape (K, D), NaN where missing.

    Raises:
        ValueError: For the reasons of :meth:`medpixcl.data.landmarks.table.LandmarkFile.for_image` and
            :func:`target_weights`.
    """
    files = reader_files(landmarks)
    weights = target_weights(list(files), target)
    readers = [_points_mm(files[reader], names, image, affine, shape) for reader in weights]
    return weighted_mean(torch.stack(readers), list(weights.values()))


def _points_mm(file: str, names: Sequence[str], image: str, affine: Tensor, shape: Sequence[int]) -> PointsMM:
    table = _table(file, _changed(file))
    places = (Path(image), *Path(image).parents)  # of a series the folder is named, or that of its folders
    found = table.for_image(next((one for one in places if table.find(one) is not None), image), affine, shape)
    return rows_by_name(voxel_to_mm(found.voxels, spatial_affine(affine, found.dims)), found.names, names)


def _changed(file: str) -> float:
    return Path(file).stat().st_mtime if Path(file).exists() else 0.0


@lru_cache(maxsize=16)
def _table(file: str, changed: float) -> LandmarkFile:
    """A landmark file, read once until it changes."""
    return read_landmarks(file)
