import math
from typing import Any

import jaxtyping
import pytest
import torch
from torch.nn import functional as F

from medpixcl.losses import pixel_info_nce
from tests.losses.cases import RULES, one_anchor, plain, random_case, with_gradient
from tests.reference.info_nce import info_nce

V2 = {"temperature": 0.1, "distance_slope": 0.07, "distance_cap": 0.8}


class TestCardValues:
    """Numbers of the method card, section 7."""

    @pytest.mark.parametrize(
        ("side", "miss", "hit"), [(12, 4.969813, 3.981675), (18, 5.780744, 4.786033)], ids=["144", "324"]
    )
    def test_v1_all_cells(self, side: int, miss: float, hit: float) -> None:
        for expected, is_hit in ((miss, False), (hit, True)):
            case = one_anchor((side, side), (side // 2, 3), hit=is_hit)
            assert pixel_info_nce(**case, temperature=1.0, clamp=True).item() == pytest.approx(expected, abs=5e-7)

    @pytest.mark.parametrize(("hit", "expected"), [(False, 5.780744), (True, 4.786033)])
    def test_v1_window(self, hit: bool, expected: float) -> None:
        case = one_anchor((40, 31), (20, 11), hit=hit)
        loss = pixel_info_nce(**case, temperature=1.0, clamp=True, window=9)
        assert loss.item() == pytest.approx(expected, abs=5e-7)

    @pytest.mark.parametrize(
        ("side", "target", "miss", "hit"), [(12, 5, 8.839498, 0.272530), (22, 11, 13.109569, 3.153220)]
    )
    def test_v2(self, side: int, target: int, miss: float, hit: float) -> None:
        for expected, is_hit in ((miss, False), (hit, True)):
            case = one_anchor((side, side), (target, target), hit=is_hit)
            assert pixel_info_nce(**case, **V2).item() == pytest.approx(expected, abs=5e-7)

    @pytest.mark.parametrize(("hit", "expected"), [(False, 13.109569), (True, 3.153220)])
    def test_v2_window(self, hit: bool, expected: float) -> None:
        case = one_anchor((48, 37), (30, 13), hit=hit)
        assert pixel_info_nce(**case, **V2, window=11).item() == pytest.approx(expected, abs=5e-7)


class TestAgainstReference:
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.parametrize("rules", RULES, ids=str)
    def test_every_composition(self, rules: dict[str, Any], dims: int) -> None:
        case = random_case(dims) | rules | {"temperature": 0.07}
        assert (F.normalize(case["anchors"]) @ F.normalize(case["keys"]).T < 0).any()
        losses = pixel_info_nce(**case, reduction="none", chunk=4)
        torch.testing.assert_close(losses, torch.tensor(info_nce(**plain(case)), dtype=torch.float64))

    def test_one_image(self) -> None:
        case = random_case(2) | {"temperature": 0.1, "window": 3, "exclusion_radius": 1.5}
        del case["key_images"]
        expected = torch.tensor(info_nce(**plain(case)), dtype=torch.float64)
        torch.testing.assert_close(pixel_info_nce(**case, reduction="none"), expected)

    def test_key_at_the_radius_is_a_negative(self) -> None:
        """Of the keys at distance 0 (twice), 1, 2 and 3, all with the same cosine, a radius of 2 leaves three."""
        places = torch.tensor([[5.0, 5.0], [5.0, 5.0], [5.0, 6.0], [7.0, 5.0], [5.0, 2.0]])
        case = {"anchors": torch.ones(1, 2), "keys": torch.ones(5, 2), "targets": torch.tensor([0])}
        loss = pixel_info_nce(**case, key_positions=places, exclusion_radius=2.0)
        assert loss.item() == pytest.approx(math.log(3))

    def test_reductions(self) -> None:
        case = random_case(2) | {"temperature": 0.2}
        losses = info_nce(**plain(case))
        assert pixel_info_nce(**case).item() == pytest.approx(sum(losses) / len(losses))
        assert pixel_info_nce(**case, reduction="sum").item() == pytest.approx(sum(losses))


class TestGradient:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("rules", RULES[::3], ids=str)
    def test_gradcheck(self, rules: dict[str, Any], reduction: str) -> None:
        case = with_gradient(random_case(2, anchors=5, keys=9, channels=3)) | rules
        anchors, keys = case.pop("anchors"), case.pop("keys")

        def loss(anchors: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            return pixel_info_nce(anchors, keys, **case, temperature=0.3, reduction=reduction, chunk=2)

        assert torch.autograd.gradcheck(loss, (anchors, keys))

    @pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
    def test_chunk_does_not_matter(self, reduction: str) -> None:
        results = []
        for chunk in (1, 4, 9, 512):
            case = with_gradient(random_case(2)) | {"window": 4, "exclusion_radius": 1.0}
            loss = pixel_info_nce(**case, reduction=reduction, chunk=chunk)
            loss.square().sum().backward()
            results.append((loss.detach(), case["anchors"].grad, case["keys"].grad))
        for result in results[1:]:
            torch.testing.assert_close(result, results[0], rtol=1e-11, atol=1e-13)

    def test_float32_against_full_matrix_in_float64(self, generator: torch.Generator) -> None:
        anchors, keys = (torch.randn(512, 128, generator=generator).requires_grad_() for _ in range(2))
        targets = torch.arange(512)
        loss = pixel_info_nce(anchors, keys, targets)
        loss.backward()
        wide = [vectors.detach().double().requires_grad_() for vectors in (anchors, keys)]
        full = F.cross_entropy(F.normalize(wide[0]) @ F.normalize(wide[1]).T / 0.07, targets)
        full.backward()
        assert loss.item() == pytest.approx(full.item(), rel=1e-6)
        for narrow, exact in zip((anchors, keys), wide, strict=True):
            assert torch.linalg.norm(narrow.grad - exact.grad) <= 1e-5 * torch.linalg.norm(exact.grad)

    def test_blocks_capped_by_number_of_keys(self, generator: torch.Generator) -> None:
        anchors, keys = torch.randn(150, 2, generator=generator), torch.randn(70_000, 2, generator=generator)
        targets = torch.arange(150) * 400
        full = F.cross_entropy(F.normalize(anchors) @ F.normalize(keys).T / 0.5, targets)
        torch.testing.assert_close(pixel_info_nce(anchors, keys, targets, temperature=0.5), full)

    def test_two_backward_passes(self) -> None:
        case = with_gradient(random_case(2))
        loss = pixel_info_nce(**case)
        first = torch.autograd.grad(loss, case["keys"], retain_graph=True)
        assert torch.equal(torch.autograd.grad(2 * loss, case["keys"])[0], 2 * first[0])

    def test_no_anchors(self) -> None:
        anchors, keys = torch.ones(0, 3, requires_grad=True), torch.ones(5, 3, requires_grad=True)
        loss = pixel_info_nce(anchors, keys, torch.zeros(0, dtype=torch.long))
        assert loss.item() == 0
        loss.backward()
        assert torch.equal(keys.grad, torch.zeros(5, 3))


class TestRange:
    @pytest.mark.parametrize("temperature", [0.01, 1e-4])
    def test_small_temperature(self, temperature: float) -> None:
        anchors = torch.eye(2, 3).requires_grad_()
        keys = torch.tensor([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], requires_grad=True)
        losses = pixel_info_nce(anchors, keys, torch.tensor([0, 2]), temperature=temperature, reduction="none")
        torch.testing.assert_close(losses, torch.tensor([2 / temperature, 0.0]))
        losses.sum().backward()
        assert anchors.grad.isfinite().all()
        assert keys.grad.isfinite().all()

    def test_loss_keeps_its_digits_near_zero(self) -> None:
        loss = pixel_info_nce(torch.tensor([[1.0, 0.0]]), torch.eye(2), torch.tensor([0]), temperature=0.04)
        assert loss.item() == pytest.approx(math.log1p(math.exp(-25)), rel=1e-5)

    def test_vectors_without_direction(self) -> None:
        anchors, keys = torch.zeros(1, 3, requires_grad=True), torch.eye(3).requires_grad_()
        loss = pixel_info_nce(anchors, keys, torch.tensor([1]))
        loss.backward()
        assert loss.item() == pytest.approx(math.log(3))
        assert not anchors.grad.any()
        assert keys.grad.isfinite().all()


class TestPrecision:
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half(self, dtype: torch.dtype, reduction: str) -> None:
        case = random_case(2) | {"exclusion_radius": 2.0, "reduction": reduction}
        half = with_gradient(case | {name: case[name].to(dtype) for name in ("anchors", "keys")})
        single = with_gradient(case | {name: half[name].detach().float() for name in ("anchors", "keys")})
        losses = [pixel_info_nce(**one) for one in (half, single)]
        assert losses[0].dtype == torch.float32
        assert torch.equal(*losses)
        for loss in losses:
            loss.sum().backward()
        for name in ("anchors", "keys"):
            assert half[name].grad.dtype == dtype
            assert torch.equal(half[name].grad, single[name].grad.to(dtype))

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("reduction", ["mean", "none"])
    def test_autocast(self, dtype: torch.dtype, reduction: str) -> None:
        results = []
        for enabled in (True, False):
            case = random_case(2) | {"window": 3, "reduction": reduction}
            case = with_gradient(case | {name: case[name].to(dtype) for name in ("anchors", "keys")})
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                loss = pixel_info_nce(**case)
                loss.sum().backward()
            assert loss.dtype == dtype
            results.append((loss.detach(), case["anchors"].grad, case["keys"].grad))
        assert all(torch.equal(*pair) for pair in zip(*results, strict=True))

    def test_mixed_types(self) -> None:
        case = random_case(2)
        loss = pixel_info_nce(**case | {"anchors": case["anchors"].bfloat16(), "keys": case["keys"].float()})
        assert loss.dtype == torch.float32

    @pytest.mark.gpu
    @pytest.mark.parametrize("rules", RULES[::3], ids=str)
    def test_cuda(self, rules: dict[str, Any]) -> None:
        host, device = (with_gradient(random_case(3)) | rules for _ in range(2))
        device = {name: v.cuda().detach() if isinstance(v, torch.Tensor) else v for name, v in device.items()}
        device = with_gradient(device)
        losses = [pixel_info_nce(**one) for one in (host, device)]
        torch.testing.assert_close(losses[0], losses[1].cpu())
        for loss in losses:
            loss.backward()
        for name in ("anchors", "keys"):
            torch.testing.assert_close(host[name].grad, device[name].grad.cpu())


WRONG = [
    ({"temperature": 0.0}, "temperature is 0.0; it divides the cosine and must be greater than 0"),
    ({"temperature": math.nan}, "temperature is nan"),
    ({"chunk": 0}, "chunk is 0"),
    ({"keys": torch.ones(40, 4)}, r"anchors have shape \(9, 5\) and keys \(40, 4\)"),
    ({"anchors": torch.ones(9)}, r"anchors have shape \(9,\)"),
    ({"targets": torch.zeros(8, dtype=torch.long)}, "targets has 8 rows for 9 anchors"),
    ({"key_positions": torch.ones(39, 2)}, "key_positions has 39 rows for 40 keys"),
    ({"targets": torch.full((9,), 40)}, "targets run from 40 to 40; expected an index among the 40 keys"),
    ({"window": 0}, "window is 0"),
    ({"exclusion_radius": -1.0}, "must not be negative"),
    ({"distance_slope": 0.07}, "distance_cap is 0, so distance_slope would change nothing"),
    ({"key_positions": None, "window": 3}, "need positions; give key_positions"),
    ({"reduction": "average"}, "reduction is 'average'"),
]


@pytest.fixture
def as_installed() -> Any:
    """Without the type checks of the test run, as users call it."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.usefixtures("as_installed")
@pytest.mark.parametrize(("change", "message"), WRONG, ids=[message[:30] for _, message in WRONG])
def test_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixel_info_nce(**random_case(2) | change)
