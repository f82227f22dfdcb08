"""Pairs against positions worked out in float64, the original's one-hot map, and the laws of drawing."""

from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.ndimage import rotate
from scipy.stats import chisquare

from medpixcl.coordinates import apply_affine, voxel_positions
from medpixcl.correspondence.pixels import correspond, draw_pixels, overlap
from medpixcl.views import View, affine_view, coordinate_map, resample, smooth_field, view_positions
from tests.geometry import SHAPES, oblique_affine
from tests.reference.one_hot_positives import one_hot_positive, turned_point

DIMS = pytest.mark.parametrize("dims", [2, 3])
SPACING = {2: (0.5, 0.8), 3: (0.5, 0.8, 1.4)}  # of oblique_affine
EXACT_PX = 1e-3


def make_view(dims: int, *, seed: int, elastic: float = 0.0, **options) -> View:
    """Random turn, scale and mirroring; hangs over the border of the image."""
    state = np.random.default_rng(seed)
    given = {
        "shape": (24, 20, 18)[:dims],
        "centre": [n * state.uniform(0.3, 0.7) for n in SHAPES[dims]],
        "spacing_mm": SPACING[dims],
        "pixel_mm": [0.9] * dims,
        "rotation_degrees": state.uniform(-40, 40, {2: 1, 3: 3}[dims]).tolist(),
        "scale": float(state.uniform(0.7, 1.4)),
        "flip": (state.uniform(size=dims) < 0.5).tolist(),
    }
    view = affine_view(**(given | options))
    bend = torch.from_numpy(state.normal(size=(dims, *[5] * dims))).float() * elastic
    return View(matrix=view.matrix, shape=view.shape, displacement=bend if elastic else None)


