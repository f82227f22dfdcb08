"""One-shot landmark matching as a MONAI evaluator: the inferer, the template, the handler that matches and writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor
from torch.nn import functional as F

import medpixcl
from medpixcl.coordinates import mm_to_voxel, spatial_affine, voxel_to_mm, working_affine, working_spacing
from medpixcl.data.landmark_csv import landmark_rows, write_landmarks_csv
from medpixcl.data.landmark_files import read_landmarks
from medpixcl.data.slicer import write_markups
from medpixcl.engines.image_list import ImageList
from medpixcl.engines.population import UnlabelledImages, write_population
from medpixcl.engines.radii import Radii
from medpixcl.landmarks.metrics import evaluate_positions
from medpixcl.landmarks.points import LandmarkSet
from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.representativeness import template_warning
from medpixcl.networks.embedding import LevelsNet
from medpixcl.reports.figures import landmark_overlay, save_png
from medpixcl.reports.html import Picture, write_match_report
from medpixcl.reports.match import match_report
from medpixcl.reports.tables import write_metrics_json


class LevelsInferer(Inferer):
    """Runs an embedding network on a whole image, padded with zeros at its end to a multiple of the coarsest stride."""

    def __call__(self, inputs: Tensor, network: LevelsNet, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Level maps of the images (B, C, *spatial), finest first."""
        step = max(network.strides)
        padding = [amount for size in reversed(inputs.shape[2:]) for amount in (0, -size % step)]
        image = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        return network.levels(F.pad(image, padding))


class Template:
    """The annotated image: read, checked and brought to the working spacing.

    Args:
        image: Path.
        landmarks: Landmark file (CSV, ``.mrk.json``, ``.fcsv`` or a folder); the rows of this image are used.
        preprocessing: The transforms of the queries.
        spacing_mm: Pixel size of a picture that does not say its own.

    Raises:
        ValueError: If the image or the landmark file is bad, or no landmark is given for this image.
    """

    def __init__(
        self, image: str, landmarks: str, preprocessing: Compose, spacing_mm: Sequence[float] | float | None
    ) -> None:
        self.path = Path(image)
        self.image: MetaTensor = preprocessing({"image": image, "spacing_mm": spacing_mm})["image"]
        meta = self.image.meta
        affine = torch.as_tensor(meta["original_affine"])
        self.points = read_landmarks(landmarks).for_image(image, affine, list(meta["spatial_shape"]))
        if bool(self.points.missing.all()):
            raise ValueError(f"{landmarks} has no landmark with a position in {self.path.name}; mark at least one")
        self.voxels = working_voxels(self.points.voxels, self.image)

    @property
    def mm(self) -> Tensor:
        """The landmarks in mm, RAS+, shape (K, D)."""
        return voxel_to_mm(self.voxels.double(), _affines(self.image)[1])

    def fit(self, matcher: LandmarkMatcher, network: LevelsNet, inferer: Inferer, device: torch.device) -> None:
        """Give a matcher the descriptors of the landmarks."""
        network.eval()

        def embed(image: Tensor) -> list[Tensor]:
            with torch.no_grad():
                return inferer(image.to(device), network)

        picture = self.image.as_tensor()[None]
        matcher.fit(embed, network.strides, picture, self.voxels.float(), working_spacing(self.image))


def working_voxels(voxels: Tensor, image: MetaTensor) -> Tensor:
    """Voxels of the file's image (K, D) as voxels of the image at the working spacing."""
    original, working = _affines(image)
    return mm_to_voxel(voxel_to_mm(voxels, original), working)


def original_voxels(voxels: Tensor, image: MetaTensor) -> Tensor:
    """Inverse of :func:`working_voxels`."""
    original, working = _affines(image)
    return mm_to_voxel(voxel_to_mm(voxels.to(original), working), original)


def _affines(image: MetaTensor) -> tuple[Tensor, Tensor]:
    """Voxel -> mm of the file's image and of the image as it is now."""
    dims = image.ndim - 1
    original = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
    return spatial_affine(original, dims), working_affine(image)


@runtime_checkable
class Found(Protocol):
    """Landmarks found in one image, K of them.

    Attributes:
        voxels: Of the working image, shape (K, D), NaN where missing.
        scores: Confidence, shape (K,).
        flags: A word for each landmark, empty where there is nothing to say.
    """

    @property
    def voxels(self) -> Tensor: ...  # noqa: D102

    @property
    def scores(self) -> Tensor: ...  # noqa: D102

    @property
    def flags(self) -> tuple[str, ...]: ...  # noqa: D102


