"""Candidate images for the choice of templates, and the data needed to compare them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from medpixcl._typing import Embed
from medpixcl.apps.images import SHOWN, ImageList
from medpixcl.coordinates import working_spacing
from medpixcl.data.identity import first_file
from medpixcl.data.manifest import SECTIONS
from medpixcl.informativeness import local_entropy
from medpixcl.matching.grid import CellGrid
from medpixcl.matching.key_points import draw_key_points
from medpixcl.matching.search import cells_inside

"""Image (1, C, *spatial) to level maps (1, E, *cells), finest first."""
SEEDS_APART = 1_000_003
"""Distance between the seeds of two runs, so that no image of one has the points of an image of the other."""


@dataclass(frozen=True, kw_only=True)
class ChoiceSettings:
    """Settings for comparing candidate images.

    Attributes:
        count: Number of images to choose.
        limit: Maximum number of images to compare, drawn at random; None compares all.
        key_points: Number of key points drawn in every image.
        min_distance_mm: Minimum distance between two key points in mm.
        entropy_radius_mm: Radius in mm of the window in which informativeness is measured.
        finest_cell_mm: Minimum cell size, in mm, of the levels used (the coarsest is always used); finer levels cost
            most and describe the whole image least.
        seed: Random seed for drawing key points and, with a limit, images.
    """

    count: int = 1
    limit: int | None = None
    key_points: int = 48
    min_distance_mm: float = 6.0
    entropy_radius_mm: float = 2.5
    finest_cell_mm: float = 4.0
    seed: int = 0


@dataclass(frozen=True)
class Candidate:
    """A candidate image with the data needed to compare it.

    Attributes:
        name: Name of the image in the results.
        path: Path of the image, or of its first file if it has several.
        levels: Level maps (E, *cells) in half precision, finest first.
        grid: Cells of the finest level that lie inside the image.
        points: Key points as voxels of the working image, shape (K, D).
    """

    name: str
    path: str
    levels: list[Tensor]
    grid: CellGrid
    points: Float[Tensor, "k d"]

    def maps(self) -> list[Tensor]:
        """Level maps in full precision."""
        return [level.float() for level in self.levels]


def candidates_of(
    images: ImageList, split: str | None, settings: ChoiceSettings
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Images to compare, at most ``limit`` and one per group of repeats, and the reason for each rejected file.

    Raises:
        ValueError: If the split has no image.
    """
    usable = {first_file(item): item for item in images.datalist}
    rejected, kept = dict(images.rejected), []
    groups: dict[str, str] = {}
    entries = [(section, entry) for section in SECTIONS for entry in images.manifest.datalist(section)]
    if split is not None and not any(split in (section, entry.get("split")) for section, entry in entries):
        raise ValueError(f"{images.path} has no image of the split {split!r}; give a section or split of the manifest")
    for section, entry in entries:
        path, group = first_file(entry), entry.get("duplicate_group")
        if path not in usable or (split is not None and split not in (section, entry.get("split"))):
            continue
        if group in groups:
            rejected[images.name(path)] = f"repeats {groups[group]}."
            continue
        if group is not None:
            groups[group] = images.name(path)
        kept.append(usable[path])
    if settings.limit is not None and settings.limit < len(kept):
        generator = torch.Generator().manual_seed(settings.seed)
        drawn = torch.randperm(len(kept), generator=generator)[: settings.limit].sort().values
        kept = [kept[number] for number in drawn.tolist()]
    return kept, rejected


def check_count(candidates: list[Candidate], count: int, path: Path, rejected: dict[str, str]) -> None:
    """Raise a ValueError if there are too few images."""
    least = max(2, count)
    if len(candidates) < least:
        reasons = "; ".join(f"{name} {reason.rstrip('.')}" for name, reason in list(rejected.items())[:SHOWN])
        raise ValueError(
            f"{path} has {len(candidates)} image(s) to compare{f' (rejected: {reasons})' if reasons else ''}; choosing "
            f"{count} needs at least {least}: give more images or a smaller -k"
        )


def read_candidate(
    item: dict[str, Any],
    name: str,
    preprocessing: Compose,
    embed: Embed,
    strides: Sequence[int],
    settings: ChoiceSettings,
    number: int,
) -> Candidate:
    """Read and embed one image, and draw its key points.

    Raises:
        ValueError: If the image cannot be read, or has no informative pixel.
    """
    image: MetaTensor = preprocessing(item)["image"]
    spacing = working_spacing(image)
    picture = image.as_tensor()[None].float()
    points = draw_key_points(
        local_entropy(picture[:, :1], radius=settings.entropy_radius_mm, spacing=spacing)[0, 0],
        settings.key_points,
        spacing=spacing,
        min_distance_mm=settings.min_distance_mm,
        generator=torch.Generator().manual_seed(settings.seed * SEEDS_APART + number),
    )
    if not len(points):
        raise ValueError("has no pixel that tells anything: it is empty or of one grey.")
    first = coarse_level(strides, min(spacing), settings.finest_cell_mm)
    levels = [level[0].half() for level in embed(picture)[first:]]
    shape = cells_inside(levels[0].shape[1:], strides[first], image.shape[1:])
    grid = CellGrid(tuple(shape), strides[first], tuple(spacing))
    return Candidate(name, first_file(item), levels, grid, points)


def coarse_level(strides: Sequence[int], spacing: float, finest_cell_mm: float) -> int:
    """Index of the finest level whose cells are at least a given size, or of the coarsest level.

    Example:
        >>> coarse_level([2, 4, 8, 16], 0.5, 4.0), coarse_level([1, 2], 0.5, 4.0)
        (2, 1)
    """
    sizes = [stride * spacing for stride in strides]
    return next((number for number, size in enumerate(sizes) if size >= finest_cell_mm * (1 - 1e-3)), len(sizes) - 1)
