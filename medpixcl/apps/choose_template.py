"""Choose the images most worth annotating, by matching every image with every other one."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl._typing import Embed, StepProgress
from medpixcl.apps.candidates import Candidate, ChoiceSettings, candidates_of, check_count, read_candidate
from medpixcl.apps.images import ImageList
from medpixcl.coordinates import spacing_of, working_affine
from medpixcl.data.identity import first_file
from medpixcl.data.tables import write_csv
from medpixcl.matching import describe
from medpixcl.matching.key_points import choose_greedily, find_points, point_quality
from medpixcl.reports.canvas import SERIES, chart, panel_grid
from medpixcl.reports.figures import save_png
from medpixcl.reports.panels import panels

FOUND_BACK_CELLS = 2


@dataclass(frozen=True)
class Choice:
    """Result of the choice of templates.

    Attributes:
        chosen: Images worth annotating, in the order of their choice.
        worth: Mean quality over all points after each choice.
        ranking: One row per image, best image first: ``rank``, ``image``, ``score``, ``similarity``, ``cycle_mm``,
            ``found_back_percent``, ``chosen``.
        rejected: Reason for every file that was not compared.
        files: File of each image, by image name.
        points: Key points of each chosen image.
        served: Mean quality, 0 to 1, with which each key point was found in the other images.
    """

    chosen: list[str]
    worth: list[float]
    ranking: list[dict[str, Any]]
    rejected: dict[str, str]
    files: dict[str, str]
    points: dict[str, Tensor]
    served: dict[str, Tensor]


_COLUMNS = ("rank", "image", "score", "similarity", "cycle_mm", "found_back_percent", "chosen")
"""Columns of the ranking: ``score`` is the mean quality, from 0 to 1, of the other images' points found in this one;
``similarity`` the mean product of cosines, ``cycle_mm`` the median distance after the way back, and
``found_back_percent`` the share of points that came back to within 2 cells; ``chosen`` numbers the chosen ones."""


def choose_templates(
    images: ImageList,
    preprocessing: Compose,
    embed: Embed,
    strides: Sequence[int],
    settings: ChoiceSettings,
    *,
    split: str | None = None,
    progress: StepProgress = lambda step, done, total: None,
) -> Choice:
    """Rank images by how well their points are found in the others, and choose the best set of templates.

    Args:
        images: Candidate images. Only the first of several copies of a picture is compared.
        preprocessing: Transforms that prepare an image.
        embed: Pretrained embedding network.
        strides: Voxels per cell of the network's levels, finest first.
        settings: Settings of the comparison.
        split: Section of the manifest, or the data set's own name for a split; None takes all images.
        progress: Function called after every image of each step.

    Raises:
        ValueError: If fewer than two images can be compared, or fewer than are to be chosen.
    """
    items, rejected = candidates_of(images, split, settings)
    candidates: list[Candidate] = []
    for number, item in enumerate(items):
        path = first_file(item)
        try:
            candidates.append(read_candidate(item, images.name(path), preprocessing, embed, strides, settings, number))
        except (ValueError, RuntimeError, OSError) as error:
            rejected[images.name(path)] = str(error).splitlines()[0]
        progress("reading", number + 1, len(items))
    check_count(candidates, settings.count, images.path, rejected)
    used = strides[len(strides) - len(candidates[0].levels) :]
    found = _find_all(candidates, used, progress)
    return _ranked(candidates, found, settings, rejected)


@dataclass(frozen=True)
class Findings:
    """Matches of all R key points in all N images.

    Attributes:
        owner: Index of the image that each point comes from, shape (R,).
        similarity: Product of cosines of each point's match in each image, shape (R, N).
        cycle_mm: Distance in mm from each point after matching there and back, shape (R, N).
    """

    owner: Tensor
    similarity: Float[Tensor, "r n"]
    cycle_mm: Float[Tensor, "r n"]


def _find_all(candidates: list[Candidate], strides: Sequence[int], progress: StepProgress) -> Findings:
    """Match the points of every image in every image and back, unpacking each image's maps only twice."""
    counts = [len(one.points) for one in candidates]
    vectors = [describe(one.maps(), strides, one.points) for one in candidates]
    joined = [torch.cat(level) for level in zip(*vectors, strict=True)]
    places, similarity = [], []
    for number, one in enumerate(candidates):
        found, scores = find_points(joined, one.maps(), strides, one.grid)
        places.append(found.cpu())
        similarity.append(scores.cpu())
        progress("looking for key points", number + 1, len(candidates))
    by_owner = torch.stack(places, dim=1).split(counts)
    cycles = []
    for number, (one, found) in enumerate(zip(candidates, by_owner, strict=True)):
        there = [
            describe(other.maps(), strides, found[:, other_number]) for other_number, other in enumerate(candidates)
        ]
        back, _ = find_points([torch.cat(level) for level in zip(*there, strict=True)], one.maps(), strides, one.grid)
        steps = torch.tensor(one.grid.spacing)
        miss = (back.cpu().unflatten(0, (len(candidates), -1)) - one.points) * steps
        cycles.append(torch.linalg.vector_norm(miss, dim=2).T)
        progress("looking back", number + 1, len(candidates))
    owner = torch.arange(len(candidates)).repeat_interleave(torch.tensor(counts))
    return Findings(owner, torch.stack(similarity, dim=1), torch.cat(cycles))


