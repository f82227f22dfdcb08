"""One process of :mod:`tests.losses.test_gathering`: train one step on a part of the batch and save the gradient.

``python gathering_process.py RANK WORLD FOLDER`` reads ``FOLDER/case.pt`` and writes ``FOLDER/result-RANK.pt``.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from medpixcl.losses import PixelContrastLoss, gather_counts, gather_keys


class Network(nn.Module):
    """Two levels of strides 2 and 4."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Conv2d(1, 4, 2, stride=2, dtype=torch.float64)
        self.coarse = nn.Conv2d(4, 3, 2, stride=2, dtype=torch.float64)

    def forward(self, image: Tensor) -> list[Tensor]:
        fine = self.fine(image)
        return [fine, self.coarse(fine.tanh())]


def step(network: nn.Module, batch: dict[str, Tensor], options: dict[str, Any]) -> dict[str, Any]:
    """Loss of each level and of all, and the gradient of the network's parameters."""
    network.zero_grad()
    views = network(torch.cat([batch["query_image"], batch["anchor_image"]]))
    count = len(batch["query_image"])
    loss = PixelContrastLoss(strides=(2, 4), temperature=0.2, **options)
    split = [[level[:count] for level in views], [level[count:] for level in views]]
    with torch.no_grad():
        levels = torch.stack(loss.losses(split, batch))
    total = loss(split, batch)
    total.backward()
    return {
        "levels": levels,
        "loss": total.detach(),
        "gradient": {name: p.grad for name, p in Network.named_parameters(getattr(network, "module", network))},
    }


def gathered(rank: int) -> dict[str, Any]:
    """``gather_keys`` alone: rank + 1 rows here, each process weights every row by its own number."""
    keys = torch.full((rank + 1, 2), 10.0 * rank, dtype=torch.float64, requires_grad=True)
    every = gather_keys(keys, gather_counts(len(keys), keys.device))
    (every * (rank + 1) * torch.arange(len(every)).unsqueeze(1)).sum().backward()
    return {"keys": every.detach(), "gradient": keys.grad}


def main(rank: int, world: int, folder: Path) -> None:
    torch.set_num_threads(1)
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=world)
    results = {"gathered": gathered(rank)}
    for name, case in torch.load(folder / "case.pt").items():
        network = nn.parallel.DistributedDataParallel(Network())
        results[name] = step(network, case["parts"][rank], case["options"])
    torch.save(results, folder / f"result-{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
