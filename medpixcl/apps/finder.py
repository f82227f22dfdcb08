"""Shared base of matching and detection: load a bundle, loop over images, collect landmarks."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar

import torch
from monai.data import MetaTensor, decollate_batch, list_data_collate
from monai.engines import PrepareBatch, PrepareBatchDefault
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn

import medpixcl
from medpixcl._typing import AnyPath
from medpixcl.apps.agreement import mean_of_both, require_fitting
from medpixcl.apps.bundles import own_errors
from medpixcl.apps.corrections import Corrections, reader_of, require_apart
from medpixcl.apps.digests import annotated_digest, path_digest, value_digest
from medpixcl.apps.habit_file import found_by
from medpixcl.apps.habits import KnownHabit, mean_moves, stretch_regions
from medpixcl.apps.images import Images
from medpixcl.apps.loaded_images import Searchable, image_list
from medpixcl.apps.output import Output
from medpixcl.apps.radii import Radii, with_radii
from medpixcl.apps.results import Landmarks, Results, lps_axes, named
from medpixcl.apps.run_folder import Run
from medpixcl.apps.search import SearchPlace, search
from medpixcl.coordinates import original_voxels
from medpixcl.data.dask_cluster import dask_cluster
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import SECTIONS
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.networks.weights import weights_digest

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
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> Results:
        """Find the landmarks in all images, one image in memory at a time.

        Then take the mean with a second finder, if any, and move the landmarks by a reading habit, if any.

        Raises:
            ValueError: If the input is bad; one sentence that names the file.
            ModuleNotFoundError: If workers are asked for and Dask is not installed.
            OSError: If the scheduler does not answer, or is lost.
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
        with ExitStack() as stack:
            cluster = stack.enter_context(dask_cluster(scheduler, workers))
            place = SearchPlace(cluster=cluster)
            if output is not None:
                in_parts = output.found_in_parts(results)
                folder = stack.enter_context(output.opened(results))
                folder.lines.add_found(in_parts)
                place = SearchPlace(folder, cluster, part=output.part_id is not None)
            results = self.found(results, place, output, second, other, reader)
        results.measure()
        return results

    def found(
        self,
        results: Results,
        place: SearchPlace,
        output: Output | None,
        second: "LandmarkFinder | None",
        other: Results | None,
        reader: Corrections | KnownHabit | None,
    ) -> Results:
        """Fill the results of a run.

        Args:
            results: Empty results.
            place: Where to search, and what keeps what is found.
            output: Settings of the folder.
            second: Another finder, with which the mean is taken.
            other: Its empty results.
            reader: What a reader taught.
        """
        items = results.images.datalist if output is None else output.share(results.images.datalist)
        later = place.cluster is not None or reader is not None or second is not None
        at_once = output is not None and output.num_parts is None and not later
        search(self, results, items, place, output=output if at_once else None)
        if second is not None and other is not None:
            search(second, other, items, place, step="second")
        if place.part:
            return results
        if reader is not None:
            seen = results if other is None else mean_of_both(results, other)
            read, results.notes = reader.read(seen), seen.notes
            results = self.improved(results, reader, read, place)
            if second is not None and other is not None:
                reader.check(other, second.origin(other))
                other = second.improved(other, reader, read, place, step="second again")
        if other is not None:
            results = mean_of_both(results, other)
        if output is not None and place.folder is not None and not at_once:
            output.draw_all(results, place.folder)
        return results

    def origin(self, results: Results) -> dict[str, str]:
        """What finds the landmarks, see :func:`medpixcl.apps.habit_file.found_by`."""
        return found_by(self.title, self.facts, self.weights_digest, results.templates)

    def improved(
        self,
        results: Results,
        reader: Corrections | KnownHabit,
        read: Mapping[str, Tensor],
        place: SearchPlace,
        *,
        step: str = "again",
    ) -> Results:
        """Results after what a reader taught.

        Args:
            results: Landmarks as this finder found them.
            reader: The corrections of this run, or the habit of an earlier one.
            read: Positions that the reader gave, see :meth:`Corrections.read`.
            place: Where to search, and what keeps what is found.
            step: Name of the search among those of the run.
        """
        found = {one.source: one.mm for one in results.landmarks}
        reader.apply(results, read, self.origin(results))
        results = self.search_again(results, place, step)
        stretch_regions(results)
        results.moved_mm = None if results.reading is None else mean_moves(results, found)
        return results

    def search_again(self, results: Results, place: SearchPlace, step: str) -> Results:
        """Find the landmarks anew with what a reader corrected; here they stay as they are."""
        return results

    def __call__(self, image: Searchable, spacing_mm: SpacingMM | None = None) -> Landmarks:
        """Find the landmarks in one image.

        With its templates a finder can be pickled, so that other processes call it, by any engine.

        Args:
            image: A path, a folder of DICOM slices, an array, (*spatial) or (1, *spatial), or a ``MetaTensor``.
            spacing_mm: Voxel size in mm of an array along its axes, or of an image whose file does not state it.

        Raises:
            ValueError: If the image cannot be searched, or there are several.
        """
        listed = image_list(image, spacing_mm=spacing_mm, spatial_dims=self.spatial_dims)
        listed.check()
        if len(listed.datalist) != 1:
            raise ValueError(
                f"there are {len(listed.datalist)} images, and a call searches one; for several, call {self.command}"
            )
        return named(self.look(listed.datalist[0], Radii(None, self.names))[0], listed)

    def look(self, item: Mapping[str, Any], radii: Radii) -> tuple[Landmarks, MetaTensor]:
        """Find the landmarks in the image of an item.

        Args:
            item: Item of an image, see :attr:`medpixcl.apps.images.Images.datalist`.
            radii: Error radii of the landmarks.

        Returns:
            The landmarks, and the prepared image (1, *spatial).

        Raises:
            ValueError, RuntimeError, OSError: If the image cannot be read or searched.
        """
        self.network.eval()
        with own_errors():
            batch = list_data_collate([self.preprocessing(dict(item))])
            prediction = self.find(batch)
        image = decollate_batch(batch["image"])[0]
        return self._landmarks(image, prediction, 0, radii), image

    @torch.no_grad()
    def find(self, batch: Mapping[str, Any]) -> Prediction:
        """Prediction for a batch of prepared items."""
        inputs, _, args, kwargs = (*self.prepare_batch(batch, self.device), (), {})[:4]
        return self.inferer(inputs, self.network, *args, **kwargs)

    def collect(self, results: Results, images: MetaTensor, prediction: Prediction, output: Output) -> None:
        """Add the landmarks of a batch of prepared images to the results, and draw them."""
        for number, image in enumerate(decollate_batch(images)):
            output.draw(results, results.add(self._landmarks(image, prediction, number, results.radii)), image)

    def _landmarks(self, image: MetaTensor, prediction: Prediction, number: int, radii: Radii) -> Landmarks:
        """Landmarks of one prepared image (1, *spatial), the image ``number`` of its batch."""
        source, flags = str(image.meta["filename_or_obj"]), self.flags(prediction, number)
        voxels, scores, spread = (prediction[key][number].cpu() for key in ("points", "confidence", "covariance_mm2"))
        to_lps, around = lps_axes(image), radii.of(flags)
        found = Landmarks(
            image=Path(source).name,
            points=LandmarkSet(self.names, original_voxels(voxels, image), scores, flags),
            affine=torch.as_tensor(image.meta["original_affine"], dtype=torch.float64),
            shape=tuple(int(size) for size in image.meta["spatial_shape"]),
            extras=with_radii([{} for _ in self.names], around),
            source=source,
            covariance_mm2=to_lps @ spread.double() @ to_lps.T,
            radii_mm=around,
        )
        return self.judge(found)
