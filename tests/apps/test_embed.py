"""Embeddings on disk are those that the network gives for the preprocessed image."""

from pathlib import Path

import numpy as np
import pytest
import torch

from medpixcl.apps.bundles import run_bundle
from medpixcl.data.phantoms import write_phantoms
from tests.tiny import NETWORK, PRETRAINING


@pytest.mark.parametrize("dims", [2, 3])
def test_round_trip(dims: int, tmp_path: Path) -> None:
    shape = (50, 41) if dims == 2 else (12, 9, 10)
    write_phantoms(tmp_path / "images", 2, shape)
    settings = {
        **NETWORK,
        "images": str(tmp_path / "images"),
        "output_dir": str(tmp_path / "out"),
        "weights": None,
        "spatial_dims": dims,
        "pixel_mm": 1.0,
        "working_spacing_mm": [2.0] * dims,
    }
    workflow = run_bundle(PRETRAINING, "inference", settings, kind="infer")
    parser = workflow.parser
    network = parser.get_parsed_content("network").eval()
    dataset = parser.get_parsed_content("dataset")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["phantom_000.npz", "phantom_001.npz"]
    for number, item in enumerate(dataset):
        image = item["image"]
        with np.load(tmp_path / "out" / f"phantom_{number:03d}.npz") as kept:
            assert kept["strides"].tolist() == [1, 2, 4]
            assert kept["shape"].tolist() == list(image.shape[1:])
            np.testing.assert_array_equal(kept["affine"], image.affine.numpy())
            levels = [torch.from_numpy(kept[f"level_{level}"]) for level in range(3)]
        whole = [-(-n // 4) * 4 for n in image.shape[1:]]
        padded = torch.zeros(1, 1, *whole)
        padded[(0, 0, *[slice(n) for n in image.shape[1:]])] = image.as_tensor()[0]
        with torch.no_grad():
            expected = network.levels(padded)
        for level, wanted in zip(levels, expected, strict=True):
            assert level.dtype == torch.float16
            torch.testing.assert_close(level.float(), wanted[0], rtol=0, atol=1e-3)  # half precision below 1
            torch.testing.assert_close(
                torch.linalg.vector_norm(level.float(), dim=0), torch.ones(level.shape[1:]), rtol=0, atol=2e-3
            )
