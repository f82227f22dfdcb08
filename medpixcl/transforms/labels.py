"""Labels of the pixels of an image: loaded beside it, and results brought back to its original grid."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medpixcl.coordinates import spatial_affine
from medpixcl.data.exogenous import Grid
from medpixcl.data.labels import Classes, class_names, read_label
from medpixcl.views import resample, view_positions


class LoadLabeld(MapTransform):
    """Replace the path of a label map, or the list of the paths of masks, by the label.

    Put it after the image is loaded and before that is resampled: file and image must have the same size. After that,
    :class:`medpixcl.transforms.ExogenousGridd` with ``nearest_keys`` brings the label to the grid of the image.

    Args:
        keys: Key of the label, as in the manifest.
        classes: Classes of the label, see :data:`medpixcl.data.labels.Classes`.
        overlapping: Whether masks may overlap, see :func:`medpixcl.data.labels.read_label`.

    Raises:
        ValueError: If the item has no label, or :func:`medpixcl.data.labels.read_label` refuses it.
    """

    def __init__(self, keys: KeysCollection, classes: Classes, overlapping: bool = False) -> None:
        super().__init__(keys)
        class_names(classes)
        self.classes, self.overlapping = classes, overlapping

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the label loaded."""
        item = dict(data)
        image = item["image"]
        grid = Grid(tuple(image.shape[1:]), torch.as_tensor(image.affine))
        for key in self.keys:
            if not isinstance(path := item.get(key), str | list):
                found = "no label" if path is None else f"the label {path!r}"
                raise ValueError(
                    f"{image.meta.get('filename_or_obj', 'the image')}: the manifest has {found}; give the path of a "
                    "label map, or a list of the paths of masks."
                )
            item[key] = read_label(path, grid, self.classes, overlapping=self.overlapping)
        return item


class OriginalGridd(MapTransform):
    """Bring maps from the grid of the prepared image to the grid that its file has, interpolated linearly.

    The prepared ``image`` remembers the grid of its file. Put this transform before probabilities become classes.
    Positions beyond the prepared image take the value of its border.

    Args:
        keys: Keys of maps (C, *spatial) on the grid of the prepared image.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the maps moved."""
        item = dict(data)
        image = item["image"]
        shape = [int(size) for size in image.meta["spatial_shape"]]
        original = torch.as_tensor(image.meta["original_affine"], dtype=torch.float64)
        working = torch.as_tensor(image.affine, dtype=torch.float64).cpu()
        own, other = (spatial_affine(affine, len(shape)) for affine in (working, original))
        for key in self.key_iterator(item):
            values = torch.as_tensor(item[key]).float()
            positions = view_positions((torch.linalg.inv(own) @ other)[None].to(values.device), shape)
            last = torch.tensor(values.shape[1:], device=values.device) - 1
            positions = positions.clamp(min=torch.zeros_like(last), max=last)
            moved = resample(values[None], positions)[0]
            item[key] = MetaTensor(moved, meta={**image.meta, "affine": original})
        return item
