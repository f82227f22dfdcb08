"""Landmark detection: a trained network finds its landmarks in images."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import nn

from medpixcl._typing import AnyPath
from medpixcl.apps.bundles import check_config
from medpixcl.apps.default_bundles import SELFTRAINING, bundle_for
from medpixcl.apps.finder import LandmarkFinder, Prediction
from medpixcl.apps.images import Images, dims_of
from medpixcl.apps.loaded_images import Searchable
from medpixcl.apps.output import Output
from medpixcl.apps.read_finder import read_finder
from medpixcl.apps.results import Landmarks, Results
from medpixcl.data.manifest import SECTIONS
from medpixcl.data.paths import checked_path, checked_paths
from medpixcl.data.pixels import SpacingMM
from medpixcl.landmarks.points import outside_image
from medpixcl.matching import ShapeStatistics
from medpixcl.training.config_data import as_data
from medpixcl.training.settings_file import read_settings

SETTINGS_FILE = "inference.json"
"""File next to a detector's weights, written by the training, with landmark names and network settings."""


def detection_bundle(images: AnyPath | Sequence[AnyPath], weights: AnyPath | None = None) -> str:
    """Name of the self-training bundle that fits weights, by the settings beside them, or else images.

    Args:
        images: Images, folders or a manifest; the first image whose size is known decides between 2D and 3D.
        weights: Weights of a training; None for those of the bundle.
    """
    return bundle_for(SELFTRAINING, _settings_beside(weights).get("spatial_dims") or dims_of(images))


def _settings_beside(weights: AnyPath | None) -> dict[str, Any]:
    """Settings that a training wrote beside its weights; none without weights."""
    if weights is None:
        return {}
    file = checked_path(weights, "the file of weights").parent / SETTINGS_FILE
    # The bundle's shape is that of its own weights; settings of earlier versions have none.
    return {"shape": None} | (read_settings(file) if file.exists() else {})


