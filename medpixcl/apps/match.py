"""One-shot landmark matching: the landmarks of annotated images, found in other images."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.transforms import Compose

from medpixcl._typing import AnyPath
from medpixcl.apps.bundles import own_errors
from medpixcl.apps.default_bundles import MATCHING, bundle_for
from medpixcl.apps.digests import value_digest
from medpixcl.apps.finder import LandmarkFinder, Prediction
from medpixcl.apps.given_templates import Marks, SingleImage, given_templates
from medpixcl.apps.images import ImageList, Images, dims_of
from medpixcl.apps.loaded_images import Searchable
from medpixcl.apps.output import Output
from medpixcl.apps.read_finder import read_finder
from medpixcl.apps.results import Landmarks, Results
from medpixcl.apps.search import SearchPlace, search
from medpixcl.apps.unlabelled import UnlabelledImages, write_population
from medpixcl.coordinates import working_spacing
from medpixcl.data.landmarks.row import CORRECTED
from medpixcl.data.manifest import Manifest
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching import AnnotatedImage, LandmarkMatcher, MatchingInferer, Population
from medpixcl.matching.annotated_image import fit_to, names_of_all, templates_digest
from medpixcl.matching.marks import mark_warnings
from medpixcl.networks.embedding import LevelsNet
from medpixcl.networks.inferers import EmbeddingModel
from medpixcl.transforms.load import open_spacing, with_spacing_of


def matching_bundle(images: AnyPath | Sequence[AnyPath]) -> str:
    """Name of the matching bundle that is made for images of a kind.

    Args:
        images: Images, folders or a manifest; the first image whose size is known decides between 2D and 3D.
    """
    return bundle_for(MATCHING, dims_of(images))


class Matcher(LandmarkFinder):
    """Finds the landmarks of one or several annotated images (templates) in other images.

    Make one with :meth:`from_bundle`, give it the templates with :meth:`fit`, then :meth:`match` images.

    Example:
        >>> matcher = Matcher.from_bundle("xray_landmark_matching")  # doctest: +SKIP
        >>> results = matcher.fit("template.png", "landmarks.csv").match("images")  # doctest: +SKIP
    """

    title = "Landmark matching"
    command = "match"
    network: LevelsNet
    inferer: MatchingInferer
    templates: Sequence[AnnotatedImage] = ()
    template_warnings: list[str] | None = None
    unlabelled: UnlabelledImages | None = None
    population: Population | None = None
    configured: Compose | None = None

    @classmethod
    def from_bundle(
        cls,
        bundle: AnyPath | None = None,
        *,
        weights: AnyPath | None = None,
        device: str | torch.device = "auto",
        settings: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> "Matcher":
        """Take network, weights, preprocessing and matcher from a matching bundle.

        Args:
            bundle: Name or folder of the bundle; ``xray_landmark_matching`` by default. For volumes take
                ``volume_landmark_matching``.
            weights: Weights of the network; the bundle's own by default.
            device: Device such as ``"cuda:1"``; ``"auto"`` leaves the choice to the bundle, which takes a GPU if there
                is one.
            settings: Values by id of the bundle's ``inference.json``, all of them plain data.
            trust: Accept a bundle from any folder; its configuration is a program of its author.

        Raises:
            BundleError: If there is no such bundle, or it has no such setting.
            ValueError: If the weights do not fit, or the device does not work.
        """
        return read_finder(
            cls, bundle, default=MATCHING[2], weights=weights, device=device, settings=settings, trust=trust
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the templates' landmarks."""
        return names_of_all(self._fitted())

    @property
    def model(self) -> EmbeddingModel:
        """Embedding network as a function from images (B, C, *spatial) to level maps."""
        return EmbeddingModel(self.network, self.device, self.inferer.levels)

    @property
    def digest(self) -> str:
        """Digest of weights, templates, settings and spacing, stored in calibrations, which hold for these alone."""
        templates = self._fitted()
        spacing = [f"{step:.3g}" for step in working_spacing(templates[0].image)]
        parts = (self.weights_digest, templates_digest(templates), self.inferer.matcher.settings, spacing)
        return value_digest(*parts)

    @property
    def files(self) -> list[str]:
        """Files of the templates; names of those in memory."""
        return [str(template.path) for template in self._fitted()]

    @own_errors()
    def fit(
        self,
        images: SingleImage | Sequence[SingleImage],
        landmarks: Marks | Sequence[Marks],
        *,
        spacing_mm: SpacingMM | None = None,
        manifest: AnyPath | Manifest | None = None,
    ) -> "Matcher":
        """Set one or several annotated images as templates, discarding anything learnt before.

        Args:
            images: The annotated image, or a list of several. An image is a path; an item of a datalist, with ``image``
                and ``spacing_mm``; or an array in memory, (*spatial) or (1, *spatial), or a ``MetaTensor`` with an
                affine in RAS+. The path of a folder or of a manifest stands for its images that have landmarks.
            landmarks: Landmark file, or folder of such files, which may hold the landmarks of all templates. For one
                template also a :class:`LandmarkSet`, the :class:`Landmarks` of an earlier run, or a mapping of names to
                positions. Positions are voxel indices of the image as its file holds it, in array order (row, column)
                or (i, j, k), counted from 0 at the centre of the first voxel; NaN is a missing landmark. A list of
                these for several images.
            spacing_mm: Voxel size in mm of arrays along their axes, or of images whose file does not state it.
            manifest: Manifest, file or object, that gives the pixel size of images whose file does not state it; an
                image is found in it by its path.

        Returns:
            The matcher itself.

        Raises:
            ValueError: If an image or its landmarks are bad, or a template has no landmark with a position.
        """
        given = given_templates(images, landmarks, spacing_mm=spacing_mm, manifest=manifest)
        with own_errors():
            self.take_spacing(given[0][0])
            self.templates = [AnnotatedImage(item, points, self.preprocessing) for item, points in given]
        fit_to(self.inferer.matcher, self.templates, self.names, self.model, self.network.strides)
        self.unlabelled, self.population = None, None
        self.template_warnings = None
        return self

    def prepare(self, item: Mapping[str, Any]) -> Any:
        """Load and prepare the image of an item; for configurations, which name this before there is a template."""
        return self.preprocessing(dict(item))

    def take_spacing(self, item: Mapping[str, Any], *, of_network: bool = False) -> None:
        """Bring all images to the spacing that suits one of them, where the bundle leaves the spacing open.

        Args:
            item: Item of that image.
            of_network: Whether to take the spacing at which the network sees the images, if the landmarks are refined
                at a finer one.
        """
        self.configured = self.preprocessing if self.configured is None else self.configured
        if open_spacing(self.configured):
            side = self.inferer.matcher.coarse_side if of_network else None
            self.preprocessing = with_spacing_of(item, self.configured, side)

    def learn(
        self, images: AnyPath, *, limit: int | None = 50, seed: int = 0, spacing_mm: SpacingMM | None = None
    ) -> "Matcher":
        """Learn the landmarks' appearance from unlabelled images, at the start of the next :meth:`match`.

        Args:
            images: Folder or manifest of images, or the file of a population learnt before
                (:meth:`write_population`). Templates are left out.
            limit: Maximum number of images, drawn at random; None takes all.
            seed: Random seed for drawing the images.
            spacing_mm: Pixel size in mm of images whose file does not state it.

        Returns:
            The matcher itself.

        Raises:
            ValueError: If no image is left, or the file does not fit the weights and the landmarks.
        """
        unlabelled = UnlabelledImages(
            str(checked_path(images, "the folder of unlabelled images")),
            limit=limit,
            spacing_mm=spacing_mm,
            exclude=self.files,
            spatial_dims=self.spatial_dims,
            seed=seed,
        )
        unlabelled.check(self.names)
        self.unlabelled, self.population = unlabelled, None
        return self

    def write_population(self, path: AnyPath) -> None:
        """Write what was learnt from unlabelled images, for :meth:`learn`; the file holds no image data.

        Raises:
            ValueError: If nothing was learnt.
        """
        if self.population is None:
            raise ValueError("this matcher has learnt from no unlabelled images; call learn, then match")
        file = checked_path(path, "the file of the population")
        write_population(file, self.population, self.names, self.network)

    def match(
        self,
        images: Searchable,
        *,
        spacing_mm: SpacingMM | None = None,
        reference: AnyPath | None = None,
        calibration: AnyPath | None = None,
        second: LandmarkFinder | None = None,
        corrections: AnyPath | None = None,
        habit: AnyPath | None = None,
        output: Output | None = None,
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> Results:
        """Find the templates' landmarks in images.

        Args:
            images: A file, a folder, a manifest (file or object), a list of paths; or images in memory: an array,
                (*spatial) or (1, *spatial), a ``MetaTensor`` with an affine in RAS+, a list of these, or a mapping of
                names to them. Templates are left out of folders and manifests.
            spacing_mm: Voxel size in mm of arrays along their axes, or of images whose file does not state it.
            reference: Landmark file with true positions, to measure the error.
            calibration: File from ``medpixcl calibrate``; adds an error radius to each landmark.
            second: Another finder of the same landmarks: a :class:`medpixcl.Detector` from ``medpixcl selftrain``, or a
                :class:`medpixcl.apps.Registration` fitted to the same templates. The mean of both positions is taken,
                and a landmark at which they differ is unsure (:mod:`medpixcl.apps.agreement`).
            corrections: Landmark file or folder in which a reader corrected some of the images; the reader's offset of
                each landmark is learnt from them and applied to all other images, see :attr:`Results.reading`.
            habit: File ``habit.json`` of an earlier run with corrections, to apply the offsets of that reader.
            output: Folder to draw overlays into during the run; otherwise :meth:`Results.write` reads the images again.
            workers: Number of processes to start on this machine that search, by Dask; None searches in this process.
            scheduler: Address of a Dask scheduler whose workers search, such as ``tcp://10.0.0.1:8786``.

        Returns:
            The landmarks of each image.

        Raises:
            ValueError: If no template was given, or the input is bad; one sentence that names the file.
            ModuleNotFoundError: If workers are asked for and Dask is not installed.
            OSError: If the scheduler does not answer, or is lost.
        """
        return self.run(
            images,
            spacing_mm=spacing_mm,
            exclude=self.files,
            reference=reference,
            calibration=calibration,
            second=second,
            corrections=corrections,
            habit=habit,
            output=output,
            workers=workers,
            scheduler=scheduler,
        )

    def start(self, images: Images, **choices: Any) -> Results:
        """Start as :meth:`LandmarkFinder.start` does; add the templates and the learnt population."""
        results = super().start(images, **choices)
        if self.template_warnings is None:
            self.template_warnings = mark_warnings(self.inferer.matcher, self._fitted(), self.names)
        results.templates, results.template_warnings = self.templates, self.template_warnings
        if self.unlabelled is not None:
            if self.population is None:
                matcher: LandmarkMatcher = self.inferer.matcher
                self.population = self.unlabelled.adapt(matcher, self.network, self.preprocessing, self.names)
            if self.population is not None:
                results.facts |= self.unlabelled.facts(self.population, images)
                results.further["population.pt"] = partial(
                    write_population, population=self.population, names=self.names, network=self.network
                )
        return results

    def made_from(self, results: Results) -> dict[str, str]:
        """Digests as of any finder, and of the unlabelled images."""
        learnt = "" if self.unlabelled is None else self.unlabelled.digest()
        return super().made_from(results) | {"unlabelled images": learnt}

    def search_again(self, results: Results, place: SearchPlace, step: str) -> Results:
        """Match the other images once more, with the images that a reader corrected as further templates."""
        read = [one for one in results.landmarks if one.image in results.corrected]
        others = [one for one in results.landmarks if one.image not in results.corrected]
        if not read or not others:
            return results
        items = [results.images.entry(one.source) for one in read]
        given = [AnnotatedImage(*pair, self.preprocessing) for pair in zip(items, map(_read_points, read), strict=True)]
        more = copy.copy(self)
        more.inferer = copy.copy(self.inferer)
        more.inferer.matcher = copy.copy(self.inferer.matcher)
        fit_to(more.inferer.matcher, [*self.templates, *given], self.names, self.model, self.network.strides)
        if self.population is not None:
            more.inferer.matcher.adapt(self.population)
        fresh = replace(results, landmarks=[])
        search(more, fresh, [results.images.entry(one.source) for one in others], place, step=step)
        found = {one.source: one for one in fresh.landmarks}
        facts = results.facts | {"templates": f"{len(self.templates)} given, and {len(read)} that the reader corrected"}
        landmarks = [found.get(one.source, one) for one in results.landmarks]
        return replace(results, landmarks=landmarks, facts=facts, matched_again=True)

    def flags(self, prediction: Prediction, number: int) -> tuple[str, ...]:
        """Flags of the landmarks, see :class:`medpixcl.matching.MatchResult`."""
        return tuple(prediction["flags"][number])

    def _fitted(self) -> Sequence[AnnotatedImage]:
        if not self.templates:
            raise ValueError("the matcher has no template; call fit with an annotated image first")
        return self.templates


class TemplateFitting:
    """Handler that gives a matcher its templates when an evaluator starts, after its weights were loaded.

    Args:
        finder: Matcher to fit.
        templates: Items of the annotated images, see :func:`medpixcl.data.template_items`.
        landmarks: Landmark file of these images, or a folder of landmark files.
        pixel_mm: Pixel size in mm of images whose file does not state it.
        unlabelled: Folder or manifest of images to learn from, or a ``population.pt``; None learns nothing.
        unlabelled_limit: Maximum number of images to learn from; None takes all.
        population: File to write the learnt population into.
        images: Images to search, whose manifest may give the pixel size of the templates, too.
    """

    def __init__(
        self,
        finder: Matcher,
        templates: Sequence[Mapping[str, Any]],
        landmarks: str,
        pixel_mm: SpacingMM | None = None,
        unlabelled: str | None = None,
        unlabelled_limit: int | None = 50,
        population: str | None = None,
        images: ImageList | None = None,
    ) -> None:
        self.images = images
        self.finder, self.templates, self.landmarks, self.pixel_mm = finder, list(templates), landmarks, pixel_mm
        self.unlabelled, self.unlabelled_limit, self.population = unlabelled, unlabelled_limit, population

    def attach(self, engine: Engine) -> None:
        """Fit the matcher at the start, and write the population at the end."""
        engine.add_event_handler(Events.STARTED, self)
        engine.add_event_handler(Events.COMPLETED, self.write)

    def __call__(self, engine: Engine) -> None:
        """Read the templates, fit the matcher and find the unlabelled images, if any."""
        manifest = None if self.images is None else self.images.manifest
        self.finder.fit(self.templates, self.landmarks, spacing_mm=self.pixel_mm, manifest=manifest)
        if self.unlabelled is not None:
            self.finder.learn(self.unlabelled, limit=self.unlabelled_limit, spacing_mm=self.pixel_mm)

    def write(self, engine: Engine) -> None:
        """Write what was learnt from unlabelled images."""
        if self.unlabelled is not None and self.population is not None:
            self.finder.write_population(self.population)


def _read_points(one: Landmarks) -> LandmarkSet:
    """Landmarks of an image that a reader placed; the others are missing."""
    mine = torch.tensor([flag == CORRECTED for flag in one.flags])
    return LandmarkSet(one.names, one.voxels.masked_fill(~mine[:, None], torch.nan))
