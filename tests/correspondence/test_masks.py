"""Spatial masks: golden cases, literal loops, and what may not change them."""

import random

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medpixcl.correspondence import (
    Cells,
    ExogenousChannel,
    PooledExogenous,
    cells_of_affine,
    cells_of_map,
    draw_cells,
    positive_statistics,
    positive_weights,
    threshold_3d,
)
from medpixcl.transforms import RandPixelViewsd
from tests.correspondence.cases import GOLDEN, boxed, corners, filtered, known, mask_of, pairs, random_cells
from tests.geometry import oblique_affine, random_image
from tests.reference import pixpro

DIMS = pytest.mark.parametrize("dims", [2, 3])


class TestGolden:
    @pytest.mark.parametrize("metric", ["mm", "bins"])
    @pytest.mark.parametrize("case", [name for name in GOLDEN if name != "flat"])
    def test_square_cells(self, case, metric):
        query, key, expected = GOLDEN[case]
        mask = mask_of(boxed(*corners(query), (2, 2)), boxed(*corners(key), (2, 2)), metric=metric)
        assert pairs(mask) == expected

    def test_flat_cells(self):
        """By the diagonal each cell and its vertical neighbour; in bins each cell only."""
        cells = boxed(*corners(GOLDEN["flat"][0]), (2, 2))
        assert pairs(mask_of(cells, cells)) == GOLDEN["flat"][2]
        assert pairs(mask_of(cells, cells, metric="bins")) == GOLDEN["same"][2]

    def test_volume(self):
        query, key = boxed((0, 0, 0), (0.5,) * 3, (2, 2, 2)), boxed((0, 0, 0.25), (0.5, 0.5, 0.75), (2, 2, 2))
        assert mask_of(query, key, 0.7).sum() == 20
        assert mask_of(query, key, threshold_3d(0.7)).sum() == 4
        assert threshold_3d(0.7) == pytest.approx(0.5715, abs=5e-5)

    @pytest.mark.parametrize(("threshold", "count"), [(0.7, 49), (0.71, 217)])
    def test_grid_of_the_original(self, threshold, count):
        cells = boxed((0, 0), (1, 1), (7, 7))
        assert mask_of(cells, cells, threshold).sum() == count

    def test_slab(self):
        """Flat bins: a ball in mm takes all five cells along the short axis, one in bins the six faces."""
        cells = boxed((0, 0, 0), (160, 160, 40), (5, 5, 5))
        centre = 2 * 25 + 2 * 5 + 2
        assert mask_of(cells, cells)[0, centre].sum() == 9
        assert mask_of(cells, cells)[0, centre].view(5, 5, 5)[2, 2].all()
        assert mask_of(cells, cells, metric="bins")[0, centre].sum() == 7


class TestAgainstReference:
    @pytest.mark.parametrize("shape", [(3, 4), (2, 3, 2)], ids=["2d", "3d"])
    def test_random_boxes(self, shape):
        """Half of them mirrored, in any axis."""
        draw = random.Random(0)
        found = 0
        for _ in range(100):
            boxes = []
            for _ in range(2):
                low = [draw.uniform(0, 0.6) for _ in shape]
                high = [start + draw.uniform(0.1, 0.4) for start in low]
                swap = [draw.random() < 0.5 for _ in shape]
                boxes.append(
                    (
                        [h if s else l for l, h, s in zip(low, high, swap, strict=True)],  # noqa: E741
                        [l if s else h for l, h, s in zip(low, high, swap, strict=True)],  # noqa: E741
                    )
                )
            expected = pixpro.mask(*boxes, shape, 0.7)
            assert pairs(mask_of(boxed(*boxes[0], shape), boxed(*boxes[1], shape))) == expected
            found += len(expected)
        assert found > 100


class TestInvariants:
    @DIMS
    @pytest.mark.parametrize("metric", ["mm", "bins"])
    def test_transposed(self, dims, metric):
        query, key = random_cells(dims), random_cells(dims, seed=1)
        mask = mask_of(query, key, 1.1, metric)
        assert 0 < mask.sum() < mask.numel()
        assert torch.equal(mask, mask_of(key, query, 1.1, metric).mT)

    @DIMS
    @pytest.mark.parametrize("metric", ["mm", "bins"])
    def test_turned_world_and_units(self, dims, metric):
        """A rigid motion of the world, another unit or another order of its axes change nothing."""
        query, key = random_cells(dims), random_cells(dims, seed=1)
        turn = torch.linalg.qr(torch.randn(dims, dims, generator=torch.Generator().manual_seed(2)))[0]
        expected = mask_of(query, key, 1.1, metric)
        for matrix in (turn, 25.4 * torch.eye(dims), torch.eye(dims).flip(0)):
            moved = [Cells(c.positions @ matrix.mT + 5, matrix @ c.edges, c.valid) for c in (query, key)]
            assert torch.equal(mask_of(*moved, 1.1, metric), expected)

    @DIMS
    @pytest.mark.parametrize("metric", ["mm", "bins"])
    def test_mirrored_or_turned_crop(self, dims, metric):
        """The cells of the same crop in another order: the same mask, permuted."""
        shape = (4,) * dims
        affine = torch.from_numpy(np.asarray(oblique_affine(dims))).float()[None]
        other = affine.clone()
        other[:, :-1, -1] += 3.0
        query, key = cells_of_affine(affine, shape, 2), cells_of_affine(other, shape, 2)
        mask = mask_of(query, key, 1.1, metric).view(1, -1, *shape)
        flip = torch.eye(dims + 1)
        flip[0, 0], flip[0, -1] = -1.0, 7.0
        mirrored = cells_of_affine(other @ flip, shape, 2)
        assert torch.equal(mask_of(query, mirrored, 1.1, metric), mask.flip(2).flatten(2))
        quarter = torch.eye(dims + 1)
        quarter[:2, :2], quarter[1, -1] = torch.tensor([[0.0, 1.0], [-1.0, 0.0]]), 7.0
        turned = cells_of_affine(other @ quarter, shape, 2)
        assert torch.equal(mask_of(query, turned, 1.1, metric), torch.rot90(mask, 1, (2, 3)).flatten(2))

    @pytest.mark.parametrize("metric", ["mm", "bins"])
    def test_flat_volume_is_a_picture(self, metric):
        """A third axis of one cell without extent."""
        for query, key, _ in GOLDEN.values():
            flat = [boxed(*corners(box), (2, 2)) for box in (query, key)]
            deep = [boxed((*low, 0.0), (*high, 0.0), (2, 2, 1)) for low, high in map(corners, (query, key))]
            assert torch.equal(mask_of(*deep, metric=metric), mask_of(*flat, metric=metric))


