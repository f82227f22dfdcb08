"""Self-training: a landmark detector from a few annotated and many unlabelled images."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from medpixcl._typing import AnyPath
from medpixcl.apps.bundle_search import find_bundle
from medpixcl.apps.bundles import checked_device, read_bundle, refuse_arguments, run_bundle, why_not_made_for
from medpixcl.apps.default_bundles import SELFTRAINING, bundle_for
from medpixcl.apps.images import dims_of
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM

ARGUMENTS = {"template", "landmarks", "data_list_file_path", "output_dir", "ckpt_dir"}
"""Settings that the arguments give: files that a setting would exchange unseen."""


def selftrain(
    templates: AnyPath | Sequence[AnyPath],
    landmarks: AnyPath,
    data: AnyPath,
    output: AnyPath,
    *,
    bundle: AnyPath | None = None,
    weights: AnyPath | None = None,
    rounds: int | None = None,
    epochs: int | None = None,
    device: str | None = None,
    spacing_mm: SpacingMM | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Path:
    """Train a landmark detector; an interrupted training goes on after its last complete epoch.

    Args:
        templates: Annotated image, or several; of a folder or manifest, the images with landmarks.
        landmarks: Landmark file of the annotated images, or a folder of such files.
        data: Manifest of the images to train on; the annotated ones may be among them.
        output: Folder of the training.
        bundle: Name or folder of the self-training bundle; by default the one for pictures or the one for volumes.
        weights: Weights of the embedding network to start from; those that the bundle names by default.
        rounds: Number of rounds, between which the landmarks are found anew; the bundle's by default.
        epochs: Total number of epochs; the bundle's by default.
        device: Device of the network; the bundle chooses by default.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        settings: Values by id of the bundle's ``train.json``, all of them plain data.
        trust: Accept a bundle from any folder; its configuration is a program of its author.

    Returns:
        The weights of the detector, beside which ``inference.json`` holds the landmark names and its settings.

    Raises:
        ValueError: If the input is bad; one sentence that names the file.
    """
    folder = checked_path(output, "the folder of the training")
    dims = dims_of(templates, spacing_mm)
    chosen = selftraining_bundle(bundle, dims, trust=trust)
    check_selftraining(chosen, settings or {}, dims)
    several = [templates] if isinstance(templates, str | PathLike) else templates
    asked = {
        "start_weights": None if weights is None else str(weights),
        "rounds": rounds,
        "max_epochs": epochs,
        "device": None if device is None else checked_device(device),
    }
    values: dict[str, Any] = {
        "template": [str(one) for one in several],
        "landmarks": str(landmarks),
        "data_list_file_path": str(data),
        "output_dir": str(folder),
        "ckpt_dir": str(folder / "models"),
        "pixel_mm": spacing_mm,
    }
    values |= {key: value for key, value in asked.items() if value is not None}
    run_bundle(chosen, "train", values | dict(settings or {}))
    return folder / "models" / "model.pt"


def selftraining_bundle(bundle: AnyPath | None, dims: int | None, *, trust: bool = False) -> Path:
    """Find a self-training bundle, by default the one for images of so many axes."""
    return find_bundle(bundle, bundle_for(SELFTRAINING, dims), trust=trust)


def check_selftraining(bundle: Path, settings: Mapping[str, Any], dims: int | None) -> None:
    """Check a bundle and settings before anything is computed.

    Args:
        bundle: Folder of the bundle.
        settings: Values by id of its configuration.
        dims: Number of axes of the images; None if they are not known.

    Raises:
        ValueError: If the bundle is not made for self-training or for such images, it has no such setting, or an
            argument is set.
    """
    refuse_arguments(settings, ARGUMENTS)
    parser = read_bundle(bundle, "train", settings)
    if not {"template", "rounds"} <= parser.get().keys():
        raise ValueError(why_not_made_for(bundle, "self-training", bundle_for(SELFTRAINING, dims)))
    if dims not in (None, own := parser.get("spatial_dims")):
        raise ValueError(
            f"the images have {dims} axes, and {bundle.name} trains detectors for {own}; take "
            f"{bundle_for(SELFTRAINING, dims)}"
        )
