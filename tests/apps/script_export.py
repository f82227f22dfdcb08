"""Export landmark networks as TorchScript, in a process without the hook that checks annotations.

``python -m tests.apps.script_export FOLDER`` writes ``2.ts`` and ``3.ts`` and prints how far landmarks lie apart.
"""

import sys
from pathlib import Path

import torch

from medpixcl.apps.export import export_network
from tests.apps.test_export import SHAPES, make

if __name__ == "__main__":
    torch.set_num_threads(1)
    for dims, shape in SHAPES.items():
        print(export_network(make(dims), Path(sys.argv[1]) / f"{dims}.ts", shape))
