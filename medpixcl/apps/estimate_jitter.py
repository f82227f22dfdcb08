"""Estimate how strongly a bundle may change brightness and contrast, from its own images and classes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from medpixcl._typing import StepProgress
from medpixcl.apps.bundles import own_errors, read_bundle
from medpixcl.apps.jitter import (
    BINS,
    ClassJitter,
    estimate_jitter,
    information_measure,
    jitter_fragment,
)
from medpixcl.apps.patches import (
    EmbeddedImage,
    corresponding_patches,
    draw_image_pairs,
    embed_item,
)
from medpixcl.data.datalist import items_of
from medpixcl.data.manifest import Entry, Manifest
from medpixcl.networks.embedding import BackboneNet, LevelsNet
from medpixcl.networks.inferers import LevelsInferer
from medpixcl.networks.weights import load_weights
from medpixcl.transforms.classes import ClassifyViewsd, PixelClasses
from medpixcl.transforms.intensity import CLASS_NAMES


@dataclass(frozen=True)
class JitterSettings:
    """Settings of the estimate of intensity changes.

    Attributes:
        images: Number of unlabelled training images, drawn at random.
        pairs: Number of ordered image pairs, drawn at random.
        points: Number of pixels drawn by informativeness in each pair.
        window_mm: Side length of the patches in mm.
        measure: Measure of information, see :func:`medpixcl.apps.jitter.information_measure`.
        stop: Rule for the threshold, see :func:`medpixcl.apps.jitter.estimate_jitter`.
        alpha: Share of the mean information to keep, see :func:`medpixcl.apps.jitter.estimate_jitter`.
        seed: Random seed for images, patches and draws of intensity.
    """

    images: int = 20
    pairs: int = 40
    points: int = 64
    window_mm: float = 32.0
    measure: str = "joint"
    stop: str = "mean"
    alpha: float = 1.0
    seed: int = 0


def estimate_for_bundle(
    bundle: Path,
    manifest: Path,
    settings: JitterSettings,
    *,
    weights: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    extra_configs: Sequence[Path] = (),
    progress: StepProgress = lambda step, done, total: None,
) -> tuple[list[ClassJitter], dict[str, Any]]:
    """Estimate the ranges of brightness and contrast on the images that a pretraining bundle would train on.

    Images are prepared, and pixels classified, as the bundle's ``deterministic`` transforms do.

    Args:
        bundle: Folder of a pretraining bundle.
        manifest: Manifest of images; only the training section is read, and no landmarks.
        settings: Settings of the estimate.
        weights: Weights of the bundle's network from a pretraining; None takes the frozen ImageNet encoder.
        overrides: Values by id of the bundle's ``train`` configuration.
        extra_configs: Config files merged over the ``train`` configuration before the overrides.
        progress: Function called after every image, pair and class.

    Returns:
        The estimate per class, and the part of a configuration that sets it.

    Raises:
        ValueError: If there are fewer than two different pictures, a class has no mutual matches, or input is bad.
    """
    information = information_measure(settings.measure)
    parser = read_bundle(bundle, "train", overrides or {}, extra_configs=extra_configs)
    generator = torch.Generator().manual_seed(settings.seed)
    entries = draw_entries(manifest, settings.images, generator)
    with own_errors():
        network = embedding_network(parser, weights)
        images = _embed(parser, network, entries, progress)
    pairs = corresponding_patches(
        images,
        draw_image_pairs([image.group for image in images], settings.pairs, generator),
        network,
        window_mm=settings.window_mm,
        points=settings.points,
        exponent=float(parser.get_parsed_content("informativeness_exponent")),
        generator=generator,
        progress=lambda done, total: progress("matching", done, total),
    )
    classes = estimate_jitter(
        pairs,
        information,
        alpha=settings.alpha,
        stop=settings.stop,
        progress=lambda done, total: progress("searching", done, total),
    )
    ranges = {name: parser.get_parsed_content(f"intensity_{name}") for name in CLASS_NAMES}
    facts = {
        "measure": settings.measure,
        "bins": BINS[settings.measure],
        "stop": settings.stop,
        "alpha": settings.alpha,
        "window_mm": settings.window_mm,
        "images": len(images),
        "pixels_drawn": pairs.drawn,
        "embedding": "frozen encoder" if weights is None else "given weights",
        "seed": settings.seed,
    }
    return classes, jitter_fragment(classes, ranges, facts)


def draw_entries(manifest: Path, number: int, generator: torch.Generator) -> list[Entry]:
    """Draw entries of the training section, at most one per picture.

    Raises:
        ValueError: If there are fewer than two.
    """
    entries = Manifest.read(manifest).datalist("training")
    pictures = {_picture(entry): entry for entry in reversed(entries)}
    if min(len(pictures), number) < 2:
        raise ValueError(
            f"different pictures among the training images of {manifest}: {len(pictures)}, to be used: {number}; "
            "expected at least 2, as patches of different images are compared: give a manifest with more images"
        )
    order = sorted(pictures)
    return [pictures[order[index]] for index in torch.randperm(len(order), generator=generator)[:number].tolist()]


def _picture(entry: Entry) -> str:
    """Key that copies of one picture share."""
    return str(entry.get("duplicate_group") or entry["image"])


def embedding_network(parser: ConfigParser, weights: Path | None) -> LevelsNet:
    """The bundle's network with weights from a file, or the frozen ImageNet encoder.

    Raises:
        ValueError: If the weights do not fit, or there is no encoder for images of this dimension.
    """
    if weights is not None:
        parser["imagenet"] = False
        network: LevelsNet = parser.get_parsed_content("network_def")
        load_weights(network, weights)
    elif (dims := parser.get_parsed_content("spatial_dims")) != 2:
        raise ValueError(
            f"the bundle takes {dims}D images, for which there is no ImageNet encoder; give a file of weights"
        )
    else:
        network = BackboneNet(encoder_only=True, pretrained=True, strides=[4, 8, 16, 32])
    return network.to(parser.get_parsed_content("device")).eval()


def _embed(
    parser: ConfigParser, network: LevelsNet, entries: Sequence[Entry], progress: StepProgress
) -> list[EmbeddedImage]:
    """Prepare and embed all images; fixed cuts between the classes replace each image's own."""
    prepare, inferer = parser.get_parsed_content("deterministic"), LevelsInferer()
    cuts = parser.get_parsed_content("class_cuts") if "class_cuts" in parser else "quantiles"
    classify = ClassifyViewsd("image", PixelClasses(cuts))
    device = parser.get_parsed_content("device")
    images = []
    for number, (item, entry) in enumerate(zip(items_of(list(entries)), entries, strict=True)):
        prepared = classify(prepare(item))
        images.append(embed_item(prepared, lambda image: inferer(image.to(device), network), _picture(entry)))
        progress("embedding", number + 1, len(entries))
    return images