def map_of(view: View, affine: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """Coordinate map of a view as the transforms make it."""
    displacement = None if view.displacement is None else view.displacement[None]
    return coordinate_map(view_positions(view.matrix[None], view.shape, displacement), affine.float()[None], shape)


def every_pixel(view: View) -> torch.Tensor:
    return voxel_positions(view.shape).flatten(0, -2)[None]


def off_the_border(points: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
    """True where rounding cannot decide whether a point is inside."""
    last = torch.tensor([n - 1 for n in shape])
    return torch.minimum(points.abs().amin(-1), (points - last).abs().amin(-1)) > EXACT_PX


class TestCorrespond:
    @DIMS
    @pytest.mark.parametrize("elastic", [0.0, 2.0], ids=["affine", "elastic"])
    @pytest.mark.parametrize("seed", range(4))
    def test_equals_the_analytic_point(self, dims, elastic, seed):
        """Every pixel: from view to image to mm to anchor view, each step in float64; in pixels of the anchor view."""
        affine, shape = oblique_affine(dims), SHAPES[dims]
        anchor, query = make_view(dims, seed=seed), make_view(dims, seed=seed + 50, elastic=elastic)
        pixels = every_pixel(query)
        pairs = correspond(map_of(query, affine, shape), pixels, (affine @ anchor.matrix)[None], anchor.shape)

        image_voxel = apply_affine(query.matrix, pixels[0].double())
        if elastic:
            field = smooth_field(query.displacement.double()[None], query.shape)[0]
            image_voxel += field[(slice(None), *pixels[0].long().T)].T
        expected = anchor.locate(image_voxel)
        last = torch.tensor([n - 1 for n in shape])
        seen = ((image_voxel >= 0) & (image_voxel <= last)).all(-1)
        shown = ((expected >= 0) & (expected <= torch.tensor(anchor.shape) - 1)).all(-1)

        assert torch.equal(pairs.query, pixels)
        assert pairs.positive.isfinite().all()
        assert pairs.position_mm.isfinite().all()
        error = (pairs.positive[0].double() - expected).abs().amax(-1)
        assert error.max() <= EXACT_PX
        clear = off_the_border(image_voxel, shape) & off_the_border(expected, anchor.shape)
        assert clear.float().mean() > 0.95
        assert torch.equal(pairs.valid[0][clear], (seen & shown)[clear])
        assert 0.02 < pairs.valid.float().mean() < 0.98

    @DIMS
    def test_same_view_twice_gives_the_pixel_itself(self, dims):
        affine = oblique_affine(dims)
        view = make_view(dims, seed=3, centre=[n / 2 for n in SHAPES[dims]], pixel_mm=[0.3] * dims)
        pairs = correspond(
            map_of(view, affine, SHAPES[dims]), every_pixel(view), (affine @ view.matrix)[None], view.shape
        )
        torch.testing.assert_close(pairs.positive, pairs.query, rtol=0, atol=EXACT_PX)

    @DIMS
    def test_padding_has_no_partner(self, dims):
        """The anchor shows far more than the image: padding of the query lies inside it, and still is no positive."""
        affine, shape = oblique_affine(dims), (8,) * dims
        wide = {"centre": [3.5] * dims, "shape": (20,) * dims, "pixel_mm": SPACING[dims]}
        anchor, query = make_view(dims, seed=1, scale=0.5, **wide), make_view(dims, seed=2, scale=1.0, **wide)
        pixels = every_pixel(query)
        pairs = correspond(map_of(query, affine, shape), pixels, (affine @ anchor.matrix)[None], anchor.shape)
        voxel = apply_affine(query.matrix, pixels[0].double())
        padding = ((voxel < -EXACT_PX) | (voxel > 7 + EXACT_PX)).any(-1)
        assert padding.float().mean() > 0.5
        assert not pairs.valid[0][padding].any()
        assert pairs.valid[0].any()

    def test_a_batch_equals_one_by_one_and_strides_do_not_matter(self):
        affine, shape = oblique_affine(2), SHAPES[2]
        views = [(make_view(2, seed=n), make_view(2, seed=n + 9, elastic=1.0)) for n in range(3)]
        coords = torch.cat([map_of(query, affine, shape) for _, query in views])
        affines = torch.stack([affine @ anchor.matrix for anchor, _ in views])
        pixels = torch.randint(0, 18, (3, 7, 2), generator=torch.Generator().manual_seed(0)).float()
        whole = correspond(coords, pixels, affines, (24, 20))
        other = correspond(coords.mT.contiguous().mT, pixels, affines, (24, 20))
        for n in range(3):
            one = correspond(coords[n : n + 1], pixels[n : n + 1], affines[n : n + 1], (24, 20))
            for name in ("query", "positive", "position_mm", "valid"):
                assert torch.equal(getattr(whole, name)[n], getattr(one, name)[0])
                assert torch.equal(getattr(other, name), getattr(whole, name))

    def test_plane_equals_volume_with_a_depth_of_one(self):
        affine, shape = oblique_affine(2), SHAPES[2]
        deep_affine = torch.eye(4, dtype=torch.float64)
        deep_affine[1:, 1:] = affine
        anchor, query = make_view(2, seed=5), make_view(2, seed=6, elastic=1.0)
        pixels = every_pixel(query)
        flat = correspond(map_of(query, affine, shape), pixels, (affine @ anchor.matrix)[None], anchor.shape)
        deep_views = []
        for view in (anchor, query):
            matrix = torch.eye(4, dtype=torch.float64)
            matrix[1:, 1:] = view.matrix
            bend = view.displacement
            if bend is not None:
                bend = torch.cat([torch.zeros(1, 5, 5), bend])[:, None]
            deep_views.append(View(matrix=matrix, shape=(1, *view.shape), displacement=bend))
        anchor, query = deep_views
        deep_map = map_of(query, deep_affine, (1, *shape))
        deep = correspond(deep_map, every_pixel(query), (deep_affine @ anchor.matrix)[None], anchor.shape)
        torch.testing.assert_close(deep.positive[..., 1:], flat.positive, rtol=0, atol=EXACT_PX)
        assert (deep.positive[..., 0].abs() < EXACT_PX).all()
        assert (deep.valid == flat.valid).float().mean() > 0.99  # rounding may decide at the very border
        assert flat.valid.any()


@DIMS
def test_overlap_is_the_validity_of_every_pixel(dims):
    affine, shape = oblique_affine(dims), SHAPES[dims]
    anchor, query = make_view(dims, seed=1), make_view(dims, seed=2, elastic=1.0)
    coords, target = map_of(query, affine, shape), (affine @ anchor.matrix)[None]
    pairs = correspond(coords, every_pixel(query), target, anchor.shape)
    found = overlap(coords, target, anchor.shape)
    assert found.shape == (1, 1, *query.shape)
    assert torch.equal(found.flatten(), pairs.valid.flatten())
    assert found.any()
    assert not found.all()


class TestOriginalPositives:
    """Crops of a 384 image turned by -20 to 20 degrees, as in the original (method card, sections 2 and 6.3)."""

    SIZE = 384
    AFFINE = torch.diag(torch.tensor([0.5, 0.5, 1.0], dtype=torch.float64))

    def crop_view(self, corner: np.ndarray, crop: int, degrees: float) -> View:
        """The turned crop; scipy turns the other way round."""
        return affine_view(
            shape=(crop, crop),
            centre=(corner + (crop - 1) / 2).tolist(),
            spacing_mm=(0.5, 0.5),
            rotation_degrees=(-degrees,),
        )

    def test_the_view_is_the_turned_crop(self):
        image = np.random.default_rng(0).normal(size=(self.SIZE, self.SIZE))
        crop = image[100:164, 30:94]
        turned = rotate(crop, 13.0, reshape=False, order=1)
        view = self.crop_view(np.array([100, 30]), 64, 13.0)
        shown = resample(torch.from_numpy(image)[None, None], view_positions(view.matrix[None], view.shape).double())
        middle = slice(12, 52)  # beyond, the turned crop is padded and the view is not
        np.testing.assert_allclose(shown[0, 0, middle, middle].numpy(), turned[middle, middle], atol=1e-4)

    @pytest.mark.parametrize(("crop", "number"), [(64, 400), (192, 150)])
    def test_wrong_in_the_original_and_exact_here(self, crop, number):
        state = np.random.default_rng(crop)
        whole = affine_view(shape=(self.SIZE,) * 2, centre=(191.5, 191.5), spacing_mm=(0.5, 0.5))
        coords = map_of(whole, self.AFFINE, (self.SIZE,) * 2)
        wrong, lost, marked = 0, 0, 0
        for _ in range(number):
            corner = state.integers(0, self.SIZE - crop, 2, endpoint=True)
            pixel, degrees = state.integers(0, crop, 2), state.uniform(-20, 20)
            truth = turned_point(pixel, crop, degrees)
            gone = not all(0 <= place <= crop - 1 for place in truth)
            wrong += np.hypot(*np.subtract(one_hot_positive(tuple(pixel), crop, degrees), truth)) > 2
            lost += gone

            view = self.crop_view(corner, crop, degrees)
            target = torch.tensor([[(corner + pixel).tolist()]], dtype=torch.float32)
            pairs = correspond(coords, target, (self.AFFINE @ view.matrix)[None], view.shape)
            assert np.hypot(*(pairs.positive[0, 0].numpy() - truth)) <= EXACT_PX
            assert pairs.valid.item() is not gone
            marked += not pairs.valid.item()
        assert wrong > 0.02 * number  # argmax of a map from which the one was turned out, or beside it
        assert lost > 0.02 * number
        assert marked == lost


class TestDrawPixels:
    @DIMS
    def test_without_repetition(self, dims, generator):
        weights = torch.rand(3, 1, *(5, 6, 4)[:dims], generator=generator) + 0.1
        count = weights[0].numel()
        pixels, drawn = draw_pixels(weights, count, generator=generator)
        assert drawn.all()
        for image in pixels.long().tolist():
            assert sorted(map(tuple, image)) == list(np.ndindex(*weights.shape[2:]))

    @DIMS
    def test_zero_is_never_drawn(self, dims, generator):
        weights = torch.rand(200, 1, *(4, 5, 3)[:dims], generator=generator)
        weights = weights * (weights > 0.5)
        weights[0] = 0
        number = 9
        pixels, drawn = draw_pixels(weights, number, generator=generator)
        found = weights[(torch.arange(200)[:, None], 0, *pixels.long().unbind(-1))]
        assert (found[drawn] > 0).all()
        positive = (weights > 0).flatten(1).sum(1)
        assert torch.equal(drawn.sum(1), positive.clamp(max=number))
        assert not drawn.all()

    def test_frequencies_follow_the_weights(self):
        """First and second pixel of many draws: w_i, and w_j / (1 - w_i) among the rest."""
        shares = np.array([0.05, 0.1, 0.2, 0.25, 0.4])
        draws = 20000
        weights = torch.from_numpy(shares).float().view(1, 1, 1, 5).expand(draws, 1, 1, 5) * 7.0  # any scale
        pixels, drawn = draw_pixels(weights, 2, generator=torch.Generator().manual_seed(0))
        assert drawn.all()
        pairs = list(permutations(range(5), 2))
        expected = [shares[i] * shares[j] / (1 - shares[i]) for i, j in pairs]
        seen = [tuple(pair) for pair in pixels[..., 1].long().tolist()]
        observed = [seen.count(pair) for pair in pairs]
        assert sum(observed) == draws
        assert chisquare(observed, np.array(expected) * draws).pvalue > 0.01

    def test_same_seed_same_pixels(self):
        weights = torch.rand(2, 1, 9, 9)
        first, second = (draw_pixels(weights, 5, generator=torch.Generator().manual_seed(3))[0] for _ in range(2))
        assert torch.equal(first, second)

    @pytest.mark.gpu
    def test_generator_of_the_cpu_draws_the_same_on_a_gpu(self):
        weights = torch.rand(2, 1, 9, 9)
        expected = draw_pixels(weights, 5, generator=torch.Generator().manual_seed(3))
        found = draw_pixels(weights.cuda(), 5, generator=torch.Generator().manual_seed(3))
        assert torch.equal(found[0].cpu(), expected[0])
        assert torch.equal(found[1].cpu(), expected[1])

    def test_too_many(self):
        message = "^cannot draw 13 pixels from a view of 12: ask for fewer or enlarge it$"
        with pytest.raises(ValueError, match=message):
            draw_pixels(torch.ones(1, 1, 3, 4), 13)
