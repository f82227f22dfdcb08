"""Write the label maps of a segmentation network to files."""

import itertools
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import NibabelWriter, PILWriter
from torch import Tensor

from medpixcl.apps.images import ImageList
from medpixcl.data.identity import first_file, numbered_repeats
from medpixcl.data.labels import Classes, class_names
from medpixcl.training.batches import plain_tensor


class SegmentationWriter:
    """Writes an evaluator's segmentation of every image, on the grid of the image's file.

    Exclusive classes give a label map ``<image>.png`` (2D) or ``<image>.nii.gz`` (3D) with the numbers of the classes.
    Overlapping classes give one mask each, ``<image>_<class>.png`` or ``.nii.gz``, 255 (3D: 1) inside. A name that
    another file has gets a number.

    Args:
        classes: Names and numbers of the classes, see :data:`medpixcl.data.labels.Classes`.
        images: The images that the evaluator runs over.
        output_dir: Folder of the results.
        overlapping: Whether the predictions are K overlapping channels, instead of K + 1 with the background first.
    """

    def __init__(self, classes: Classes, images: ImageList, output_dir: str, overlapping: bool = False) -> None:
        self.names, self.images = class_names(classes), images
        self.numbers = list(classes.values()) if isinstance(classes, Mapping) else list(range(1, len(self.names) + 1))
        self.dtype = np.uint8 if overlapping or max(self.numbers) < 256 else np.uint16
        self.output_dir, self.overlapping = Path(output_dir), overlapping

    def attach(self, engine: Engine) -> None:
        """Write after every iteration."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the results of this iteration."""
        for item, output in zip(engine.state.batch, engine.state.output, strict=True):
            stem = self.images.stem(str(item["image"].meta["filename_or_obj"]))
            found = output["pred"]
            if self.overlapping:
                value = 255 if found.ndim == 3 else 1
                for name, mask in zip(self.names, plain_tensor(found), strict=True):
                    self._write(self._mask_names[stem, name], mask * value, found.affine)
            else:
                numbers = torch.tensor([0, *self.numbers], device=found.device)
                self._write(stem, numbers[plain_tensor(found).argmax(dim=0)], found.affine)

    @cached_property
    def _mask_names(self) -> dict[tuple[str, str], str]:
        """Name of the mask file of every image, by its stem, and class; no two are equal."""
        stems = [self.images.stem(first_file(item)) for item in self.images.datalist]
        pairs = itertools.product(dict.fromkeys(stems), self.names)
        return numbered_repeats({(stem, name): f"{stem}_{name.replace('/', '_')}" for stem, name in pairs})

    def _write(self, name: str, values: Tensor, affine: Tensor) -> None:
        picture = values.ndim == 2
        path = self.output_dir / f"{name}.{'png' if picture else 'nii.gz'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = values.cpu().numpy().astype(self.dtype)
        if picture:
            writer = PILWriter(output_dtype=self.dtype, scale=None)
            writer.set_data_array(whole, channel_dim=None)
            writer.write(str(path), reverse_indexing=False)
        else:
            volume = NibabelWriter(output_dtype=self.dtype)
            volume.set_data_array(whole, channel_dim=None)
            volume.set_metadata({"affine": np.asarray(affine.cpu(), dtype=float)}, resample=False)
            volume.write(str(path))
