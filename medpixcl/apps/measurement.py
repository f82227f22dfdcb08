"""Cephalometric measurements of a landmark file, and comparison between the files of readers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from medpixcl.coordinates import image_affine, spatial_affine, voxel_to_mm
from medpixcl.data.identity import named_images, pair_images, telling_names, unique_table_names
from medpixcl.data.image_keys import HOW_FOUND
from medpixcl.data.images import image_format, read_image
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.row import CORRECTED, LandmarkRow
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.manifest import Manifest, is_manifest
from medpixcl.data.pixels import MissingSpacingError, SpacingMM
from medpixcl.data.tables import read_table
from medpixcl.data.text import shown_names
from medpixcl.landmarks.cephalometry import (
    OPEN,
    ReaderComparison,
    cephalometric_values,
    compare_readers,
    half_intervals,
    landmark_roles,
    measurements,
    why_not,
)
from medpixcl.landmarks.points import OFF_PLANE_MM
from medpixcl.landmarks.regions import balls
from medpixcl.limits import regular_file

_ANYWHERE = (10**9, 10**9)


class ListedPicture(NamedTuple):
    """Picture of an image, and its pixel size in mm where a manifest gives it."""

    file: Path
    spacing_mm: SpacingMM | None = None


@dataclass(frozen=True)
class Measured:
    """Measurements of the images of one landmark file.

    Attributes:
        file: Landmark file that was measured.
        images: Names of the N images in the file.
        roles: Abbreviation of each of the K landmarks; None for a landmark without a known role.
        points: Landmarks (x, y) in mm, shape (N, K, 2), NaN where missing.
        values: Values of the M measurements, shape (N, M), see :func:`medpixcl.landmarks.cephalometry.measure`.
        halves: Half the length of the interval around each value, shape (N, M); infinite where it is open, NaN where
            the landmarks have no region.
    """

    file: LandmarkFile
    images: tuple[str, ...]
    roles: tuple[str | None, ...]
    points: Float[Tensor, "n k 2"]
    values: Float[Tensor, "n m"]
    halves: Float[Tensor, "n m"]

    @cached_property
    def short_names(self) -> dict[str, str]:
        """Name of each image for people, see :func:`medpixcl.data.identity.telling_names`."""
        return telling_names(self.images)

    @cached_property
    def reasons(self) -> list[list[str]]:
        """Reason why each measurement of an image cannot be computed; empty if it can."""
        return why_not(self.points, self.roles)

    @cached_property
    def doubts(self) -> list[list[str]]:
        """Landmarks flagged as unsure that a measurement of an image needs, as a sentence; empty without any."""
        unsure = [self._doubtful(image) for image in self.images]
        return [
            [
                "" if reason else _doubt([role for role in one.landmarks if role in of_image])
                for reason, one in zip(row, measurements(), strict=True)
            ]
            for row, of_image in zip(self.reasons, unsure, strict=True)
        ]

    @property
    def doubtful(self) -> list[list[bool]]:
        """True for each image and measurement that needs a landmark flagged as unsure."""
        return [[doubt != "" for doubt in row] for row in self.doubts]

    @property
    def remarks(self) -> list[list[str]]:
        """Why a measurement of an image cannot be computed, or its unsure landmarks and that its interval is open."""
        open_ends = [[OPEN * endless for endless in row] for row in self.halves.isinf().tolist()]
        rows = zip(self.reasons, self.doubts, open_ends, strict=True)
        return [[why or "; ".join(filter(None, rest)) for why, *rest in zip(*row, strict=True)] for row in rows]

    def _doubtful(self, image: str) -> set[str | None]:
        """Abbreviations of the landmarks of an image that are flagged as unsure."""
        rows = [self.file.row(image, name) for name in self.file.names]
        return {role for role, row in zip(self.roles, rows, strict=True) if row is not None and row.flag == "unsure"}


def measure_file(
    path: Path,
    *,
    names: Mapping[str, str] | None = None,
    spacing_mm: float | None = None,
    exclude: Sequence[str] = (),
    pictures: Mapping[str, ListedPicture] | None = None,
    coverage: float = 0.9,
) -> Measured:
    """Measure all images of a landmark file.

    Args:
        path: Landmark file that :func:`medpixcl.data.landmarks.reading.read_landmarks` reads.
        names: Anatomical name of each landmark, see :func:`medpixcl.landmarks.cephalometry.landmark_roles`.
        spacing_mm: Pixel size in mm for positions in pixels whose file does not state it.
        exclude: Images to leave out, by their name in the landmark file or their file name.
        pictures: Picture of each image; it gives the pixel size if the landmark file does not.
        coverage: Probability with which the radii or regions of the landmark file, if it has any, hold the true
            positions.

    Raises:
        ValueError: If the landmarks are unknown or not 2D, pixels have no size, or no image is left.
    """
    file = read_landmarks(path)
    roles = landmark_roles(file.names, {name: known for name, known in (names or {}).items() if name in file.names})
    left_out = set(named_images(exclude, file.images).values())
    images = tuple(image for image in file.images if image not in left_out)
    if not images:
        raise ValueError(f"{path}: all of its {len(file.images)} images are excluded; there is nothing to measure.")
    points = _positions(file, images, spacing_mm, pictures or {})
    regions, values = _regions(file, images), cephalometric_values(points, roles)
    halves = half_intervals(points, roles, regions, coverage=coverage)
    if not bool(regions.isnan().all()):  # then a measurement without an interval is not one without an error
        halves = torch.where(halves.isnan() & ~values.isnan(), torch.inf, halves)
    return Measured(file, images, roles, points, values, halves)


def compare_files(measured: Measured, references: Sequence[Measured]) -> list[ReaderComparison]:
    """Compare the measurements of a file with those of other readers on its images, NaN where missing."""
    readers = {}
    names = unique_table_names([measured.file.path, *(one.file.path for one in references)])
    folder = image_folder(measured.file)
    paths = {image: folder / image for image in measured.images}
    for name, reader in zip(names, (measured, *references), strict=True):
        by_path, by_key = reader.file.assign(paths.values()).keys, pair_images(measured.images, reader.file.images)
        rows = [by_path.get(path, by_key.get(image)) for image, path in paths.items()]
        nothing = torch.full_like(reader.values[0], torch.nan)
        at = dict(zip(reader.images, reader.values, strict=True))
        readers[name] = torch.stack([nothing if row is None else at.get(row, nothing) for row in rows])
        if not bool((~readers[name].isnan()).any()):
            raise ValueError(
                f"{reader.file.path} measures none of the images of {measured.file.path} but "
                f"{reader.file.keys_shown()}; {HOW_FOUND}."
            )
    return compare_readers(readers)


def copies_among(comparisons: Sequence[ReaderComparison]) -> list[str]:
    """A sentence for each two readers whose measurements are all equal."""
    return [
        f"{pair.first} against {pair.second}: every measurement is the same; is one file a copy of the other?"
        for pair in comparisons
        if not any(one.mean_absolute > 0 for one in pair.measurements)
    ]


def find_pictures(file: LandmarkFile, where: Path) -> dict[str, ListedPicture]:
    """Find the pictures of a landmark file's images in a manifest, or in a folder and its subfolders.

    Raises:
        ValueError: If the folder does not exist, or holds no picture, or two of one image.
    """
    if not where.exists():
        raise ValueError(f"{where} does not exist; expected a picture, a folder of pictures or a manifest.")
    sizes = _listed_pictures(where)
    assigned = file.assign(sizes)
    if assigned.unclear:
        image, (one, other, *_) = next(iter(assigned.unclear.items()))
        raise ValueError(f"{one} and {other} are both the image {image!r}; keep one of the two in {where}.")
    found = {image: ListedPicture(path, sizes[path]) for path, image in assigned.keys.items()}
    if not found:
        raise ValueError(f"{where} holds no image of {file.path}, which names {file.keys_shown()}; {HOW_FOUND}.")
    return found


def _listed_pictures(where: Path) -> dict[Path, SpacingMM | None]:
    """Picture files of a manifest with their pixel sizes in mm; those of a folder, or one file, without."""
    if is_manifest(where):
        listed = {Path(one["image"]): one for _, one in Manifest.read(where).listed() if isinstance(one["image"], str)}
        return {path: entry.get("spacing_mm") for path, entry in listed.items() if path.is_file()}
    files = [where] if where.is_file() else sorted(path for path in where.rglob("*") if path.is_file())
    return {path: None for path in files if image_format(path) is not None}


def read_names(path: Path) -> dict[str, str]:
    """Read the anatomical name of each landmark from a CSV with the columns ``landmark`` and ``name``.

    Raises:
        ValueError: If a column is missing, or the table has no rows.
    """
    if not regular_file(path).is_file():
        raise ValueError(f"{path} does not exist; expected a CSV with the columns landmark and name.")
    table = read_table(path, ("landmark", "name"))
    if not table.rows or not {"landmark", "name"} <= set(table.columns):
        columns = shown_names(table.columns) if table.rows else "(no rows)"
        raise ValueError(f"{path} has the columns {columns}; expected landmark and name, and a row for each landmark.")
    return {row["landmark"]: row["name"] for _, row in table.rows if row["name"]}


def image_folder(file: LandmarkFile) -> Path:
    """Folder to which the image names of a landmark file are relative."""
    return file.path if file.path.is_dir() else file.path.parent


def _positions(
    file: LandmarkFile, images: Sequence[str], spacing_mm: float | None, pictures: Mapping[str, ListedPicture]
) -> Float[Tensor, "n k 2"]:
    """Landmarks in mm, with the pixel size of the landmark file, else of the picture, else the given one."""
    try:
        known = file.positions_mm()
    except MissingSpacingError as error:
        if spacing_mm is None and not pictures:
            raise MissingSpacingError(error.path, f"{error.reason.rstrip('.')}, or give spacing_mm.") from None
        return torch.stack([_scaled(file, image, spacing_mm, pictures.get(image)) for image in images])
    points = torch.full((len(images), len(file.names), 2), torch.nan, dtype=torch.float64)
    for row, image in enumerate(images):
        for column, name in enumerate(file.names):
            if name in known[image]:
                points[row, column] = _flat(file, image, known[image][name])
    return points


def _regions(file: LandmarkFile, images: Sequence[str]) -> Float[Tensor, "n k 2 2"]:
    """Ellipse around each landmark in mm^2, from its region or error radius; NaN where the file has neither.

    In a file that has some, what a reader corrected counts as exact.
    """
    found = [[file.row(image, name) for name in file.names] for image in images]
    regions = torch.stack([torch.stack([_region(one) for one in row]) for row in found])
    if bool(regions.isnan().all()):
        return regions
    exact = torch.tensor([[one is not None and one.flag == CORRECTED for one in row] for row in found])
    return torch.where(exact[..., None, None] & regions.isnan(), 0.0, regions)


def _region(row: LandmarkRow | None) -> Float[Tensor, "2 2"]:
    if row is not None and row.region_mm2 is not None:
        return torch.tensor(row.region_mm2, dtype=torch.float64)[:2, :2]
    radius = math.nan if row is None or row.radius_mm is None else row.radius_mm
    return balls(torch.tensor(radius, dtype=torch.float64), 2)


def _doubt(roles: Sequence[str]) -> str:
    return f"unsure: landmark{'s' if len(roles) > 1 else ''} {', '.join(roles)}" if roles else ""


def _flat(file: LandmarkFile, image: str, position: tuple[float, ...]) -> Tensor:
    if any(abs(value) > OFF_PLANE_MM for value in position[2:]):
        raise ValueError(
            f"{file.path}: a landmark of {image!r} lies at z = {position[2]:.1f} mm; cephalometry takes the landmarks "
            "of a 2D radiograph, with z of 0 or none."
        )
    return torch.tensor(position[:2], dtype=torch.float64)


def _scaled(
    file: LandmarkFile, image: str, spacing_mm: float | None, picture: ListedPicture | None
) -> Float[Tensor, "k 2"]:
    """Landmarks of one image in mm, with its own pixel size or the given one."""
    if picture is None and spacing_mm is None:
        raise MissingSpacingError(file.path, f"nothing says the pixel size of {image!r}; give spacing_mm.")
    if picture is None:
        assert spacing_mm is not None
        affine = image_affine((spacing_mm, spacing_mm))
    else:
        size = picture.spacing_mm or spacing_mm
        affine = torch.as_tensor(read_image(picture.file, spacing_mm=size).affine, dtype=torch.float64)
    points = file.for_image(image_folder(file) / image, affine, _ANYWHERE)
    return voxel_to_mm(points.voxels, spatial_affine(affine, 2))
