"""What is learnt from matches in unlabelled images, on embeddings that are known everywhere."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.nn import functional as F

from medpixcl.landmarks.geometry import transform
from medpixcl.matching import LandmarkMatcher, MatchResult, Population
from medpixcl.matching.reciprocity import AROUND
from tests.matching.fields import WaveField, turned

STRIDES = [2, 4, 8]
SHAPES = {2: (80, 88), 3: (40, 44, 42)}
COUNT = 7
Query = tuple[list[Tensor], tuple[int, ...], list[float]]


class Scene:
    """A template and images of the same field under known similarity transforms."""

    def __init__(self, dims: int, turns: list[float]) -> None:
        self.dims, self.shape, self.spacing = dims, SHAPES[dims], [1.0] * dims
        self.field = WaveField(dims, STRIDES)
        size = torch.tensor(self.shape)
        generator = torch.Generator().manual_seed(4)
        self.points = (0.32 + 0.36 * torch.rand(COUNT, dims, generator=generator)) * (size - 1)
        middle = (size - 1) / 2
        matrices = [turned(dims, degrees, 1.0 + 0.01 * number) for number, degrees in enumerate(turns)]
        self.warps = [(matrix, middle - matrix @ middle) for matrix in matrices]
        self.queries: list[Query] = [
            (self.field.levels(self.shape, self.spacing, *warp), self.shape, self.spacing) for warp in self.warps
        ]

    def fitted(self, **options: object) -> LandmarkMatcher:
        levels = self.field.levels(self.shape, self.spacing)
        image = torch.zeros(1, 1, *self.shape)
        return LandmarkMatcher(**options).fit(lambda _: levels, STRIDES, image, self.points, self.spacing)

    def truth(self, number: int) -> Tensor:
        return transform(self.points, *self.warps[number])


def looked_up(level: Tensor, stride: int, voxels: np.ndarray) -> np.ndarray:
    """Unit vectors (..., E) of a map at voxels (..., D), by scipy."""
    cells = np.moveaxis((voxels + 0.5) / stride - 0.5, -1, 0)
    rows = np.stack([map_coordinates(channel, cells, order=1, mode="nearest") for channel in level[0].numpy()], -1)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def literal_weights(result: MatchResult, cell_mm: float) -> np.ndarray:
    """1 / (1 + (way back / 1.5 cells)^2) / (1 + (residual / 3.5 cells)^2), 0 where in doubt."""
    back, away = (column.numpy() / cell_mm for column in (result.cycle_mm, result.residual_mm))
    return np.array([flag == "" for flag in result.flags]) / (1 + (back / 1.5) ** 2) / (1 + (away / 3.5) ** 2)


@pytest.mark.parametrize("dims", [2, 3])
class TestLearning:
    def test_sums_are_those_of_the_matches(self, dims: int) -> None:
        scene = Scene(dims, [4.0, -6.0, 2.0])
        matcher = scene.fitted()
        made = matcher.learn(scene.queries)
        results = [matcher.match(*query) for query in scene.queries]
        weights = [literal_weights(result, 2.0) for result in results]
        np.testing.assert_allclose(made.weights, sum(weights), rtol=1e-4)
        assert made.images == 3
        assert made.cell_mm == 2.0
        reach = np.arange(-AROUND[dims], AROUND[dims] + 1) * STRIDES[0]
        steps = np.stack(np.meshgrid(*[reach] * dims, indexing="ij"), -1).reshape(-1, dims)
        for number, stride in enumerate(STRIDES):
            here, around = 0.0, 0.0
            for (levels, _, _), result, weight in zip(scene.queries, results, weights, strict=True):
                places = result.voxels.numpy()
                here = here + weight[:, None] * looked_up(levels[number], stride, places)
                all_round = looked_up(levels[number], stride, places[:, None] + steps)
                around = around + weight[:, None, None] * all_round
            np.testing.assert_allclose(made.vectors[number], here, atol=2e-4)
            np.testing.assert_allclose(made.around[number], around, atol=2e-4)

    def test_the_mean_of_template_and_matches(self, dims: int) -> None:
        """The template's vector counts for as many matches as is said; all are of length one."""
        scene = Scene(dims, [4.0, -6.0])
        matcher = scene.fitted()
        own = [rows.clone() for rows in matcher.templates.vectors]
        made = matcher.learn(scene.queries)
        matcher.adapt(made, own_weight=3.0)
        for found, rows, sums in zip(matcher.templates.vectors, own, made.vectors, strict=True):
            mean = 3.0 * rows.numpy() + sums.numpy()
            expected = mean / np.linalg.norm(mean, axis=1, keepdims=True)
            np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_learning_changes_no_match_but_adapting_does_not_add_up(self, dims: int) -> None:
        scene = Scene(dims, [4.0, -6.0])
        matcher = scene.fitted()
        before = matcher.match(*scene.queries[0]).voxels
        made = matcher.learn(scene.queries)
        assert torch.equal(matcher.match(*scene.queries[0]).voxels, before)
        once = [rows.clone() for rows in matcher.adapt(made).templates.vectors]
        assert all(map(torch.equal, matcher.adapt(made).templates.vectors, once))

    def test_an_ambiguous_template_is_resolved(self, dims: int) -> None:
        """The template's vector of a landmark looks more like another place; the population's does not.

        The shape leads to the right place in the unlabelled images; with what was seen there, the look alone does.
        """
        scene = Scene(dims, [4.0, -6.0, 2.0, 8.0, -3.0])
        decoy = torch.tensor(scene.shape) * 0.12
        unlabelled, query = scene.queries[:4], scene.queries[4]
        template = scene.fitted(max_ratio=2.0)
        alone = scene.fitted(mode="argmax")
        for matcher in (template, alone):
            for level, rows in enumerate(matcher.annotated.vectors):
                there, elsewhere = rows[0], scene.field.at(decoy, level)
                rows[0] = F.normalize(0.9 * there + elsewhere, dim=0)
        truth = scene.truth(4)[0]
        astray = alone.match(*query).voxels[0]
        assert torch.linalg.vector_norm(astray - transform(decoy[None], *scene.warps[4])[0]) < 4
        found = alone.adapt(template.learn(unlabelled)).match(*query).voxels[0]
        assert torch.linalg.vector_norm(found - truth) < 1.5

    def test_noise_of_the_template_is_averaged_out(self, dims: int, generator: torch.Generator) -> None:
        """Every image has noise of its own: the mean over images has less, and matches come closer."""
        scene = Scene(dims, [float(turn) for turn in range(-9, 9, 2)])

        def noisy(levels: list[Tensor]) -> list[Tensor]:
            return [F.normalize(x + 0.25 * torch.randn(x.shape, generator=generator), dim=1) for x in levels]

        queries = [(noisy(levels), shape, spacing) for levels, shape, spacing in scene.queries]
        levels, image = noisy(scene.field.levels(scene.shape, scene.spacing)), torch.zeros(1, 1, *scene.shape)
        matcher = LandmarkMatcher(mode="argmax").fit(lambda _: levels, STRIDES, image, scene.points, scene.spacing)

        def error() -> Tensor:
            pairs = [(matcher.match(*queries[number]).voxels, scene.truth(number)) for number in (6, 7, 8)]
            return torch.stack([torch.linalg.vector_norm(found - true, dim=1) for found, true in pairs]).mean()

        before = error()
        matcher.adapt(matcher.learn(queries[:6]))
        assert error() < 0.9 * before

    def test_missing_landmarks_stay_missing(self, dims: int) -> None:
        scene = Scene(dims, [4.0, -6.0])
        whole = scene.fitted().learn(scene.queries)
        scene.points[2] = torch.nan
        matcher = scene.fitted()
        made = matcher.learn(scene.queries)
        assert made.weights[2] == 0
        assert all(rows[2].eq(0).all() for rows in (*made.vectors, *made.around))
        for population in (made, whole):
            result = matcher.adapt(population).match(*scene.queries[0])
            assert result.flags[2] == "missing"
            assert not result.voxels[[0, 1, 3]].isnan().any()

    def test_several_templates_share_a_population(self, dims: int) -> None:
        """Each keeps a vector of its own, drawn to the same mean."""
        scene = Scene(dims, [4.0, -6.0, 3.0])
        images = torch.zeros(1, 1, *scene.shape), torch.ones(1, 1, *scene.shape)
        own = scene.field.levels(scene.shape, scene.spacing)
        matcher = LandmarkMatcher().fit(
            lambda image: scene.queries[0][0] if image.any() else own,
            STRIDES,
            images,
            [scene.points, scene.truth(0)],
            scene.spacing,
        )
        made = matcher.learn(scene.queries[1:])
        far = matcher.adapt(made, own_weight=1e-6).templates.vectors
        for rows, sums in zip(far, made.vectors, strict=True):
            pairs = rows.unflatten(0, (COUNT, 2))
            torch.testing.assert_close(pairs[:, 0], pairs[:, 1], atol=1e-4, rtol=0)
            torch.testing.assert_close(pairs[:, 0], F.normalize(sums, dim=1), atol=1e-4, rtol=0)


class TestRefusals:
    def test_no_image(self) -> None:
        with pytest.raises(ValueError, match="found no image to learn from; give at least one beside the template"):
            Scene(2, []).fitted().learn([])

    def test_of_other_landmarks(self) -> None:
        scene = Scene(2, [4.0])
        made = scene.fitted().learn(scene.queries)
        scene.points = scene.points[:3]
        with pytest.raises(ValueError, match="the population has 7 landmarks, the template 3"):
            scene.fitted().adapt(made)

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"cell_mm": 1.5}, r"learnt at cells of 1.5 mm, the template has 2 mm"),
            ({"vectors": (torch.ones(7, 5),) * 3}, r"vectors have lengths \[5, 5, 5\]"),
            ({"around": (torch.ones(7, 125, 24),) * 3}, "in 2 dimensions: learn it again"),
        ],
    )
    def test_of_another_kind(self, change: dict[str, object], words: str) -> None:
        scene = Scene(2, [4.0])
        matcher = scene.fitted()
        made = matcher.learn(scene.queries)
        with pytest.raises(ValueError, match=words):
            matcher.adapt(Population(**{**vars(made), **change}))
