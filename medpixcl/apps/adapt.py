"""From a few annotated and many unlabelled images to the best way of finding the landmarks, with its expected error.

Matching with the annotated images gives pseudo-landmarks in all others, a detector is trained on both
(:mod:`medpixcl.apps.selftrain`), and of matching, the detector and the mean of both that one is taken which errs least
on annotated images that it did not see.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

import medpixcl
from medpixcl._typing import AnyPath
from medpixcl.apps.agreement import mean_of_both
from medpixcl.apps.detect import Detector
from medpixcl.apps.images import ImageList
from medpixcl.apps.loaded_images import Searchable
from medpixcl.apps.match import Matcher
from medpixcl.apps.output import Output
from medpixcl.apps.results import Results
from medpixcl.apps.selftrain import selftrain
from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.datalist import Datalist, files_of, without_files
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.data.paths import checked_path
from medpixcl.data.pixels import SpacingMM
from medpixcl.data.templates import template_items, template_path
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.landmarks.points import rows_by_name
from medpixcl.reports.adaptation import write_adaptation_page
from medpixcl.reports.tables import write_metrics_json

MATCHING, DETECTOR, MEAN = WAYS = ("matching", "detector", "mean of both")
"""Ways of finding the landmarks."""
IMAGES = "images.json"
"""Name of the list of the images to learn from, in the folder of a training."""
FOLDS = 2
LEAST_VALIDATED = 4
"""Number of annotated images from which the way is chosen by cross-validation."""
COUNTS = (1, 2, 3, 5, 10, 20, 50)
"""Numbers of templates of the curve."""

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
    """

    matcher: Matcher
    detector: Detector
    way: str
    names: tuple[str, ...]
    curve_mm: Mapping[int, Float[Tensor, "n k"]]
    errors_mm: Mapping[str, Float[Tensor, "n k"]]
    seen: float

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
        return self.matcher.match(images, spacing_mm=spacing_mm, reference=reference, detector=second, output=output)

    @property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Expected errors of every way, see :func:`medpixcl.landmarks.metrics.summarise_errors`."""
        return {way: summarise_errors(errors, self.names) for way, errors in self.errors_mm.items()}

    @property
    def curve(self) -> dict[int, float]:
        """Mean radial error in mm of matching by number of templates."""
        return {count: float(errors.nanmean()) for count, errors in self.curve_mm.items()}


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
        matcher: Matcher to use; that of ``xray_landmark_matching`` by default.
        training_bundle: Name or folder of the self-training bundle; ``xray_landmark_selftraining`` by default.
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
    used = Matcher.from_bundle(device=device or "auto") if matcher is None else matcher
    folder = checked_path(output, "the folder of the result")
    data = _listed(checked_path(images, "the images to learn from"), used, spacing_mm)
    items = template_items(templates, landmarks, spacing_mm=spacing_mm, listed=[one for _, one in data.listed()])
    given = [folds, epochs, spacing_mm, settings, None if training_bundle is None else str(training_bundle)]
    _require_same(folder, _inputs(used.fit(items, landmarks), data, given))
    data.write(folder / IMAGES)
    train = partial(
        selftrain,
        landmarks=landmarks,
        bundle=training_bundle,
        epochs=epochs,
        device=device,
        spacing_mm=spacing_mm,
        settings=settings,
        trust=trust,
    )
    steps = _Steps(used, items, landmarks, lambda seen, place: _trained(train, seen, place, device))
    curve = steps.curve()
    count = folds if len(items) >= max(LEAST_VALIDATED, folds) else 0
    errors = steps.cross_validate(count, data, folder)
    log.info("training on all %d annotated image(s)", len(items))
    detector = steps.train(items, folder)
    adapted = Adapted(
        used.fit(items, landmarks),
        detector,
        way=min(errors, key=lambda one: float(errors[one].nanmean())) if errors else MEAN,
        names=steps.names,
        curve_mm=curve,
        errors_mm=errors,
        seen=len(items) - len(items) / count if count else 0.0,
    )
    _write(adapted, folder)
    return adapted


class _Steps:
    """Steps of an adaptation, which need the same matcher and landmarks.

    Args:
        matcher: Matcher with all annotated images as templates; every step gives it other ones.
        items: Items of all annotated images.
        landmarks: Landmark file of these.
        train: Trains a detector on some of them and the images listed in a folder.
    """

    def __init__(
        self,
        matcher: Matcher,
        items: Datalist,
        landmarks: AnyPath,
        train: Callable[[Datalist, Path], Detector],
    ) -> None:
        self.matcher, self.items, self.landmarks, self.train = matcher, items, landmarks, train
        self.marks = read_landmarks(landmarks)
        self.names = matcher.names

    def curve(self) -> dict[int, Float[Tensor, "n k"]]:
        """Errors of matching in every annotated image, with some of the others as templates."""
        last, errors = len(self.items) - 1, {}
        for count in sorted({*COUNTS, last}):
            if 1 <= count <= last:
                log.info("matching each annotated image with %d of the others", count)
                found = [self._match(_after(self.items, n, count), [one]) for n, one in enumerate(self.items)]
                errors[count] = torch.cat([self._errors_mm(one) for one in found])
        return errors

    def cross_validate(self, folds: int, data: Manifest, folder: Path) -> dict[str, Float[Tensor, "n k"]]:
        """Errors of every way in each part of the annotated images, with the others alone as templates."""
        errors: dict[str, list[Tensor]] = {way: [] for way in WAYS if folds}
        for number in range(folds):
            held, place = self.items[number::folds], folder / "folds" / str(number + 1)
            seen = without_files(self.items, files_of(held))
            log.info("cross-validation %d of %d: training on %d annotated images", number + 1, folds, len(seen))
            _without(data, held).write(place / IMAGES)
            detected = self.train(seen, place).detect(Manifest(training=held))
            matched = self._match(seen, held)
            for way, results in zip(WAYS, (matched, detected, mean_of_both(matched, detected)), strict=True):
                errors[way].append(self._errors_mm(results))
        return {way: torch.cat(rows) for way, rows in errors.items()}

    def _match(self, templates: Datalist, images: Datalist) -> Results:
        return self.matcher.fit(templates, self.landmarks).match(Manifest(training=images))

    def _errors_mm(self, results: Results) -> Float[Tensor, "n k"]:
        """Distances from the marks, in the order of all landmarks; NaN where either is missing."""
        rows = []
        for one in results.landmarks:
            given = one.mm_of(self.marks.for_image(one.source, one.affine, one.shape))
            away = torch.linalg.vector_norm(one.mm - given, dim=1)
            rows.append(rows_by_name(away[:, None], one.names, self.names)[:, 0])
        return torch.stack(rows)


def _trained(train: Callable[..., Path], items: Datalist, folder: Path, device: str | None) -> Detector:
    weights = train([template_path(item) for item in items], data=folder / IMAGES, output=folder)
    return Detector.from_bundle(weights=weights, device=device or "auto")


def _listed(images: Path, matcher: Matcher, spacing_mm: SpacingMM | None) -> Manifest:
    """List the images to learn from."""
    found = ImageList(images, spacing_mm, spatial_dims=matcher.spatial_dims)
    found.check()
    log.info("%d images to learn from, %d rejected", len(found.datalist), len(found.rejected))
    return found.manifest


def _inputs(matcher: Matcher, data: Manifest, given: Sequence[Any]) -> dict[str, str]:
    """Digests of all that an adaptation depends on, by what they stand for."""
    pictures = [(section, one["image"], one.get("sha256")) for section, one in data.listed()]
    parts = {"images to learn from": pictures, "settings": given}
    texts = {what: json.dumps(part, default=repr) for what, part in parts.items()}
    digests = {what: hashlib.sha256(text.encode()).hexdigest() for what, text in texts.items()}
    return {"annotated images or weights": matcher.digest} | digests


def _require_same(folder: Path, inputs: Mapping[str, str]) -> None:
    """Refuse to go on with trainings of other inputs; their results would mix."""
    file = folder / "inputs.json"
    if file.is_file():
        try:
            before = dict(json.loads(file.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            before = {}
        if other := [what for what, digest in inputs.items() if before.get(what) != digest]:
            raise ValueError(
                f"{folder} holds an adaptation with other {' and other '.join(other)}; give another folder"
            )
    write_text_atomically(file, json.dumps(inputs, indent=1) + "\n")


def _without(data: Manifest, held: Datalist) -> Manifest:
    """A data set without some images and without other copies of their pictures."""
    files = files_of(held)
    entries = [entry for _, entry in data.listed()]
    copies = {
        entry["duplicate_group"] for entry in entries if entry.get("duplicate_group") and files_of([entry]) & files
    }

    def kept(section: str) -> Datalist:
        others = without_files(data.datalist(section), files)
        return [entry for entry in others if entry.get("duplicate_group") not in copies]

    return replace(data, training=kept("training"), validation=kept("validation"), test=[], rejected=[])


def _after(items: Datalist, number: int, count: int) -> Datalist:
    """The items after one of them, in a circle."""
    return [items[(number + step) % len(items)] for step in range(1, count + 1)]


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
