"""Read exogenous channels of an image: depth, a label map or any other map on the same grid.

A channel is stored as its values followed by its validity: 1 where the file has a value, 0 elsewhere. Where the
validity is 0 the values are 0, never NaN, so that no NaN spreads through interpolation or comparisons.
"""

import os
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from monai.data import MetaTensor

from medpixcl.coordinates import apply_affine, spacing_of, spatial_affine
from medpixcl.data.image_keys import FilesOfImages
from medpixcl.data.images import read_pixels
from medpixcl.data.paths import checked_path
from medpixcl.data.pictures import PICTURE_SUFFIXES
from medpixcl.data.pixels import ImageFileError
from medpixcl.data.sources import visible_files

CHANNEL_KINDS = ("continuous", "categorical")
DEPTH_CODES = (0.0, 65535.0)
"""Values of 16-bit depth pictures that mean "no depth": nothing hit, too near or too far."""
DONOR = "donor"
"""Key of the item whose exogenous channel another item borrows."""
_EXAMPLES = 3
_PLACE_TOLERANCE = 0.5  # of a voxel: further apart and the two files show different places


class Grid(NamedTuple):
    """Grid of an image: spatial shape, and RAS+ affine (4, 4)."""

    shape: tuple[int, ...]
    affine: Float[torch.Tensor, "4 4"]


def read_exogenous(
    path: str | PathLike[str],
    grid: Grid,
    *,
    kind: str = "continuous",
    missing: Sequence[float | int] | None = None,
    scale: float = 1.0,
) -> MetaTensor:
    """Read the exogenous channel of one image.

    A picture has no position of its own and takes that of the image; other files must lie where the image lies.

    Args:
        path: Picture (PNG and the like), NIfTI, NRRD or MetaImage file.
        grid: Grid of the image that the channel belongs to.
        kind: Type of values: ``continuous`` (depth, distance) or ``categorical`` (whole numbers that name a class).
        missing: Values that mean "unknown", besides NaN and infinity. The default is 0 and 65535 for continuous
            pictures (as depth cameras write them) and none for volumes and classes.
        scale: Factor from stored values to the wanted unit, such as 0.2 for depth stored in fifths of a mm.

    Returns:
        float32, shape (2, *spatial): values and validity, with the affine of ``grid``.

    Raises:
        ImageFileError: If the file is not readable, differs from the image in size or position, holds only missing
            values, or is categorical and holds fractions.
    """
    if kind not in CHANNEL_KINDS:
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(CHANNEL_KINDS)}.")
    pixels = read_pixels(path)
    if pixels.values.shape != grid.shape:
        raise ImageFileError(
            path, f"has {_size(pixels.values.shape)} voxels, its image {_size(grid.shape)}; expected the same."
        )
    if pixels.affine is not None:
        _check_place(path, torch.from_numpy(pixels.affine), grid)
    if missing is None:
        coded = kind == "continuous" and str(path).lower().endswith(PICTURE_SUFFIXES)
        missing = DEPTH_CODES if coded else ()
    valid = np.isfinite(pixels.values) & ~np.isin(pixels.values, np.asarray(missing, dtype=np.float32))
    if not valid.any():
        codes = "".join(f", {code:g}" for code in missing)
        raise ImageFileError(path, f"holds nothing but missing values (NaN{codes}); expected some that are known.")
    values = np.where(valid, pixels.values, 0).astype(np.float32)
    if kind == "categorical" and (values != values.round()).any():
        raise ImageFileError(path, "holds fractions; a categorical channel needs whole numbers that name a class.")
    both = torch.from_numpy(np.stack([values * np.float32(scale), valid.astype(np.float32)]))
    return MetaTensor(both, affine=grid.affine, meta={"filename_or_obj": str(path)})


