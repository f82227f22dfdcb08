"""Pose search and upright matching on images that hold their own coordinates, so that every true place is known."""

import math
from collections.abc import Callable

import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor
from torch.nn import functional as F

from medpixcl.matching import LandmarkMatcher, MatchResult
from medpixcl.matching.pose import PosedTemplate, right_angle_turns
from medpixcl.views import View
from tests.matching.fields import WaveField, turned

STRIDES = [2]  # coarser levels of so small a body would blur its borders
SHAPE = {2: (80, 96), 3: (26, 30, 28)}
FAR = 200.0  # no place of the template is near 0, which the padding holds
TOLERATED = 65.0  # degrees by which a body may be turned before its places look different; 63 lie between turns in 3D


def body(dims: int, spacing: Tensor, shape: tuple[int, ...], matrix: Tensor, shift: Tensor) -> Tensor:
    """Image of a texture and the template's coordinates in mm; ``x = p @ matrix.T + shift`` shows the place p.

    Beyond the template there is nothing.
    """
    axes = [torch.arange(size) * step for size, step in zip(shape, spacing.tolist(), strict=True)]
    mm = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)
    place = (mm - shift) @ torch.linalg.inv(matrix).T
    extent = torch.tensor(SHAPE[dims]) - 1.0
    there = ((place >= 0) & (place <= extent)).all(dim=-1, keepdim=True)
    texture = torch.sin(place.square().sum(dim=-1, keepdim=True) / 7)
    return (torch.cat([texture, place + FAR], dim=-1) * there).movedim(-1, 0)[None]


