"""Distances between a model and several readers, and between the readers themselves."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from medpixcl.data.annotated import weighted_mean
from medpixcl.data.identity import pair_images
from medpixcl.data.landmarks.comparison import NamedPositions, evaluate_positions
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.tables import write_csv
from medpixcl.data.wording import about
from medpixcl.landmarks.points import in_plane
from medpixcl.reports.tables import comparison_rows

Positions = Mapping[str, NamedPositions]
"""Positions in mm, LPS+, by image and landmark."""
SAME_MM = 1e-3
"""Distance in mm below which two positions are one: files hold four decimals of a mm or of a pixel."""
Compared = list[tuple[str, dict[str, Any]]]
"""Pairs of readers, each with the metrics of their distance."""


def read_readers(files: Mapping[str, Path]) -> dict[str, Positions]:
    """Read the positions from the landmark files of readers, by reader name."""
    return {name: read_landmarks(path).positions_mm() for name, path in files.items()}


def require_different_files(paths: Sequence[Path]) -> None:
    """Refuse to compare a landmark file with itself.

    Raises:
        ValueError: If a file is given twice.
    """
    given: dict[Path, Path] = {}
    for path in paths:
        if (first := given.setdefault(path.resolve(), path)) is not path:
            raise ValueError(f"{path} is the same file as {first}; give a file of each reader, once")


def same_points(metrics: Mapping[str, Any]) -> bool:
    """True if two landmark files agree in every point that both have, to the digits that files are written with."""
    errors = [error for entry in metrics["per_image"].values() for error in entry["errors_mm"].values()]
    return bool(errors) and max(errors) < SAME_MM


def compare_reader_positions(readers: Mapping[str, Positions], *, exclude: Collection[str] = ()) -> Compared:
    """Compare all pairs of readers on the first reader's images, and the first reader with the others' mean.

    Args:
        readers: Positions by reader name; the first one, usually the model, is the one evaluated.
        exclude: Images to leave out.

    Returns:
        Comparisons of the first reader, then those between the other readers. For SDR and the rest see
        :func:`medpixcl.data.landmarks.comparison.evaluate_positions`.

    Raises:
        ValueError: If two readers have no image in common.
    """
    judged, *others = readers
    known: dict[str, Positions] = {}
    for name, positions in readers.items():
        with about(name):
            known[name] = _on_images(positions, readers[judged])
    pairs = [(judged, other) for other in others]
    if len(others) > 1:
        known["mean of readers"] = mean_positions([known[other] for other in others])
        pairs += [(judged, "mean of readers"), *itertools.combinations(others, 2)]
    compared = []
    for one, other in pairs:
        with about(title := f"{one} against {other}"):
            compared.append((title, evaluate_positions(known[one], known[other], exclude=exclude)))
    return compared


def mean_positions(readers: Collection[Positions]) -> dict[str, dict[str, list[float]]]:
    """Mean position over several readers, for each landmark over the readers that have it.

    Example:
        >>> mean_positions([{"a.png": {"sella": (1.0, 2.0)}}, {"a.png": {"sella": (3.0, 2.0), "nasion": (5.0, 5.0)}}])
        {'a.png': {'sella': [2.0, 2.0], 'nasion': [5.0, 5.0]}}
    """
    mean = {}
    every = [point for positions in readers for points in positions.values() for point in points.values()]
    dims = min((len(point) for point in every if point is not None), default=2)
    for image in dict.fromkeys(image for positions in readers for image in positions):
        given = [positions.get(image, {}) for positions in readers]
        names = dict.fromkeys(name for points in given for name in points)
        found = {
            name: [list(in_plane(point, dims)) for points in given if (point := _known(points.get(name))) is not None]
            for name in names
        }
        mean[image] = {
            name: weighted_mean(torch.tensor(points, dtype=torch.float64)[:, None], [1.0] * len(points))[0].tolist()
            for name, points in found.items()
            if points
        }
    return mean


def write_reader_table(path: Path, compared: Compared) -> None:
    """Write the comparisons as CSV."""
    write_csv(path, comparison_rows(compared))


def _known(point: Sequence[float] | None) -> Sequence[float] | None:
    return None if point is None or any(math.isnan(value) for value in point) else point


def _on_images(positions: Positions, judged: Positions) -> dict[str, NamedPositions]:
    """Positions under the names of the evaluated images; other images are dropped."""
    return {image: positions[other] for image, other in pair_images(judged, positions).items()}
