"""Classes that follow the loss: against numpy's polyfit and roots, literal loops, and over a resume."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from medpixcl.losses import PixelContrastLoss
from medpixcl.training.adaptive import AdaptiveClasses, NoCutsError, cuts_from_loss, ratios_from_loss
from medpixcl.training.binning import binned_sums
from medpixcl.transforms import PixelClasses
from tests.tiny import PRETRAINING, assert_identical, checkpoint, pretrain, write_manifest

pytestmark = [
    pytest.mark.filterwarnings("ignore:'(min_delta|cumulative_delta)' is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]
NUMBER = 4000
SKEWED = 5 * np.linspace(0, 1, 500) ** 0.2


def pixels(curve: Any, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Informativeness in steps of a bin, more of it at the high end, and a noisy loss along a curve."""
    random = np.random.default_rng(seed)
    bits = 0.05 + 0.1 * np.floor(50 * random.beta(2, 1.5, NUMBER))
    return bits, curve(bits) + random.normal(0, 0.2, NUMBER)


def sums_of(bits: np.ndarray, losses: np.ndarray) -> torch.Tensor:
    return binned_sums(torch.from_numpy(bits), [torch.from_numpy(losses)], bin_bits=0.1)


def reference_crossings(bits: np.ndarray, losses: np.ndarray) -> list[float]:
    """Where the cubic through all pixels, not binned, crosses their mean loss."""
    coefficients = np.polyfit(bits, losses, 3)
    coefficients[-1] -= losses.mean()
    roots = np.roots(coefficients)
    return sorted(root.real for root in roots if abs(root.imag) < 1e-9 and bits.min() < root.real < bits.max())


def test_bins_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    bits, one, two = (torch.rand(200, generator=generator) * scale for scale in (9.0, 1.0, 5.0))
    expected = np.zeros((16, 4))
    for bit, first, second in zip(bits.tolist(), one.tolist(), two.tolist(), strict=True):
        place = min(int(bit / 0.5), 15)  # what is above 8 bits is counted in the last one
        expected[place] += (1, bit, first, second)
    np.testing.assert_allclose(binned_sums(bits, [one, two], bin_bits=0.5).numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("curve", "crossings", "chosen"),
    [
        (lambda bits: 5 - (bits - 2.6) ** 2, 2, (0, 1)),  # low and high are easy
        (lambda bits: 5 + (bits - 2.6) ** 2, 2, (0, 1)),  # low and high are hard
        (lambda bits: 5 - (bits - 1) * (bits - 2.5) * (bits - 4), 3, (1, 2)),
        (lambda bits: 5 + (bits - 1) * (bits - 2.5) * (bits - 4), 3, (0, 1)),
    ],
    ids=["hump", "valley", "down, up, down", "up, down, up"],
)
def test_cuts_against_numpy(curve: Any, crossings: int, chosen: tuple[int, int]) -> None:
    bits, losses = pixels(curve)
    expected = reference_crossings(bits, losses)
    assert len(expected) == crossings
    assert cuts_from_loss(sums_of(bits, losses)) == pytest.approx([expected[place] for place in chosen], abs=1e-6)


def test_of_three_crossings_the_two_round_the_hard_part() -> None:
    """Between the cuts the loss is above its mean, as in the paper."""
    for sign in (1, -1):
        bits, losses = pixels(lambda bits, sign=sign: 5 + sign * (bits - 1) * (bits - 2.5) * (bits - 4))
        low, high = cuts_from_loss(sums_of(bits, losses))
        assert losses[(bits > low) & (bits < high)].mean() > losses.mean()


