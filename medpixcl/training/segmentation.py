"""Segmentation after pretraining: batches and Dice of every class."""

from collections.abc import Mapping
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import PrepareBatch
from monai.handlers.utils import write_metrics_reports
from monai.utils import string_list_all_gather
from torch import Tensor

from medpixcl.data.identity import telling_names
from medpixcl.data.labels import Classes, class_names
from medpixcl.training.batches import plain_tensor
from medpixcl.training.handlers import batch_files

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
        """Move images and labels to the device."""
        image, label = (plain_tensor(batchdata[key], device, non_blocking) for key in ("image", "label"))
        return image, label


class DiceByClass:
    """Adds the Dice of every class to the metrics of an evaluator with a mean Dice, and writes tables.

    ``val_dice_<class>`` is the mean over the images that have the class in their label; NaN if none has it. The mean
    Dice is the mean over the images of the mean over the classes that an image has (MONAI's ``MeanDice``).

    Args:
        classes: Names and numbers of the classes, see :data:`medpixcl.data.labels.Classes`.
        output_dir: Folder of ``metrics.csv`` (all numbers), ``val_mean_dice_raw.csv`` (each image, each class) and
            ``val_mean_dice_summary.csv``; None writes nothing.
    """

    def __init__(self, classes: Classes, output_dir: str | None = None) -> None:
        self.names, self.output_dir = class_names(classes), output_dir
        self.files: list[str] = []

    def attach(self, engine: Engine) -> None:
        """Record the images of every iteration, and add the metrics at the end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.note)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def start(self, engine: Engine) -> None:
        """Clear the images of the previous epoch."""
        self.files = []

    def note(self, engine: Engine) -> None:
        """Record the images of this iteration."""
        for item in engine.state.batch:
            for file in batch_files({"image": item["image"]}):
                self.files.append(file)

    def __call__(self, engine: Engine) -> None:
        """Add the metrics and write the tables."""
        dice = np.asarray(torch.as_tensor(engine.state.metric_details[METRIC]).cpu(), dtype=float)
        known = ~np.isnan(dice)
        sums, counts = np.where(known, dice, 0).sum(0), known.sum(0)
        for name, total, count in zip(self.names, sums, counts, strict=True):
            engine.state.metrics[f"val_dice_{name}"] = float(total / count) if count else float("nan")
        files = string_list_all_gather(self.files) if idist.get_world_size() > 1 else self.files
        known = telling_names(files)
        if self.output_dir is not None and idist.get_rank() == 0:
            write_metrics_reports(
                self.output_dir,
                images=[known[file] for file in files],
                metrics=dict(engine.state.metrics),
                metric_details={METRIC: dice},
                summary_ops=["mean", "std", "median", "min", "max", "notnans"],
                class_labels=self.names,
            )
