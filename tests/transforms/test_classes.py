"""Classes as they stand: what may be asked for, and what the views make of it."""

from typing import Any

import pytest
import torch
from monai.data import MetaTensor

from medpixcl.transforms import ClassifyViewsd, PixelClasses


def item(dims: int) -> dict[str, Any]:
    entropy = torch.linspace(0, 5, 6**dims).view(1, *[6] * dims)
    maps = {f"entropy_image_{side}": MetaTensor(entropy + shift) for side, shift in (("anchor", 0.0), ("query", 1.0))}
    old = torch.full((1, *[6] * dims), 2, dtype=torch.int64)
    return {**maps, **{f"class_image_{side}": old for side in ("anchor", "query")}, "image_anchor": 0, "image_query": 0}


@pytest.mark.parametrize("dims", [2, 3])
def test_views_follow_the_cuts_as_they_stand(dims: int) -> None:
    classes = PixelClasses("adaptive")
    transform = ClassifyViewsd(["image_anchor", "image_query"], classes)
    before = transform(item(dims))
    assert all((before[f"class_image_{side}"] == 2).all() for side in ("anchor", "query"))
    for cuts in ((1.0, 4.0), (2.5, 5.5)):
        classes.cuts = cuts
        found = transform(item(dims))
        for side in ("anchor", "query"):
            entropy, own = found[f"entropy_image_{side}"].flatten(), found[f"class_image_{side}"].flatten()
            for bits, number in zip(entropy.tolist(), own.tolist(), strict=True):
                assert number == (0 if bits < cuts[0] else 1 if bits < cuts[1] else 2)


def test_state() -> None:
    classes = PixelClasses("adaptive", "loss")
    assert (classes.cuts, classes.ratios) == (None, None)
    classes.cuts, classes.ratios = (1.0, 2.0), (0.2, 0.3, 0.5)
    other = PixelClasses("adaptive", "loss")
    other.load_state_dict(classes.state_dict())
    assert (other.cuts, other.ratios) == ((1.0, 2.0), (0.2, 0.3, 0.5))
    fixed = PixelClasses([2, 4], "loss")
    fixed.load_state_dict(classes.state_dict())
    assert (fixed.cuts, fixed.ratios) == ((2, 4), (0.2, 0.3, 0.5))
    assert PixelClasses([2, 4], [1, 1, 1]).state_dict() == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cuts": "thirds"}, r'^class_cuts is \'thirds\'; expected "quantiles", "adaptive" or 2 numbers\.$'),
        ({"cuts": [1, 2, 3]}, r"^class_cuts is \[1, 2, 3\]; expected"),
        ({"cuts": [4, 2]}, r"^class_cuts is \[4, 2\]; expected two ascending numbers in bits"),
        ({"ratios": "equal"}, r'^class_ratios is \'equal\'; expected "loss", null or 3 numbers\.$'),
        ({"ratios": [1, 2]}, r"^class_ratios is \[1, 2\]; expected"),
    ],
)
def test_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PixelClasses(**arguments)
