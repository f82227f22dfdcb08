"""Similarity of positive pairs over informativeness: against a literal loop, and what a training writes of it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scipy.ndimage import map_coordinates
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.training.similarity import PositiveSimilarity, positive_similarity
from tests.tiny import pretrain, write_manifest

pytestmark = pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning")
STRIDES = [2, 4]


def output(dims: int) -> dict:
    generator = torch.Generator().manual_seed(dims)
    views = [
        [torch.randn(2, 3, *[16 // stride] * dims, generator=generator, dtype=torch.float64) for stride in STRIDES]
        for _ in range(2)
    ]
    places = {
        name: torch.rand(2, 30, dims, generator=generator, dtype=torch.float64) * 15 for name in ("query", "positive")
    }
    valid = torch.rand(2, 30, generator=generator) < 0.7
    places["positive"][~valid] = torch.nan
    bits = torch.rand(2, 30, generator=generator) * 5
    return {"pred": views, "label": {**places, "valid": valid, "informativeness": bits}}


def cosine(query: torch.Tensor, anchor: torch.Tensor, at: np.ndarray, to: np.ndarray, stride: int) -> float:
    """Between two voxels of two maps (C, *cells), with scipy's linear interpolation."""
    one, other = (
        np.array(
            [map_coordinates(c, ((place + 0.5) / stride - 0.5)[:, None], order=1, mode="nearest")[0] for c in m.numpy()]
        )
        for m, place in ((query, at), (anchor, to))
    )
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


@pytest.mark.parametrize("dims", [2, 3])
def test_against_a_loop(dims: int) -> None:
    handler, engine = PositiveSimilarity(STRIDES, bin_bits=1.0), Engine(lambda engine, dims: output(dims))
    handler.attach(engine)
    engine.run([dims], max_epochs=2)  # a validation begins anew
    found = output(dims)
    expected = np.zeros((8, 4))
    pairs = found["label"]
    for image, place in pairs["valid"].nonzero().tolist():
        at, to = pairs["query"][image, place].numpy(), pairs["positive"][image, place].numpy()
        cosines = np.array(
            [
                cosine(query[image], anchor[image], at, to, stride)
                for query, anchor, stride in zip(*found["pred"], STRIDES, strict=True)
            ]
        )
        bits = pairs["informativeness"][image, place].item()
        expected[int(bits)] += (1, bits, cosines.clip(0).prod(), cosines.mean())
    np.testing.assert_allclose(handler.sums.numpy(), expected, rtol=1e-4, atol=1e-5)
    assert positive_similarity(found["pred"], pairs, STRIDES).shape == (2, 30, 2)


def test_written_at_each_validation(tmp_path: Path) -> None:
    changes = {"pictures": True, "validate::similarity::bin_bits": 1.0}
    workflow = pretrain(write_manifest(tmp_path), tmp_path / "run", max_epochs=2, val_interval=1, **changes)
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    sums = workflow.parser.get_parsed_content("validate::similarity").sums
    for column, name in ((2, "product"), (3, "mean")):
        scalars = events.Scalars(f"positive_similarity/{name}")
        assert [scalar.step for scalar in scalars] == [1, 2]
        assert scalars[-1].value == pytest.approx((sums[:, column].sum() / sums[:, 0].sum()).item())
    filled = sums[:, 0].nonzero().flatten().tolist()
    assert filled
    for number in filled:
        (_, last) = events.Scalars(f"positive_similarity/product_from_{number}_bits")
        assert last.value == pytest.approx((sums[number, 2] / sums[number, 0]).item())
    assert [image.step for image in events.Images("validation/positive_similarity")] == [1, 2]
