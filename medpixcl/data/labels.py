"""Labels of the pixels of an image: a map of classes, or one mask per class, which may overlap."""

from collections.abc import Mapping, Sequence
from os import PathLike

import torch
from jaxtyping import Float
from monai.data import MetaTensor
from torch import Tensor

from medpixcl.data.exogenous import Grid, read_exogenous
from medpixcl.data.pixels import ImageFileError

Classes = Sequence[str] | Mapping[str, int]
"""Names of the classes, whose numbers in a label map are 1, 2, ...; or name to number, the other numbers being
background."""
_SHOWN = 5


def class_names(classes: Classes) -> list[str]:
    """List the names of the classes, in the order of the network's logits.

    Raises:
        ValueError: If there is no class, two classes share a name or a number, or a number is not positive.
    """
    names = list(classes)
    numbers = list(classes.values()) if isinstance(classes, Mapping) else list(range(1, len(names) + 1))
    if not names or len(set(names)) < len(names) or len(set(numbers)) < len(numbers) or min(numbers) < 1:
        raise ValueError(
            f"classes is {classes!r}; expected names, each once, or name to number in the label maps, from 1."
        )
    return names


def read_label(
    path: str | PathLike[str] | Sequence[str | PathLike[str]],
    grid: Grid,
    classes: Classes,
    *,
    overlapping: bool = False,
) -> MetaTensor:
    """Read the label of one image.

    A picture has no position of its own and takes that of the image; other files must lie where the image lies.

    Args:
        path: Label map file (whole numbers, 0 for background), or a list with one mask file per class (nonzero inside).
        grid: Grid of the image that the label belongs to.
        classes: Names of the classes, or name to number in the label map; see :data:`Classes`.
        overlapping: If True, return one mask per class; if False, return one map of class numbers.

    Returns:
        float32 image with the affine of ``grid``, shape (K or 1, *spatial): K masks of 0 and 1, or one channel with 0
        for background and 1 to K for the classes in their order.

    Raises:
        ImageFileError: If a file is missing, not readable, differs from the image in size or position, holds a class
            without a name, or a mask holds more than two values.
        ValueError: If the number of masks differs from the number of classes, or masks are given for a map.
    """
    names = class_names(classes)
    if isinstance(path, str | PathLike):
        label = _numbered(path, _read_whole(path, grid), classes)
        if overlapping:
            label = torch.cat([label == number + 1 for number in range(len(names))]).float()
    else:
        label = _read_masks(path, grid, names, overlapping)
    return MetaTensor(label, affine=grid.affine)


def _read_masks(paths: Sequence[str | PathLike[str]], grid: Grid, names: Sequence[str], overlapping: bool) -> Tensor:
    first = paths[0] if paths else "the label"
    if not overlapping:
        raise ValueError(f"{first} is one of a list of masks, which may overlap; set overlapping, or give a label map.")
    if len(paths) != len(names):
        raise ValueError(f"{first}: there are {len(paths)} mask(s) for {len(names)} classes; give one per class.")
    masks = [_read_whole(path, grid) for path in paths]
    for path, mask in zip(paths, masks, strict=True):
        if len(found := mask.unique()) > 2 or (len(found) == 2 and found[0] != 0):
            raise ImageFileError(path, f"holds {len(found)} values; a mask has 0 and one more.")
    return (torch.cat(masks) != 0).float()


def _read_whole(path: str | PathLike[str], grid: Grid) -> Float[Tensor, " 1 *s"]:
    return read_exogenous(path, grid, kind="categorical").as_tensor()[:1]


def _numbered(path: str | PathLike[str], label: Float[Tensor, " 1 *s"], classes: Classes) -> Float[Tensor, " 1 *s"]:
    """A label map whose classes are numbered in their order."""
    if isinstance(classes, Mapping):
        out = torch.zeros_like(label)
        for number, value in enumerate(classes.values(), start=1):
            out[label == value] = number
        return out
    unknown = [int(value) for value in label.unique() if not 0 <= value <= len(classes)]
    if unknown:
        shown = ", ".join(map(str, unknown[:_SHOWN])) + (", ..." if len(unknown) > _SHOWN else "")
        raise ImageFileError(
            path,
            f"holds the class {shown}, but there are names for 1 to {len(classes)}; name it, or give the numbers of "
            "the classes wanted, the rest being background.",
        )
    return label
