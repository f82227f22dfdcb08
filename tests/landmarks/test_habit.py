"""The reading habit: known offsets are found again, in turned and scaled images, from few and from odd corrections."""

import pytest
import torch
from torch import Tensor

import medpixcl.landmarks.habit as module
from medpixcl.landmarks.habit import HABIT, learn_habit, left_out_errors, local_frames, posterior_offsets


def named(count: int) -> list[str]:
    return [f"p{number}" for number in range(count)]


def turned(dims: int, images: int, generator: torch.Generator) -> Tensor:
    """Matrices that turn by any angle and scale by 0.7 to 1.4, (N, D, D)."""
    matrix = torch.linalg.qr(torch.randn(images, dims, dims, generator=generator, dtype=torch.float64))[0]
    matrix = matrix * torch.linalg.det(matrix).sign()[:, None, None] if dims == 3 else matrix
    if dims == 2:
        matrix[..., 1] *= torch.linalg.det(matrix).sign()[:, None]
    scale = 0.7 + 0.7 * torch.rand(images, generator=generator, dtype=torch.float64)
    return matrix * scale[:, None, None]


@pytest.mark.parametrize("dims", [2, 3])
def test_an_offset_turns_and_grows_with_the_anatomy(dims: int, generator: torch.Generator) -> None:
    shape = 40 * torch.randn(12, dims, generator=generator, dtype=torch.float64)
    offset = 2 * torch.randn(12, dims, generator=generator, dtype=torch.float64)
    frames = turned(dims, 41, generator)
    found = (shape + 0.5 * torch.randn(41, 12, dims, generator=generator, dtype=torch.float64)) @ frames.mT
    true = found + offset @ frames.mT
    habit = learn_habit(named(12), found[:-1], true[:-1])
    before, after = (
        torch.linalg.vector_norm(true[-1] - places, dim=1) for places in (found[-1], habit.apply(found[-1]))
    )
    assert after.max() < 0.1 * before.mean()
    assert habit.corrections == (40,) * 12
    along_axes = found[-1] + (true[:-1] - found[:-1]).mean(dim=0)
    assert torch.linalg.vector_norm(true[-1] - along_axes, dim=1).mean() > 5 * after.mean()


def test_frames_despite_wrong_landmarks(generator: torch.Generator) -> None:
    shape = 40 * torch.randn(19, 2, generator=generator, dtype=torch.float64)
    frames = turned(2, 30, generator)
    found = shape @ frames.mT + 100
    found[:, :4] += 60 * torch.randn(30, 4, 2, generator=generator, dtype=torch.float64)
    found[0, 7] = torch.nan
    torch.testing.assert_close(local_frames(shape, found), frames, rtol=0, atol=0.02)


@pytest.mark.parametrize("images", [1, 3, 10])
def test_small_offsets_shrink_and_large_ones_stay(images: int, generator: torch.Generator) -> None:
    """Thirty landmarks scatter by 1.2 mm; half have a small habit, the others none, and one a large one."""
    shape = 40 * torch.randn(30, 2, generator=generator, dtype=torch.float64)
    found = shape + torch.zeros(images, 30, 2, dtype=torch.float64)
    offset = 0.7 * torch.randn(30, 2, generator=generator, dtype=torch.float64)
    offset[::2], offset[7] = 0, 8
    corrected = found + offset + 1.2 * torch.randn(images, 30, 2, generator=generator, dtype=torch.float64)
    habit, mean = learn_habit(named(30), found, corrected), (corrected - found).mean(dim=0)
    miss, plain = (torch.linalg.vector_norm(one - offset, dim=1) for one in (habit.offsets_mm, mean))
    assert miss.mean() < plain.mean()
    assert habit.offsets_mm[::2].square().sum() < 0.5 * mean[::2].square().sum()
    if images > 1:
        assert torch.linalg.vector_norm(habit.offsets_mm - mean, dim=1)[7] < 0.2 * 8
    error = (habit.offsets_mm - offset).square().mean().sqrt()
    assert float(habit.deviations_mm.square().mean().sqrt()) == pytest.approx(float(error), rel=0.6)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_against_a_sampled_posterior(images: int, generator: torch.Generator) -> None:
    """The posterior mean by drawing habits and variances from their priors; errors are normal given the variances."""
    away = torch.randn(images, 1, 2, generator=generator, dtype=torch.float64) + 1.5
    draws = 400_000
    chi = torch.distributions.Chi2(torch.tensor(4.0, dtype=torch.float64))
    torch.manual_seed(0)
    variance = 4.0 / chi.sample((draws,))
    spread = HABIT * variance * 4.0 / chi.sample((draws,))
    habits = spread.sqrt()[:, None] * torch.randn(draws, 2, generator=generator, dtype=torch.float64)
    square = (away[:, 0] - habits[:, None]).square().sum(dim=(1, 2))
    chance = (-square / (2 * variance) - images * variance.log()).softmax(dim=0)
    with pytest.MonkeyPatch.context() as patch:  # normal errors around a known average scatter
        patch.setattr(module, "ERROR_FREEDOM", 1e9)
        patch.setattr(module, "POOLED_WEIGHT", 1e9)
        offsets, deviations = posterior_offsets(away, 1.0)
    expected = (chance[:, None] * habits).sum(dim=0)
    torch.testing.assert_close(offsets[0], expected, rtol=0.05, atol=0.03)
    squares = (chance[:, None] * (habits - expected).square()).sum(dim=0).mean()
    assert float(deviations[0]) == pytest.approx(float(squares.sqrt()), rel=0.1)


