"""Datalists for training, from a manifest."""

from pathlib import Path
from typing import Any

import numpy as np

from medpixcl.data.manifest import Manifest

Datalist = list[dict[str, Any]]
ITEM_KEYS = ("image", "spacing_mm")


def items_of(entries: Datalist) -> Datalist:
    """What loading needs of manifest entries: the image and its spacing."""
    return [{key: entry[key] for key in ITEM_KEYS if entry.get(key) is not None} for entry in entries]


def split_validation(path: str | Path, *, fraction: float = 0.1, seed: int = 0) -> dict[str, Datalist]:
    """The images to train on and those held out to validate on.

    A manifest with a validation section is taken as it is; otherwise a share of the training section is held out.
    Repeats of one picture (``duplicate_group``) stay on one side. The test section is never touched.

    Args:
        path: Manifest or MONAI datalist; its paths are relative to it.
        fraction: Share held out, between 0 and 1; at least one image.
        seed: Of the choice.

    Returns:
        ``training`` and ``validation``, with absolute paths.

    Raises:
        ValueError: If there are not at least two images (or groups of repeats) to divide, or ``fraction`` is no share.
    """
    manifest = Manifest.read(path)
    training, validation = manifest.datalist("training"), manifest.datalist("validation")
    if not validation:
        if not 0 < fraction < 1:
            raise ValueError(f"fraction is {fraction}; expected a share between 0 and 1, such as 0.1")
        groups = [entry.get("duplicate_group") or f"image {number}" for number, entry in enumerate(training)]
        order = np.random.default_rng(seed).permutation(sorted(set(groups)))
        held = set(order[: max(1, round(fraction * len(order)))])
        validation = [entry for entry, group in zip(training, groups, strict=True) if group in held]
        training = [entry for entry, group in zip(training, groups, strict=True) if group not in held]
    if not training or not validation:
        raise ValueError(
            f"{path} has {len(training) + len(validation)} image(s) to train and validate on; "
            "at least two different ones are needed: add images to the manifest"
        )
    return {"training": items_of(training), "validation": items_of(validation)}
