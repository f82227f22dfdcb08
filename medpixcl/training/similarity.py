"""Similarity of positive pairs against their informativeness, the curve that motivates classes.

Reference: arXiv 2211.07118, positive similarity over informativeness (PSI).
"""

from collections.abc import Mapping, Sequence

import torch
from ignite.engine import Engine, Events
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from medpixcl.coordinates import sample_at, voxel_to_cell
from medpixcl.reports.figures import figure_to_array
from medpixcl.reports.similarity import similarity_over_informativeness
from medpixcl.training.binning import MOST_BITS, binned_sums, of_pairs, over_processes
from medpixcl.training.event_files import EventWriter


def positive_similarity(
    views: Sequence[Sequence[Tensor]], pairs: Mapping[str, Tensor], strides: Sequence[int]
) -> Float[Tensor, "b n levels"]:
    """Cosine at every level between the query pixel and its positive; arbitrary for invalid pairs.

    Args:
        views: Level maps of the query view and of the anchor view, each of shape (B, C, *cells).
        pairs: Pixel pairs: ``query``, ``positive`` (B, N, D), voxels in array order, and ``valid`` (B, N).
        strides: Strides of the levels, finest first.
    """
    places = [pairs[name].masked_fill(~pairs["valid"][..., None], 0.0) for name in ("query", "positive")]
    cosines = []
    for stride, *levels in zip(strides, *views, strict=True):
        one, other = (
            sample_at(level.float(), voxel_to_cell(place.to(level.device), stride))
            for level, place in zip(levels, places, strict=True)
        )
        cosines.append(F.cosine_similarity(one, other, dim=-1))
    return torch.stack(cosines, dim=-1)


class PositiveSimilarity:
    """Writes the similarity of positive pairs over bins of informativeness to TensorBoard after each validation.

    Two similarities are written: the product of the levels' cosines, clamped to at least 0 (as in matching), and their
    mean.

    Args:
        strides: Strides of the network's levels, finest first.
        log_dir: Folder of the TensorBoard events; None for none.
        bin_bits: Width of a bin of informativeness in bits.

    Attributes:
        sums: Sums over the last validation, shape (bins, 4): number of pairs, informativeness, product and mean.
    """

    def __init__(self, strides: Sequence[int], log_dir: str | None = None, bin_bits: float = 0.5) -> None:
        self.strides, self.bin_bits = list(strides), bin_bits
        self.events = EventWriter(log_dir)
        self.reset()

    def attach(self, engine: Engine) -> None:
        """Collect over a validation, and write at its end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.reset)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.write)

    def reset(self) -> None:
        """Start a new validation."""
        self.sums = torch.zeros(round(MOST_BITS / self.bin_bits), 4, dtype=torch.float64)

    def collect(self, engine: Engine) -> None:
        """Add the pairs of a batch."""
        pairs = engine.state.output["label"]
        cosines = positive_similarity(engine.state.output["pred"], pairs, self.strides)[pairs["valid"]]
        values = [cosines.clamp(min=0).prod(-1), cosines.mean(-1)]
        bits = of_pairs(pairs, "informativeness")[pairs["valid"]]
        self.sums += binned_sums(bits, values, bin_bits=self.bin_bits)

    def write(self, engine: Engine) -> None:
        """Sum over all processes, and write scalars and a figure on the process that has a folder."""
        self.sums = over_processes(self.sums)
        filled = self.sums[:, 0] > 0
        if self.events.log_dir is None or not filled.any():
            return
        total = self.sums.sum(0)
        counts, bits, product, mean = self.sums[filled].T
        scalars = dict(zip(("product", "mean"), (total[2:] / total[0]).tolist(), strict=True))
        for number, value in zip(filled.nonzero().flatten().tolist(), (product / counts).tolist(), strict=True):
            scalars[f"product_from_{number * self.bin_bits:g}_bits"] = value
        curves = {"product of levels": product / counts, "mean of levels": mean / counts}
        figure = similarity_over_informativeness(bits / counts, curves, counts)
        self.events.write(
            engine.state.epoch,
            {"validation/positive_similarity": figure_to_array(figure)},
            {f"positive_similarity/{name}": value for name, value in scalars.items()},
        )
