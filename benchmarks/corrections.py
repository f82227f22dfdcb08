"""What a few corrected images give to all others: matching and the shipped detector on the ISBI 2015 cephalograms.

Some images are drawn and corrected (their landmarks are the reader's), the habit is learnt from them and the error is
measured on the others; 30 draws. For matching the reader is the mean of both, as the template's marks are; the
supervised detector, trained on that mean, meets the senior and the junior reader as clinics of their own. ``--turned``
turns every image by up to 20 degrees and scales it by 0.81 to 1.23, and compares offsets along the anatomy with offsets
along the image's axes. ``--active`` compares ways to choose the images to correct.

    python benchmarks/corrections.py --split test1 --json corrections.json

Positions are found once and kept in ``--positions``, seven minutes of one core without and ten with ``--turned``. The
settings of ``medpixcl.landmarks.habit`` were chosen with ``--split dev``, where the detector is measured on the 150
images that it was trained on, against each reader.
"""

import argparse
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from ceph import DATA, ROOT, TARGETS, Cephalograms
from jaxtyping import Float
from template_choice import templates_of
from torch import Tensor
from torch.nn import functional as F

from medpixcl.landmarks.habit import learn_habit, local_frames, posterior_offsets
from medpixcl.matching import LandmarkMatcher
from medpixcl.networks import LandmarkNet, load_weights
from medpixcl.networks.inferers import EmbeddingModel, LandmarkInferer

DETECTOR = ROOT / "bundles" / "cephalometric_landmark_detection" / "models" / "model.pt"
TEMPLATES = ("115", "125", "126", "144", "010", "050", "077")
"""Templates measured on ``test1``."""
DEV_TEMPLATES = 22
"""Training images drawn as templates of ``dev``, besides those used elsewhere."""
NUMBERS = (1, 3, 5, 10)
DRAWS = 30
NAMES = [str(number) for number in range(1, 20)]
Learner = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From found and true positions of corrected images (n, K, 2) and the others found (M, K, 2) to moved ones."""


@dataclass(frozen=True)
class Positions:
    """Positions in mm along the array axes, in N images.

    Attributes:
        found: Positions by what found them, (N, K, 2).
        confidence: Confidence of each position, (N, K).
        true: Positions by reader, (N, K, 2).
        scales: Size of each image, 1 where it was not scaled.
    """

    found: dict[str, Tensor]
    confidence: dict[str, Tensor]
    true: dict[str, Tensor]
    scales: Float[Tensor, " n"]


def turned(picture: Tensor, angle: float, scale: float) -> tuple[Tensor, Tensor, Tensor]:
    """Turn and scale an image (1, C, H, W) on a larger canvas; also return matrix and shift of its pixels."""
    height, width = picture.shape[2:]
    matrix = scale * torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    corners = torch.tensor([[0.0, 0.0], [0, width - 1], [height - 1, 0], [height - 1, width - 1]]) @ matrix.T
    shift = -corners.amin(dim=0)
    size = [math.ceil(float(length)) for length in corners.amax(dim=0) + shift]
    pixels = torch.stack(torch.meshgrid(*[torch.arange(float(length)) for length in size], indexing="ij"), dim=-1)
    source = (pixels - shift) @ torch.linalg.inv(matrix).T
    grid = (2 * source / torch.tensor([height - 1, width - 1]) - 1).flip(-1)[None]
    return F.grid_sample(picture, grid, align_corners=True), matrix, shift


@torch.no_grad()
def find_positions(data: Path, images: Sequence[str], templates: Sequence[str], *, turn: bool) -> Positions:
    """Match every template and run the detector in every image."""
    readers = {target: Cephalograms(data=data, target=target) for target in TARGETS}
    cephalograms = readers[TARGETS[0]]
    mm, spacing = cephalograms.spacing_mm, [cephalograms.spacing_mm] * 2
    network, detector = cephalograms.matcher().network, LandmarkNet(19).eval()
    embed = EmbeddingModel(network)
    load_weights(detector, DETECTOR)
    matchers = {}
    for name in templates:
        picture = cephalograms.load(name)
        marks = cephalograms.truth(name, picture)
        matchers[name] = LandmarkMatcher().fit(embed, network.strides, picture.as_tensor()[None], marks, spacing)
    detect, generator = LandmarkInferer(detector, spacing), torch.Generator().manual_seed(5)
    found: dict[str, list[Tensor]] = {name: [] for name in (*matchers, "detector")}
    confidence: dict[str, list[Tensor]] = {name: [] for name in found}
    true: dict[str, list[Tensor]] = {target: [] for target in TARGETS}
    scales = []
    for name in images:
        image = cephalograms.load(name)
        picture, matrix, shift = image.as_tensor()[None], torch.eye(2), torch.zeros(2)
        angle, size = (torch.rand(2, generator=generator) * 2 - 1).tolist()
        if turn:
            picture, matrix, shift = turned(picture, math.radians(20 * angle), 2 ** (0.3 * size))
        scales.append(2 ** (0.3 * size) if turn else 1.0)
        for target, reader in readers.items():
            true[target].append(mm * (reader.truth(name, image) @ matrix.T + shift).double())
        levels = embed(picture) if matchers else []
        for template, matcher in matchers.items():
            matched = matcher.match(levels, picture.shape[2:], spacing)
            found[template].append(mm * matched.voxels.double())
            confidence[template].append(matched.scores)
        detected = detect(picture, detector)
        found["detector"].append(mm * detected["points"][0].double())
        confidence["detector"].append(detected["confidence"][0])
    sizes = torch.tensor(scales, dtype=torch.float64)
    return Positions(_stacked(found), _stacked(confidence), _stacked(true), sizes)


def _stacked(rows: Mapping[str, Sequence[Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack(list(some)) for key, some in rows.items()}


def kept(path: Path, find: Callable[[], Positions]) -> Positions:
    """Positions of an earlier call, else found now and kept."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(vars(find()), path)
    return Positions(**torch.load(path, weights_only=True))