class LandmarkResults:
    """Collects the landmarks found in images, and writes them.

    The folder gets ``landmarks.csv`` (pixels and mm, LPS+), ``markups/<image>.mrk.json`` for 3D Slicer,
    ``overlays/<image>.png``, ``report.html`` and, with a reference, ``metrics.json``.

    Args:
        images: The images that are searched.
        preprocessing: Their transforms.
        output_dir: Folder of the results.
        title: Heading of the report.
        reference: Landmark file with true positions, to measure the error.
        facts: What the report shall say of the run, beside the versions.
        overlays: Draw an overlay of every image.
        comparisons: Name and metrics of other runs over the same images, shown beside this one's.
    """

    def __init__(
        self,
        images: ImageList,
        preprocessing: Compose,
        output_dir: str,
        *,
        title: str,
        reference: str | None = None,
        facts: Mapping[str, str] | None = None,
        overlays: bool = True,
        comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
    ) -> None:
        self.images, self.preprocessing, self.output_dir, self.title = images, preprocessing, Path(output_dir), title
        self.reference, self.facts, self.overlays = reference, dict(facts or {}), overlays
        self.comparisons = comparisons
        self.names: tuple[str, ...] = ()
        self.results: dict[str, tuple[LandmarkSet, Found]] = {}
        self.entries: dict[str, dict[str, Any]] = {}
        self.rows: list[dict[str, str]] = []
        self.true_positions: dict[str, dict[str, tuple[float, ...]]] | None = None
        self.metrics: dict[str, Any] | None = None
        self.radii = Radii(None, ())

    def check(self) -> None:
        """Read the reference, then find the images: bad input shows before the work begins.

        Raises:
            ValueError: One sentence that names the file.
        """
        if self.reference is not None:
            self.true_positions = read_landmarks(self.reference).positions_mm()
        self.images.check()

    def add(self, image: MetaTensor, result: Found) -> None:
        """Keep what was found in one image, and write its files."""
        path = str(image.meta["filename_or_obj"])
        name, stem = self.images.name(path), self.images.stem(path)
        found = LandmarkSet(
            names=self.names,
            voxels=original_voxels(result.voxels.cpu(), image),
            scores=result.scores.cpu(),
            flags=result.flags,
        )
        affine = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
        self.results[name] = (found, result)
        self.entries[name] = self.images.entry(path)
        self.rows += self.radii.with_column(landmark_rows(name, found, affine), result.flags)
        markups = self.output_dir / "markups" / f"{stem}.mrk.json"
        markups.parent.mkdir(parents=True, exist_ok=True)
        write_markups(markups, found, affine)
        if self.overlays:
            overlay = self.output_dir / "overlays" / f"{stem}.png"
            overlay.parent.mkdir(parents=True, exist_ok=True)
            save_png(self._overlay(image, result), overlay)

    def _overlay(self, image: MetaTensor, result: Found) -> Any:
        return landmark_overlay(
            image.as_tensor()[0].cpu(),
            result.voxels.cpu(),
            names=self.names,
            unsure=[flag == "unsure" for flag in result.flags],
            radii_mm=self.radii.of(result.flags),
            affine=_affines(image)[1] if image.ndim == 4 else None,
            spacing=working_spacing(image) if image.ndim == 3 else None,
        )

    def finish(self, engine: Engine) -> None:
        """Write the table, the metrics and the report."""
        table = self.output_dir / "landmarks.csv"
        write_landmarks_csv(table, self.rows)
        if self.true_positions is not None:
            self.metrics = evaluate_positions(read_landmarks(table).positions_mm(), self.true_positions)
        circles = self.radii.measure({name: found.flags for name, (_, found) in self.results.items()}, self.metrics)
        if self.metrics is not None:
            write_metrics_json(self.output_dir / "metrics.json", self.metrics)
        report = match_report(
            title=self.title,
            images=list(self.results),
            names=self.names,
            scores=torch.stack([result.scores.cpu() for _, result in self.results.values()]),
            unsure=torch.tensor([[flag == "unsure" for flag in result.flags] for _, result in self.results.values()]),
            draw=self._picture_of,
            facts={**self.facts, **circles, "medpixcl": medpixcl.__version__, "torch": torch.__version__},
            metrics=self.metrics,
            rejected=self.images.rejected,
            comparisons=[*self.comparisons, ("this run", self.metrics or {})] if self.comparisons else (),
            **self._template_in_report(),
        )
        write_match_report(self.output_dir / "report.html", report)

    def _template_in_report(self) -> dict[str, Any]:
        """What the report says of an annotated image, as arguments of ``match_report``."""
        return {"template_name": ""}

    def _picture_of(self, name: str) -> Any:
        """Overlay of one image for the report."""
        return self._overlay(self.preprocessing(self.entries[name])["image"], self.results[name][1])


