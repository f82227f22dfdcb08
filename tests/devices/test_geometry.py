"""Views, cells, positives, heatmaps, inferers and information run on a device with the numbers of the CPU."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from medpixcl import correspondence, views
from medpixcl.informativeness import classify_informativeness, local_entropy, sampling_weights
from medpixcl.landmarks import difficulty, heatmaps, regions
from medpixcl.landmarks.metrics import summarise_errors
from medpixcl.mutual_information import count_vector_mutual_information, joint_mutual_information
from medpixcl.networks import LandmarkNet, PixelEmbeddingNet
from medpixcl.networks.coarse_to_fine import crops_around, turned_crops_around, upright_centres
from medpixcl.networks.inferers import LandmarkInferer, LevelsInferer
from medpixcl.training.detection import LandmarkError
from medpixcl.training.similarity import positive_similarity
from medpixcl.transforms import RandCrossDomainMixUp
from medpixcl.transforms.intensity import IntensityRanges
from medpixcl.transforms.source_matching import match_source
from medpixcl.transforms.validity import resample_to_grid, stretch
from medpixcl.transforms.views import apply_views
from tests.devices.pretend import assert_same, on, pretend_device

DIMS = pytest.mark.parametrize("dims", [2, 3])
SHAPE = {2: (20, 24), 3: (12, 14, 16)}
SMALL = {"backbone": "dynunet", "channels": [4, 8, 8]}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def matrices(dims: int) -> Tensor:
    """View voxel -> image voxel of two views, float64."""
    made = [
        views.affine_view(
            shape=[8] * dims,
            centre=[n / 2 + number for n in SHAPE[dims]],
            spacing_mm=[1.0] * dims,
            rotation_degrees=[10.0] * (1 if dims == 2 else 3),
        ).matrix
        for number in range(2)
    ]
    return torch.stack(made)


@DIMS
@pytest.mark.parametrize("parameters_on", ["device", "cpu"])
def test_views(dims: int, parameters_on: str) -> None:
    images = {"image": draw(2, 1, *SHAPE[dims]), "label": (4 * draw(2, 1, *SHAPE[dims])).floor()}
    images["depth"] = torch.cat([draw(2, 1, *SHAPE[dims], seed=1), (draw(2, 1, *SHAPE[dims]) > 0.2).float()], dim=1)
    parameters = {"matrix_anchor": matrices(dims), "matrix_query": matrices(dims)}
    parameters["displacement_query"] = draw(2, dims, *[5] * dims)
    affine = torch.eye(4, dtype=torch.float64).repeat(2, 1, 1)

    def work(images: dict[str, Tensor], given: dict[str, Tensor] | None = None) -> Any:
        rest = {"affine": affine, **parameters} if given is None else given
        options = {"view_shape": [8] * dims, "nearest_keys": ["label"], "exogenous_keys": ["depth"]}
        return apply_views(images, rest["affine"], {k: v for k, v in rest.items() if k != "affine"}, **options)

    given = (images,) if parameters_on == "cpu" else (images, {"affine": affine, **parameters})
    assert_same(work, *given)


@DIMS
def test_resampling(dims: int) -> None:
    positions = assert_same(views.view_positions, matrices(dims), [8] * dims, draw(2, dims, *[5] * dims))
    image = draw(2, 1, *SHAPE[dims])
    with pretend_device() as device:
        views.resample(image.to(device), positions)
    view = views.View(matrices(dims)[0], (8,) * dims)
    assert_same(lambda points: view.locate(points), draw(3, dims))
    validity = draw(2, *SHAPE[dims])
    affine = torch.diag(torch.tensor([2.0] * dims + [1.0] * (4 - dims))).double()
    assert_same(lambda channel: resample_to_grid(channel, affine, [8] * dims, torch.eye(4)), validity)
    assert_same(lambda channel: stretch(channel, [9] * dims), validity)


@DIMS
def test_pairs(dims: int) -> None:
    coords = torch.cat([10 * draw(2, dims, *SHAPE[dims]), torch.ones(2, 1, *SHAPE[dims])], dim=1)
    affine = torch.eye(dims + 1).repeat(2, 1, 1)
    pixels = (8 * draw(2, 7, dims)).floor()
    assert_same(lambda *given: vars(correspondence.correspond(*given, (9,) * dims)), coords, pixels, affine)
    assert_same(correspondence.overlap, coords, affine, (9,) * dims)
    seeded = torch.Generator()
    assert_same(
        lambda weights: correspondence.draw_pixels(weights, 9, generator=seeded.manual_seed(0)),
        draw(2, 1, *SHAPE[dims]),
    )


@DIMS
def test_cells(dims: int) -> None:
    affine = torch.eye(dims + 1).repeat(2, 1, 1) + 0.01 * draw(2, dims + 1, dims + 1)
    cells = correspondence.cells_of_affine(affine, [4] * dims, 2)
    assert_same(correspondence.cells_of_affine, affine, [4] * dims, [2] * dims)
    seeded = torch.Generator()
    assert_same(lambda one: correspondence.draw_cells(one, one, 5, generator=seeded.manual_seed(0)), cells)
    assert_same(correspondence.draw_cells, cells, cells, 4**dims)
    low = draw(2, dims)
    assert_same(correspondence.cells_of_boxes, low, low + 1, [3] * dims)
    coords = torch.cat([10 * draw(2, dims, *[8] * dims), torch.ones(2, 1, *[8] * dims)], dim=1)
    assert_same(correspondence.cells_of_map, coords, affine, 2)
    found = assert_same(lambda one: correspondence.positive_weights(one, one, threshold=0.7), cells)
    assert_same(lambda one: correspondence.positive_weights(one, one, threshold=1.5, metric="bins"), cells)
    with pretend_device():
        correspondence.positive_statistics(found)
        correspondence.permute_positives(found, generator=torch.Generator())
        correspondence.permute_positives(found)


@DIMS
@pytest.mark.parametrize("activation", heatmaps.ACTIVATIONS)
def test_heatmaps(dims: int, activation: str) -> None:
    points = 1 + 8 * draw(2, 3, dims)
    points[0, 0] = torch.nan
    spacing = [1.0] * dims
    maps = assert_same(heatmaps.encode_heatmaps, points, [8] * dims, stride=2, sigma_mm=2.0, spacing_mm=spacing)
    plain = maps.detach().held
    active = heatmaps.activate_heatmaps(plain, activation)
    assert_same(heatmaps.activate_heatmaps, plain, activation)
    for method in ("expectation", "quadratic", "argmax"):
        assert_same(heatmaps.decode_heatmaps, active, stride=2, method=method)
    assert_same(heatmaps.decode_heatmaps, active, stride=2, offsets=draw(2, 3, dims, *[8] * dims))
    assert_same(heatmaps.heatmap_covariance, active, stride=2, spacing_mm=spacing)
    assert_same(heatmaps.expected_positions, active, stride=2)


@DIMS
def test_inferers(dims: int) -> None:
    torch.manual_seed(0)
    network = LandmarkNet(2, spatial_dims=dims, **SMALL).eval()
    embedding = PixelEmbeddingNet(spatial_dims=dims, embedding_size=4, **SMALL).eval()
    image = draw(1, 1, *[10] * dims)
    inferer = LandmarkInferer(network, [1.0] * dims, views=[(0.0, 1.0), (5.0, 1.1), (-5.0, 0.9)])
    with torch.no_grad(), pretend_device() as device:
        results = [inferer(image, network), LevelsInferer()(image, embedding)]
        moved = [inferer(image.to(device), network.to(device)), LevelsInferer()(image.to(device), embedding.to(device))]
        torch.testing.assert_close(on(torch.device("cpu"), moved), results, rtol=1e-3, atol=1e-3)


@DIMS
def test_crops_of_the_coarse_to_fine_inferer(dims: int) -> None:
    image, centres, affine = draw(1, *SHAPE[dims]), 10 * draw(3, dims), torch.eye(dims + 1, dtype=torch.float64)
    assert_same(crops_around, image, centres, [4] * dims)
    shape = centres.double() + 0.1 * draw(3, dims, seed=1)

    def work(image: Tensor, centres: Tensor) -> Any:
        around, axes = upright_centres(shape, centres, affine)
        return turned_crops_around(image, around, [4] * dims, [1.0] * dims, axes)

    assert_same(work, image, centres)


@DIMS
def test_regions(dims: int) -> None:
    roots = draw(30, 2, dims, dims)
    covariance, away = roots @ roots.mT + torch.eye(dims), draw(30, 2, dims, seed=1)
    assert_same(regions.mahalanobis_distance, away, covariance)
    assert_same(difficulty.widened, covariance, difficulty.difficulty(draw(30, 2, seed=2).sigmoid(), draw(30, 2).abs()))
    calibration = regions.calibrate_regions(away, covariance, ["a", "b"])
    found = assert_same(lambda spread: calibration.regions_of(["a", "b"], spread), covariance)
    with pretend_device() as device:
        assert calibration.unsure(found).device == device
        regions.covered(away.to(device), found)
        assert regions.calibrate_regions(away.to(device), covariance.to(device), ["a", "b"]) == calibration


def test_metrics() -> None:
    points, weights = draw(2, 3, 2), draw(2, 3)
    given = ({"points": points}, {"points": points + 0.5, "weights": weights})
    results = []
    with pretend_device() as device:
        for place in (torch.device("cpu"), device):
            error = LandmarkError([1.0, 1.0])
            error.update(on(place, given))
            summary = summarise_errors(points[..., 0].to(place), ["a", "b", "c"], bootstrap=0)
            results.append((error.compute(), summary))
    assert results[0] == results[1]


@DIMS
def test_similarity_of_pairs(dims: int) -> None:
    pairs = {"query": 7 * draw(2, 5, dims), "positive": 7 * draw(2, 5, dims, seed=1), "valid": draw(2, 5) > 0.4}
    assert_same(positive_similarity, [[draw(2, 4, *[4] * dims)], [draw(2, 4, *[4] * dims, seed=2)]], pairs, [2])


@DIMS
def test_information(dims: int) -> None:
    image = draw(2, 1, *SHAPE[dims])
    entropy = local_entropy(image, radius=2, bins=8, backend="torch")
    assert_same(lambda one: local_entropy(one, radius=2, bins=8, backend="torch"), image)
    assert_same(
        lambda one, mask: local_entropy(one, radius=1, footprint="box", mask=mask, backend="torch"), image, image > 0.2
    )
    assert_same(classify_informativeness, entropy, cuts=None, quantiles=(0.3, 0.6))
    classes = assert_same(classify_informativeness, entropy).detach().held
    assert_same(lambda *given: sampling_weights(given[0], classes=given[1], class_ratios=[1, 2, 3]), entropy, classes)
    for information in (joint_mutual_information, count_vector_mutual_information):
        assert_same(information, image[:, 0], image[:, 0].flip(1), bins=8)


@DIMS
def test_intensity_and_mixing(dims: int) -> None:
    image = draw(1, *SHAPE[dims])
    drawn = IntensityRanges(
        noise=(0.1, 0.1), blur=(1.0, 1.0), bias=(0.2, 0.2), gamma=(0.8, 1.2), convolution=(0.5, 0.5)
    )
    change = drawn.sample(np.random.RandomState(0))
    assert_same(change.apply, image)
    for how in ("none", "moments", "spectrum"):
        assert_same(match_source, draw(1, *SHAPE[dims], seed=1), image, image > 0.3, how)
    for opacity_map in ("constant", "grid", "boxes"):
        mixup = RandCrossDomainMixUp([draw(1, *SHAPE[dims], seed=3)], opacity_map=opacity_map)
        assert_same(lambda one, rule=mixup: rule.set_random_state(0)(one), image)
