"""Do 90 % regions hold 90 % of the true places, on unlike images too, and are the doubtful landmarks flagged?

``python benchmarks/region_coverage.py [--split test1] [--images 130] [--repeats 50] [--changed 40]``

In every repeat 50 random images calibrate, the others are measured: as they are, and changed
(``changed_images.py``). A second table tells what the regions hold of one reader's marks, before and after this reader
has corrected some images. With ``--split train``, the default, the images are training images of ISBI 2015, which the
self-trained detector and the matching have seen without their labels: settings are chosen there. ``--split test1`` is
for the final table and adds the detector trained on all annotated training images. It takes two to three seconds for
an image on one core, and half a second for every changed image and detector.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import timing  # noqa: F401  first, for one thread  # isort: skip
import torch
from ceph import ROOT, TARGETS, Cephalograms
from changed_images import HARD, WRONG, Change, unchanged
from monai.data import MetaTensor
from torch import Tensor

from medpixcl import Detector
from medpixcl.landmarks.calibration import conformal_quantile
from medpixcl.landmarks.difficulty import difficulty, image_difficulty, widened
from medpixcl.landmarks.habit import learn_habit, left_out_errors
from medpixcl.landmarks.regions import calibrate_regions, covered, region_scale, region_size
from medpixcl.matching import LandmarkMatcher, ShapeStatistics
from medpixcl.transforms import CropUniformEdgesd

TEMPLATE, SPACING, COVERAGE, CALIBRATING = "125", [0.5, 0.5], 0.9, 50
SELF_TRAINED, TRAINED = "xray_landmark_selftraining", "cephalometric_landmark_detection"
DETECTORS = {"train": (SELF_TRAINED,), "test1": (SELF_TRAINED, TRAINED)}
"""Of each split those that have not seen its labels."""
MATCHING = "one-shot matching"
MEAN = TARGETS[0]
"""Target that calibrates: the mean of the readers."""
CORRECTED = (3, 5, 10)
"""Numbers of images that a reader corrects."""
NAMES = [str(number) for number in range(1, 20)]
COLUMNS = (
    "held",
    "median mm",
    "mean mm",
    "held by circles",
    "median mm",
    "mean mm",
    "unsure",
    "mm, unsure",
    "mm, sure",
    "warned",
)


@dataclass(frozen=True)
class Found:
    """What was found in N images.

    Attributes:
        places: Found positions in mm, (N, K, 2).
        marks: True positions in mm by reader, (N, K, 2); NaN where the image does not show the landmark.
        covariance: Covariances in mm^2, (N, K, 2, 2).
        difficulties: Difficulty of each landmark, (N, K).
        doubtful: Landmarks flagged as unsure without regions, (N, K).
    """

    places: Tensor
    marks: Mapping[str, Tensor]
    covariance: Tensor
    difficulties: Tensor
    doubtful: Tensor

    @property
    def away(self) -> Tensor:
        """Mean of the readers less found positions in mm, (N, K, 2)."""
        return self.marks[MEAN] - self.places

    @property
    def widened(self) -> Tensor:
        """Covariances that the regions are made of."""
        return widened(self.covariance, self.difficulties)

    @property
    def errors(self) -> Tensor:
        """Distances in mm, (N, K)."""
        return torch.linalg.vector_norm(self.away, dim=-1)


def marks_of(readers: Mapping[str, Cephalograms], name: str, picture: MetaTensor) -> Tensor:
    """True voxels of an image by all readers, (3 * K, 2)."""
    return torch.cat([reader.truth(name, picture) for reader in readers.values()])


def collected(rows: Sequence[tuple[Tensor, ...]]) -> Found:
    """From places (K, 2), marks of all readers (3 * K, 2), covariance, difficulties and flags of every image."""
    places, marks, *others = [torch.stack(column) for column in zip(*rows, strict=True)]
    by_reader = (part.double() * SPACING[0] for part in marks.chunk(len(TARGETS), dim=1))
    return Found(places.double() * SPACING[0], dict(zip(TARGETS, by_reader, strict=True)), *others)


def without_edges(image: Tensor, marks: Tensor) -> tuple[Tensor, Tensor]:
    """Crop a changed image as the detectors' preparation does, and move the marks with it."""
    affine = torch.diag(torch.tensor([*SPACING, 1.0], dtype=torch.float64))
    cropped = CropUniformEdgesd("image")({"image": MetaTensor(image, affine=affine)})["image"]
    return cropped.as_tensor(), marks - cropped.affine[:2, 2] / SPACING[0]


