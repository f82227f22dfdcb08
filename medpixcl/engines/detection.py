"""Landmark detection by a landmark network: the inferer, the error over a validation, the handler that writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from ignite.metrics.metric import reinit__is_reduced, sync_all_reduce
from jaxtyping import Float
from monai.data import MetaTensor, decollate_batch
from monai.engines import PrepareBatch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor, nn
from torch.nn import functional as F

from medpixcl.coordinates import apply_affine
from medpixcl.data.landmark_writing import DEFAULT_FORMATS
from medpixcl.engines.few_shot import TRAINED_ON, EarlierRun, few_shot_report, read_earlier_runs
from medpixcl.engines.image_list import ImageList
from medpixcl.engines.landmark_results import METRICS_FILE, LandmarkResults
from medpixcl.engines.prepare_batch import plain_tensor
from medpixcl.engines.readers import compare_readers, read_readers, write_reader_table
from medpixcl.landmarks.heatmaps import activate_heatmaps, heatmap_covariance
from medpixcl.networks.landmark import LandmarkNet, decode_output
from medpixcl.networks.precision import Precision
from medpixcl.views import affine_view, resample, view_positions

Views = Sequence[Sequence[float | int]]
"""Rotation in degrees and scale of every view of an image."""


class LandmarkInferer(Inferer):
    """Finds landmarks in whole images, seen in some turned and scaled views.

    The network runs on every view and its output is decoded; the result is the median over the views (of two the mean).

    Args:
        network: Tells the number of landmarks and the strides; the network that runs is the one passed in the call.
        spacing_mm: Size of a voxel along each array axis.
        views: Rotation in degrees (about every axis in 3D) and scale of each view.
        radius: See :func:`medpixcl.networks.landmark.decode_output`.
        use_offsets: See there.
        bfloat16: Convolutions in bfloat16: true, false, or ``"auto"`` where the device computes them faster.
        activation: ``activation`` of the loss that the network was trained with.
        covariance_radius: Cells to either side of the peak over which the spread of a heatmap is measured.
    """

    def __init__(
        self,
        network: LandmarkNet,
        spacing_mm: Sequence[float],
        views: Views = ((0.0, 1.0),),
        radius: int = 3,
        use_offsets: bool = True,
        bfloat16: bool | str = "auto",
        activation: str = "softmax",
        covariance_radius: int = 8,
    ) -> None:
        super().__init__()
        self.definition, self.spacing_mm = network, list(spacing_mm)
        self.views, self.radius, self.use_offsets = (
            [(float(degrees), float(scale)) for degrees, scale in views],
            radius,
            use_offsets,
        )
        self.precision, self.activation, self.covariance_radius = Precision(bfloat16), activation, covariance_radius

    def __call__(self, inputs: Tensor, network: nn.Module, *args: Any, **kwargs: Any) -> dict[str, Tensor]:
        """Landmarks of images (B, C, *spatial).

        Returns:
            ``points`` (B, K, D), voxels of the images, ``confidence`` (B, K), ``spread_mm`` (B, K): the root mean
            square distance of the views' positions from the result, and ``covariance_mm2`` (B, K, D, D), along the
            array axes: the mean of the heatmaps' covariances and the spread of the views' positions together.
        """
        images = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        found, confidences, spreads = zip(*[self._one_view(images, network, *view) for view in self.views], strict=True)
        positions = torch.stack(found)
        points = positions.mean(dim=0) if len(found) < 3 else positions.median(dim=0).values
        away = (positions - points) * positions.new_tensor(self.spacing_mm)
        spread = away.square().sum(dim=-1).mean(dim=0).sqrt()
        between = (away[..., :, None] * away[..., None, :]).mean(dim=0)
        return {
            "points": points,
            "confidence": torch.stack(confidences).mean(dim=0),
            "spread_mm": spread,
            "covariance_mm2": torch.stack(spreads).mean(dim=0) + between,
        }

    def _one_view(
        self, images: Tensor, network: nn.Module, degrees: float, scale: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Positions in the images' voxels, confidences and covariances in mm^2."""
        dims, shape = images.ndim - 2, list(images.shape[2:])
        matrix = None
        if degrees != 0 or scale != 1:
            view = affine_view(
                shape=shape,
                centre=[(n - 1) / 2 for n in shape],
                spacing_mm=self.spacing_mm,
                rotation_degrees=[degrees] * (1 if dims == 2 else 3),
                scale=scale,
            )
            matrix = view.matrix[None].to(images.device, torch.float32)
            images = resample(images, view_positions(matrix, shape).expand(len(images), *shape, dims))
        step = self.definition.coarsest_stride
        padding = [amount for size in reversed(shape) for amount in (0, -size % step)]
        with self.precision.autocast(images.device):
            output = network(F.pad(images, padding))
        cells = [-(-size // self.definition.stride) for size in shape]  # no landmark is looked for in the padding
        output = output[(slice(None), slice(None), *[slice(n) for n in cells])]
        points, confidence = decode_output(
            output,
            self.definition.landmarks,
            stride=self.definition.stride,
            radius=self.radius,
            use_offsets=self.use_offsets,
            activation=self.activation,
        )
        spread = self._covariance(output, matrix)
        return (points if matrix is None else apply_affine(matrix, points)), confidence, spread

    def _covariance(self, output: Tensor, matrix: Tensor | None) -> Tensor:
        """Spread of the heatmaps in mm^2 along the image's axes, of a view whose voxels ``matrix`` takes there."""
        maps = activate_heatmaps(output[:, : self.definition.landmarks].float(), self.activation)
        voxels = heatmap_covariance(
            maps, stride=self.definition.stride, spacing_mm=[1.0] * (maps.ndim - 2), radius=self.covariance_radius
        )
        to_mm = torch.diag(voxels.new_tensor(self.spacing_mm))
        if matrix is not None:
            to_mm = to_mm @ matrix[0, :-1, :-1].to(voxels)
        return to_mm @ voxels @ to_mm.T


class LandmarkPrepareBatch(PrepareBatch):
    """The image as input; points and weights of its landmarks as target."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Move them to the device."""

        def moved(key: str) -> Tensor:
            return plain_tensor(batchdata[key], device, non_blocking)

        return moved("image"), {key: moved(key) for key in ("points", "weights")}


class LandmarkError(Metric):
    """Mean distance in mm between landmarks found and given, by the weights of those given.

    Args:
        spacing_mm: Size of a voxel along each array axis.
        output_transform: From the engine's output to (found, given); MONAI's ``from_engine(["pred", "label"])``.
    """

    required_output_keys = None

    def __init__(self, spacing_mm: Sequence[float], output_transform: Callable = lambda output: output) -> None:
        self.spacing_mm = list(spacing_mm)
        super().__init__(output_transform=output_transform)

    @reinit__is_reduced
    def reset(self) -> None:
        """Start a new average."""
        self._sum, self._count = torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)

    @reinit__is_reduced
    def update(self, output: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]) -> None:
        """Add the landmarks of a batch."""
        found, given = output
        away = (found["points"] - given["points"]) * found["points"].new_tensor(self.spacing_mm)
        distance = torch.linalg.vector_norm(away, dim=-1)
        weights = torch.where(distance.isnan(), 0, given["weights"])
        self._sum += (weights * distance.nan_to_num(0)).sum().double().cpu()
        self._count += weights.sum().double().cpu()

    @sync_all_reduce("_sum", "_count")
    def compute(self) -> float:
        """Mean over all landmarks since the last reset."""
        if self._count == 0:
            raise NotComputableError("no validation image has a landmark to compare with: give more images")
        return float(self._sum / self._count)


