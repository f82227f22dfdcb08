"""Datalists for training, from one or several manifests."""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from medpixcl.data.identity import first_file
from medpixcl.data.manifest import Manifest

Datalist = list[dict[str, Any]]
ITEM_KEYS = ("image", "spacing_mm", "tolerance_mm")
TRAINING_KEYS = (*ITEM_KEYS, "exogenous", "label")
"""Keys of an entry that training uses; nothing else needs exogenous channels or labels."""
SOURCE = "source"
"""Key of the number of the manifest that an item comes from, where there are several."""


def items_of(entries: Datalist, keys: Sequence[str] = ITEM_KEYS) -> Datalist:
    """Copy the keys that loading needs from manifest entries, by default the image and how to read it."""
    return [{key: entry[key] for key in keys if entry.get(key) is not None} for entry in entries]


def files_of(items: Iterable[Mapping[str, Any]]) -> set[Path]:
    """Resolved paths of the files that name the images of some items."""
    return {Path(first_file(item)).resolve() for item in items}


def without_files(items: Datalist, files: Collection[Path]) -> Datalist:
    """Leave out the items whose images are named by one of these resolved paths, see :func:`files_of`."""
    return [item for item in items if Path(first_file(item)).resolve() not in files]


def section_items(path: str | os.PathLike[str], section: str = "test") -> Datalist:
    """List the images of one section of a manifest, with their labels, for an evaluation.

    Args:
        path: Manifest or MONAI datalist file.
        section: Name of the section: ``training``, ``validation`` or ``test``.

    Raises:
        ValueError: If the section is empty.
    """
    entries = Manifest.read(path).datalist(section)
    if not entries:
        raise ValueError(f"{path} has no image in the section {section}; name another section, or give them a split")
    return items_of(entries, TRAINING_KEYS)


def split_validation(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *, fraction: float = 0.1, seed: int = 0
) -> dict[str, Datalist]:
    """Split the images into training and validation.

    A manifest's validation section is used as it is; without one, a share of the training section is held out. Repeats
    of one picture (``duplicate_group``) stay on one side. The test section is never touched. Several manifests are
    divided one by one; their items then carry the number of their manifest as ``source``.

    Args:
        path: Manifest or MONAI datalist file, or several; image paths are relative to their own file.
        fraction: Share of the images held out, between 0 and 1; at least one image of each manifest.
        seed: Random seed for choosing the images held out.

    Returns:
        Datalists ``training`` and ``validation`` with absolute paths.

    Raises:
        ValueError: If there are fewer than two images (or groups of repeats) to divide, ``fraction`` is not between 0
            and 1, or two manifests hold the same picture.
    """
    if isinstance(path, str | os.PathLike):
        divided = _divide(Path(path), fraction, seed)
        return {side: items_of(entries, TRAINING_KEYS) for side, entries in divided.items()}
    if not path:
        raise ValueError("no manifest is given; give one path, or a list of them")
    every = [_divide(Path(one), fraction, seed) for one in path]
    _refuse_common_pictures(path, every)
    return {
        side: [
            item | ({SOURCE: number} if len(every) > 1 else {})
            for number, divided in enumerate(every)
            for item in items_of(divided[side], TRAINING_KEYS)
        ]
        for side in ("training", "validation")
    }


def hold_out(entries: Datalist, number: int, *, seed: int) -> tuple[Datalist, Datalist]:
    """Divide entries at random; repeats of one picture (``duplicate_group``) stay on one side.

    Args:
        entries: Entries of a manifest.
        number: Number of different pictures to hold out.
        seed: Random seed for choosing them.

    Returns:
        The remaining entries and the held-out ones, both in their original order.
    """
    groups = [entry.get("duplicate_group") or f"image {number}" for number, entry in enumerate(entries)]
    held = set(np.random.default_rng(seed).permutation(sorted(set(groups)))[:number])
    sides: tuple[Datalist, Datalist] = ([], [])
    for entry, group in zip(entries, groups, strict=True):
        sides[group in held].append(entry)
    return sides


def _divide(path: Path, fraction: float, seed: int) -> dict[str, Datalist]:
    """Entries of one manifest to train and to validate on."""
    manifest = Manifest.read(path)
    training, validation = manifest.datalist("training"), manifest.datalist("validation")
    if not validation:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a share between 0 and 1, such as 0.1")
        groups = {entry.get("duplicate_group") or f"image {number}" for number, entry in enumerate(training)}
        training, validation = hold_out(training, max(1, round(fraction * len(groups))), seed=seed)
    if not training or not validation:
        raise ValueError(
            f"{path} has {len(training) + len(validation)} image(s) to train and validate on; "
            "at least two different ones are needed: add images to the manifest"
        )
    return {"training": training, "validation": validation}


def _refuse_common_pictures(paths: Sequence[str | os.PathLike[str]], every: Sequence[dict[str, Datalist]]) -> None:
    """A picture of two manifests could be trained on and validated on."""
    owner: dict[str, int] = {}
    for number, divided in enumerate(every):
        for entry in (*divided["training"], *divided["validation"]):
            for mark in {str(entry["image"]), str(entry.get("sha256") or entry["image"])}:
                if (first := owner.setdefault(mark, number)) != number:
                    raise ValueError(
                        f"{entry['image']} of {paths[number]} is also in {paths[first]}: leave it in one of them, "
                        "so that no image is trained on and validated on"
                    )