def detected(
    readers: Mapping[str, Cephalograms],
    detector: Detector,
    shape: ShapeStatistics,
    images: Sequence[str],
    change: Change,
) -> Found:
    """What a detector finds in changed images."""
    rows = []
    for number, name in enumerate(images):
        picture = readers[MEAN].load(name)
        generator = torch.Generator().manual_seed(number)
        image, marks = change(picture.as_tensor(), marks_of(readers, name, picture), generator)
        image, marks = without_edges(image, marks)
        found = detector.inferer(image[None], detector.network)
        points, confidence = found["points"][0].double(), found["confidence"][0]
        judged = shape.judge(points.flip(1) * SPACING[0])
        doubtful = (confidence < detector.min_confidence) | ~judged.fits
        difficulties = difficulty(confidence, judged.deviations)
        rows.append((points, marks, found["covariance_mm2"][0].double(), difficulties, doubtful))
    return collected(rows)


def matched(readers: Mapping[str, Cephalograms], images: Sequence[str]) -> Found:
    """What is found from one template."""
    cephalograms = readers[MEAN]
    embed, template = cephalograms.matcher().model, cephalograms.load(TEMPLATE)
    marks = cephalograms.truth(TEMPLATE, template)
    matcher = LandmarkMatcher().fit(embed, embed.strides, template.as_tensor()[None], marks, SPACING)
    rows = []
    for name in images:
        picture = cephalograms.load(name)
        result = matcher.match(embed(picture.as_tensor()[None]), picture.shape[1:], SPACING)
        doubtful = torch.tensor([flag == "unsure" for flag in result.flags])
        covariance, difficulties = result.covariance_mm2.double(), difficulty(result.scores)
        rows.append((result.voxels, marks_of(readers, name, picture), covariance, difficulties, doubtful))
    return collected(rows)


def one_split(known: Found, new: Found, calibrating: Tensor, measured: Tensor) -> list[float]:
    """Numbers of ``COLUMNS``: calibrated on some images, measured on others."""
    whole = image_difficulty(known.difficulties)[calibrating]
    calibration = calibrate_regions(
        known.away[calibrating], known.widened[calibrating], NAMES, coverage=COVERAGE, difficulty=whole
    )
    regions = calibration.regions_of(NAMES, new.widened[measured])
    away, errors, sizes = new.away[measured], new.errors[measured], region_size(regions)
    unsure = calibration.unsure(regions) | new.doubtful[measured]
    radii = conformal_quantile(known.errors[calibrating], COVERAGE)
    shown = ~errors.isnan()
    numbers = [covered(away, regions).nanmean(), sizes.median(), sizes.mean()]
    numbers += [(errors <= radii)[shown].double().mean(), radii.median(), radii.mean()]
    numbers += [unsure.double().mean(), errors[unsure & shown].mean(), errors[~unsure & shown].mean()]
    warned = calibration.warning(image_difficulty(new.difficulties[measured])) != ""
    return [*[float(number) for number in numbers], float(warned)]


def print_table(rows: Mapping[str, Found], repeats: int, generator: torch.Generator) -> None:
    """Means over random splits, one line for each kind of image; the calibration is on unchanged images."""
    known = rows[""]
    count = len(known.away)
    print("  " + " " * 20 + "".join(f"{title:>16s}" for title in COLUMNS))
    orders = [torch.randperm(count, generator=generator) for _ in range(repeats)]
    for kind, new in rows.items():
        numbers = []
        for order in orders:
            measured = order[CALIBRATING:]
            numbers.append(one_split(known, new, order[:CALIBRATING], measured[measured < len(new.away)]))
        table = torch.tensor(numbers)
        cells = (f"{mean:.3f} ({sd:.3f})" for mean, sd in zip(table.nanmean(0), table.std(0), strict=True))
        print(f"  {kind or 'unchanged':20s}" + "".join(f"{cell:>16s}" for cell in cells), flush=True)


