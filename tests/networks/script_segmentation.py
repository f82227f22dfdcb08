"""Save segmentation networks as TorchScript, in a process without the hook that checks annotations.

``python script_segmentation.py FOLDER BACKBONE-HEAD-DIMS...`` writes ``BACKBONE-HEAD-DIMS.ts``.
"""

import sys
from pathlib import Path

import torch

from tests.networks.test_segmentation import make


def main(folder: Path, cases: list[str]) -> None:
    torch.set_num_threads(1)
    for case in cases:
        backbone, head, dims = case.rsplit("-", 2)
        torch.jit.script(make(int(dims), backbone, head=head).eval()).save(folder / f"{case}.ts")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
