"""Segmentation downstream of a pretraining: batches, Dice of every class, and files of what was found."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.data import NibabelWriter, PILWriter
from monai.engines import PrepareBatch
from monai.handlers.utils import write_metrics_reports
from monai.utils import string_list_all_gather
from torch import Tensor

from medpixcl.data.labels import Classes, class_names
from medpixcl.engines.handlers import batch_files
from medpixcl.engines.image_list import ImageList
from medpixcl.engines.prepare_batch import plain_tensor

METRIC = "val_mean_dice"
"""Name of the mean Dice in the evaluator's metrics; that of class ``heart`` is ``val_dice_heart``."""


class SegmentationPrepareBatch(PrepareBatch):
    """Images and labels as plain tensors, without the metadata that would slow down every layer."""

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor]:
        """Move them to the device."""
        image, label = (plain_tensor(batchdata[key], device, non_blocking) for key in ("image", "label"))
        return image, label


class DiceByClass:
    """Adds the Dice of every class to the metrics of an evaluator that measures the mean, and writes tables.

    ``val_dice_<class>`` is the mean over the images that have the class in their label; NaN where none has it. The mean
    Dice is the mean over the images of the mean over the classes that an image has (MONAI's ``MeanDice``).

    Args:
        classes: See :data:`medpixcl.data.labels.Classes`.
        output_dir: Folder of ``metrics.csv`` (all numbers), ``val_mean_dice_raw.csv`` (each image, each class) and
            ``val_mean_dice_summary.csv``; None writes nothing.
        images: Names the images in the tables by their place in the data; by their files' names without it.
    """

    def __init__(self, classes: Classes, output_dir: str | None = None, images: ImageList | None = None) -> None:
        self.names, self.output_dir, self.images = class_names(classes), output_dir, images
        self.files: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Note the images of every iteration, add the metrics at the end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Forget the images of the epoch before."""
        self.files = []

    def note(self, engine: Engine) -> None:
        """Note the images of this iteration."""
        for item in engine.state.batch:
            for file in batch_files({"image": item["image"]}):
                self.files.append(Path(file).name if self.images is None else self.images.name(file))

    def __call__(self, engine: Engine) -> None:
        """Add the metrics, write the tables."""
        dice = np.asarray(torch.as_tensor(engine.state.metric_details[METRIC]).cpu(), dtype=float)
        known = ~np.isnan(dice)
        sums, counts = np.where(known, dice, 0).sum(0), known.sum(0)
        for name, total, count in zip(self.names, sums, counts, strict=True):
            engine.state.metrics[f"val_dice_{name}"] = float(total / count) if count else float("nan")
        files = string_list_all_gather(self.files) if idist.get_world_size() > 1 else self.files
        if self.output_dir is not None and idist.get_rank() == 0:
            write_metrics_reports(
                self.output_dir,
                images=files,
                metrics=dict(engine.state.metrics),
                metric_details={METRIC: dice},
                summary_ops=["mean", "std", "median", "min", "max", "notnans"],
                class_labels=self.names,
            )


class SegmentationWriter:
    """Writes what an evaluator found in every image, on the grid of the image's file.

    Exclusive classes: a label map ``<image>.png`` (2D) or ``<image>.nii.gz`` (3D) with the numbers of the classes.
    Overlapping classes: a mask ``<image>_<class>.png`` or ``.nii.gz`` each, 255 (3D: 1) inside.

    Args:
        classes: See :data:`medpixcl.data.labels.Classes`.
        images: The images that the evaluator runs over.
        output_dir: Folder of the results.
        overlapping: What the predictions are: K channels, or K + 1 with the background first; 1 where the class is.
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
                    self._write(f"{stem}_{name}", mask * value, found.affine)
            else:
                numbers = torch.tensor([0, *self.numbers], device=found.device)
                self._write(stem, numbers[plain_tensor(found).argmax(dim=0)], found.affine)

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
