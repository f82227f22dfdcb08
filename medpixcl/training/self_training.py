"""Self-training of a landmark network from one annotated image.

Matching gives the first pseudo-landmarks of the unlabelled images; in every later round the network finds new ones.

Reference: Yao et al., One-Shot Medical Landmark Detection (CC2D-TPL), MICCAI 2021, arXiv 2103.04527, section 2.3. The
weights of the pseudo-landmarks, their correction by the shape, and the rounds are additions of this package.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor
from torch import Tensor, nn

from medpixcl.coordinates import spacing_of, voxel_to_mm, working_affine, working_spacing
from medpixcl.data.datalist import Datalist, files_of, without_files
from medpixcl.data.identity import first_file
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.seeded import SeededDataset
from medpixcl.landmarks.geometry import mean_shape
from medpixcl.landmarks.pseudo import PseudoLandmarks
from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.annotated_image import AnnotatedImage, fit_to
from medpixcl.matching.trust import Relabelled, match_weights, relabel
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.inferers import EmbeddingModel, LandmarkInferer
from medpixcl.networks.weights import load_weights

log = logging.getLogger(__name__)


def with_templates(templates: Datalist, items: Datalist, repeats: int) -> Datalist:
    """Datalist of the unlabelled images without the templates, plus the templates several times.

    Args:
        templates: Items of the annotated images.
        items: Datalist of the images; templates may be among them.
        repeats: Number of times that each template is shown per epoch.

    Raises:
        ValueError: If no other image is left.
    """
    others = without_templates(templates, items)
    if not others:
        named = "the template " + first_file(templates[0]) if len(templates) == 1 else f"the {len(templates)} templates"
        raise ValueError(f"there is no image to train on beside {named}: add images to the manifest")
    return templates * repeats + others


def without_templates(templates: Datalist, items: Datalist) -> Datalist:
    """Datalist without the images that are templates."""
    return without_files(items, files_of(templates))


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


def keep_marks(labels: PseudoLandmarks, templates: Sequence[AnnotatedImage]) -> None:
    """Set the landmarks that were marked in annotated images, with the weight 1; what they lack stays as it was."""
    for template in templates:
        name, marks = _source(template), template.mm_of(labels.names)
        marked = ~marks.isnan().any(dim=1)
        before = labels.points(name, marks.shape[1]).to(marks)
        labels.set(name, torch.where(marked[:, None], marks, before), torch.where(marked, 1.0, labels.weights(name)))


def without_complete(templates: Sequence[AnnotatedImage], pictures: dict[str, MetaTensor]) -> dict[str, MetaTensor]:
    """Prepared images by file name, without the annotated ones that lack no landmark of the others."""
    marked = {name for template in templates for name in _marked(template)}
    complete = {_source(template) for template in templates if marked == _marked(template)}
    return {name: image for name, image in pictures.items() if name not in complete}


class TemplateMatching:
    """Matches the templates' landmarks in all images at the start of a training without pseudo-landmarks.

    The templates' own landmarks get the weight 1. A landmark that one of them lacks is matched there.

    Args:
        labels: Store of pseudo-landmarks to fill.
        templates: Annotated images.
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
        templates: Sequence[AnnotatedImage],
        matcher: LandmarkMatcher,
        network: LevelsNet,
        weights: str | None,
        datasets: Sequence[SeededDataset],
        learn: bool = True,
    ) -> None:
        self.labels, self.templates, self.matcher = labels, list(templates), matcher
        self.network, self.weights, self.datasets, self.learn = network, weights, list(datasets), learn

    def attach(self, engine: Engine) -> None:
        """Match when the training starts."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Match the images without pseudo-landmarks."""
        pictures = pictures_of(*self.datasets)
        self.labels.place(pictures)
        if not self.labels.missing_among(pictures):
            return
        if self.weights is not None:
            load_weights(self.network, self.weights)
        embed = EmbeddingModel(self.network, engine.state.device)
        fit_to(self.matcher, self.templates, self.labels.names, embed, embed.strides)

        def query(image: MetaTensor) -> tuple[Tensor, Sequence[int], list[float]]:
            return image.as_tensor()[None].to(embed.device), image.shape[1:], working_spacing(image)

        missing = {name: pictures[name] for name in self.labels.missing_among(pictures)}
        if self.learn:
            own = {_source(template) for template in self.templates}
            self.matcher.adapt(self.matcher.learn(query(missing[name]) for name in missing if name not in own))
        searched = without_complete(self.templates, missing)
        for name, image in searched.items():
            found = self.matcher.match(*query(image))
            weights = match_weights(found, min(working_spacing(image)) * min(embed.strides))
            self.labels.set(name, voxel_to_mm(found.voxels.double().cpu(), working_affine(image)), weights.cpu())
        keep_marks(self.labels, self.templates)
        self.network.cpu()
        log.info(
            "matched %d template(s) in %d images, mean weight %.2f",
            len(self.templates),
            len(searched),
            _mean_weight(self.labels),
        )