def habit(found: Tensor, true: Tensor, others: Tensor) -> Tensor:
    """What the package does."""
    return learn_habit(NAMES, found, true).apply(others)


def along_axes(found: Tensor, true: Tensor, others: Tensor) -> Tensor:
    """The same estimate of the offsets along the axes of the images, unturned and unscaled."""
    return others + posterior_offsets(true - found, 1.2)[0]


def shrunk_mean(found: Tensor, true: Tensor, others: Tensor) -> Tensor:
    """Simple arithmetic: the mean correction along the axes of the images, by ``n / (n + 1.5)``."""
    return others + (true - found).mean(dim=0) * len(found) / (len(found) + 1.5)


LEARNERS: dict[str, Learner] = {"habit": habit, "along the axes": along_axes, "shrunk mean": shrunk_mean}


def errors_after(learn: Learner, found: Tensor, true: Tensor, scales: Tensor, chosen: Tensor) -> float:
    """Mean error in mm of the unscaled anatomy, of all images but the corrected ones."""
    others = torch.ones(len(found), dtype=torch.bool)
    others[chosen] = False
    moved = learn(found[chosen], true[chosen], found[others])
    return float((torch.linalg.vector_norm(moved - true[others], dim=2).mean(dim=1) / scales[others]).mean())


def error_before(found: Tensor, true: Tensor, scales: Tensor) -> float:
    """Mean error in mm of the unscaled anatomy without corrections."""
    return float((torch.linalg.vector_norm(found - true, dim=2).mean(dim=1) / scales).mean())


def draws_of(images: int, number: int) -> list[Tensor]:
    """Images to correct, seeded by their number."""
    generator = torch.Generator().manual_seed(number)
    return [torch.randperm(images, generator=generator)[:number] for _ in range(DRAWS)]


def measure(positions: Positions, finders: Sequence[str], reader: str) -> dict[str, dict[str, dict[str, float]]]:
    """Mean error in mm over the draws, by learner, finder and number of corrected images (0: without)."""
    results: dict[str, dict[str, dict[str, float]]] = {}
    for finder in finders:
        found, true = positions.found[finder], positions.true[reader]
        for title, learn in LEARNERS.items():
            row = {"0": error_before(found, true, positions.scales)}
            for number in NUMBERS:
                after = [
                    errors_after(learn, found, true, positions.scales, one) for one in draws_of(len(found), number)
                ]
                row[str(number)] = sum(after) / len(after)
            results.setdefault(title, {})[finder] = row
    return results