@dataclass(frozen=True)
class Detected:
    """Landmarks found in one image, see :class:`medpixcl.engines.landmark_results.Found`."""

    voxels: Float[Tensor, "k d"]
    scores: Float[Tensor, " k"]
    flags: tuple[str, ...]


class LandmarkDetectionHandler(LandmarkResults):
    """Writes what a :class:`LandmarkInferer` finds in every image of an evaluator.

    Args:
        names: Of the landmarks, in the network's order.
        images: The images that the evaluator runs over.
        preprocessing: Their transforms.
        output_dir: Folder of the results.
        min_confidence: A landmark of less is flagged as unsure.
        max_spread_mm: A landmark whose views lie farther apart is flagged as unsure.
        reference: Landmark file with true positions, to measure the error.
        facts: What the report shall say of the run, beside the versions.
        overlays: Draw an overlay of every image.
        comparisons: Name and metrics of other runs over the same images, shown beside this one's.
        formats: Of the landmarks, see :mod:`medpixcl.data.landmark_writing`.
        keep_patient: Copy patient and study into DICOM SR.
        readers: Landmark files of several readers by name: how far this run lies from each, and they from each other.
        trained_on: What the weights were trained on, ``images`` (a number) and ``start`` (a name): kept in the metrics.
        earlier_runs: ``metrics.json`` of evaluations of other trainings on the same images: with this one they make the
            curve of the error against the number of training images. This run's own file is passed over.

    Raises:
        ValueError: If there are not as many names as the network has landmarks.
    """

    def __init__(
        self,
        names: Sequence[str],
        images: ImageList,
        preprocessing: Compose,
        output_dir: str,
        min_confidence: float = 0.2,
        max_spread_mm: float = 4.0,
        reference: str | None = None,
        facts: Mapping[str, str] | None = None,
        overlays: bool = True,
        comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
        formats: Sequence[str] = DEFAULT_FORMATS,
        keep_patient: bool = False,
        readers: Mapping[str, str] | None = None,
        trained_on: Mapping[str, Any] | None = None,
        earlier_runs: Sequence[str] = (),
    ) -> None:
        super().__init__(
            images,
            preprocessing,
            output_dir,
            title="Landmark detection",
            reference=reference,
            facts=facts,
            overlays=overlays,
            comparisons=comparisons,
            formats=formats,
            keep_patient=keep_patient,
        )
        self.names, self.min_confidence, self.max_spread_mm = tuple(names), min_confidence, max_spread_mm
        self.readers = {name: Path(path) for name, path in (readers or {}).items()}
        self.trained_on = None if trained_on is None else dict(trained_on)
        self.earlier_runs, self.earlier = earlier_runs, list[EarlierRun]()
        self.between_readers_mm: float | None = None

    def check(self) -> None:
        """Read the earlier runs, the reference, and find the images.

        Raises:
            ValueError: One sentence that names the file.
        """
        own = (self.output_dir / METRICS_FILE).resolve()
        self.earlier = read_earlier_runs([file for file in self.earlier_runs if Path(file).resolve() != own])
        if self.earlier and self.reference is None:
            raise ValueError("earlier_runs are compared by their error, and there is no reference to measure; give one")
        super().check()

    def attach(self, engine: Engine) -> None:
        """Take the landmarks of every image, write at the end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.detect)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def detect(self, engine: Engine) -> None:
        """Keep and write the landmarks of this iteration's images."""
        found = engine.state.output["pred"]
        for number, image in enumerate(decollate_batch(engine.state.batch["image"])):
            points, confidence, spread = (found[key][number].cpu() for key in ("points", "confidence", "spread_mm"))
            doubtful = (confidence < self.min_confidence) | ~(spread <= self.max_spread_mm)
            flags = tuple("unsure" if doubt else "" for doubt in doubtful.tolist())
            self.add(image, Detected(points, confidence, flags))

    def finish(self, engine: Engine) -> None:
        """Compare with the readers, and write everything."""
        if self.readers:
            found = {one.image: dict(zip(one.points.names, one.lps_mm.tolist(), strict=True)) for one in self.landmarks}
            compared = compare_readers({"this run": found, **read_readers(self.readers)})
            write_reader_table(self.output_dir / "readers.csv", compared)
            self.comparisons = [*self.comparisons, *compared]
            between = [metrics["mre_mm"] for _, metrics in compared[len(self.readers) + 1 :]]
            self.between_readers_mm = sum(between) / len(between) if between else None
        super().finish(engine)

    def _measure(self) -> dict[str, Any] | None:
        metrics = super()._measure()
        return metrics and metrics | ({TRAINED_ON: self.trained_on} if self.trained_on else {})

    def _in_report(self) -> dict[str, Any]:
        report = super()._in_report()
        if self.metrics is None:
            return report
        curve, warnings = few_shot_report(self.metrics, self.earlier, self.between_readers_mm)
        return report | {"pictures": [*report["pictures"], *curve], "warnings": warnings}
