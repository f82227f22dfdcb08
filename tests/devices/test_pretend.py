"""The pretended device behaves as an accelerator does: it computes, differentiates, and refuses what mixes devices."""

from collections.abc import Callable

import pytest
import torch
from monai.data import MetaTensor
from torch import Tensor, nn

from medpixcl.informativeness import local_entropy
from medpixcl.networks import PixelEmbeddingNet, SiameseNet
from tests.devices.pretend import NAME, DeviceMixError, pretend_device

MIXES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "sum": lambda there, here: there + here,
    "product": lambda there, here: here @ there,
    "join": lambda there, here: torch.cat([there, here]),
    "in place": lambda there, here: here.add_(there),
    "choice": lambda there, here: torch.where(here > 0, there, 0),
    "device index of the CPU": lambda there, here: here[(there > 0).nonzero()[:, 0]],
    "values of the CPU": lambda there, here: there.index_put_((torch.arange(3),), here),
    "stack of a number": lambda there, here: torch.stack([there.sum(), here.sum()]),
    "generator": lambda there, here: there.uniform_(generator=torch.Generator()),
    "layer": lambda there, here: nn.Linear(3, 3)(there),
}


@pytest.mark.parametrize("name", MIXES)
def test_mixes_are_refused(name: str) -> None:
    with pretend_device() as device, pytest.raises(DeviceMixError):
        MIXES[name](torch.ones(3, 3, device=device), torch.ones(3, 3))


def test_numpy_is_refused() -> None:
    with pretend_device() as device, pytest.raises(RuntimeError, match="numpy"):
        torch.ones(3, device=device).numpy()


def test_what_an_accelerator_allows() -> None:
    with pretend_device() as device:
        there = torch.tensor([1.0, 2.0, 3.0], device=device)
        assert {one.device.type for one in (there, there.new_tensor([1.0]), torch.ones(3).to(there))} == {NAME}
        assert (there * torch.tensor(2.0)).tolist() == [2.0, 4.0, 6.0]
        assert there[torch.tensor([2])].tolist() == [3.0]
        assert there[there > 1].cpu().numpy().tolist() == [2.0, 3.0]
        assert float(there.sum()) == 6.0
        here = torch.zeros(3)
        here.copy_(there)
        assert type(here) is Tensor
        assert here.tolist() == [1.0, 2.0, 3.0]


def test_gradients() -> None:
    values = torch.rand(2, 3, generator=torch.Generator().manual_seed(0))
    layer = nn.Linear(3, 1)
    layer(values).square().sum().backward()
    expected = layer.weight.grad
    with pretend_device() as device:
        layer.zero_grad(set_to_none=True)
        copy = nn.Linear(3, 1).to(device)
        copy.load_state_dict(layer.state_dict())
        copy(values.to(device)).square().sum().backward()
        assert expected is not None
        torch.testing.assert_close(copy.weight.grad.cpu(), expected)


NOT_RUN: dict[str, tuple[Callable[[Tensor], object], type[Exception]]] = {
    # Transforms of items and CoarseToFineInferer take MetaTensors; what they are made of is run on plain tensors.
    "MetaTensor": (MetaTensor, RuntimeError),
    # torch has kernels of autocast for its own devices only; tests/test_gpu.py trains in bfloat16.
    "bfloat16": (lambda there: SiameseNet(_tiny(), bfloat16=True).to(there.device)(there, there), NotImplementedError),
    # The compiled loops are for the CPU; a device takes the way of torch.
    "numba": (lambda there: local_entropy(there, radius=1, backend="numba"), ValueError),
}


def _tiny() -> PixelEmbeddingNet:
    return PixelEmbeddingNet(backbone="dynunet", channels=[4, 8, 8], embedding_size=4)


@pytest.mark.parametrize("name", NOT_RUN)
def test_what_cannot_be_run_here(name: str) -> None:
    """Should one of them pass, it belongs among the cases of this folder."""
    work, error = NOT_RUN[name]
    with pretend_device() as device, pytest.raises(error):
        work(torch.rand(1, 1, 16, 16, device=device))
