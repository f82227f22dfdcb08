"""Two random views of a whole image, as contrastive learning of instances takes them."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from monai.config import KeysCollection
from monai.transforms import Compose, MapTransform, Randomizable


class RandTwoViewsd(MapTransform, Randomizable):
    """Applies one chain of random transforms twice to each image, and keeps both results.

    ``{key}_first`` and ``{key}_second`` are drawn independently of each other. The image itself stays as it is.

    Args:
        keys: Keys of the images.
        changes: Dictionary transforms of the key, random or not, in their order.

    Example:
        >>> import torch
        >>> from monai.transforms import RandShiftIntensityd
        >>> views = RandTwoViewsd("image", [RandShiftIntensityd("image", offsets=1.0, prob=1.0)]).set_random_state(0)
        >>> sorted(views({"image": torch.zeros(1, 2, 2)}))
        ['image', 'image_first', 'image_second']
    """

    def __init__(self, keys: KeysCollection, changes: Sequence[Any]) -> None:
        super().__init__(keys)
        self.changes = Compose(list(changes))

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> "RandTwoViewsd":
        """Seed all transforms of the chain."""
        super().set_random_state(seed, state)
        self.changes.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Draw both views of every image."""
        item = dict(data)
        for key in self.key_iterator(item):
            for name in ("first", "second"):
                changed: Any = self.changes({key: item[key].clone()})
                item[f"{key}_{name}"] = changed[key]
        return item
