"""Entropy of the bin numbers in a window around every pixel, in compiled loops for one core of a CPU."""

from jaxtyping import Float32, Integer
from torch import Tensor

from medpixcl._kernels.entropy_blocks import entropy_bin_by_bin
from medpixcl._kernels.entropy_sliding import entropy_by_sliding
from medpixcl._kernels.window import Window

MANY_BINS = 128
"""Above this number of bins the sliding histogram is faster (measured with a disk of radius 10)."""


def compiled_window_entropy(
    bins: Integer[Tensor, "*s"], count: int, window: Window, out: Float32[Tensor, "*s"]
) -> None:
    """Same as :func:`medpixcl._kernels.entropy_torch.window_entropy`, for 2D or 3D tensors on the CPU."""
    chords, levels, entropy = window.chords, bins.numpy(), out.numpy()
    if bins.ndim == 2:
        chords, levels, entropy = chords[None], levels[None], entropy[None]
    loops = entropy_bin_by_bin if count <= MANY_BINS else entropy_by_sliding
    loops(levels, count, Window(chords), entropy)
