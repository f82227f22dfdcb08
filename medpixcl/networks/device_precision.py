"""Find out whether a device computes convolutions faster in float32 or in bfloat16."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.nn import functional as F

MARGIN = 1.2
"""Factor by which one precision must be faster to be preferred, above the noise of the measurement."""
_SIDE, _ROUNDS, _LIMIT_S = 96, 12, 0.3
_KERNELS = ((32, 32, 3, 3), (32, 1, 3, 3), (64, 32, 1, 1))


@dataclass(frozen=True)
class DevicePrecision:
    """Precision in which a device computes convolutions faster.

    Attributes:
        bfloat16: Whether convolutions are faster in bfloat16 than in float32.
        reason: Short reason for the choice: a property that torch reports, or a measurement.
        bearable: Whether convolutions in bfloat16 take at most ``MARGIN`` times as long as in float32.
    """

    bfloat16: bool
    reason: str
    bearable: bool

    def __str__(self) -> str:
        return f"{'bfloat16' if self.bfloat16 else 'float32'} ({self.reason})"


@lru_cache
def device_precision(device: torch.device) -> DevicePrecision:
    """The faster precision of a device: found once in a process, and logged then.

    A CPU for which torch reports no bfloat16 takes float32; any other CPU is measured for about 0.3 seconds of one
    thread, and takes bfloat16 where it is at least 1.2 times as fast. Time that the thread waits for a busy CPU does
    not count, so that a training beside others chooses as one that runs alone. A CUDA device
    takes bfloat16 where it computes it natively. Every other kind of device takes float32.

    Args:
        device: The device that holds the images.
    """
    found = {"cpu": _of_cpu, "cuda": _of_cuda}.get(device.type, _of_other)(device)
    logging.getLogger(__name__).info("convolutions on %s in %s", device, found)
    return found


def _of_cpu(device: torch.device) -> DevicePrecision:
    if not _reported():
        reason = f"torch reports no bfloat16 convolutions for this CPU, {torch.backends.cpu.get_cpu_capability()}"
        return DevicePrecision(bfloat16=False, reason=reason, bearable=False)
    seconds = _measured()
    ratio = seconds[torch.float32] / seconds[torch.bfloat16]
    times = f"{1e3 * seconds[torch.float32]:.1f} ms in float32, {1e3 * seconds[torch.bfloat16]:.1f} ms in bfloat16"
    reason = f"a block of convolutions takes {times}"
    return DevicePrecision(bfloat16=ratio >= MARGIN, reason=reason, bearable=ratio >= 1 / MARGIN)


def _of_cuda(device: torch.device) -> DevicePrecision:
    native = False
    if torch.cuda.is_available():
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    reason = "native bfloat16" if native else "no native bfloat16"
    return DevicePrecision(bfloat16=native, reason=reason, bearable=native)


def _of_other(device: torch.device) -> DevicePrecision:
    return DevicePrecision(bfloat16=False, reason=f"bfloat16 is not tried on {device.type}", bearable=False)


def _reported() -> bool:
    """Whether oneDNN supports bfloat16 convolutions on this CPU; it respects ``ONEDNN_MAX_CPU_ISA``."""
    if not torch.backends.mkldnn.is_available():
        return False
    try:
        return torch.ops.mkldnn._is_mkldnn_bf16_supported()
    except AttributeError:  # a name of torch's own, which may go: the measurement decides alone
        return True


def _measured() -> dict[torch.dtype, float]:
    """Least CPU seconds of a block of convolutions, forward and backward, in float32 and in bfloat16."""
    dtypes = torch.float32, torch.bfloat16
    seconds = dict.fromkeys(dtypes, float("inf"))
    with _one_thread(), torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False):
        for dtype in dtypes:
            _block(dtype, 4)()  # torch loads its kernels at the first call
        blocks = {dtype: _block(dtype, _SIDE) for dtype in dtypes}
        start = time.thread_time()
        for _ in range(_ROUNDS):
            for dtype, block in blocks.items():
                seconds[dtype] = min(seconds[dtype], _seconds(block))
            if time.thread_time() - start > _LIMIT_S:
                break
    return seconds


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _seconds(block: Callable[[], object]) -> float:
    start = time.thread_time()
    block()
    return time.thread_time() - start


def _block(dtype: torch.dtype, side: int) -> Callable[[], object]:
    """A 3x3, a depthwise and a 1x1 convolution; without random numbers, which are the training's."""
    image = torch.ones(2, 32, side, side, dtype=dtype, requires_grad=True)
    kernels = [torch.ones(*shape, dtype=dtype, requires_grad=True) for shape in _KERNELS]

    def block() -> object:
        maps = F.conv2d(image, kernels[0], padding=1)
        maps = F.conv2d(maps, kernels[1], padding=1, groups=len(kernels[1]))
        return torch.autograd.grad(F.conv2d(maps, kernels[2]).sum(), [image, *kernels])

    return block