class Detector(LandmarkFinder):
    """Finds landmarks with a trained landmark network. Make one with :meth:`from_bundle`, then :meth:`detect`.

    Args:
        network: Landmark network that the inferer runs.
        inferer: Finds the landmarks, such as :class:`medpixcl.networks.LandmarkInferer`.
        preprocessing: Transforms from an item with ``image`` (a path or a MetaTensor) to the prepared image.
        landmark_names: Names of the landmarks, in the network's order.
        spatial_dims: Number of spatial dimensions; images of any other dimension are rejected.
        sections: Sections of a manifest whose images are searched.
        prepare_batch: Function from a batch of items to the inferer's arguments; the image alone by default.
        output: Default output settings of the results.
        trained_on: Facts on the training for the metrics: number of ``images`` and name of the ``start`` weights.
        min_confidence: Confidence below which a landmark is flagged as unsure.
        max_spread_mm: Spread between views, in mm, above which a landmark is flagged as unsure.
        shape: Shape of the training landmarks as the training writes it
            (:class:`medpixcl.matching.ShapeStatistics`), by which landmarks that contradict the others are flagged as
            unsure; one of other landmarks is not used. None judges by confidence and spread alone.

    Example:
        >>> detector = Detector.from_bundle("cephalometric_landmark_detection")  # doctest: +SKIP
        >>> detector.detect("images", spacing_mm=0.1).write("found")  # doctest: +SKIP
    """

    title = "Landmark detection"
    command = "detect"

    def __init__(
        self,
        network: nn.Module,
        inferer: Inferer,
        preprocessing: Compose,
        landmark_names: Sequence[str],
        *,
        spatial_dims: int | None = None,
        sections: Sequence[str] = SECTIONS,
        prepare_batch: PrepareBatch | None = None,
        output: Output | None = None,
        trained_on: Mapping[str, Any] | None = None,
        min_confidence: float = 0.2,
        max_spread_mm: float = 4.0,
        shape: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            network,
            inferer,
            preprocessing,
            spatial_dims=spatial_dims,
            sections=sections,
            prepare_batch=prepare_batch,
            output=output,
        )
        self.landmark_names, self.trained_on = tuple(landmark_names), trained_on
        self.min_confidence, self.max_spread_mm = min_confidence, max_spread_mm
        known = None if shape is None else ShapeStatistics.from_data(shape)
        self.shape = known if known is not None and known.names == self.landmark_names else None

    @classmethod
    def from_bundle(
        cls,
        bundle: AnyPath | None = None,
        *,
        weights: AnyPath | None = None,
        device: str | torch.device = "auto",
        config: AnyPath | Sequence[AnyPath] = (),
        settings: Mapping[str, Any] | None = None,
        trust: bool = False,
    ) -> "Detector":
        """Take network, weights, preprocessing and inferer from a detection bundle.

        Args:
            bundle: Name or folder of the bundle; by default ``xray_landmark_selftraining``, or
                ``volume_landmark_selftraining`` for weights that were trained on volumes.
            weights: Weights of a training; the bundle's own by default. An ``inference.json`` next to them, written by
                the training, gives the landmark names, the settings of the network and the shape of the landmarks; it
                is read as plain data.
            device: Device such as ``"cuda:1"``; ``"auto"`` leaves the choice to the bundle, which takes a GPU if there
                is one.
            config: A config file merged over the bundle's, such as its ``inference_refine.json``, or a list of several;
                they may be programs.
            settings: Values by id of the bundle's ``inference.json``, all of them plain data.
            trust: Accept a bundle and config files from any folder; they are programs of their authors.

        Raises:
            BundleError: If there is no such bundle, or it has no such setting.
            ValueError: If the weights do not fit, or the device does not work.
        """
        written = _settings_beside(weights)
        files = checked_paths(config, "a config file")
        for file in files:
            check_config(file, trust=trust)
        return read_finder(
            cls,
            bundle,
            default=bundle_for(SELFTRAINING, written.get("spatial_dims")),
            weights=weights,
            device=device,
            settings=settings,
            trust=trust,
            configs=[as_data(written), *files],
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the landmarks, in the network's order."""
        return self.landmark_names

    def detect(
        self,
        images: Searchable,
        *,
        spacing_mm: SpacingMM | None = None,
        reference: AnyPath | None = None,
        corrections: AnyPath | None = None,
        habit: AnyPath | None = None,
        output: Output | None = None,
        workers: int | None = None,
        scheduler: str | None = None,
    ) -> Results:
        """Find the landmarks in images.

        Args:
            images: A file, a folder, a manifest (file or object), a list of paths; or images in memory: an array,
                (*spatial) or (1, *spatial), a ``MetaTensor`` with an affine in RAS+, a list of these, or a mapping of
                names to them.
            spacing_mm: Voxel size in mm of arrays along their axes, or of images whose file does not state it.
            reference: Landmark file with true positions, to measure the error.
            corrections: Landmark file or folder in which a reader corrected some of the images; the reader's offset of
                each landmark is learnt from them and applied to all other images, see :attr:`Results.reading`.
            habit: File ``habit.json`` of an earlier run with corrections, to apply the offsets of that reader.
            output: Folder to draw overlays into during the run; otherwise :meth:`Results.write` reads the images again.
            workers: Number of processes to start on this machine that search, by Dask; None searches in this process.
            scheduler: Address of a Dask scheduler whose workers search, such as ``tcp://10.0.0.1:8786``.

        Returns:
            The landmarks of each image.

        Raises:
            ValueError: If the input is bad; one sentence that names the file.
            ModuleNotFoundError: If workers are asked for and Dask is not installed.
            OSError: If the scheduler does not answer, or is lost.
        """
        return self.run(
            images,
            spacing_mm=spacing_mm,
            reference=reference,
            corrections=corrections,
            habit=habit,
            output=output,
            workers=workers,
            scheduler=scheduler,
        )

    def start(self, images: Images, **choices: Any) -> Results:
        """Start as :meth:`LandmarkFinder.start` does; add the facts on the training."""
        results = super().start(images, **choices)
        results.trained_on = self.trained_on
        return results

    @property
    def digest(self) -> str:
        """Digest of the weights, and of the shape of the landmarks if there is one."""
        if self.shape is None:
            return super().digest
        return hashlib.sha256(f"{super().digest} {self.shape.to_data()}".encode()).hexdigest()

    def flags(self, prediction: Prediction, number: int) -> tuple[str, ...]:
        """``"unsure"`` for landmarks of low confidence or large spread between views, else empty."""
        confidence, spread = (prediction[key][number].cpu() for key in ("confidence", "spread_mm"))
        doubtful = (confidence < self.min_confidence) | ~(spread <= self.max_spread_mm)
        return tuple("unsure" if doubt else "" for doubt in doubtful.tolist())

    def judge(self, one: Landmarks) -> Landmarks:
        """Drop positions outside the image, flag landmarks that contradict the shape of the others, add the regions."""
        outside = outside_image(one.voxels, one.shape)
        one = replace(one, points=replace(one.points, voxels=one.voxels.masked_fill(outside[:, None], torch.nan)))
        doubtful = torch.zeros_like(outside)
        if self.shape is not None:
            judged = self.shape.judge(one.mm)
            one, doubtful = replace(one, deviations=judged.deviations), ~judged.fits
        one = one.with_flags(doubtful.tolist())
        return super().judge(replace(one, misfit=2 * sum(flag != "" for flag in one.flags) > len(one.flags)))