@pytest.mark.parametrize(
    ("bits", "losses", "reason"),
    [
        (np.linspace(0, 5, 500), np.linspace(1, 2, 500), r"crosses its mean once between 0\.05 and 5\.00 bits"),
        (np.linspace(0, 5, 500), np.full(500, 1.7), "is the same at any informativeness"),
        (np.repeat([1.05, 2.05, 3.05, 4.05], 50), np.arange(200.0) % 7, "fills 4 bins of 0.1 bits, fewer than 8"),
        (np.zeros(0), np.zeros(0), "fills 0 bins"),
        (
            SKEWED,
            5 - (SKEWED - 2.6) ** 2,
            r"cuts at \d\.\d\d and \d\.\d\d bits leave a class with \d\.\d% of the pixels",
        ),
    ],
    ids=["a line", "flat", "few bins", "nothing seen", "an empty class"],
)
def test_no_cuts(bits: np.ndarray, losses: np.ndarray, reason: str) -> None:
    with pytest.raises(NoCutsError, match=reason):
        cuts_from_loss(sums_of(bits, losses), least_share=0.2)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 1.0, 2.0], (0.25, 0.25, 0.5)),
        ([0.0, 0.0, 2.0], (0.1, 0.1, 0.8)),
        ([0.05, 0.9, 0.1], (0.1, 0.8, 0.1)),  # 0.1 / 1.05 is under the floor as well
        ([0.0, 0.0, 0.0], (1 / 3, 1 / 3, 1 / 3)),
    ],
)
def test_ratios(losses: list[float], expected: tuple[float, ...]) -> None:
    assert ratios_from_loss(losses) == pytest.approx(expected)


def test_any_ratios_keep_the_floor_and_the_order() -> None:
    for losses in np.random.default_rng(0).exponential(size=(100, 3)) ** 3:
        ratios = ratios_from_loss(losses.tolist())
        assert sum(ratios) == pytest.approx(1)
        assert min(ratios) >= 0.1 - 1e-12
        assert (np.diff(np.array(ratios)[losses.argsort()]) >= -1e-12).all()


def batch(seed: int) -> dict[str, Any]:
    """What a trainer gives out for two images of one level, with pairs of all classes."""
    generator = torch.Generator().manual_seed(seed)
    views = [[torch.randn(2, 4, 8, 8, generator=generator)] for _ in range(2)]
    pairs = {
        "query": torch.rand(2, 20, 2, generator=generator) * 15,
        "positive": torch.rand(2, 20, 2, generator=generator) * 15,
        "valid": torch.rand(2, 20, generator=generator) < 0.8,
        "informativeness": torch.rand(2, 20, generator=generator) * 5,
        "pixel_class": torch.randint(0, 3, (2, 20), generator=generator),
    }
    return {"pred": views, "label": pairs}


@pytest.mark.parametrize("cuts", ["quantiles", [1.0, 3.0]], ids=["classes of the image", "cuts in bits"])
def test_ratios_of_two_epochs_against_a_loop(cuts: Any) -> None:
    """The mean loss of each class, the first epoch at half its weight."""
    loss = PixelContrastLoss(strides=[2], exclusion_radius=0.0)
    classes = PixelClasses(cuts, "loss")
    handler = AdaptiveClasses(classes, loss, memory=0.5)
    engine = Engine(lambda engine, number: batch(number))
    handler.attach(engine)
    data = iter([1, 2, 3, 4])
    engine.run(data, max_epochs=2, epoch_length=2)

    weights, totals = np.zeros(3), np.zeros(3)
    for number, weight in zip((1, 2, 3, 4), (0.5, 0.5, 1.0, 1.0), strict=True):
        pairs = batch(number)["label"]
        losses = loss.pair_losses(batch(number)["pred"], pairs)
        for image, place in pairs["valid"].nonzero().tolist():
            bits = pairs["informativeness"][image, place].item()
            own = pairs["pixel_class"][image, place].item() if cuts == "quantiles" else (bits >= 1) + (bits >= 3)
            weights[own] += weight
            totals[own] += weight * losses[image, place].item()
    assert classes.ratios == pytest.approx(ratios_from_loss((totals / weights).tolist()), rel=1e-6)
    assert classes.cuts == (None if cuts == "quantiles" else (1.0, 3.0))


def test_cuts_stay_where_the_loss_tells_none(caplog: pytest.LogCaptureFixture) -> None:
    classes = PixelClasses("adaptive")
    classes.cuts = (2.0, 4.0)
    handler = AdaptiveClasses(classes, PixelContrastLoss(strides=[2]))
    engine = Engine(lambda engine, number: None)
    engine.state.epoch = 7
    with caplog.at_level("INFO", logger="medpixcl"):
        handler.move(engine)
    assert classes.cuts == (2.0, 4.0)
    assert "epoch 7: the classes keep their cuts, for the informativeness fills 0 bins" in caplog.text