def _ranked(candidates: list[Candidate], found: Findings, settings: ChoiceSettings, rejected: dict[str, str]) -> Choice:
    """Score the images, choose among them and build the table."""
    names = [one.name for one in candidates]
    quality = point_quality(found.similarity, found.cycle_mm)
    own = found.owner[:, None] == torch.arange(len(names))
    counts = found.owner.bincount()[found.owner]
    chosen, worth = choose_greedily(torch.where(own, 1.0, quality), 1 / (counts * len(names)), settings.count)
    # Every image counts alike, however many points it has; an image says nothing about itself.
    weights = torch.where(own, 0.0, 1 / (counts * (len(names) - 1))[:, None])
    scores = (weights * quality).sum(dim=0)
    similarity = (weights * found.similarity).sum(dim=0)
    back = (weights * (found.cycle_mm <= FOUND_BACK_CELLS * candidates[0].grid.cell_mm)).sum(dim=0)
    cycle = torch.where(own, torch.nan, found.cycle_mm).nanmedian(dim=0).values
    table = [
        {
            "rank": rank + 1,
            "image": names[number],
            "score": float(scores[number]),
            "similarity": float(similarity[number]),
            "cycle_mm": float(cycle[number]),
            "found_back_percent": 100 * float(back[number]),
            "chosen": chosen.index(number) + 1 if number in chosen else 0,
        }
        for rank, number in enumerate(scores.argsort(descending=True, stable=True).tolist())
    ]
    served = (torch.where(own, 0.0, quality).sum(dim=1) / (len(names) - 1)).split(found.owner.bincount().tolist())
    return Choice(
        chosen=[names[number] for number in chosen],
        worth=worth,
        ranking=table,
        rejected=rejected,
        files={one.name: one.path for one in candidates},
        points={one.name: one.points for one in candidates},
        served=dict(zip(names, served, strict=True)),
    )


def write_choice(choice: Choice, images: ImageList, preprocessing: Compose, output_dir: str | Path) -> None:
    """Write ``ranking.csv``, ``scores.png`` and a picture of every chosen image with its key points.

    The brighter a point, the better it was found in the other images.
    """
    folder = Path(output_dir)
    rows = [[*(_cell(row[column]) for column in _COLUMNS[:-1]), row["chosen"] or ""] for row in choice.ranking]
    write_csv(folder / "ranking.csv", [_COLUMNS, *rows])
    figure, axes = chart(xlabel="score", ylabel="images")
    scores = [row["score"] for row in choice.ranking]
    axes.hist(scores, bins=min(30, max(5, len(scores) // 5)), color=SERIES[0])
    for row in choice.ranking:
        if row["chosen"]:
            axes.axvline(row["score"], color=SERIES[1])
    save_png(figure, folder / "scores.png")
    for number, name in enumerate(choice.chosen, start=1):
        image = preprocessing(images.entry(choice.files[name]))["image"]
        picture = _picture(image, choice.points[name], choice.served[name])
        save_png(picture, folder / f"chosen_{number}_{images.stem(choice.files[name])}.png".replace("/", "_"))


def _cell(value: Any) -> Any:
    """Format a table cell; numbers other than counts get four decimals."""
    return f"{value:.4f}" if isinstance(value, float) else value


def _picture(image: MetaTensor, points: Tensor, served: Tensor) -> Any:
    """Draw an image with its key points."""
    affine = working_affine(image)
    place: dict[str, Any] = {"affine": affine} if image.ndim == 4 else {"spacing": spacing_of(affine).tolist()}
    views = panels(image.as_tensor()[0], **place)
    figure, axes = panel_grid(views, height=5.0)
    for panel, drawn in zip(views, axes, strict=True):
        x, y = panel.place(points.numpy()).T
        drawn.scatter(x, y, c=served.numpy(), s=18, cmap="inferno", vmin=0, vmax=1, edgecolors="white", linewidths=0.5)
    return figure
