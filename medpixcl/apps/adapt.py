"""From a few annotated and many unlabelled images to the best way of finding the landmarks, with its expected error.

Matching with the annotated images gives pseudo-landmarks in all others, a detector is trained on both
(:mod:`medpixcl.apps.selftrain`), and of matching, the detector and the mean of both that one is taken which errs least
on annotated images that it did not see.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import medpixcl
from medpixcl._typing import AnyPath
from medpixcl.apps.adaptation_data import IMAGES, digests_of, list_images, require_same, with_annotated
from medpixcl.apps.adaptation_steps import DETECTOR, MEAN, Steps
from medpixcl.apps.detect import Detector
from medpixcl.apps.loaded_images import Searchable
from medpixcl.apps.match import Matcher, matching_bundle
from medpixcl.apps.output import Output
from medpixcl.apps.results import Results
from medpixcl.apps.selftrain import check_selftraining, selftrain, selftraining_bundle
from medpixcl.data.datalist import Datalist, files_of, without_files
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.templates import template_items, template_path
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.reports.adaptation import write_adaptation_page
from medpixcl.reports.tables import write_metrics_json

FOLDS = 2
LEAST_UNLABELLED = 2
"""Least number of images to learn from besides the annotated ones: one trains, one validates."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Adapted:
    """The result: a matcher with its templates, a detector, and what is expected of both.

    Attributes:
        matcher: Matcher with all annotated images as templates.
        detector: Detector trained with them.
        way: The way to find landmarks that was chosen: ``matching``, ``detector`` or ``mean of both``.
        names: Names of the K landmarks.
        curve_mm: Errors of matching in mm by number of templates, each (N, K) for the N annotated images, in turn left
            out; NaN where a landmark is missing. Empty for one annotated image.
        errors_mm: Errors in mm of every way in annotated images that it had not seen, each (N, K); empty without a
            cross-validation.
        seen: Mean number of annotated images that a way had seen in the cross-validation.
        marked: Number of landmarks that are marked in all annotated images together.
    """

    matcher: Matcher
    detector: Detector
    way: str
    names: tuple[str, ...]
    curve_mm: Mapping[int, Float[Tensor, "n k"]]
    errors_mm: Mapping[str, Float[Tensor, "n k"]]
    seen: float
    marked: int

    def find(
        self,
        images: Searchable,
        *,
        spacing_mm: SpacingMM | None = None,
        reference: AnyPath | None = None,
        output: Output | None = None,
    ) -> Results:
        """Find the landmarks in images in the way that was chosen.

        Args:
            images: Images to search, see :meth:`medpixcl.Matcher.match`.
            spacing_mm: Voxel size in mm of images whose file does not state it.
            reference: Landmark file with true positions, to measure the error.
            output: Folder to draw overlays into during the run.

        Raises:
            ValueError: If the input is bad; one sentence that names the file.
        """
        if self.way == DETECTOR:
            return self.detector.detect(images, spacing_mm=spacing_mm, reference=reference, output=output)
        second = self.detector if self.way == MEAN else None
        return self.matcher.match(images, spacing_mm=spacing_mm, reference=reference, second=second, output=output)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Expected errors of every way, see :func:`medpixcl.landmarks.metrics.summarise_errors`.

        ``missing`` counts the marked landmarks that were not found. Empty without a cross-validation.
        """
        rows = {way: summarise_errors(errors, self.names) for way, errors in self.errors_mm.items()}
        return {way: row | {"missing": self.marked - row["measured"]} for way, row in rows.items()}

    @property
    def curve(self) -> dict[int, float]:
        """Mean radial error in mm of matching by number of templates."""
        known = {count: errors for count, errors in self.curve_mm.items() if not bool(errors.isnan().all())}
        return {count: float(errors.nanmean()) for count, errors in known.items()}


def adapt(
    templates: AnyPath | Sequence[AnyPath],
    landmarks: AnyPath,
    images: AnyPath,
    output: AnyPath,
    *,
    matcher: Matcher | None = None,
    training_bundle: AnyPath | None = None,
    folds: int = FOLDS,
    epochs: int | None = None,
    device: str | None = None,
    spacing_mm: SpacingMM | None = None,
    settings: Mapping[str, Any] | None = None,
    trust: bool = False,
) -> Adapted:
    """Adapt to a few annotated and many unlabelled images; the same call again goes on where it was interrupted.

    Writes ``adapted.json``, ``report.html`` and the detector (``models``) into a folder. The trainings of the
    cross-validation lie in ``folds``; they never see the annotated images that they are measured on.

    Args:
        templates: Annotated image, or several; of a folder or manifest, the images with landmarks.
        landmarks: Landmark file of the annotated images, or a folder of such files.
        images: Folder or manifest of the images to learn from; the annotated ones may be among them.
        output: Folder of the result.
        matcher: Matcher to use; that for pictures or for volumes by default, as the templates are.
        training_bundle: Name or folder of the self-training bundle; that for such images by default.
        folds: Number of parts that the annotated images are divided into for the cross-validation, each of which costs
            a training; 0 leaves it out. It needs four annotated images.
        epochs: Number of epochs of each training; the bundle's by default.
        device: Device of the networks; the bundles choose by default.
        spacing_mm: Pixel size in mm of images whose file does not state it.
        settings: Values by id of the self-training bundle's ``train.json``, all of them plain data.
        trust: Accept a self-training bundle from any folder; its configuration is a program of its author.

    Raises:
        ValueError: If the input is bad; one sentence that names the file.
    """
    if folds < 0 or folds == 1:
        raise ValueError(f"the number of folds is {folds}; give 0 for no cross-validation, or at least 2")
    used = Matcher.from_bundle(matching_bundle(templates), device=device or "auto") if matcher is None else matcher
    folder = checked_path(output, "the folder of the result")
    bundle = selftraining_bundle(training_bundle, used.spatial_dims, trust=trust)
    check_selftraining(bundle, settings or {}, used.spatial_dims)
    data = list_images(checked_path(images, "the images to learn from"), used, spacing_mm)
    listed = [entry for _, entry in data.listed()]
    items = template_items(templates, landmarks, spacing_mm=spacing_mm, listed=listed)
    used.fit(items, landmarks)
    if len(others := without_files(listed, files_of(items))) < LEAST_UNLABELLED:
        raise ValueError(
            f"{images} has {len(others)} image(s) besides the annotated ones; give at least {LEAST_UNLABELLED}, better "
            "some tens"
        )
    data = with_annotated(data, items, spacing_mm)

    def train(seen: Datalist, place: Path) -> Detector:
        weights = selftrain(
            [template_path(item) for item in seen],
            landmarks,
            place / IMAGES,
            place,
            bundle=bundle,
            epochs=epochs,
            device=device,
            spacing_mm=spacing_mm,
            settings=settings,
            trust=True,
        )
        return Detector.from_bundle(weights=weights, device=device or "auto")

    steps = Steps(used, items, data, landmarks, train)
    count = steps.possible(folds)
    require_same(folder, digests_of(used, data, [folds, epochs, spacing_mm, settings, str(bundle)]))
    data.write(folder / IMAGES)
    curve, errors = steps.curve(), steps.cross_validate(count, folder)
    log.info("training on all %d annotated image(s)", len(items))
    detector = train(items, folder)
    adapted = Adapted(
        used.fit(items, landmarks),
        detector,
        way=best_way(errors),
        names=steps.names,
        curve_mm=curve,
        errors_mm=errors,
        seen=len(items) - len(items) / count if count else 0.0,
        marked=int(steps.marked.sum()),
    )
    _write(adapted, folder)
    return adapted


def best_way(errors_mm: Mapping[str, Float[Tensor, "n k"]]) -> str:
    """The way with the least mean error at the landmarks that all ways found; the mean of both if nothing is known."""
    if not errors_mm:
        return MEAN
    found = ~torch.stack(list(errors_mm.values())).isnan().any(dim=0)
    return min(errors_mm, key=lambda way: float(errors_mm[way][found].mean())) if bool(found.any()) else MEAN


def _write(adapted: Adapted, folder: Path) -> None:
    """Write the choice and what is expected of it, as data and as a page."""
    facts = {
        "created_with": f"medpixcl {medpixcl.__version__}",
        "way": adapted.way,
        "annotated_images": len(adapted.matcher.templates),
        "annotated_images_seen": adapted.seen,
        "expected": adapted.metrics,
        "matching_mre_mm": adapted.curve,
    }
    write_metrics_json(folder / "adapted.json", facts)
    write_adaptation_page(
        folder / "report.html",
        way=adapted.way,
        annotated=len(adapted.matcher.templates),
        seen=adapted.seen,
        metrics=adapted.metrics,
        curve=adapted.curve,
    )
