"""Writes the landmarks that a detector finds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from jaxtyping import Float
from monai.data import decollate_batch
from monai.transforms import Compose
from torch import Tensor

from medpixcl.apps.few_shot import TRAINED_ON, EarlierRun, few_shot_report, read_earlier_runs
from medpixcl.apps.images import ImageList
from medpixcl.apps.readers import compare_reader_positions, read_readers, write_reader_table
from medpixcl.apps.results import METRICS_FILE, LandmarkResults
from medpixcl.data.landmarks.writing import DEFAULT_FORMATS


@dataclass(frozen=True)
class Detected:
    """Landmarks found in one image, see :class:`medpixcl.apps.results.Found`."""

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
        formats: Of the landmarks, see :mod:`medpixcl.data.landmarks.writing`.
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
            compared = compare_reader_positions({"this run": found, **read_readers(self.readers)})
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
