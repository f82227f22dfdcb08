"""Shared base of matching and detection: load a bundle, loop over images, collect landmarks."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.engines import PrepareBatch, PrepareBatchDefault
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn

import medpixcl
from medpixcl._typing import AnyPath
from medpixcl.apps.agreement import mean_of_both, require_fitting
from medpixcl.apps.bundle_search import find_bundle
from medpixcl.apps.bundles import checked_device, own_errors, read_bundle, refuse_arguments, why_not_made_for
from medpixcl.apps.corrections import Corrections, reader_of, require_apart
from medpixcl.apps.digests import annotated_digest, path_digest, value_digest
from medpixcl.apps.habit_file import found_by
from medpixcl.apps.habits import KnownHabit, mean_moves, stretch_regions
from medpixcl.apps.images import Images, source_of
from medpixcl.apps.kept_landmarks import Kept
from medpixcl.apps.loaded_images import Searchable, image_list
from medpixcl.apps.output import Output
from medpixcl.apps.progress import progress
from medpixcl.apps.radii import Radii, with_radii
from medpixcl.apps.results import Landmarks, Results, lps_axes
from medpixcl.apps.run_folder import Run, RunFolder
from medpixcl.coordinates import original_voxels
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import SECTIONS
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.networks.weights import load_weights, weights_digest

TYPED = {"template", "landmarks", "images", "calibration", "reference", "unlabelled", "unlabelled_limit", "pixel_mm"}
"""Config ids for which calls have an argument, so that a setting would have no effect."""
PLACES = {"bundle_root", "weights", "device"}
"""Config ids that say where a run takes place; its results depend on the content of the weights alone."""
Prediction = Mapping[str, Any]
"""Output of an inferer for a batch: ``points`` (B, K, D), ``confidence`` (B, K), ``covariance_mm2`` (B, K, D, D)."""


class LandmarkFinder(ABC):
    """Finds landmarks in images with a network.

    Args:
        network: Network that the inferer runs; it is put into evaluation mode.
        inferer: Function from a batch of prepared images and the network to a :data:`Prediction`.
        preprocessing: Transforms from an item with ``image`` (a path or a MetaTensor) to the prepared image.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.
        sections: Sections of a manifest whose images are searched.
        prepare_batch: Function from a batch of items to the inferer's arguments; the image alone by default.
        output: Default output settings of the results.
    """

    title: ClassVar[str]
    command: ClassVar[str]
    settings_digest: str = ""

    def __init__(
        self,
        network: nn.Module,
        inferer: Inferer,
        preprocessing: Compose,
        *,
        spatial_dims: int | None = None,
        sections: Sequence[str] = SECTIONS,
        prepare_batch: PrepareBatch | None = None,
        output: Output | None = None,
    ) -> None:
        self.network, self.inferer, self.preprocessing = network, inferer, preprocessing
        self.spatial_dims, self.sections = spatial_dims, tuple(sections)
        self.prepare_batch = PrepareBatchDefault() if prepare_batch is None else prepare_batch
        self.output = Output() if output is None else output
        self.facts: dict[str, str] = {}

    @property
    @abstractmethod
    def names(self) -> tuple[str, ...]:
        """Names of the landmarks to find."""

    @abstractmethod
    def flags(self, prediction: Prediction, number: int) -> tuple[str, ...]:
        """Word for each landmark of one image of a batch, empty where all is well."""

    def judge(self, one: Landmarks) -> Landmarks:
        """Add the confidence regions to the landmarks of one image, and flag those whose region is too large."""
        return one if self.output.regions is None else self.output.regions.judge(one)

    @property
    def weights_digest(self) -> str:
        """Digest of the weights."""
        fine = getattr(self.inferer, "fine", None)
        return weights_digest(self.network, *([fine] if isinstance(fine, nn.Module) else []))

    @property
    def digest(self) -> str:
        """Digest of all that finds the landmarks, stored in calibrations, which hold for it alone."""
        return self.weights_digest

    @property
    def device(self) -> torch.device:
        """Device of the network."""
        return next(self.network.parameters()).device

    def start(
        self,
        images: Images,
        *,
        reference: AnyPath | None = None,
        calibration: AnyPath | None = None,
        spacing_mm: SpacingMM | None = None,
        output: Output | None = None,
        more: Mapping[str, str] | None = None,
    ) -> Results:
        """Check the input and return the empty results of a new run.

        Args:
            images: Images to search.
            reference: Landmark file with true positions.
            calibration: File of error radii.
            spacing_mm: Pixel size in mm of true positions in pixels whose file does not state it.
            output: Folder of the results.
            more: Digests of further input, by what it is.

        Raises:
            ValueError: If the input is bad; one sentence that names the file.
        """
        if not isinstance(output, Output | None):
            raise ValueError(
                f"output is {output!r}; give what output.into(folder) of this {type(self).__name__} returns"
            )
        file = None if calibration is None else checked_path(calibration, "the calibration")
        radii = Radii(None, self.names) if file is None else Radii(str(file), self.names, self.digest)
        size = spacing_mm if isinstance(spacing_mm, int | float) else None
        true = None if reference is None else read_landmarks(reference).positions_mm(size)
        results = Results(
            title=self.title,
            names=self.names,
            images=images,
            preprocessing=self.preprocessing,
            output=self.output,
            facts=dict(self.facts),
            reference=true,
            radii=radii,
            digest=self.digest if self.output.regions is not None else "",
        )
        results.run = Run(self.command, lambda: self.made_from(results) | dict(more or {}))
        if output is None:
            images.check()
        else:
            output.check(results)
        return results

    def made_from(self, results: Results) -> dict[str, str]:
        """Digests of all that decides the landmarks of a run, by what they are; empty for what there is not.

        Args:
            results: Results of the run, still empty.
        """
        return {
            "weights": self.weights_digest,
            "settings": self.settings_digest,
            "templates": annotated_digest(results.templates),
            "images": results.images.digest(),
            "reference": "" if results.reference is None else value_digest(results.reference),
            "calibration": path_digest(results.radii.path),
            "version of medpixcl": medpixcl.__version__,
            "version of torch": torch.__version__,
        }

    @own_errors()
    def run(
        self,
        images: Searchable,
        *,
        spacing_mm: SpacingMM | None = None,
        exclude: Sequence[str] = (),
        reference: AnyPath | None = None,
        calibration: AnyPath | None = None,
        second: "LandmarkFinder | None" = None,
        corrections: AnyPath | None = None,
        habit: AnyPath | None = None,
        output: Output | None = None,
    ) -> Results:
        """Find the landmarks in all images, one image in memory at a time.

        Then take the mean with a second finder, if any, and move the landmarks by a reading habit, if any.

        Raises:
            ValueError: If the input is bad; one sentence that names the file.
        """
        reader = reader_of(corrections, habit)
        if corrections is not None and output is not None:
            require_apart(checked_path(corrections, "the corrections"), output.folder)
        if second is not None:
            require_fitting(self.names, second.names, calibration)
        listed = image_list(
            images, spacing_mm=spacing_mm, exclude=exclude, spatial_dims=self.spatial_dims, sections=self.sections
        )
        given = {"corrections": path_digest(corrections), "habit": path_digest(habit)}
        results = self.start(
            listed, reference=reference, calibration=calibration, spacing_mm=spacing_mm, output=output, more=given
        )
        if reader is not None:
            reader.check(results, self.origin(results))
        other = None if second is None else second.start(listed)
        if second is not None and other is not None:
            given["second way"] = value_digest(second.made_from(other))
        with nullcontext() if output is None else output.opened(results) as folder:
            results = self.found(results, folder, output, second, other, reader)
        results.measure()
        return results

    def found(
        self,
        results: Results,
        folder: RunFolder | None,
        output: Output | None,
        second: "LandmarkFinder | None",
        other: Results | None,
        reader: Corrections | KnownHabit | None,
    ) -> Results:
        """Fill the results of a run.

        Args:
            results: Empty results.
            folder: Folder of the run, which keeps what is found; None keeps nothing.
            output: Settings of the folder.
            second: Another finder, with which the mean is taken.
            other: Its empty results.
            reader: What a reader taught.
        """
        at_once = reader is None and second is None
        self.search(results, results.images.datalist, output if at_once else None, folder)
        if second is not None and other is not None:
            second.search(other, other.images.datalist, None, folder, step="second")
        if reader is not None:
            seen = results if other is None else mean_of_both(results, other)
            read, results.notes = reader.read(seen), seen.notes
            results = self.improved(results, reader, read, folder)
            if second is not None and other is not None:
                reader.check(other, second.origin(other))
                other = second.improved(other, reader, read, folder, step="second again")
        if other is not None:
            results = mean_of_both(results, other)
        if output is not None and folder is not None and not at_once:
            output.draw_all(results, folder)
        return results

    def search(
        self,
        results: Results,
        items: Sequence[Mapping[str, Any]],
        output: Output | None = None,
        folder: RunFolder | None = None,
        *,
        step: str = "first",
    ) -> None:
        """Find the landmarks in some images and add them to the results, one image in memory at a time.

        An image that cannot be prepared or searched is listed among the rejected ones, and the others are searched.

        Args:
            results: Results to extend.
            items: Items of the images, see :attr:`Images.datalist`.
            output: Folder to draw overlays into; None draws nothing.
            folder: Folder of the run, which keeps every image's landmarks, and from which those are taken that an
                interrupted run found; None keeps nothing.
            step: Name of this search among those of the run.

        Raises:
            ValueError: If none of the images can be searched; the error of the first one.
        """
        self.network.eval()
        kept = Kept(folder, step, results.images)
        known = {source: one for source in map(_source, items) if (one := kept.landmarks(source)) is not None}
        failed: list[Exception] = []
        for item in progress([one for one in items if _source(one) not in known], self.title, "image"):
            try:
                with own_errors():
                    batch = list_data_collate([self.preprocessing(dict(item))])
                    prediction = self.find(batch)
            except (ValueError, RuntimeError, OSError) as error:
                results.images.leave_out(_source(item), error)
                failed.append(error)
            else:
                self.collect(results, batch["image"], prediction, output, kept)
        if failed and len(failed) == len(items):
            raise failed[0]
        if known:
            found = known | {one.source: one for one in results.landmarks}
            results.landmarks = [found[source] for source in map(_source, items) if source in found]

    def origin(self, results: Results) -> dict[str, str]:
        """What finds the landmarks, see :func:`medpixcl.apps.habit_file.found_by`."""
        return found_by(self.title, self.facts, self.weights_digest, results.templates)

    def improved(
        self,
        results: Results,
        reader: Corrections | KnownHabit,
        read: Mapping[str, Tensor],
        folder: RunFolder | None = None,
        *,
        step: str = "again",
    ) -> Results:
        """Results after what a reader taught.

        Args:
            results: Landmarks as this finder found them.
            reader: The corrections of this run, or the habit of an earlier one.
            read: Positions that the reader gave, see :meth:`Corrections.read`.
            folder: Folder of the run, which keeps what is found.
            step: Name of the search among those of the run.
        """
        found = {one.source: one.mm for one in results.landmarks}
        reader.apply(results, read, self.origin(results))
        results = self.search_again(results, folder, step)
        stretch_regions(results)
        results.moved_mm = None if results.reading is None else mean_moves(results, found)
        return results

    def search_again(self, results: Results, folder: RunFolder | None, step: str) -> Results:
        """Find the landmarks anew with what a reader corrected; here they stay as they are."""
        return results

    @torch.no_grad()
    def find(self, batch: Mapping[str, Any]) -> Prediction:
        """Prediction for a batch of prepared items."""
        inputs, _, args, kwargs = (*self.prepare_batch(batch, self.device), (), {})[:4]
        return self.inferer(inputs, self.network, *args, **kwargs)

    def collect(
        self,
        results: Results,
        images: MetaTensor,
        prediction: Prediction,
        output: Output | None,
        kept: Kept | None = None,
    ) -> None:
        """Add the landmarks of a batch of prepared images to the results; draw and keep them where asked for."""
        for number, image in enumerate(decollate_batch(images)):
            one = self.judge(self._landmarks(results, image, prediction, number))
            results.landmarks.append(one)
            if output is not None:
                output.draw(results, one, image)
            if kept is not None:
                kept.add(one)

    def _landmarks(self, results: Results, image: MetaTensor, prediction: Prediction, number: int) -> Landmarks:
        """Landmarks of one prepared image (1, *spatial), the image ``number`` of its batch."""
        source, flags = str(image.meta["filename_or_obj"]), self.flags(prediction, number)
        voxels, scores, spread = (prediction[key][number].cpu() for key in ("points", "confidence", "covariance_mm2"))
        to_lps, radii = lps_axes(image), results.radii.of(flags)
        return Landmarks(
            image=results.images.name(source),
            points=LandmarkSet(results.names, original_voxels(voxels, image), scores, flags),
            affine=torch.as_tensor(image.meta["original_affine"], dtype=torch.float64),
            shape=tuple(int(size) for size in image.meta["spatial_shape"]),
            files=results.images.files(source),
            extras=with_radii([{} for _ in results.names], radii),
            stem=results.images.stem(source),
            source=source,
            covariance_mm2=to_lps @ spread.double() @ to_lps.T,
            radii_mm=radii,
        )


def _source(item: Mapping[str, Any]) -> str:
    return source_of(item["image"])


F = TypeVar("F", bound=LandmarkFinder)


def read_finder(
    kind: type[F],
    bundle: AnyPath | None,
    *,
    default: str,
    weights: AnyPath | None,
    device: str | torch.device,
    settings: Mapping[str, Any] | None,
    trust: bool,
    configs: Sequence[Path | Mapping[str, Any]] = (),
) -> F:
    """Build the component ``finder`` of a bundle's inference configuration and load its weights.

    Args:
        kind: Class that the component must have: matcher or detector.
        bundle: Name or folder of the bundle.
        default: Name of the bundle to take if ``bundle`` is None.
        weights: Weights of the network; those that the configuration names by default.
        device: Device of the network; ``"auto"`` leaves the choice to the configuration.
        settings: Values by config id, all of them plain data.
        trust: Accept a bundle from any folder.
        configs: Config files or their content, merged over the bundle's.

    Raises:
        BundleError: If there is no such bundle, or it has no such setting.
        ValueError: If a setting has an argument of its own, or the weights do not fit.
    """
    if not isinstance(settings or {}, Mapping) or not all(isinstance(key, str) for key in settings or {}):
        raise ValueError(f"settings are {settings!r}; expected a mapping of the names of settings to values")
    given = None if weights is None else checked_path(weights, "the file of weights")
    folder, values = find_bundle(bundle, default, trust=trust), dict(settings or {})
    refuse_arguments(values, TYPED)
    if str(device) != "auto":
        values["device"] = torch.device(checked_device(str(device)))
    parser = read_bundle(folder, "inference", values, extra_configs=configs)
    with own_errors():
        finder, path = _component(parser, folder, kind, default), parser.get_parsed_content("weights")
    if given is not None:
        path = given
    if path is not None:
        load_weights(finder.network, checked_path(path, "the file of weights"))
    finder.settings_digest = _settings_digest(parser)
    finder.facts |= {"bundle": folder.resolve().name, "weights": given.name if given else "of the bundle"}
    return finder


def _settings_digest(parser: ConfigParser) -> str:
    """Digest of a configuration, without what may differ where the same is computed."""
    content = {key: value for key, value in parser.get().items() if key not in PLACES}
    return value_digest(json.dumps(content, sort_keys=True, default=str))


def _component(parser: ConfigParser, folder: Path, kind: type[F], default: str) -> F:
    """The component ``finder`` of a configuration."""
    if "finder" not in parser or not isinstance(finder := parser.get_parsed_content("finder"), kind):
        raise ValueError(why_not_made_for(folder, kind.title.lower(), default))
    return finder