def after_corrections(found: Found, reader: str, order: Tensor, number: int) -> list[float]:
    """Held share and median size in mm: as calibrated, moved by the habit of corrected images, and stretched, too.

    The first images of the order calibrate on the mean of the readers, one reader corrects the next, the rest is
    measured against this reader.
    """
    calibrating, corrected = order[:CALIBRATING], order[CALIBRATING : CALIBRATING + number]
    measured = order[CALIBRATING + number :]
    calibration = calibrate_regions(found.away[calibrating], found.widened[calibrating], NAMES, coverage=COVERAGE)
    places, marks = found.places, found.marks[reader]
    moved = learn_habit(NAMES, places[corrected], marks[corrected]).apply(places[measured])
    regions = calibration.regions_of(NAMES, found.widened)
    scale = region_scale(left_out_errors(places[corrected], marks[corrected]), regions[corrected], COVERAGE)
    numbers = []
    for at, factor in ((places[measured], 1.0), (moved, 1.0), (moved, scale or 1.0)):
        sizes = region_size(regions[measured] * factor**2)
        numbers += [covered(marks[measured] - at, regions[measured] * factor**2).nanmean(), sizes.median()]
    return [float(number) for number in numbers]


def print_after_corrections(found: Found, repeats: int, generator: torch.Generator) -> None:
    """Means over random splits, one line for each reader and number of corrected images."""
    columns = ("held", "median mm", "moved: held", "median mm", "stretched: held", "median mm")
    print("  " + " " * 20 + "".join(f"{title:>17s}" for title in columns))
    orders = [torch.randperm(len(found.places), generator=generator) for _ in range(repeats)]
    for reader in TARGETS:
        for number in CORRECTED:
            table = torch.tensor([after_corrections(found, reader, order, number) for order in orders])
            cells = (f"{mean:.3f} ({sd:.3f})" for mean, sd in zip(table.nanmean(0), table.std(0), strict=True))
            print(f"  {reader:17s}{number:3d}" + "".join(f"{cell:>17s}" for cell in cells), flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--split", choices=tuple(DETECTORS), default="train")
    parser.add_argument("--images", type=int, default=130)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--changed", type=int, default=0, help="Number of images to change in every way.")
    parser.add_argument("--only", help="Name of the one bundle whose detector is measured.")
    options = parser.parse_args()
    readers, generator = {target: Cephalograms(target=target) for target in TARGETS}, torch.Generator().manual_seed(0)
    free = [name for name in readers[MEAN].images(options.split) if name != TEMPLATE]
    images = [free[number] for number in torch.randperm(len(free), generator=generator)[: options.images].tolist()]
    if len(images) <= CALIBRATING:
        raise SystemExit(f"{len(images)} images are too few: {CALIBRATING} calibrate, the others are measured")
    changes = HARD | WRONG if options.changed else {}
    for bundle in DETECTORS[options.split]:
        if options.only in (None, bundle):
            detector = Detector.from_bundle(ROOT / "bundles" / bundle, trust=True)
            shape = detector.shape
            assert shape is not None, "the shipped detectors know the shape of their landmarks"
            with torch.no_grad():
                rows = {"": detected(readers, detector, shape, images, unchanged)}
                for kind, change in changes.items():
                    rows[kind] = detected(readers, detector, shape, images[: options.changed], change)
            print(f"\n{bundle}: {len(images)} images, MRE {float(rows[''].errors.mean()):.2f} mm")
            print_table(rows, options.repeats, generator)
            print_after_corrections(rows[""], options.repeats, generator)
    if options.only in (None, MATCHING):
        found = matched(readers, images)
        print(f"\n{MATCHING}: {len(images)} images, MRE {float(found.errors.mean()):.2f} mm")
        print_table({"": found}, options.repeats, generator)
        print_after_corrections(found, options.repeats, generator)


if __name__ == "__main__":
    main()
