"""One-shot landmark matching as a MONAI evaluator: the inferer, the template, the handler that matches and writes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.data import MetaTensor, decollate_batch
from monai.inferers import Inferer
from monai.transforms import Compose
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import voxel_to_mm, working_spacing
from medpixcl.data.landmark_files import read_landmarks
from medpixcl.data.landmark_writing import DEFAULT_FORMATS
from medpixcl.engines.image_list import ImageList
from medpixcl.engines.landmark_results import LandmarkResults, affines_of, original_voxels, working_voxels
from medpixcl.engines.population import UnlabelledImages, write_population
from medpixcl.engines.radii import Radii
from medpixcl.matching import LandmarkMatcher
from medpixcl.matching.representativeness import template_warning
from medpixcl.networks.embedding import LevelsNet
from medpixcl.reports.figures import landmark_overlay
from medpixcl.reports.html import Picture

__all__ = ["LandmarkMatchHandler", "LevelsInferer", "Template", "original_voxels", "working_voxels"]


class LevelsInferer(Inferer):
    """Runs an embedding network on a whole image, padded with zeros at its end to what the network can divide."""

    def __call__(self, inputs: Tensor, network: LevelsNet, *args: Any, **kwargs: Any) -> list[Tensor]:
        """Level maps of the images (B, C, *spatial), finest first."""
        step = network.coarsest_stride
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
        return voxel_to_mm(self.voxels.double(), affines_of(self.image)[1])

    def fit(self, matcher: LandmarkMatcher, network: LevelsNet, inferer: Inferer, device: torch.device) -> None:
        """Give a matcher the descriptors of the landmarks."""
        network.eval()

        def embed(image: Tensor) -> list[Tensor]:
            with torch.no_grad():
                return inferer(image.to(device), network)

        picture = self.image.as_tensor()[None]
        matcher.fit(embed, network.strides, picture, self.voxels.float(), working_spacing(self.image))


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
        formats: Of the landmarks, see :mod:`medpixcl.data.landmark_writing`.
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