class LandmarkMatchHandler(LandmarkResults):
    """Matches every image that an evaluator embeds, and writes all results.

    Args:
        matcher: How landmarks are matched.
        images: The images that the evaluator runs over.
        template: Path of the annotated image.
        landmarks: Its landmark file.
        preprocessing: Transforms of the images.
        output_dir: Folder of the results.
        spacing_mm: Pixel size of pictures that do not say theirs.
        reference: Landmark file with true positions, to measure the error.
        facts: What the report shall say of the run, beside the template and the versions.
        overlays: Draw an overlay of every image.
        comparisons: Name and metrics of other runs over the same images, shown beside this one's.
        calibration: File of ``medpixcl calibrate``: radii become a column of the table and circles in the overlays.
        unlabelled: Images from which the matcher learns what the landmarks look like, before it starts.
    """

    def __init__(
        self,
        matcher: LandmarkMatcher,
        images: ImageList,
        template: str,
        landmarks: str,
        preprocessing: Compose,
        output_dir: str,
        spacing_mm: Sequence[float] | float | None = None,
        reference: str | None = None,
        facts: Mapping[str, str] | None = None,
        overlays: bool = True,
        comparisons: Sequence[tuple[str, Mapping[str, Any]]] = (),
        calibration: str | None = None,
        unlabelled: UnlabelledImages | None = None,
    ) -> None:
        super().__init__(
            images,
            preprocessing,
            output_dir,
            title="Landmark matching",
            reference=reference,
            facts=facts,
            overlays=overlays,
            comparisons=comparisons,
        )
        self.matcher, self.template_files, self.spacing_mm = matcher, (template, landmarks), spacing_mm
        self.calibration_file = calibration
        self.unlabelled = UnlabelledImages(None) if unlabelled is None else unlabelled
        self.template: Template
        self.checked = False

    def attach(self, engine: Engine) -> None:
        """Fit the matcher at the start, match after every image, write at the end."""
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.match)
        engine.add_event_handler(Events.COMPLETED, self.finish)

    def check(self) -> None:
        """Read the template and the reference, then find the images: bad input shows before the work begins.

        Raises:
            ValueError: One sentence that names the file.
        """
        self.template = Template(*self.template_files, self.preprocessing, self.spacing_mm)
        self.names = self.template.points.names
        self.radii = Radii(self.calibration_file, self.names)
        self.unlabelled.check(self.names)
        super().check()
        self.checked = True

    def start(self, engine: Any) -> None:
        """Take the template's descriptors, and what the unlabelled images add to them."""
        if not self.checked:
            self.check()
        self.template.fit(self.matcher, engine.network, engine.inferer, engine.state.device)
        population = self.unlabelled.teach(self.matcher, engine.network, self.preprocessing, self.names)
        if population is not None:
            write_population(self.output_dir / "population.pt", population, self.names, engine.network)
            self.facts |= self.unlabelled.facts(population, self.images)

    def match(self, engine: Engine) -> None:
        """Match the landmarks in the images of this iteration."""
        levels = engine.state.output["pred"]
        for number, image in enumerate(decollate_batch(engine.state.batch["image"])):
            ours = [level[number : number + 1] for level in levels]
            self.add(image, self.matcher.match(ours, image.shape[1:], working_spacing(image)))

    def _template_in_report(self) -> dict[str, Any]:
        picture = landmark_overlay(
            self.template.image.as_tensor()[0],
            torch.full_like(self.template.voxels, torch.nan),
            reference=self.template.voxels,
            names=self.names,
        )
        return {
            "template_name": self.template.path.name,
            "template_picture": Picture(image=picture, caption="Template with its landmarks"),
            "warnings": [self.warning] if self.warning else [],
        }

    @property
    def warning(self) -> str:
        """What to tell of a poor template; empty if it is not."""
        return template_warning([result.flags for _, result in self.results.values()])
