"""The GPU gives the numbers of the CPU."""

import pytest
import torch

from medpixcl.informativeness import local_entropy
from medpixcl.losses import pixel_info_nce
from medpixcl.matching import best_match
from medpixcl.networks import PixelEmbeddingNet, SiameseNet
from medpixcl.transforms.views import apply_views
from medpixcl.views import affine_view

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("shape", [(40, 50), (12, 20, 16)], ids=["2d", "3d"])
def test_entropy(shape: tuple[int, ...], generator: torch.Generator) -> None:
    image = torch.rand(2, 1, *shape, generator=generator)
    expected = local_entropy(image, radius=3, bins=16)
    torch.testing.assert_close(local_entropy(image.cuda(), radius=3, bins=16).cpu(), expected, rtol=0, atol=1e-5)


def test_loss_and_gradient(generator: torch.Generator) -> None:
    anchors, keys = torch.randn(2, 300, 16, generator=generator).unbind()
    results = []
    for device in ("cpu", "cuda"):
        leaf = anchors.to(device).detach().requires_grad_()
        loss = pixel_info_nce(leaf, keys.to(device), torch.arange(300, device=device))
        loss.backward()
        results.append((loss.detach().cpu(), leaf.grad.cpu()))
    torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-6)


def test_views(generator: torch.Generator) -> None:
    image = torch.rand(1, 1, 64, 64, generator=generator)
    view = affine_view(shape=(32, 32), centre=(30, 34), spacing_mm=(1, 1), rotation_degrees=(12,), scale=1.2)
    parameters = {"matrix_anchor": view.matrix[None], "matrix_query": view.matrix[None]}
    affine = torch.eye(4, dtype=torch.float64)[None]
    on_cpu, _ = apply_views({"image": image}, affine, parameters, view_shape=(32, 32))
    on_gpu, _ = apply_views({"image": image.cuda()}, affine, parameters, view_shape=(32, 32))
    for name, value in on_cpu.items():
        torch.testing.assert_close(on_gpu[name].cpu(), value, rtol=1e-4, atol=1e-4)


def test_matching(generator: torch.Generator) -> None:
    embedding = torch.nn.functional.normalize(torch.randn(16, 40, 30, generator=generator), dim=0)
    queries = embedding[:, [3, 20], [7, 11]].T
    cells, _ = best_match(queries.cuda(), embedding.cuda())
    assert cells.tolist() == [[3, 7], [20, 11]]


def test_training_step_in_bfloat16(generator: torch.Generator) -> None:
    net = SiameseNet(PixelEmbeddingNet(backbone="dynunet", channels=[8, 16, 16]), bfloat16=True).cuda()
    views = torch.rand(2, 2, 1, 32, 32, generator=generator).cuda()
    levels = net(*views)
    sum(level.square().sum() for side in levels for level in side).backward()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())
