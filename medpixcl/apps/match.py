"""One-shot landmark matching in a MONAI evaluator: the handler that matches and writes."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import decollate_batch
from monai.transforms import Compose

from medpixcl.apps.images import ImageList
from medpixcl.apps.radii import Radii
from medpixcl.apps.results import LandmarkResults
from medpixcl.apps.unlabelled import UnlabelledImages, write_population
from medpixcl.coordinates import working_spacing
from medpixcl.data.landmarks.writing import DEFAULT_FORMATS
from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.annotated_image import AnnotatedImage
from medpixcl.matching.key_points import template_warning
from medpixcl.networks.inferers import EmbeddingModel
from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.html import Picture


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
        pictures: Files (PNG or JPEG) and captions of pictures for the report.
        calibration: File of ``medpixcl calibrate``: radii become a column of the table and circles in the overlays.
        unlabelled: Images from which the matcher learns what the landmarks look like, before it starts.
        formats: Of the landmarks, see :mod:`medpixcl.data.landmarks.writing`.
        keep_patient: Copy patient and study into DICOM SR.
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
        pictures: Sequence[tuple[str, str]] = (),
        calibration: str | None = None,
        unlabelled: UnlabelledImages | None = None,
        formats: Sequence[str] = DEFAULT_FORMATS,
        keep_patient: bool = False,
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
            pictures=pictures,
            formats=formats,
            keep_patient=keep_patient,
        )
        self.matcher, self.template_files, self.spacing_mm = matcher, (template, landmarks), spacing_mm
        self.calibration_file = calibration
        self.unlabelled = UnlabelledImages(None) if unlabelled is None else unlabelled
        self.template: AnnotatedImage
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
        self.template = AnnotatedImage(*self.template_files, self.preprocessing, self.spacing_mm)
        self.names = self.template.points.names
        self.radii = Radii(self.calibration_file, self.names)
        self.unlabelled.check(self.names)
        super().check()
        self.checked = True

    def start(self, engine: Any) -> None:
        """Take the template's descriptors, and what the unlabelled images add to them."""
        if not self.checked:
            self.check()
        model = EmbeddingModel(engine.network, engine.state.device, engine.inferer)
        self.template.fit(self.matcher, model, model.strides)
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

    def _in_report(self) -> dict[str, Any]:
        picture = landmark_overlay(
            self.template.image.as_tensor()[0],
            torch.full_like(self.template.voxels, torch.nan),
            reference=self.template.voxels,
            names=self.names,
        )
        return super()._in_report() | {
            "template_name": self.template.path.name,
            "template_picture": Picture(image=picture, caption="Template with its landmarks"),
            "warnings": [self.warning] if self.warning else [],
        }

    @property
    def warning(self) -> str:
        """What to tell of a poor template; empty if it is not."""
        return template_warning([result.flags for _, result in self.results.values()])