class TestCells:
    @DIMS
    def test_views(self, dims):
        """The map's cells are those of the affine, and cells of padding are not valid."""
        transform = RandPixelViewsd("image", view_shape=(16, 12, 8)[:dims], flip_probability=0.5, shift=0.6)
        transform.set_random_state(3)
        item = transform({"image": random_image((40, 44, 24)[:dims])})
        for view in ("query", "anchor"):
            coords = item[f"coords_image_{view}"].as_tensor()[None]
            matrix = torch.as_tensor(item[f"image_{view}"].affine).float()
            keep = [*range(dims), 3]
            affine = matrix[keep][:, keep][None]
            found = cells_of_map(coords, affine, 4)
            expected = cells_of_affine(affine, [n // 4 for n in coords.shape[2:]], 4)
            torch.testing.assert_close(found.positions, expected.positions, atol=1e-3, rtol=1e-5)
            torch.testing.assert_close(found.edges, expected.edges)
            share = coords[:, -1:]
            for axis in range(2, dims + 2):
                share = share.unflatten(axis, (-1, 4)).mean(axis + 1)
            assert torch.equal(found.valid, share.flatten(1) >= 0.5)

    def test_padding_is_no_positive(self):
        cells = boxed((0, 0), (1, 1), (2, 2))
        hidden = cells._replace(valid=torch.tensor([[True, False, True, True]]))
        assert pairs(positive_weights(hidden, cells, threshold=0.7).weights) == {(0, 0), (2, 2), (3, 3)}
        assert pairs(positive_weights(cells, hidden, threshold=0.7).weights) == {(0, 0), (2, 2), (3, 3)}

    @DIMS
    def test_draw(self, dims):
        """Without repetition, those in the other view first, and the same again from the same seed."""
        shape = (8, 8, 8)[:dims]
        affine = torch.eye(dims + 1)[None].repeat(2, 1, 1)
        moved = affine.clone()
        moved[:, 0, -1] = 12.0
        query, key = cells_of_affine(affine, shape, 2), cells_of_affine(moved, shape, 2)
        drawn = draw_cells(query, key, 10, generator=torch.Generator().manual_seed(0))
        assert drawn.shape == (2, 10)
        assert all(len(set(row)) == 10 for row in drawn.tolist())
        assert (query.at(drawn).positions[..., 0] >= 12).all()
        assert torch.equal(drawn, draw_cells(query, key, 10, generator=torch.Generator().manual_seed(0)))
        assert not torch.equal(drawn, draw_cells(query, key, 10, generator=torch.Generator().manual_seed(1)))
        every = draw_cells(query, key, 10_000)
        assert torch.equal(every[1], torch.arange(8**dims))
        chosen = positive_weights(query.at(drawn), key, threshold=0.7).weights
        whole = positive_weights(query, key, threshold=0.7).weights
        assert torch.equal(chosen[1], whole[1][drawn[1]])


class TestPrecision:
    def test_autocast(self):
        """Far from the origin, where half precision could not tell the cells apart."""
        cells = boxed((1000, 1000), (1007, 1007), (7, 7))
        e = known(np.linspace(1000, 1010, 49))
        channel = ExogenousChannel("e", threshold=0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = filtered(cells, cells, channel, e, e, threshold=0.71)
        assert found.weights.dtype == torch.float32
        assert found.spatial.sum() == 217
        assert torch.equal(found.weights, filtered(cells, cells, channel, e, e, threshold=0.71).weights)

    def test_no_gradient(self):
        cells = boxed((0, 0), (1, 1), (2, 2))
        moving = cells._replace(positions=cells.positions.clone().requires_grad_())
        assert not positive_weights(moving, cells, threshold=0.7).weights.requires_grad

    def test_memory(self):
        """24^3 cells: with 16 drawn no tensor is larger than 16 rows of float32."""
        affine = torch.eye(4)[None]
        query = cells_of_affine(affine, (24, 24, 24), 4)
        e = PooledExogenous(query.positions.mT[:, :1], query.valid, torch.zeros(query.valid.shape))
        channel = ExogenousChannel("e", quantile=0.9)
        with Largest() as largest:
            drawn = draw_cells(query, query, 16)
            found = filtered(query.at(drawn), query, channel, e.at(drawn), e, threshold=threshold_3d(1.4))
            positive_statistics(found)
        assert found.weights.shape == (1, 16, 24**3)
        assert largest.bytes <= 16 * 24**3 * 4


class Largest(TorchDispatchMode):
    """Size of the largest tensor that any operation makes."""

    bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for value in out if isinstance(out, tuple | list) else [out]:
            if isinstance(value, torch.Tensor):
                self.bytes = max(self.bytes, value.untyped_storage().nbytes())
        return out