def test_an_odd_correction_counts_little(generator: torch.Generator) -> None:
    shape = 40 * torch.randn(19, 2, generator=generator, dtype=torch.float64)
    found = shape + torch.randn(10, 19, 2, generator=generator, dtype=torch.float64)
    corrected = found + torch.randn(10, 19, 2, generator=generator, dtype=torch.float64)
    plain = learn_habit(named(19), found, corrected)
    corrected[3, 5] += 40
    odd = learn_habit(named(19), found, corrected)
    assert (odd.offsets_mm - plain.offsets_mm)[5].abs().max() < 0.25 * 40 / 10
    assert (odd.offsets_mm - plain.offsets_mm)[:5].abs().max() < 0.1


def test_unit_and_axes_do_not_matter(generator: torch.Generator) -> None:
    """The same corrections in micrometres and turned give the same habit, in micrometres and turned."""
    shape = 40 * torch.randn(9, 3, generator=generator, dtype=torch.float64)
    found = shape + torch.randn(4, 9, 3, generator=generator, dtype=torch.float64)
    corrected = found + 1 + torch.randn(4, 9, 3, generator=generator, dtype=torch.float64)
    matrix = 1000 * torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    matrix = matrix * torch.linalg.det(matrix).sign()
    here, there = (learn_habit(named(9), one @ m.T, two @ m.T) for one, two, m in (
        (found, corrected, torch.eye(3, dtype=torch.float64)), (found, corrected, matrix)))  # fmt: skip
    torch.testing.assert_close(there.offsets_mm, here.offsets_mm @ matrix.T, rtol=1e-4, atol=1e-2)
    torch.testing.assert_close(there.deviations_mm, 1000 * here.deviations_mm, rtol=1e-4, atol=0)


def test_partial_corrections(generator: torch.Generator) -> None:
    found = 40 * torch.randn(1, 6, 2, generator=generator, dtype=torch.float64).expand(3, -1, -1).clone()
    corrected = found + 2
    corrected[:, 0], corrected[1:, 1], found[0, 2] = torch.nan, torch.nan, torch.nan
    habit = learn_habit(named(6), found, corrected)
    assert habit.corrections == (0, 1, 2, 3, 3, 3)
    assert habit.offsets_mm[0].tolist() == [0, 0]
    assert 0 < habit.offsets_mm[1, 0] < habit.offsets_mm[2, 0] < habit.offsets_mm[3, 0] < 2
    assert habit.deviations_mm[0] > habit.deviations_mm[1] > habit.deviations_mm[3] > 0
    moved = habit.apply(found)
    assert torch.equal(moved[1, 0], found[1, 0])
    assert moved[0, 2].isnan().all()
    assert not moved[1:].isnan().any()
    nothing = torch.full_like(found, torch.nan)
    with pytest.raises(ValueError, match="no corrected landmark was found in its image"):
        learn_habit(named(6), found, nothing)


def test_what_is_left_of_an_image_comes_from_the_others(generator: torch.Generator) -> None:
    """An image that differs from the others by 9 mm is off by 9 mm, whatever its own corrections say."""
    shape = 40 * torch.randn(8, 2, generator=generator, dtype=torch.float64)
    found = shape + torch.randn(5, 8, 2, generator=generator, dtype=torch.float64)
    corrected = found.clone()
    corrected[4] += 9
    corrected[0, 3], found[1, 2] = torch.nan, torch.nan
    left = left_out_errors(found, corrected)
    assert left.isnan().all(dim=2).nonzero().tolist() == [[0, 3], [1, 2]]
    torch.testing.assert_close(left[4], torch.full((8, 2), 9.0, dtype=torch.float64), rtol=0, atol=1e-6)
    for image in range(5):
        others = [other for other in range(5) if other != image]
        habit = learn_habit(named(8), found[others], corrected[others])
        expected = corrected[image] - habit.apply(found[image])
        torch.testing.assert_close(left[image], expected, equal_nan=True)
    alone = left_out_errors(found[4:], corrected[4:])
    torch.testing.assert_close(alone, corrected[4:] - found[4:])


@pytest.mark.parametrize(("dims", "count"), [(2, 2), (2, 1), (3, 3)])
def test_too_few_landmarks_for_a_frame(dims: int, count: int, generator: torch.Generator) -> None:
    """Two points of a picture, or three of a volume, do not say how it is turned: offsets are along its own axes."""
    found = 30 * torch.randn(20, count, dims, generator=generator, dtype=torch.float64)
    habit = learn_habit(named(count), found, found + 2)
    torch.testing.assert_close(habit.apply(found) - found, habit.offsets_mm.expand(20, -1, -1))
    torch.testing.assert_close(habit.offsets_mm, torch.full((count, dims), 2.0, dtype=torch.float64), rtol=0, atol=0.2)


def test_other_order_of_landmarks(generator: torch.Generator) -> None:
    found = 40 * torch.randn(2, 5, 2, generator=generator, dtype=torch.float64)
    habit = learn_habit(named(5), found, found + torch.randn(5, 2, generator=generator, dtype=torch.float64))
    other = habit.of(["p3", "new", "p0", "p1", "p4"])
    assert other.corrections == (2, 0, 2, 2, 2)
    assert torch.equal(other.offsets_mm[[0, 2]], habit.offsets_mm[[3, 0]])
    assert other.offsets_mm[1].tolist() == [0, 0]
    assert torch.equal(habit.of(named(5)).apply(found), habit.apply(found))