def embedding(dims: int, *, upright_only: bool = False) -> Callable[[Tensor], list[Tensor]]:
    """Waves at the coordinates that an image shows; of a body turned too far, those of other coordinates."""
    field, pool = WaveField(dims, STRIDES), F.avg_pool2d if dims == 2 else F.avg_pool3d

    def embed(image: Tensor) -> list[Tensor]:
        place = image[:, 1:] - FAR
        if upright_only and _turn(image) > TOLERATED:
            place = place.flip(1).square() / 9
        size = [-(-n // STRIDES[-1]) * STRIDES[-1] for n in image.shape[2:]]
        padding = [
            amount
            for n, whole in zip(reversed(image.shape[2:]), reversed(size), strict=True)
            for amount in (0, whole - n)
        ]
        place = F.pad(place, padding, value=-FAR)
        cells = [pool(place, stride) for stride in STRIDES]
        return [field.at(mean[0].movedim(0, -1), level).movedim(-1, 0)[None] for level, mean in enumerate(cells)]

    return embed


def _turn(image: Tensor) -> float:
    """Degrees by which the body of an image is turned, from the slopes of its coordinates in the middle."""
    dims = image.ndim - 2
    middle = tuple(slice(n // 2 - 3, n // 2 + 3) for n in image.shape[2:])
    part = image[0, 1:][(slice(None), *middle)]
    slopes = torch.stack([part.diff(dim=1 + axis).mean(dim=tuple(range(1, dims + 1))) for axis in range(dims)], dim=1)
    left, _, right = torch.linalg.svd(slopes.double())
    rotation = left @ right
    cosine = (rotation.trace() - (dims - 2)) / 2
    return math.degrees(math.acos(max(-1.0, min(1.0, float(cosine)))))


def pose(dims: int, degrees: float, scale: float = 1.1) -> tuple[Tensor, Tensor, tuple[int, ...], Tensor]:
    """Matrix, shift, shape and spacing of an image that shows the whole template, turned about a skew axis in 3D."""
    matrix = turned(dims, degrees, scale)
    if dims == 3:
        axis = torch.tensor([1.0, 2.0, -1.5])
        vector = (axis / axis.norm() * math.radians(degrees)).numpy()
        matrix = scale * torch.from_numpy(Rotation.from_rotvec(vector).as_matrix()).float()
    spacing = torch.tensor([1.2, 0.9, 1.0])[:dims]
    side = 1.1 * scale * torch.tensor(SHAPE[dims]).float().norm()
    shape = tuple(int(side / step) for step in spacing.tolist())
    middle = (torch.tensor(SHAPE[dims]) - 1.0) / 2
    return matrix, side / 2 - matrix @ middle, shape, spacing


def template(dims: int) -> Tensor:
    return body(dims, torch.ones(dims), SHAPE[dims], torch.eye(dims), torch.zeros(dims))


def posed_template(image: Tensor, embed: Callable[[Tensor], list[Tensor]]) -> PosedTemplate:
    def maps(one: Tensor) -> list[Tensor]:
        return [level[0] for level in embed(one)]

    return PosedTemplate(image, [1.0] * (image.ndim - 2), maps(image), maps, STRIDES)


class TestPosedTemplate:
    @pytest.mark.parametrize(
        ("dims", "degrees", "upright_only"),
        [(2, 25.0, True), (2, 130.0, False), (2, 130.0, True), (2, 180.0, True), (3, 25.0, True), (3, 180.0, True)],
    )
    def test_a_known_pose_is_found(self, dims: int, degrees: float, upright_only: bool) -> None:
        """Within the tolerance of the embedding at once, beyond it by trying turns; to a cell."""
        embed, image = embedding(dims, upright_only=upright_only), template(dims)
        posed = posed_template(image, embed)
        matrix, shift, shape, spacing = pose(dims, degrees)
        query = body(dims, spacing, shape, matrix, shift)
        levels = [level[0] for level in embed(query)]
        found = posed.find(query, levels, None, spacing.tolist())
        corners = torch.cartesian_prod(*[torch.tensor([0.2, 0.8]) * size for size in SHAPE[dims]])
        away = corners @ (found.matrix - matrix).T + found.shift - shift
        assert found.support > 0.5
        assert away.norm(dim=1).max() < STRIDES[0]

    @pytest.mark.parametrize("dims", [2, 3])
    def test_nothing_in_common_has_little_support(self, dims: int) -> None:
        embed, image = embedding(dims), template(dims)
        posed = posed_template(image, embed)
        other = image.clone()
        other[:, 1:] = 3 * FAR + 9 * torch.rand(other[:, 1:].shape, generator=torch.Generator().manual_seed(0))
        assert posed.find(other, [level[0] for level in embed(other)], None, [1.0] * dims).support < 0.5


class TestUprightMatcher:
    @pytest.mark.parametrize("dims", [2, 3])
    def test_landmarks_in_any_pose(self, dims: int, generator: torch.Generator) -> None:
        """Positions to half a cell, most of them sure, where a matcher that is not upright is lost."""
        embed, image = embedding(dims, upright_only=True), template(dims)
        points = (0.25 + 0.5 * torch.rand(9, dims, generator=generator)) * (torch.tensor(SHAPE[dims]) - 1)
        matrix, shift, shape, spacing = pose(dims, 100.0)
        query = body(dims, spacing, shape, matrix, shift)
        true = (points @ matrix.T + shift) / spacing
        steps = spacing.tolist()
        upright = LandmarkMatcher(upright=True).fit(embed, STRIDES, image, points, [1.0] * dims)
        found = upright.match(query, spacing=steps)
        assert torch.linalg.vector_norm((found.voxels - true) * spacing, dim=1).max() < 1.0
        assert found.unsure.sum() < 5
        plain = LandmarkMatcher().fit(embed, STRIDES, image, points, [1.0] * dims)
        lost = plain.match(query, spacing=steps)
        assert torch.linalg.vector_norm((lost.voxels - true) * spacing, dim=1).median() > 5.0

    def test_templates_in_different_poses(self, generator: torch.Generator) -> None:
        """A second template is brought into the pose of the first; a landmark that only it has is found, too."""
        dims = 2
        embed, image = embedding(dims, upright_only=True), template(dims)
        points = (0.25 + 0.5 * torch.rand(9, dims, generator=generator)) * (torch.tensor(SHAPE[dims]) - 1)
        matrix, shift, shape, spacing = pose(dims, 100.0)
        query = body(dims, spacing, shape, matrix, shift)
        first, second = points.clone(), (points @ matrix.T + shift) / spacing
        first[0] = torch.nan
        matcher = LandmarkMatcher(upright=True).fit(
            embed, STRIDES, [image, query], [first, second], [[1.0] * dims, spacing.tolist()]
        )
        found = matcher.match(image, spacing=[1.0] * dims)
        assert torch.linalg.vector_norm(found.voxels - points, dim=1).max() < 1.0

    @pytest.mark.parametrize("dims", [2, 3])
    def test_nothing_is_sure_where_the_pose_is_lost(self, dims: int) -> None:
        embed, image = embedding(dims), template(dims)
        points = torch.full((3, dims), 12.0) + 5 * torch.eye(3, dims)
        points[2] = torch.nan
        matcher = LandmarkMatcher(upright=True).fit(embed, STRIDES, image, points, [1.0] * dims)
        other = image.clone()
        other[:, 1:] = 3 * FAR + 9 * torch.rand(other[:, 1:].shape, generator=torch.Generator().manual_seed(0))
        assert matcher.match(other).flags == ("unsure", "unsure", "missing")

    def test_an_empty_template_is_refused(self) -> None:
        embed, empty = embedding(2), torch.zeros_like(template(2))
        with pytest.raises(ValueError, match="the first template is of one grey value"):
            LandmarkMatcher(upright=True).fit(embed, STRIDES, empty, torch.full((1, 2), 20.0), [1.0] * 2)

    @pytest.mark.parametrize("dims", [2, 3])
    def test_level_maps_are_refused(self, dims: int) -> None:
        embed, image = embedding(dims), template(dims)
        matcher = LandmarkMatcher(upright=True).fit(embed, STRIDES, image, torch.full((1, dims), 20.0), [1.0] * dims)
        with pytest.raises(ValueError, match="give the image itself"):
            matcher.match(embed(image), SHAPE[dims], [1.0] * dims)


@pytest.mark.parametrize(("dims", "count"), [(2, 4), (3, 24)])
def test_right_angle_turns_are_those_of_the_cube(dims: int, count: int) -> None:
    """Rotations without mirroring, all different; in 3D the octahedral group as SciPy has it."""
    turns = torch.stack(right_angle_turns(dims))
    assert len(turns) == count
    assert torch.allclose(turns @ turns.mT, torch.eye(dims).double().expand_as(turns))
    assert torch.allclose(torch.det(turns), torch.ones(count).double())
    if dims == 3:
        theirs = torch.from_numpy(Rotation.create_group("O").as_matrix()).round()
        assert {tuple(one.flatten().tolist()) for one in theirs + 0.0} == {
            tuple(one.flatten().tolist()) for one in turns + 0.0
        }


@pytest.mark.parametrize("dims", [2, 3])
def test_results_of_a_view_in_its_image(dims: int, generator: torch.Generator) -> None:
    """Voxels by the view's matrix; covariances like those of positions that are drawn in the view and moved."""
    matrix, shift, _, spacing = pose(dims, 70.0)
    view_spacing = [0.5, 0.8, 0.6][:dims]
    whole = torch.eye(dims + 1, dtype=torch.float64)
    whole[:-1, :-1] = matrix.double() * torch.tensor(view_spacing) / spacing[:, None]
    whole[:-1, -1] = shift.double() / spacing
    root = torch.randn(dims, dims, generator=generator)
    covariance = root @ root.T
    place = torch.full((1, dims), 7.0)
    nothing = torch.zeros(1)
    found = MatchResult(place, nothing, nothing, nothing, nothing, ("",), covariance[None])
    moved = found.outside(View(whole, (9,) * dims), spacing.tolist(), view_spacing)
    drawn = place + torch.randn(200_000, dims, generator=generator) @ root.T / torch.tensor(view_spacing)
    mm = (drawn.double() @ whole[:-1, :-1].T + whole[:-1, -1]) * spacing
    torch.testing.assert_close(moved.voxels * spacing, mm.mean(dim=0, keepdim=True).float(), atol=0.05, rtol=0)
    torch.testing.assert_close(moved.covariance_mm2[0], torch.cov(mm.T).float(), atol=0.1, rtol=0.02)
