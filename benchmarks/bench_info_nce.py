"""Pixel InfoNCE, forward and backward: ours against the full matrix and against checkpointed chunks.

``python benchmarks/bench_info_nce.py [--json FILE] [--rounds 3] [--skip-large]``

Each candidate runs in a process of its own, for its peak memory; each process measures the floor as well (three
matrix products and one exponential for each pair), and ratios to the floor are what compares. Memory is above that
with the inputs in place, gradients included. Before anything is timed, losses and gradients are held to the full
matrix in float64.

Holds: at 16384 anchors and keys of 128 channels, no slower than the full matrix, and at most 128 MiB.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timing  # first, for one thread  # isort: skip
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from medpixcl.losses import pixel_info_nce

TEMPERATURE = 0.07
BLOCK = 256
MOST_MIB = 128
SMALL, LARGE = (16384, 128), (65536, 64)
"""Number of anchors and of keys, and of channels."""


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


@torch.no_grad()
def floor(anchors: Tensor, keys: Tensor) -> None:
    """The products and exponentials that no exact method can do without."""
    unit, total = F.normalize(keys), torch.zeros_like(keys)
    buffer = torch.empty(BLOCK, len(keys))
    for rows in F.normalize(anchors).split(BLOCK):
        logits = torch.mm(rows, unit.T, out=buffer[: len(rows)]).exp_()
        torch.mm(logits, unit)
        total.addmm_(logits.T, rows)


def measure(name: str, count: int, channels: int, rounds: int) -> dict[str, float | None]:
    """Seconds of one candidate and of the floor, and peak memory, in this process."""

    def train() -> None:
        anchors.grad = keys.grad = None
        CANDIDATES[name](anchors, keys, targets).backward()

    anchors, keys, targets = make_inputs(64, channels)
    train()
    anchors, keys, targets = make_inputs(count, channels)
    peak = timing.peak_mib(train)
    turns = [(timing.cpu_seconds(train), timing.cpu_seconds(lambda: floor(anchors, keys))) for _ in range(rounds)]
    seconds, floors = map(min, zip(*turns, strict=True))
    return {"seconds": seconds, "floor_seconds": floors, "ratio": seconds / floors, "peak_mib": peak}


def check() -> None:
    """All candidates give the loss and the gradient of the full matrix in float64."""
    anchors, keys, targets = make_inputs(512, 128)
    wide_anchors, wide_keys = (vectors.detach().double().requires_grad_() for vectors in (anchors, keys))
    expected = full_matrix(wide_anchors, wide_keys, targets)
    exact = torch.autograd.grad(expected, (wide_anchors, wide_keys))
    for name, candidate in CANDIDATES.items():
        loss = candidate(anchors, keys, targets)
        errors = [
            float(torch.linalg.norm(found - one) / torch.linalg.norm(one))
            for found, one in zip(torch.autograd.grad(loss, (anchors, keys)), exact, strict=True)
        ]
        if abs(loss.item() / expected.item() - 1) > 1e-5 or max(errors) > 1e-5:
            raise AssertionError(f"{name}: loss {loss.item()} for {expected.item()}, gradients off by {errors}")


def table(names: list[str], size: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Every candidate in a fresh interpreter, against the floor that it measured there."""
    rows = {}
    for name in names:
        command = [sys.executable, __file__, "--measure", name, *map(str, size), str(rounds)]
        rows[name] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    floors = [row["floor_seconds"] for row in rows.values()]
    rows["floor"] = {"seconds": min(floors), "ratio": 1.0, "peak_mib": None}
    title = "{} anchors and keys, {} channels".format(*size)
    return {"title": title, "reference": "floor", "rounds": rounds, "rows": rows}


def main() -> None:
    """Print the tables, write them where asked, and fail where a promise is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--skip-large", action="store_true", help="leave out 65536 anchors")
    parser.add_argument("--measure", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        name, *numbers = options.measure
        print(json.dumps(measure(name, *map(int, numbers))))
        return
    check()
    tables = [table(list(CANDIDATES), SMALL, options.rounds)]
    timing.show(tables[0])
    if not options.skip_large:
        tables.append(table(["ours"], LARGE, 1))
        timing.show(tables[1])
    mine, full = tables[0]["rows"]["ours"], tables[0]["rows"]["full matrix"]
    print(f"\nours / full matrix: {mine['ratio'] / full['ratio']:.2f} of the time")
    if options.json:
        timing.save(options.json, tables, packages=["torch"])
    if mine["ratio"] > full["ratio"] or (mine["peak_mib"] or 0.0) > MOST_MIB:
        raise SystemExit(f"a promise is broken: slower than the full matrix, or more than {MOST_MIB} MiB")


if __name__ == "__main__":
    main()
