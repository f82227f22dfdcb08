"""Self-training of a landmark network from one annotated image.

Matching gives the first pseudo-landmarks of the unlabelled images; in every later round the network finds new ones.

Reference: Yao et al., One-Shot Medical Landmark Detection (CC2D-TPL), MICCAI 2021, arXiv 2103.04527, section 2.3. The
weights of the pseudo-landmarks, their correction by the shape, and the rounds are additions of this package.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor, nn

from medpixcl.coordinates import spacing_of, voxel_to_mm, working_affine, working_spacing
from medpixcl.data.datalist import Datalist, listed_spacing
from medpixcl.data.identity import is_image_of
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.seeded import SeededDataset
from medpixcl.landmarks.pseudo import PseudoLandmarks
from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.matching.trust import Relabelled, match_weights, relabel
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.inferers import EmbeddingModel, LandmarkInferer
from medpixcl.networks.weights import load_weights

log = logging.getLogger(__name__)


def with_template(template: str, spacing_mm: Sequence[float] | float | None, items: Datalist, repeats: int) -> Datalist:
    """Datalist of the unlabelled images without the template, plus the template several times.

    Args:
        template: Path of the annotated image.
        spacing_mm: Pixel size in mm of the template if its file does not state it; None takes it from ``items``.
        items: Datalist of the images; the template may be among them.
        repeats: Number of times that the template is shown per epoch.

    Raises:
        ValueError: If no other image is left.
    """
    path = Path(template).resolve()
    others = [item for item in items if not is_image_of(item, path)]
    if not others:
        raise ValueError(f"there is no image to train on beside the template {template}: add images to the manifest")
    size = listed_spacing(template, items) if spacing_mm is None else spacing_mm
    own: dict[str, Any] = {"image": template} | ({} if size is None else {"spacing_mm": size})
    return [own] * repeats + others


def without_template(template: str, items: Datalist) -> Datalist:
    """Datalist without the template."""
    path = Path(template).resolve()
    return [item for item in items if not is_image_of(item, path)]


def template_landmark_names(path: str, default: Sequence[str]) -> list[str]:
    """Names of the landmarks in a landmark file, or the default if there is no file, so that a network can be built."""
    return list(read_landmarks(path).names) if Path(path).exists() else list(default)


def pictures_of(*datasets: SeededDataset) -> dict[str, MetaTensor]:
    """Prepared images of some datasets, each once, by file name."""
    found: dict[str, MetaTensor] = {}
    for dataset in datasets:
        for number in range(len(dataset.data)):
            image = dataset.prepared[number]["image"]
            found.setdefault(str(image.meta["filename_or_obj"]), image)
    return found


class TemplateMatching:
    """Matches the template's landmarks in all images at the start of a training without pseudo-landmarks.

    The template's own landmarks get the weight 1.

    Args:
        labels: Store of pseudo-landmarks to fill.
        template: Annotated image.
        matcher: Matcher that finds the landmarks.
        network: Embedding network of the matcher.
        weights: Weights of the embedding network; None leaves it unchanged.
        datasets: Datasets whose images are matched.
        learn: Whether to learn the landmarks' appearance from all these images first
            (:meth:`medpixcl.matching.LandmarkMatcher.learn`).
    """

    def __init__(
        self,
        labels: PseudoLandmarks,
        template: AnnotatedImage,
        matcher: LandmarkMatcher,
        network: LevelsNet,
        weights: str | None,
        datasets: Sequence[SeededDataset],
        learn: bool = True,
    ) -> None:
        self.labels, self.template, self.matcher = labels, template, matcher
        self.network, self.weights, self.datasets, self.learn = network, weights, list(datasets), learn

    def attach(self, engine: Engine) -> None:
        """Match when the training starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Match the images without pseudo-landmarks."""
        pictures = pictures_of(*self.datasets)
        if not self.labels.missing_among(pictures):
            return
        if self.weights is not None:
            load_weights(self.network, self.weights)
        embed = EmbeddingModel(self.network, engine.state.device)
        self.template.fit(self.matcher, embed, embed.strides)

        def embedded(image: MetaTensor) -> tuple[list[Tensor], Sequence[int], list[float]]:
            return embed(image.as_tensor()[None]), image.shape[1:], working_spacing(image)

        own = str(self.template.image.meta["filename_or_obj"])
        missing = {name: pictures[name] for name in self.labels.missing_among(pictures) if name != own}
        if self.learn:
            self.matcher.adapt(self.matcher.learn(embedded(image) for image in missing.values()))
        for name, image in missing.items():
            levels, shape, spacing = embedded(image)
            found = self.matcher.match(levels, shape, spacing)
            weights = match_weights(found, min(spacing) * min(embed.strides))
            self.labels.set(name, voxel_to_mm(found.voxels.double().cpu(), working_affine(image)), weights.cpu())
        self.labels.set(own, self.template.mm, torch.ones(len(self.template.voxels)))
        self.network.cpu()
        log.info("matched the template in %d images, mean weight %.2f", len(pictures) - 1, _mean_weight(self.labels))


class Relabelling:
    """Replaces the pseudo-landmarks of the training images by the network's own every few epochs, except the last.

    See :func:`medpixcl.matching.trust.relabel`. Every process handles all images, so that all have the same labels.

    Args:
        labels: Store of pseudo-landmarks to update.
        template: Annotated image, whose landmarks are kept.
        teacher: Network that finds the landmarks: a moving average of the one in training.
        inferer: Inferer that finds the landmarks in views of an image.
        dataset: Dataset of the training images.
        interval: Number of epochs in a round.
    """

    def __init__(
        self,
        labels: PseudoLandmarks,
        template: AnnotatedImage,
        teacher: nn.Module,
        inferer: LandmarkInferer,
        dataset: SeededDataset,
        interval: int,
    ) -> None:
        self.labels, self.template, self.teacher = labels, template, teacher
        self.inferer, self.dataset, self.interval = inferer, dataset, interval

    def attach(self, engine: Engine) -> None:
        """Check at the end of every epoch whether a round is over."""
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Update the labels if a round is over."""
        epoch, last = engine.state.epoch, engine.state.max_epochs
        if epoch % self.interval == 0 and epoch < last:
            self.relabel(engine.state.device)

    def relabel(self, device: torch.device) -> None:
        """Find the landmarks of all training images except the template."""
        own = str(self.template.image.meta["filename_or_obj"])
        pictures = {name: image for name, image in pictures_of(self.dataset).items() if name != own}
        there = ~self.template.points.missing
        found = {name: self._find(image, device) for name, image in pictures.items()}
        points, confidence, spread = (torch.stack(column)[:, there] for column in zip(*found.values(), strict=True))
        dims = points.shape[2]
        before = Relabelled(
            torch.stack([self.labels.points(name, dims) for name in found])[:, there],
            torch.stack([self.labels.weights(name) for name in found])[:, there],
        )
        affine = working_affine(self.template.image)
        cell = float(spacing_of(affine).min()) * self.inferer.definition.stride
        after = relabel(points, confidence, spread, before, self.template.mm[there], cell)
        for number, name in enumerate(found):
            places = torch.full((len(there), dims), torch.nan, dtype=torch.float64)
            weights = torch.zeros(len(there))
            places[there], weights[there] = after.points[number], after.weights[number]
            self.labels.set(name, places, weights)
        self.labels.round += 1
        log.info("round %d: mean weight of the landmarks %.2f", self.labels.round, _mean_weight(self.labels))

    def _find(self, image: MetaTensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks of an image in mm, with confidence and spread."""
        with torch.no_grad():
            found = self.inferer(image.as_tensor()[None].to(device), self.teacher.eval())
        points = voxel_to_mm(found["points"][0].double().cpu(), working_affine(image))
        return points, found["confidence"][0].cpu(), found["spread_mm"][0].cpu()


def _mean_weight(labels: PseudoLandmarks) -> float:
    return float(torch.stack([labels.weights(name) for name in labels.images]).mean())
