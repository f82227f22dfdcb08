"""Loading of any supported image file with its spacing."""

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform

from medpixcl.data.images import read_image


class LoadImageMMd(MapTransform):
    """Replace the path under each key by the image, channel first, with a RAS+ affine in mm.

    Pictures (PNG, JPEG, ...) carry no spacing of their own; it is taken from the item, where a manifest has it.

    Args:
        keys: Paths of images (a file, a folder with one DICOM series, or the list of its files).
        spacing_key: Entry of the item with the pixel spacing in mm, array order; used for pictures only.
        allow_missing_keys: As in MONAI.
    """

    def __init__(self, keys: KeysCollection, spacing_key: str = "spacing_mm", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.spacing_key = spacing_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the item with the images loaded."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = read_image(item[key], spacing_mm=item.get(self.spacing_key))
        return item
