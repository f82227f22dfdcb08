"""Monitoring of the positives of PixPro's loss: statistics of every epoch and pictures of every validation."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch import Tensor

from medpixcl.losses.pixpro import VIEWS, PixProLoss
from medpixcl.reports.depth import depth_views
from medpixcl.reports.figures import figure_to_array
from medpixcl.training.binning import over_processes
from medpixcl.training.event_files import EventWriter
from medpixcl.training.pixpro import PixProPrepareBatch

if TYPE_CHECKING:
    import matplotlib.figure


class PositiveStatistics:
    """Adds the means of :attr:`medpixcl.losses.pixpro.PixProLoss.latest` over an epoch to the engine's metrics.

    Attach it before MONAI's ``TensorBoardStatsHandler``, which then writes them. The kill rate is taken over all
    positives of the epoch and all processes.

    Args:
        loss: Loss of the training.
    """

    def __init__(self, loss: PixProLoss) -> None:
        self.loss = loss
        self.reset()

    def attach(self, engine: Engine) -> None:
        """Collect over an epoch, and add the means at its end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.report)

    def reset(self) -> None:
        """Start a new epoch."""
        self.sums: dict[str, Tensor] = {}
        self.steps = 0

    def collect(self) -> None:
        """Add the last step, without waiting for the device."""
        for name, value in self.loss.latest.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.steps += 1

    def report(self, engine: Engine) -> None:
        """Add the means over steps and processes to the metrics as ``pairs/<name>``."""
        columns = [value.double().cpu() for value in self.sums.values()]
        total = over_processes(torch.stack([*columns, torch.tensor(float(self.steps), dtype=torch.float64)]))
        means = dict(zip(self.sums, (total[:-1] / total[-1]).tolist(), strict=True))
        for name in means:
            if name.startswith("kill_rate_"):
                tag = name.removeprefix("kill_rate_")
                before = means[f"spatial_positives_{tag}"]
                means[name] = 1 - means[f"positives_{tag}"] / before if before > 0 else 0.0
        engine.state.metrics.update({f"pairs/{name}": value for name, value in means.items()})


class PositivePictures:
    """Draws :func:`positives_figure` of the first validation image after each validation.

    Args:
        log_dir: Folder of the TensorBoard events.
        loss: Loss of the training, whose first channel is drawn.
        image_key: Prefix of the views' batch keys, see :class:`medpixcl.training.pixpro.PixProPrepareBatch`.
        name: Name of the channel with its unit.

    Raises:
        ValueError: If the loss has no exogenous channel.
    """

    def __init__(self, log_dir: str, loss: PixProLoss, image_key: str = "image", name: str = "depth (mm)") -> None:
        if not loss.channels:
            raise ValueError("the loss has no exogenous channel, so there is none to draw; leave the pictures out.")
        self.loss, self.image_key, self.name = loss, image_key, name
        self.prepare = PixProPrepareBatch(loss.strides, [channel.key for channel in loss.channels], image_key=image_key)
        self.events = EventWriter(log_dir)
        self.kept: dict[str, Tensor] | None = None

    def attach(self, engine: Engine) -> None:
        """Keep the first batch of a validation, and draw at its end."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.draw)

    def keep(self, engine: Engine) -> None:
        """Keep the first item of the first batch."""
        if engine.state.iteration % engine.state.epoch_length != 1 % engine.state.epoch_length:
            return
        self.kept = first_views(self.prepare, engine.state.batch)

    def draw(self, engine: Engine) -> None:
        """Write the picture; none if the views have no positives."""
        figure = None if self.kept is None else positives_figure(self.loss, self.kept, self.name)
        if figure is None:
            return
        self.events.write(engine.state.epoch, {"validation/positives": figure_to_array(figure)})


def positives_figure(
    loss: PixProLoss, views: Mapping[str, Tensor], name: str = "depth (mm)"
) -> "matplotlib.figure.Figure | None":
    """Draw two views, their exogenous channel and the positives of one cell; None if there are no positives.

    The cell is the one with the most spatial positives at the finest level and the last of the loss's scales.

    Args:
        loss: Loss whose first channel is drawn.
        views: Views of one image: ``query`` and ``anchor`` (1, C, *view), and the target that
            :class:`medpixcl.training.pixpro.PixProPrepareBatch` gives.
        name: Name of the channel with its unit.
    """
    positives = loss.positives(views, scale=len(loss.scales) - 1)
    spatial, weights = positives.spatial[0], positives.weights[0]
    if not spatial.any():
        return None
    stride, shape = loss.strides[0], views["query"].shape[2:]
    steps = [stride] * len(shape) if isinstance(stride, int) else list(stride)
    grid = tuple(-(-size // step) for size, step in zip(shape, steps, strict=True))
    cell, key = int(spatial.sum(1).argmax()), loss.channels[0].key
    return depth_views(
        [views[view][0, 0] for view in VIEWS],
        [_with_validity(views[f"{key}_{view}"][0]) for view in VIEWS],
        positives=(weights[cell] > 0).reshape(grid),
        removed=(spatial[cell] & (weights[cell] == 0)).reshape(grid),
        cell=[int(place) for place in np.unravel_index(cell, grid)],
        spacing=torch.linalg.vector_norm(views["affine_query"][0, :-1, :-1], dim=0).tolist(),
        name=name,
    )


def first_views(prepare: PixProPrepareBatch, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """First item of a batch in the form that :func:`positives_figure` takes."""
    query, target, (anchor,), _ = prepare(batch, "cpu")
    whole = {name: value[:1] for name, value in target.items() if isinstance(value, Tensor)}
    return whole | {"query": query[:1], "anchor": anchor[:1]}


def _with_validity(channel: Tensor) -> Tensor:
    """Split values with NaN into values and validity."""
    known = channel.isfinite().all(0, keepdim=True)
    return torch.cat([torch.where(known, channel, 0.0), known.to(channel)])