def _check_place(path: str | PathLike[str], affine: Float[torch.Tensor, "4 4"], grid: Grid) -> None:
    """Refuse a file whose corners lie elsewhere than those of the image."""
    dims = len(grid.shape)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, size - 1.0], dtype=torch.float64) for size in grid.shape])
    own, other = (spatial_affine(one.double(), dims) for one in (affine, grid.affine))
    apart = (apply_affine(own, corners) - apply_affine(other, corners)).norm(dim=-1).max()
    if apart > _PLACE_TOLERANCE * spacing_of(other).min():
        raise ImageFileError(
            path,
            f"lies up to {float(apart):.1f} mm away from its image; resample it to the grid of the image.",
        )


def _size(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


class ExogenousFiles:
    """Files of one channel, matched to images by name (:class:`medpixcl.data.image_keys.FilesOfImages`).

    Args:
        name: Name of the channel, such as ``depth``.
        place: Folder to search, including subfolders; the last part may be a pattern such as ``frames/*.depth.png``.
        what: Description of the files for error messages.

    Raises:
        ValueError: If the folder does not exist or holds no file, or the name is not one word.
    """

    def __init__(self, name: str, place: str | PathLike[str], what: str = "exogenous channel") -> None:
        if not (isinstance(name, str) and name.isidentifier()):
            raise ValueError(f"the {what} is named {name!r}; expected one word, such as depth.")
        path = checked_path(place, f"the folder of the {what} {name!r}").absolute()
        patterned = any(sign in path.name for sign in "*?[")
        self.name, self.what, self.folder = name, what, path.parent if patterned else path
        if not self.folder.is_dir():
            raise ValueError(f"{self.folder} is no folder; give the one that holds the {what} {name!r}.")
        self.files = sorted(path.parent.glob(path.name)) if patterned else visible_files([path])
        if not self.files:
            raise ValueError(f"{path} holds no file of the {what} {name!r}.")
        self._index = FilesOfImages(self.folder, self.files)

    def find(self, image: Path, roots: Sequence[Path]) -> Path | None:
        """Return the file of an image, or None if it has no file.

        Args:
            image: Absolute path of the image.
            roots: Folders that the image's relative path may start from.

        Raises:
            ValueError: If several files fit.
        """
        files = self._index.find(image, roots)
        if len(files) > 1:
            shown = ", ".join(os.path.relpath(file, self.folder) for file in files[:_EXAMPLES])
            raise ValueError(
                f"{self.folder}: {image.name} may belong to any of {shown}; keep one, or give {self.name!r} "
                f"as a pattern such as *.{self.name}.png."
            )
        return files[0] if files else None


def exogenous_path(item: Mapping[Any, Any], name: str) -> str:
    """Return the path of an item's exogenous channel.

    Raises:
        ValueError: If the item does not name this channel.
    """
    named = item.get("exogenous") or {}
    if name not in named:
        has = f"only {', '.join(sorted(named))}" if named else "none"
        raise ValueError(
            f"{item.get('image')}: the exogenous channel {name!r} is asked for, but the manifest names {has}; "
            f"scan again with its folder (`medpixcl scan --exogenous {name}=FOLDER`)."
        )
    return str(named[name])


def with_donors(items: Sequence[Mapping[str, Any]], *, seed: int = 0) -> list[dict[str, Any]]:
    """Add a donor item to each item, for the control "depth of another image".

    The donors form one random cycle through all items: no item is its own donor, and each is a donor once.

    Args:
        items: Datalist of the images.
        seed: Random seed for the cycle.

    Returns:
        Copies of the items with the donor item under ``donor``.

    Raises:
        ValueError: If there are fewer than two items.

    Example:
        >>> [item["donor"]["image"] for item in with_donors([{"image": "a"}, {"image": "b"}])]
        ['b', 'a']
    """
    if len(items) < 2:
        raise ValueError(f"{len(items)} image(s) cannot exchange their exogenous channel; give at least two.")
    order = np.random.default_rng(seed).permutation(len(items))
    donors = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
    return [{**item, DONOR: dict(items[donors[number]])} for number, item in enumerate(items)]
