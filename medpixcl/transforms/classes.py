"""Informativeness classes of the current epoch, shared between the transforms and ``AdaptiveClasses``."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medpixcl.informativeness import classify_informativeness


class PixelClasses:
    """Bounds between the classes of informativeness, and the share of the drawn pixels that comes from each class.

    The transforms read this object, and :class:`medpixcl.training.adaptive.AdaptiveClasses` changes it between epochs.
    The workers of a ``DataLoader`` start anew every epoch (without ``persistent_workers``) and so see its current
    values.

    Args:
        cuts: ``quantiles`` keeps the classes of the item (:class:`medpixcl.transforms.LocalEntropyd`); two ascending
            numbers are bounds in bits; ``adaptive`` starts with the item's classes, then follows the loss.
        ratios: Share of the drawn pixels that comes from each class (low, medium, high), in any scale; None leaves the
            shares to the weights; ``loss`` starts with None, then follows the loss.

    Attributes:
        cuts: Two bounds in bits; None keeps the classes of the item.
        ratios: Three shares; None leaves them to the weights.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(
        self,
        cuts: Sequence[float | int] | str = "quantiles",
        ratios: Sequence[float | int] | str | None = None,
    ) -> None:
        _check("class_cuts", cuts, ("quantiles", "adaptive"), 2)
        _check("class_ratios", ratios, ("loss", None), 3)
        self.adaptive_cuts, self.adaptive_ratios = cuts == "adaptive", ratios == "loss"
        self.cuts = None if isinstance(cuts, str) else tuple(cuts)
        self.ratios = None if ratios is None or isinstance(ratios, str) else tuple(ratios)
        if self.cuts is not None and self.cuts[0] > self.cuts[1]:
            raise ValueError(f"class_cuts is {list(self.cuts)}; expected two ascending numbers in bits, as in [2, 4].")

    @property
    def adaptive(self) -> bool:
        """True when the cuts or the ratios follow the loss."""
        return self.adaptive_cuts or self.adaptive_ratios

    def state_dict(self) -> dict[str, Any]:
        """Return the bounds and ratios that follow the loss; an empty dictionary when they are fixed."""
        return {"cuts": self.cuts, "ratios": self.ratios} if self.adaptive else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore bounds and ratios that follow the loss; those that the configuration fixes stay."""
        if self.adaptive_cuts:
            self.cuts = state["cuts"]
        if self.adaptive_ratios:
            self.ratios = state["ratios"]


def _check(name: str, value: Any, words: Sequence[str | None], count: int) -> None:
    good = value in words if value is None or isinstance(value, str) else len(value) == count
    if not good:
        options = ", ".join("null" if word is None else f'"{word}"' for word in words)
        raise ValueError(f"{name} is {value!r}; expected {options} or {count} numbers.")


class ClassifyViewsd(MapTransform):
    """Classify every pixel of the views by the current bounds in bits; without bounds the classes are unchanged.

    Put it after the views are made: a class image that a dataset caches does not follow bounds that change.

    Args:
        keys: Views; for ``image_query`` the entropy is read from ``entropy_image_query`` and the class written to
            ``class_image_query``.
        classes: Informativeness classes whose bounds are used.
    """

    def __init__(self, keys: KeysCollection, classes: PixelClasses) -> None:
        super().__init__(keys)
        self.classes = classes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the classes replaced."""
        item = dict(data)
        cuts = self.classes.cuts
        for key in self.key_iterator(item) if cuts is not None else ():
            entropy = item[f"entropy_{key}"]
            classes = classify_informativeness(entropy.as_tensor()[None], cuts=cuts)[0]
            item[f"class_{key}"] = MetaTensor(classes, meta=entropy.meta)
        return item