class Relabelling:
    """Replaces the pseudo-landmarks of the training images by the network's own every few epochs, except the last.

    See :func:`medpixcl.matching.trust.relabel`. Every process handles all images, so that all have the same labels.

    Args:
        labels: Store of pseudo-landmarks to update.
        templates: Annotated images, whose own landmarks are kept.
        teacher: Network that finds the landmarks: a moving average of the one in training.
        inferer: Inferer that finds the landmarks in views of an image.
        dataset: Dataset of the training images.
        interval: Number of epochs in a round.
    """

    def __init__(
        self,
        labels: PseudoLandmarks,
        templates: Sequence[AnnotatedImage],
        teacher: nn.Module,
        inferer: LandmarkInferer,
        dataset: SeededDataset,
        interval: int,
    ) -> None:
        self.labels, self.templates, self.teacher = labels, list(templates), teacher
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
        """Find the landmarks of all training images that the templates do not give."""
        shape = mean_shape([template.mm_of(self.labels.names) for template in self.templates])
        there = ~shape.isnan().any(dim=1)
        pictures = without_complete(self.templates, pictures_of(self.dataset))
        found = {name: self._find(image, device) for name, image in pictures.items()}
        points, confidence, spread = (torch.stack(column)[:, there] for column in zip(*found.values(), strict=True))
        dims = points.shape[2]
        before = Relabelled(
            torch.stack([self.labels.points(name, dims) for name in found])[:, there],
            torch.stack([self.labels.weights(name) for name in found])[:, there],
        )
        affine = working_affine(self.templates[0].image)
        cell = float(spacing_of(affine).min()) * self.inferer.definition.stride
        after = relabel(points, confidence, spread, before, shape[there], cell)
        for number, name in enumerate(found):
            places = torch.full((len(there), dims), torch.nan, dtype=torch.float64)
            weights = torch.zeros(len(there))
            places[there], weights[there] = after.points[number], after.weights[number]
            self.labels.set(name, places, weights)
        keep_marks(self.labels, self.templates)
        self.labels.round += 1
        log.info("round %d: mean weight of the landmarks %.2f", self.labels.round, _mean_weight(self.labels))

    def _find(self, image: MetaTensor, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks of an image in mm, with confidence and spread."""
        with torch.no_grad():
            found = self.inferer(image.as_tensor()[None].to(device), self.teacher.eval())
        points = voxel_to_mm(found["points"][0].double().cpu(), working_affine(image))
        return points, found["confidence"][0].cpu(), found["spread_mm"][0].cpu()


def _source(template: AnnotatedImage) -> str:
    """File name of an annotated image, as the datasets' images have it."""
    return str(template.image.meta["filename_or_obj"])


def _marked(template: AnnotatedImage) -> set[str]:
    """Names of the landmarks with a position in an annotated image."""
    names, missing = template.points.names, template.points.missing.tolist()
    return {name for name, lacking in zip(names, missing, strict=True) if not lacking}


def _mean_weight(labels: PseudoLandmarks) -> float:
    return float(torch.stack([labels.weights(name) for name in labels.images]).mean())
