"""Pixel InfoNCE, forward and backward: ours against the full matrix and against checkpointed chunks.

``python benchmarks/bench_info_nce.py [--json FILE] [--rounds 3] [--skip-large]``

Each candidate runs in a process of its own, for its peak memory; each process measures the floor as well (three
matrix products and one exponential for each pair), and ratios to the floor are what compares. Times are the least CPU
time of all rounds on one thread; memory is the highest resident size above that with the inputs in place, gradients
included. Before anything is timed, losses and gradients are held to the full matrix in float64.
"""

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medpixcl.losses import pixel_info_nce

TEMPERATURE = 0.07
BLOCK = 256


def ours(anchors: Tensor, keys: Tensor, targets: Tensor) -> Tensor:
    """Gradient made in the forward pass, block by block."""
    return pixel_info_nce(anchors, keys, targets, temperature=TEMPERATURE)


def full_matrix(anchors: Tensor, keys: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of all logits."""
    return F.cross_entropy(F.normalize(anchors) @ F.normalize(keys).T / TEMPERATURE, targets)


def checkpointed(anchors: Tensor, keys: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of chunks whose logits are made again in backward."""
    keys = F.normalize(keys)

    def loss(rows: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(F.normalize(rows) @ keys.T / TEMPERATURE, targets, reduction="sum")

    parts = zip(anchors.split(BLOCK), targets.split(BLOCK), strict=True)
    sums = [checkpoint(loss, rows, wanted, use_reentrant=False) for rows, wanted in parts]
    return torch.stack(sums).sum() / len(anchors)


CANDIDATES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ours": ours,
    "full matrix": full_matrix,
    "checkpointed chunks": checkpointed,
}


def make_inputs(count: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys, and anchors that lie near them."""
    generator = torch.Generator().manual_seed(0)
    keys = torch.randn(count, channels, generator=generator)
    anchors = keys + torch.randn(count, channels, generator=generator)
    return anchors.requires_grad_(), keys.requires_grad_(), torch.arange(count)


def floor(anchors: Tensor, keys: Tensor) -> None:
    """The products and exponentials that no exact method can do without."""
    unit, total = F.normalize(keys), torch.zeros_like(keys)
    buffer = torch.empty(BLOCK, len(keys))
    for rows in F.normalize(anchors).split(BLOCK):
        logits = torch.mm(rows, unit.T, out=buffer[: len(rows)]).exp_()
        torch.mm(logits, unit)
        total.addmm_(logits.T, rows)


def resident_mib(field: str) -> float:
    """Resident memory of this process, now (VmRSS) or at most since the last reset (VmHWM)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {field}; this bench needs Linux.")


def cpu_seconds(action: Callable[[], object]) -> float:
    """CPU time of one call."""
    start = time.process_time()
    action()
    return time.process_time() - start


def measure(name: str, count: int, channels: int, rounds: int) -> dict[str, float]:
    """Seconds, floor and peak memory of one candidate, in this process."""

    def train() -> None:
        anchors.grad = keys.grad = None
        CANDIDATES[name](anchors, keys, targets).backward()

    anchors, keys, targets = make_inputs(64, channels)
    train()
    anchors, keys, targets = make_inputs(count, channels)
    Path("/proc/self/clear_refs").write_text("5")
    before = resident_mib("VmRSS")
    seconds = [cpu_seconds(train)]
    peak = resident_mib("VmHWM") - before
    with torch.no_grad():
        floors = [cpu_seconds(lambda: floor(anchors, keys))]
        for _ in range(rounds - 1):
            with torch.enable_grad():
                seconds.append(cpu_seconds(train))
            floors.append(cpu_seconds(lambda: floor(anchors, keys)))
    return {"seconds": min(seconds), "floor_seconds": min(floors), "peak_mib": peak}


def check() -> None:
    """All candidates give the loss and the gradient of the full matrix in float64."""
    anchors, keys, targets = make_inputs(512, 128)
    wide = [vectors.detach().double().requires_grad_() for vectors in (anchors, keys)]
    expected = full_matrix(*wide, targets)
    exact = torch.autograd.grad(expected, wide)
    for name, candidate in CANDIDATES.items():
        loss = candidate(anchors, keys, targets)
        errors = [
            float(torch.linalg.norm(found - one) / torch.linalg.norm(one))
            for found, one in zip(torch.autograd.grad(loss, (anchors, keys)), exact, strict=True)
        ]
        if abs(loss.item() / expected.item() - 1) > 1e-5 or max(errors) > 1e-5:
            raise AssertionError(f"{name}: loss {loss.item()} for {expected.item()}, gradients off by {errors}")


def in_own_process(name: str, count: int, channels: int, rounds: int) -> dict[str, float]:
    """:func:`measure` in a fresh interpreter."""
    arguments = [name, str(count), str(channels), str(rounds)]
    command = [sys.executable, __file__, "--measure", *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def commit() -> str:
    """The commit that was measured."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip() or "unknown"


def main() -> None:
    """Print the table; write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true", help="leave out N = 65536")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.measure:
        name, *numbers = options.measure
        print(json.dumps(measure(name, *map(int, numbers))))
        return
    check()
    tasks = [(name, 16384, 128, options.rounds) for name in CANDIDATES]
    tasks += [] if options.skip_large else [("ours", 65536, 64, 1)]
    rows = []
    print(f"{'candidate':<20} {'N = M':>6} {'C':>4} {'/ floor':>8} {'floor s':>8} {'peak MiB':>9}")
    for name, count, channels, rounds in tasks:
        row = in_own_process(name, count, channels, rounds)
        row["ratio"] = row["seconds"] / row["floor_seconds"]
        rows.append({"candidate": name, "count": count, "channels": channels, **row})
        numbers = f"{row['ratio']:>8.2f} {row['floor_seconds']:>8.2f} {row['peak_mib']:>9.0f}"
        print(f"{name:<20} {count:>6} {channels:>4} {numbers}", flush=True)
    relative = rows[0]["ratio"] / rows[1]["ratio"]
    print(
        f"ours / full matrix: {relative:.2f} of the time, {rows[0]['peak_mib'] / rows[1]['peak_mib']:.3f} of the memory"
    )
    if options.json:
        versions = {"python": platform.python_version(), "torch": torch.__version__, "commit": commit()}
        options.json.write_text(json.dumps({"bench": "info_nce", **versions, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