def test_nothing_is_attached_and_kept_when_nothing_adapts() -> None:
    handler = AdaptiveClasses(PixelClasses([2.0, 4.0], [1, 1, 1]), PixelContrastLoss(strides=[2]))
    engine = Engine(lambda engine, number: None)
    handler.attach(engine)
    engine.run([0], max_epochs=1)
    assert handler.state_dict() == {}


def test_pairs_without_informativeness() -> None:
    handler = AdaptiveClasses(PixelClasses("adaptive"), PixelContrastLoss(strides=[2]))
    engine = Engine(lambda engine, number: None)
    engine.state.output = batch(0)
    del engine.state.output["label"]["informativeness"]
    with pytest.raises(ValueError, match=r"^the pairs of a batch have no informativeness.*SelectItemsd"):
        handler.collect(engine)


@pytest.mark.parametrize(("name", "value"), [("floor", 0.5), ("floor", -0.1), ("memory", 1.0)])
def test_bad_numbers(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^{name} is {value}; expected"):
        AdaptiveClasses(PixelClasses("adaptive"), PixelContrastLoss(strides=[2]), **{name: value})


PAPER = json.loads((PRETRAINING / "configs" / "paper.json").read_text(encoding="ascii"))  # strong enough to move cuts
ADAPTIVE = {
    **PAPER,
    "class_cuts": "adaptive",
    "class_ratios": "loss",
    "ema_momentum": 0.2,
    "anchors_per_image": 256,
    "train::adaptive_classes::least_share": 0.0,
}
# Two steps an epoch: the second step of the third epoch fails.
FAILING = {
    "imports": ["$import ignite"],
    "+initialize": [
        "$@train::trainer.add_event_handler(ignite.engine.Events.ITERATION_STARTED(once=6), lambda: 1 / 0)"
    ],
}


def test_resumed_training_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    """Cuts, ratios and the average of the weights too, to the last bit; and with workers, which see new cuts."""
    manifest = write_manifest(tmp_path)
    pretrain(manifest, tmp_path / "whole", **ADAPTIVE)
    with pytest.raises(ZeroDivisionError):
        pretrain(manifest, tmp_path / "parts", **ADAPTIVE, **FAILING)
    before = checkpoint(tmp_path / "parts")
    assert before["epoch"] == 2
    pretrain(manifest, tmp_path / "parts", num_workers=2, **ADAPTIVE)

    whole, parts = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")
    assert_identical(parts, whole)
    assert whole["classes"]["cuts"] != before["classes"]["cuts"] is not None
    assert whole["classes"]["ratios"] != before["classes"]["ratios"] is not None
    saved = [torch.load(tmp_path / run / "models" / "model.pt", weights_only=True) for run in ("whole", "parts")]
    assert_identical(saved[1], saved[0])
    events = EventAccumulator(str(tmp_path / "whole"))
    events.Reload()
    assert events.Scalars("classes/cut_low")[-1].value == pytest.approx(whole["classes"]["cuts"][0])
    assert [event.step for event in events.Scalars("classes/ratio_medium")] == [1, 2, 3]
    assert events.Images("classes/running_loss")[0].step == 3


def test_training_sees_the_cuts_and_validation_does_not(tmp_path: Path) -> None:
    """The views of the next epoch are classified anew; those of a validation stay, so that validations compare."""
    workflow = pretrain(write_manifest(tmp_path), tmp_path / "run", max_epochs=1, val_interval=5, **ADAPTIVE)
    cuts = workflow.parser.get_parsed_content("train::classes").cuts
    assert cuts is not None
    trained = workflow.parser.get_parsed_content("train::dataset")[(2, 0)]
    expected = (trained["informativeness"] >= cuts[0]).long() + (trained["informativeness"] >= cuts[1])
    assert torch.equal(trained["pixel_class"].long(), expected)
    validated = workflow.parser.get_parsed_content("validate::dataset")[0]
    expected = (validated["informativeness"] >= cuts[0]).long() + (validated["informativeness"] >= cuts[1])
    assert not torch.equal(validated["pixel_class"].long(), expected)
