"""Exogenous channels on a feature grid: against loops and hand-computed means."""

import math
import random

import numpy as np
import pytest
import torch

from medpixcl.correspondence import (
    pool_exogenous,
)
from tests.correspondence.cases import NAN
from tests.reference import pixpro


class TestPooling:
    def test_against_loops(self):
        draw = random.Random(0)
        rows = [[draw.choice([None, draw.uniform(900, 1100)]) for _ in range(12)] for _ in range(10)]
        tensor = torch.tensor([[NAN if v is None else v for v in row] for row in rows])[None, None]
        found = pool_exogenous(tensor, 4)
        expected = pixpro.pooled(rows, 4)
        shares = np.array([share for _, share, _ in expected])
        assert np.array_equal(found.valid[0].numpy(), shares >= 0.5)
        assert 0 < found.valid.sum() < len(shares)
        for values, column in ((found.values[0, 0], 0), (found.spread[0], 2)):
            wanted = [cell[column] if cell[1] >= 0.5 else 0.0 for cell in expected]
            np.testing.assert_allclose(values.numpy(), wanted, rtol=1e-4)

    def test_volume_of_one_slice_is_a_picture(self):
        picture = torch.rand(2, 2, 8, 6, generator=torch.Generator().manual_seed(0))
        for flat, deep in zip(pool_exogenous(picture, 2), pool_exogenous(picture[..., None], (2, 2, 1)), strict=True):
            torch.testing.assert_close(flat, deep)

    def test_padding(self):
        valid = torch.tensor([[[[True, False, False, False]]]])
        pooled = pool_exogenous(torch.tensor([[[[1.0, 9.0, 9.0, 9.0]]]]), (1, 2), valid=valid)
        assert pooled.valid.tolist() == [[True, False]]
        assert pooled.values.tolist() == [[[1.0, 0.0]]]

    def test_cyclic_mean(self):
        pooled = pool_exogenous(torch.tensor([[[[350.0, 20.0, 90.0, 90.0]]]]), (1, 2), kind="cyclic", period=360.0)
        torch.testing.assert_close(pooled.values, torch.tensor([[[5.0, 90.0]]]), atol=1e-3, rtol=0)
        length = math.cos(math.radians(15))
        assert pooled.spread[0, 0].item() == pytest.approx(math.degrees(math.sqrt(-2 * math.log(length))), rel=1e-4)

    def test_labels(self):
        pooled = pool_exogenous(torch.tensor([[[[0, 2, -1, 1]]]]), (1, 2), kind="categorical", classes=3)
        assert pooled.values.tolist() == [[[0.5, 0.0], [0.0, 1.0], [0.5, 0.0]]]
        assert pooled.spread.tolist() == [[0.5, 0.0]]
