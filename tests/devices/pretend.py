"""A device that is not there: tensors claim to lie on it, hold real values, and meet no tensor of the CPU.

``torch._subclasses.FakeTensorMode`` on a build of torch without CUDA refuses every gradient of a ``cuda`` tensor and
knows no values, so that nothing behind an ``item()`` or a mask is run. Here the numbers are computed on the CPU, so
all branches run, and ``backward`` too; operations that an accelerator would refuse raise :class:`DeviceMixError`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "pretend"
COPIES = {"aten::_to_copy", "aten::copy_"}
INDEXING = {"aten::index.Tensor", "aten::index_put_", "aten::index_put", "aten::_index_put_impl_"}


class DeviceMixError(RuntimeError):
    """One operation was given tensors, or a generator, of two devices."""


class PretendTensor(Tensor):
    """A tensor of the pretended device.

    Args:
        values: What it holds, on the CPU; views and in-place changes share them.
    """

    held: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "PretendTensor":
        """A tensor without storage of its own."""
        made = Tensor._make_wrapper_subclass(
            cls, values.shape, values.stride(), values.storage_offset(), dtype=values.dtype, device=torch.device(NAME)
        )
        made.held = values
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})

    def __repr__(self, **_: Any) -> str:
        return f"PretendTensor({self.held!r})"

    def tolist(self) -> Any:
        """As for every device: torch has no such way for subclasses."""
        return self.detach().cpu().tolist()


class PretendDevice(TorchDispatchMode):
    """Makes tensors of the device where it is asked for by name, as in ``torch.zeros(3, device="pretend")``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(func, args, kwargs or {})


class _Module(_DummyBackendModule):
    """What torch asks a backend for; autocast is allowed in both half precisions."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16, torch.float16]


@cache
def _register() -> None:
    _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())


@contextmanager
def pretend_device() -> Iterator[torch.device]:
    """The device, for as long as the block lasts."""
    _register()
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=...) then makes its copy where we see it
    try:
        # The threads of torch's autograd engine may have started before this device was known to it.
        with PretendDevice(), torch.autograd.set_multithreading_enabled(False):
            yield torch.device(NAME)
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run one operation on the held values."""
    given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in given if isinstance(tensor, PretendTensor)]
    device = kwargs.get("device")
    onto = bool(there) if device is None else torch.device(device).type == NAME
    _refuse_mix(func, args, kwargs, given, there, onto)
    if device is not None:
        kwargs = kwargs | {"device": torch.device("cpu")}
    found = func(*_held(args), **_held(kwargs))
    if not onto or (func.name() == "aten::copy_" and not isinstance(args[0], PretendTensor)):
        return found
    known = {id(tensor.held): tensor for tensor in there}  # in-place operations give back what they were given
    return tree_map_only(Tensor, lambda value: known[id(value)] if id(value) in known else PretendTensor(value), found)


def _held(tree: Any) -> Any:
    return tree_map_only(PretendTensor, lambda tensor: tensor.held, tree)


def _refuse_mix(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], given: list[Tensor], there: list[Tensor], onto: bool
) -> None:
    generators = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Generator)]
    if onto and generators:
        raise DeviceMixError(f"{func.name()} draws on the device {NAME} by a generator of the CPU")
    if not there or func.name() in COPIES:
        return
    counted = given
    if func.name() in INDEXING and isinstance(args[0], PretendTensor):  # indices may lie on the CPU, values not
        counted = [args[0], *args[2:3]]
    # As on every accelerator: a number of the CPU may meet tensors in pointwise operations.
    numbers = torch.Tag.pointwise in func.tags or func.name() in INDEXING
    mixed = [t for t in counted if not isinstance(t, PretendTensor) and not (numbers and t.ndim == 0)]
    if mixed:
        shapes = [tuple(tensor.shape) for tensor in mixed]
        raise DeviceMixError(
            f"{func.name()} mixes tensors of the device {NAME} with those of the CPU, of shapes {shapes}"
        )


def on(device: torch.device, tree: Any) -> Any:
    """Every tensor of a tree on the device."""
    return tree_map_only(Tensor, lambda tensor: tensor.to(device), tree)


def assert_same(work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run on the CPU and on the pretended device: the results are equal, and lie where their arguments do.

    Returns:
        What the device gave.
    """
    expected = work(*args, **kwargs)
    with pretend_device() as device:
        found = work(*on(device, args), **on(device, kwargs))
        values = [leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor)]
        assert all(value.device.type == NAME for value in values), "a result lies on the CPU"
        plain = _held(tree_map_only(Tensor, Tensor.detach, found))
    torch.testing.assert_close(plain, tree_map_only(Tensor, Tensor.detach, expected), equal_nan=True)
    return found
