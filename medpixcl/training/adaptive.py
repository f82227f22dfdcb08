"""Informativeness classes adapted to the loss: the cuts between them, and the share of pixels drawn from each.

Reference: notebooks published with arXiv 2211.07118, for the cubic fit of the loss over informativeness, cut where it
crosses the mean loss. The ratios by loss are an option of this package.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
import numpy as np
import torch
from ignite.engine import Engine, Events
from numpy.polynomial import Polynomial

from medpixcl.losses import PixelContrastLoss
from medpixcl.reports.figures import figure_to_array
from medpixcl.reports.similarity import loss_over_informativeness
from medpixcl.training.binning import MOST_BITS, binned_sums, of_pairs, over_processes
from medpixcl.training.event_files import EventWriter
from medpixcl.transforms.classes import PixelClasses
from medpixcl.transforms.intensity import CLASS_NAMES

BIN_BITS = 0.1
FEWEST_BINS = 8  # of a cubic that is more than a line through its points
FLAT = 1e-6  # relative to the mean loss: a curve that moves less crosses it by rounding only
COUNT, BITS, LOSS = range(3)
logger = logging.getLogger(__name__)


class NoCutsError(ValueError):
    """The loss over informativeness gives no cuts between the classes."""


def cuts_from_loss(sums: torch.Tensor, *, least_share: float = 0.05) -> tuple[float, float]:
    """Fit a cubic to the loss over informativeness, and cut where it crosses the mean loss.

    The fit is by least squares over all pixels, with those of a bin at their mean. Of three crossings, the two that
    enclose the part above the mean are taken: low and high are easy, medium is hard.

    Args:
        sums: Number of pixels, sum of informativeness and sum of losses in every bin, shape (bins, 3).
        least_share: Minimum share of the pixels in every class.

    Returns:
        Two cuts in bits, in ascending order.

    Raises:
        NoCutsError: If the fit does not cross the mean twice within the range of informativeness, or a class would be
            almost empty.
    """
    filled = sums[sums[:, COUNT] > 0].double().numpy()
    if len(filled) < FEWEST_BINS:
        raise NoCutsError(f"the informativeness fills {len(filled)} bins of {BIN_BITS} bits, fewer than {FEWEST_BINS}")
    counts, bits, losses = filled[:, COUNT], filled[:, BITS] / filled[:, COUNT], filled[:, LOSS] / filled[:, COUNT]
    mean = float(np.average(losses, weights=counts))
    curve = Polynomial.fit(bits, losses, 3, w=np.sqrt(counts)) - mean
    if not np.ptp(curve(bits)) > FLAT * abs(mean):
        raise NoCutsError("the loss is the same at any informativeness")
    cuts = _crossings(curve, bits.min(), bits.max())
    shares = [counts[np.digitize(bits, cuts) == number].sum() / counts.sum() for number in range(3)]
    if min(shares) < least_share:
        raise NoCutsError(
            f"cuts at {cuts[0]:.2f} and {cuts[1]:.2f} bits leave a class with {min(shares):.1%} of the pixels"
        )
    return cuts


def _crossings(curve: Polynomial, low: float, high: float) -> tuple[float, float]:
    """Two neighbouring zeros of the curve between the bounds, at which its sign changes."""
    roots = curve.roots()
    real = np.sort(roots.real[(abs(roots.imag) <= 1e-9 * (high - low)) & (low < roots.real) & (roots.real < high)])
    slopes = curve.deriv()(real)
    real, slopes = real[slopes != 0], slopes[slopes != 0]
    if len(real) < 2:
        raise NoCutsError(
            f"the loss crosses its mean {'once' if len(real) else 'never'} between {low:.2f} and {high:.2f} bits"
        )
    first = 1 if len(real) == 3 and slopes[0] < 0 else 0
    return float(real[first]), float(real[first + 1])


def ratios_from_loss(losses: Sequence[float], *, floor: float = 0.1) -> tuple[float, float, float]:
    """Share of pixels to draw from each class: its mean loss over the sum of the three, never below the floor.

    The mean is used since the sum grows with the pixels drawn, so that a class drawn more would be drawn ever more.

    Args:
        losses: Mean loss of the classes low, medium and high; 0 for a class without pixels.
        floor: Minimum share of each class, at most 1/3.

    Example:
        >>> ratios_from_loss([1.0, 3.0, 1.0])
        (0.2, 0.6, 0.2)
        >>> ratios_from_loss([0.0, 3.0, 1.0])
        (0.1, 0.675, 0.225)
    """
    shares = [loss / sum(losses) if sum(losses) > 0 else 1 / 3 for loss in losses]
    low: set[int] = set()
    while more := {number for number, share in enumerate(shares) if share < floor} - low:
        low |= more
        rest = sum(loss for number, loss in enumerate(losses) if number not in low)
        left = 1 - floor * len(low)
        shares = [floor if number in low else left * loss / rest for number, loss in enumerate(losses)]
    return shares[0], shares[1], shares[2]


class AdaptiveClasses:
    """Adapts the cuts and the ratios of the classes to the running loss over informativeness, after every epoch.

    Sums of earlier epochs are multiplied by ``memory`` after every epoch. If the loss gives no cuts, the previous cuts
    are kept and the reason is logged. Nothing is attached when neither cuts nor ratios are adaptive.

    Args:
        classes: Classes to adapt, shared with the training transforms.
        loss: Loss that keeps the loss of every pair.
        log_dir: Folder of the TensorBoard events; None for none.
        memory: Factor for the sums of earlier epochs after every epoch, from 0 to below 1.
        least_share: Minimum share of the pixels in every class under new cuts.
        floor: Minimum share of the drawn pixels for each class.
    """

    def __init__(
        self,
        classes: PixelClasses,
        loss: PixelContrastLoss,
        log_dir: str | None = None,
        memory: float = 0.5,
        least_share: float = 0.05,
        floor: float = 0.1,
    ) -> None:
        if not 0 <= floor <= 1 / 3:
            raise ValueError(f"floor is {floor}; expected a share of at most a third, for there are three classes")
        if not 0 <= memory < 1:
            raise ValueError(f"memory is {memory}; expected a weight from 0 to below 1")
        self.classes, self.loss, self.events = classes, loss, EventWriter(log_dir)
        self.memory, self.least_share, self.floor = memory, least_share, floor
        # Of each class as it was when drawn; bins; number, informativeness, loss.
        self.sums = torch.zeros(3, round(MOST_BITS / BIN_BITS), 3, dtype=torch.float64)
        self.epoch_sums = torch.zeros_like(self.sums)

    def attach(self, engine: Engine) -> None:
        """Collect after every step and adapt after every epoch; attach before the handler that saves the checkpoint."""
        if self.classes.adaptive:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.move)
            engine.add_event_handler(Events.COMPLETED, self.draw)

    def collect(self, engine: Engine) -> None:
        """Add the pairs of this step."""
        pairs = engine.state.output["label"]
        losses = self.loss.pair_losses(engine.state.output["pred"], pairs)
        bits, classes = of_pairs(pairs, "informativeness"), of_pairs(pairs, "pixel_class")
        counted = pairs["valid"] & losses.isfinite()
        for number in range(3):
            chosen = counted & (classes == number)
            self.epoch_sums[number] += binned_sums(bits[chosen], [losses[chosen]], bin_bits=BIN_BITS)

    def move(self, engine: Engine) -> None:
        """Set new cuts and ratios for the next epoch."""
        self.sums = self.memory * self.sums + over_processes(self.epoch_sums)
        self.epoch_sums = torch.zeros_like(self.sums)
        if self.classes.adaptive_cuts:
            try:
                self.classes.cuts = cuts_from_loss(self.sums.sum(0), least_share=self.least_share)
            except NoCutsError as reason:
                logger.warning("epoch %d: the classes keep their cuts, for %s", engine.state.epoch, reason)
        if self.classes.adaptive_ratios:
            self.classes.ratios = ratios_from_loss(self.class_losses(), floor=self.floor)
        self._write_scalars(engine.state.epoch)

    def class_losses(self) -> list[float]:
        """Mean running loss of the classes under the current cuts; 0 for a class without pixels."""
        sums = self.sums.sum(1)
        if self.classes.cuts is not None:
            bins = self.sums.sum(0)
            middle = (torch.arange(len(bins), dtype=torch.float64) + 0.5) * BIN_BITS
            number = torch.bucketize(middle, torch.tensor(self.classes.cuts, dtype=torch.float64), right=True)
            sums = torch.zeros(3, 3, dtype=torch.float64).index_add(0, number, bins)
        return (sums[:, LOSS] / sums[:, COUNT].clamp(min=1e-300)).tolist()

    def draw(self, engine: Engine) -> None:
        """Draw the running loss at the end of the training."""
        sums = self.sums.sum(0)
        sums = sums[sums[:, COUNT] > 0]
        if self.events.log_dir is not None and len(sums):
            bits, losses = sums[:, BITS] / sums[:, COUNT], sums[:, LOSS] / sums[:, COUNT]
            figure = loss_over_informativeness(bits, losses, sums[:, COUNT], cuts=self.classes.cuts)
            self.events.write(engine.state.epoch, {"classes/running_loss": figure_to_array(figure)})
        self.events.close()

    def state_dict(self) -> dict[str, Any]:
        """Sums, cuts and ratios; empty when nothing is adaptive. Each process must call it."""
        if not self.classes.adaptive:
            return {}
        return {"sums": self.sums, "epoch_sums": over_processes(self.epoch_sums), **self.classes.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore sums, cuts and ratios."""
        if self.classes.adaptive:
            self.sums = state["sums"]
            if idist.get_rank() == 0:  # which holds the sums of all processes within an epoch
                self.epoch_sums = state.get("epoch_sums", self.epoch_sums)
            self.classes.load_state_dict(state)

    def _write_scalars(self, epoch: int) -> None:
        scalars: dict[str, float] = {}
        if self.classes.adaptive_cuts and self.classes.cuts is not None:
            cuts = zip(("low", "high"), self.classes.cuts, strict=True)
            scalars |= {f"classes/cut_{name}": cut for name, cut in cuts}
        if self.classes.adaptive_ratios and self.classes.ratios is not None:
            ratios = zip(CLASS_NAMES, self.classes.ratios, strict=True)
            scalars |= {f"classes/ratio_{name}": ratio for name, ratio in ratios}
        self.events.write(epoch, scalars=scalars)