def doubtful_first(positions: Positions, finder: str, number: int) -> Tensor:
    """Images of the least mean confidence."""
    return positions.confidence[finder].mean(dim=1).argsort()[:number]


def sure_first(positions: Positions, finder: str, number: int) -> Tensor:
    """Images of the greatest mean confidence."""
    return positions.confidence[finder].mean(dim=1).argsort(descending=True)[:number]


def typical_first(positions: Positions, finder: str, number: int) -> Tensor:
    """Images whose found shape is nearest to the median of the shapes, turned and scaled onto the first."""
    found = positions.found[finder]
    frames = torch.linalg.inv(local_frames(found[0], found))
    shapes = (found - found.median(dim=1, keepdim=True).values) @ frames.mT
    return torch.linalg.vector_norm(shapes - shapes.median(dim=0).values, dim=2).mean(dim=1).argsort()[:number]


CHOICES = {"doubtful": doubtful_first, "sure": sure_first, "typical": typical_first}


def measure_choices(positions: Positions, finders: Sequence[str], reader: str) -> dict[str, dict[str, float]]:
    """Mean error in mm over finders after correcting images chosen in some way, by choice and number of images."""
    rows: dict[str, dict[str, float]] = {}
    for title, choose in CHOICES.items():
        for number in NUMBERS:
            after = [
                errors_after(
                    habit,
                    positions.found[finder],
                    positions.true[reader],
                    positions.scales,
                    choose(positions, finder, number),
                )
                for finder in finders
            ]
            rows.setdefault(title, {})[str(number)] = sum(after) / len(after)
    return rows


def show(title: str, results: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Print the error of every finder, the mean and spread over them, and how many are worse than without."""
    for learner, rows in results.items():
        print(f"\n{title}, {learner}: MRE (mm) with {', '.join(('0', *map(str, NUMBERS)))} corrected images")
        for finder, row in rows.items():
            print(f"  {finder:10s} " + "  ".join(f"{value:.3f}" for value in row.values()))
        table = torch.tensor([list(row.values()) for row in rows.values()])
        if len(table) > 1:
            print("  mean       " + "  ".join(f"{value:.3f}" for value in table.mean(dim=0).tolist()))
            print("  SD         " + "  ".join(f"{value:.3f}" for value in table.std(dim=0).tolist()))
        print(f"  worse than without: {int((table[:, 1:] > table[:, :1]).sum())} of {table[:, 1:].numel()}")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--turned", action="store_true", help="Turn and scale every image.")
    parser.add_argument("--active", action="store_true", help="Compare ways to choose the images to correct.")
    parser.add_argument("--positions", type=Path, default=Path("runs/corrections"), help="Folder of found positions.")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data)
    images = cephalograms.images(options.split)
    templates = TEMPLATES if options.split == "test1" else templates_of(cephalograms, DEV_TEMPLATES)
    name = f"{options.split}{'_turned' if options.turned else ''}"
    positions = kept(
        options.positions / f"{name}.pt", lambda: find_positions(options.data, images, templates, turn=options.turned)
    )
    detected = positions
    if options.split == "dev":
        training = cephalograms.images("train")
        detected = kept(
            options.positions / f"train{'_turned' if options.turned else ''}.pt",
            lambda: find_positions(options.data, training, (), turn=options.turned),
        )
    matched = measure(positions, templates, TARGETS[0])
    show(f"matching, {name}, {len(images)} images", matched)
    results: dict[str, object] = {"split": name, "draws": DRAWS, "matching": matched}
    for reader in TARGETS[1:]:
        results[f"detector, {reader}"] = table = measure(detected, ["detector"], reader)
        show(f"detector against {reader}, {len(detected.scales)} images", table)
    if options.active:
        results["choices"] = choices = measure_choices(positions, templates, TARGETS[0])
        for title, row in choices.items():
            print(f"images chosen, {title} first: " + "  ".join(f"{value:.3f}" for value in row.values()))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
