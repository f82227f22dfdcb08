"""Steps of an adaptation: what each way of finding the landmarks errs by in annotated images that it did not see."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl._typing import AnyPath
from medpixcl.apps.adaptation_data import IMAGES, pictures_of, without_copies
from medpixcl.apps.agreement import mean_of_both
from medpixcl.apps.detect import Detector
from medpixcl.apps.match import Matcher
from medpixcl.apps.results import Results
from medpixcl.data.datalist import Datalist, files_of, without_files
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.manifest import Manifest
from medpixcl.landmarks.points import rows_by_name

MATCHING, DETECTOR, MEAN = WAYS = ("matching", "detector", "mean of both")
"""Ways of finding the landmarks."""
LEAST_VALIDATED = 4
"""Number of annotated pictures from which the way is chosen by cross-validation."""
COUNTS = (1, 2, 3, 5, 10, 20, 50)
"""Numbers of templates of the curve."""

log = logging.getLogger(__name__)


class Steps:
    """Steps of an adaptation, which need the same matcher and landmarks.

    Args:
        matcher: Matcher with all annotated images as templates; every step gives it other ones.
        items: Items of all annotated images.
        data: Data set of the images to learn from, with the annotated ones.
        landmarks: Landmark file of these.
        train: Trains a detector on some of them and the images listed in a folder.
    """

    def __init__(
        self,
        matcher: Matcher,
        items: Datalist,
        data: Manifest,
        landmarks: AnyPath,
        train: Callable[[Datalist, Path], Detector],
    ) -> None:
        self.matcher, self.items, self.data, self.train = matcher, items, data, train
        self.landmarks, self.marks, self.names = landmarks, read_landmarks(landmarks), matcher.names
        self.marked = torch.stack([~one.voxels_of(self.names).isnan().any(dim=1) for one in matcher.templates])
        self.pictures = pictures_of(items, data)

    def curve(self) -> dict[int, Float[Tensor, "n k"]]:
        """Errors of matching in every annotated image, with some of the others as templates."""
        errors: dict[int, Tensor] = {}
        most = len(self.items) - max(map(self.pictures.count, self.pictures))
        for count in sorted({*COUNTS, most}):
            if 1 <= count <= most:
                log.info("matching each annotated image with %d of the others", count)
                errors[count] = torch.cat([self._one_matched(number, count) for number in range(len(self.items))])
        return errors

    def possible(self, folds: int) -> int:
        """Number of folds; 0 where a cross-validation is not asked for or cannot be made.

        Raises:
            ValueError: If there are fewer annotated pictures than folds.
        """
        pictures = len(set(self.pictures))
        if not folds or pictures < LEAST_VALIDATED:
            log.info("not measured which way is best: %d annotated picture(s), %d folds", pictures, folds)
            return 0
        if folds > pictures:
            raise ValueError(
                f"the number of folds is {folds}; give at most one for each of {pictures} annotated images"
            )
        if not all(self._usable(self._seen(number, folds)) for number in range(folds)):
            log.info("not measured which way is best: the annotated images share too few landmarks")
            return 0
        return folds

    def cross_validate(self, folds: int, folder: Path) -> dict[str, Float[Tensor, "n k"]]:
        """Errors of every way in each part of the annotated images, with the others alone as templates."""
        errors: dict[str, list[Tensor]] = {way: [] for way in WAYS if folds}
        for number in range(folds):
            place = folder / "folds" / str(number + 1)
            seen = [self.items[one] for one in self._seen(number, folds)]
            held = without_files(self.items, files_of(seen))
            log.info("cross-validation %d of %d: training on %d annotated images", number + 1, folds, len(seen))
            without_copies(self.data, held).write(place / IMAGES)
            detected = self.train(seen, place).detect(Manifest(training=held))
            matched = self._match(self._seen(number, folds), held)
            for way, results in zip(WAYS, (matched, detected, mean_of_both(matched, detected)), strict=True):
                errors[way].append(self._errors_mm(results))
        return {way: torch.cat(rows) for way, rows in errors.items()}

    def _seen(self, number: int, folds: int) -> list[int]:
        """Annotated images that a fold does not measure; copies of one picture stay together."""
        order = list(dict.fromkeys(self.pictures))
        return [one for one, picture in enumerate(self.pictures) if order.index(picture) % folds != number]

    def _one_matched(self, number: int, count: int) -> Float[Tensor, "1 k"]:
        """Errors of matching in one annotated image with those after it as templates, in a circle."""
        circle = [(number + step) % len(self.items) for step in range(1, len(self.items))]
        templates = [one for one in circle if self.pictures[one] != self.pictures[number]][:count]
        if not self._usable(templates):
            return torch.full((1, len(self.names)), torch.nan, dtype=torch.float64)
        return self._errors_mm(self._match(templates, [self.items[number]]))

    def _usable(self, templates: Sequence[int]) -> bool:
        """True if all of these share a landmark with the first of them, the one with the most marks."""
        marked = self.marked[self._ordered(templates)]
        return bool((marked & marked[:1]).any(dim=1).all())

    def _ordered(self, templates: Sequence[int]) -> list[int]:
        return sorted(templates, key=lambda one: -int(self.marked[one].sum()))

    def _match(self, templates: Sequence[int], images: Datalist) -> Results:
        chosen = [self.items[one] for one in self._ordered(templates)]
        return self.matcher.fit(chosen, self.landmarks).match(Manifest(training=images))

    def _errors_mm(self, results: Results) -> Float[Tensor, "n k"]:
        """Distances from the marks, in the order of all landmarks; NaN where either is missing."""
        rows = []
        for one in results.landmarks:
            given = one.mm_of(self.marks.for_image(one.source, one.affine, one.shape))
            away = torch.linalg.vector_norm(one.mm - given, dim=1)
            rows.append(rows_by_name(away[:, None], one.names, self.names)[:, 0])
        return torch.stack(rows)
