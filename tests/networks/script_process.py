"""Save networks as TorchScript, and what they give in plain Python.

``python script_process.py FOLDER NAME-DIMS...`` writes ``NAME-DIMS.ts`` and ``NAME-DIMS-expected.pt``.
"""

import sys
from pathlib import Path

import torch

from tests.networks.cases import make, picture


def main(folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    for case in cases:
        name, dims = case.rsplit("-", 1)
        net, image = make(name, int(dims)).eval(), picture(int(dims), seed=1)
        torch.jit.script(net).save(folder / f"{case}.ts")
        with torch.no_grad():
            expected = {"image": image, "dense": net(image), "levels": net.levels(image)}
        torch.save(expected, folder / f"{case}-expected.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
