"""What the loss costs, counted in tensors and matrix products."""

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from medpixcl.losses import pixel_info_nce
from tests.losses.cases import RULES, random_case, with_gradient


class Recorder(TorchDispatchMode):
    """Notes the largest tensor that is made, and the number of matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0
        self.products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.products += func.overloadpacket.__name__ in ("mm", "addmm_")
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


class TestCost:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("rules", [RULES[0], RULES[-1]], ids=str)
    def test_no_matrix_of_anchors_by_keys(self, rules: dict[str, Any], reduction: str) -> None:
        case = with_gradient(random_case(2, anchors=300, keys=400, channels=8)) | rules
        with Recorder() as seen:
            pixel_info_nce(**case, reduction=reduction, chunk=16).sum().backward()
        assert seen.largest == 16 * 400

    @pytest.mark.parametrize(
        ("wanted", "products"), [((True, True), 3), ((True, False), 2), ((False, True), 2), ((False, False), 1)]
    )
    def test_products_only_for_gradients_asked_for(self, wanted: tuple[bool, bool], products: int) -> None:
        case = random_case(2)
        for name, gradient in zip(("anchors", "keys"), wanted, strict=True):
            case[name].requires_grad_(gradient)
        with Recorder() as seen:
            pixel_info_nce(**case)
        assert seen.products == products
        with Recorder() as seen, torch.no_grad():
            pixel_info_nce(**case)
        assert seen.products == 1
