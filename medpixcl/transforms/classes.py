"""The classes of informativeness as they stand in this epoch: shared by what uses them and what moves them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from medpixcl.informativeness import classify_informativeness


class PixelClasses:
    """Where the classes of informativeness are cut, and the share of the drawn pixels that each class gives.

    One object is named by the transforms, which read it, and by
    :class:`medpixcl.training.adaptive.AdaptiveClasses`, which moves it between epochs. The workers of a ``DataLoader``
    are started anew every epoch (without ``persistent_workers``) and so see it as it stands.

    Args:
        cuts: ``quantiles``: the classes that the item came with (:class:`medpixcl.transforms.LocalEntropyd`). Two
            bounds in bits, ascending. ``adaptive``: starts with the item's own classes, then follows the loss.
        ratios: Share of the drawn pixels of each class (low, medium, high), in any scale; None leaves it to the
            weights. ``loss``: starts with None, then follows the loss.

    Attributes:
        cuts: Two bounds in bits, None for the classes that the item came with.
        ratios: Three shares, None for no say.

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
        """What moves; empty when nothing does."""
        return {"cuts": self.cuts, "ratios": self.ratios} if self.adaptive else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put it back; what the configuration holds fixed stays as it says."""
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
    """Class of every pixel of the views by the cuts in bits that hold now; without such cuts the classes stay.

    Put it after the views are made: the class image that a dataset caches knows nothing of cuts that move.

    Args:
        keys: Views: of ``image_query`` the entropy is read from ``entropy_image_query`` and the class written to
            ``class_image_query``.
        classes: The cuts.
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
