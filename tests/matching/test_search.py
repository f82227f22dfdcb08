"""Exact search in one map and in the product of levels."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from medpixcl.matching import ProductMap, best_match, product_match
from medpixcl.matching.product import describe
from tests.reference.matching import product_map

LANDMARKS = 5


def smooth_levels(shape: tuple[int, ...], strides: list[int], generator: torch.Generator) -> list[Tensor]:
    """Unit vectors on the grids that cover an image padded to the coarsest stride."""
    mode = "bilinear" if len(shape) == 2 else "trilinear"
    levels = []
    for stride in strides:
        cells = [-(-n // strides[-1]) * strides[-1] // stride for n in shape]
        rough = torch.randn(1, 12, *[max(2, n // 2) for n in cells], generator=generator)
        levels.append(F.normalize(F.interpolate(rough, size=cells, mode=mode), dim=1)[0])
    return levels


def noisy_queries(shape: tuple[int, ...], levels: list[Tensor], strides: list[int], generator: torch.Generator) -> list:
    points = torch.rand(LANDMARKS, len(shape), generator=generator) * (torch.tensor(shape) - 1)
    vectors = describe(levels, strides, points)
    return [F.normalize(v + 0.1 * torch.randn(v.shape, generator=generator), dim=1) for v in vectors]


CASES = [((23, 29), [2, 4, 8]), ((64, 47), [2, 4, 8, 16]), ((9, 14, 11), [2, 4])]


@pytest.mark.parametrize(("shape", "strides"), CASES, ids=str)
class TestProductMatch:
    def test_equals_the_literal_product(
        self, shape: tuple[int, ...], strides: list[int], generator: torch.Generator
    ) -> None:
        levels = smooth_levels(shape, strides, generator)
        queries = noisy_queries(shape, levels, strides, generator)
        cells, scores = product_match(queries, levels, strides)
        for landmark in range(LANDMARKS):
            literal = product_map([query[landmark] for query in queries], levels, strides)
            assert scores[landmark].item() == pytest.approx(literal.max().item(), rel=1e-5)
            assert literal[tuple(cells[landmark].tolist())].item() == pytest.approx(literal.max().item(), rel=1e-5)

    def test_padding_is_not_searched(
        self, shape: tuple[int, ...], strides: list[int], generator: torch.Generator
    ) -> None:
        levels = smooth_levels(shape, strides, generator)
        queries = noisy_queries(shape, levels, strides, generator)
        small = [n // 2 for n in shape]
        cells, _ = product_match(queries, levels, strides, small)
        centres = (cells + 0.5) * strides[0] - 0.5
        assert (centres <= torch.tensor(small) - 1).all()

    def test_is_at_most_every_level(
        self, shape: tuple[int, ...], strides: list[int], generator: torch.Generator
    ) -> None:
        levels = smooth_levels(shape, strides, generator)
        queries = noisy_queries(shape, levels, strides, generator)
        finest = torch.einsum("kc,c...->k...", queries[0], levels[0]).clamp_min(0)
        assert (ProductMap(queries, levels, strides).full() <= finest + 1e-6).all()


def test_many_tiles_give_the_maximum_of_the_whole_map(generator: torch.Generator) -> None:
    """More tiles than are looked at in one turn, so that bounds decide."""
    shape, strides = (400, 530), [2, 4, 8, 16, 32]
    levels = smooth_levels(shape, strides, generator)
    queries = noisy_queries(shape, levels, strides, generator)
    _, scores = product_match(queries, levels, strides)
    whole = ProductMap(queries, levels, strides).full().flatten(1).amax(dim=1)
    torch.testing.assert_close(scores, whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("cells", [(37, 41), (7, 9, 11)], ids=["2d", "3d"])
@pytest.mark.parametrize("tile", [10, 4096])
def test_best_match_equals_the_full_matrix(cells: tuple[int, ...], tile: int, generator: torch.Generator) -> None:
    embedding = torch.randn(8, *cells, generator=generator)
    queries = torch.randn(6, 8, generator=generator)
    found, scores = best_match(queries, embedding, tile=tile)
    products = queries.double() @ embedding.double().flatten(1)
    expected = torch.stack(torch.unravel_index(products.argmax(dim=1), cells), dim=1)
    assert found.tolist() == expected.tolist()
    torch.testing.assert_close(scores.double(), products.amax(dim=1))


def test_best_match_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="queries have 3 channels, the embedding 4"):
        best_match(torch.zeros(1, 3), torch.zeros(4, 2, 2))
