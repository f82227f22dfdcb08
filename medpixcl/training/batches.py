"""From a collated batch of two views to the inputs and targets of MONAI's trainers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from monai.data import MetaTensor, list_data_collate
from monai.engines import PrepareBatch
from monai.transforms import Compose, Randomizable, Transform

from medpixcl.transforms.views import apply_views

PAIRS = ("query", "positive", "valid")
OF_PAIRS = ("informativeness", "pixel_class")


def plain_tensor(value: Any, device: str | torch.device | None = None, non_blocking: bool = False) -> torch.Tensor:
    """A tensor without MONAI's metadata, which would slow down every layer; on the device if one is given."""
    tensor = value.as_tensor() if isinstance(value, MetaTensor) else torch.as_tensor(value)
    return tensor.to(device=device, non_blocking=non_blocking)


class PixelPairsPrepareBatch(PrepareBatch):
    """The query view as input, the anchor view as second argument, the pixel pairs as target.

    Args:
        image_key: The batch holds ``image_key + "_query"``, ``image_key + "_anchor"`` and the pairs: ``query``,
            ``positive``, ``valid`` and, where it has them, ``informativeness`` and ``pixel_class``.
    """

    def __init__(self, image_key: str = "image") -> None:
        self.image_key = image_key

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[torch.Tensor], dict]:
        """Move the views and pairs to the device."""

        def moved(key: str) -> torch.Tensor:
            return plain_tensor(batchdata[key], device, non_blocking)

        pairs = {key: moved(key) for key in (*PAIRS, *(key for key in OF_PAIRS if key in batchdata))}
        return moved(f"{self.image_key}_query"), pairs, (moved(f"{self.image_key}_anchor"),), {}


class DeviceViewsPrepareBatch(PrepareBatch):
    """Makes the views of a whole batch on the training device, from ``RandPixelViewsd(defer=True)``.

    The workers then only sample parameters; the one resampling, the intensity changes and the pairs run on the device.
    Every item keeps its seed, so the result is that of ``Compose([RandPixelViewsd(...), *transforms])`` in a worker.

    Args:
        keys: Image first, then the maps that move with it, as in ``RandPixelViewsd``.
        view_shape: Spatial shape of the views.
        transforms: What follows the views, on the items one by one (``ClassifyViewsd``, ``RandClassIntensityd``,
            ``RandPixelPairsd``).
        nearest_keys: Keys sampled at the nearest voxel.
        exogenous_keys: Keys whose last channel is their validity, as in ``RandPixelViewsd``.
        prepare: What becomes of the items made, such as :class:`medpixcl.training.pixpro.PixProPrepareBatch`; pixel
            pairs by default.
    """

    def __init__(
        self,
        keys: Sequence[str],
        view_shape: Sequence[int],
        transforms: Sequence[Callable[[Any], Any]],
        nearest_keys: Sequence[str] = (),
        exogenous_keys: Sequence[str] = (),
        prepare: PrepareBatch | None = None,
    ) -> None:
        self.keys, self.view_shape = tuple(keys), tuple(view_shape)
        self.transform, self.nearest_keys = Compose([_ViewsMade(), *transforms]), tuple(nearest_keys)
        self.exogenous_keys = tuple(exogenous_keys)
        self.prepare = PixelPairsPrepareBatch(keys[0]) if prepare is None else prepare

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, dict[str, Any], tuple[torch.Tensor], dict]:
        """Make the views on the device, then go on as for views made by the workers."""
        images = {key: batchdata[key].as_tensor().to(device, non_blocking=non_blocking) for key in self.keys}
        names = ("matrix_anchor", "matrix_query", "displacement_query")
        parameters = {name: batchdata[name].to(device) for name in names if name in batchdata}
        affine = batchdata[self.keys[0]].affine
        views, affines = apply_views(
            images,
            affine,
            parameters,
            view_shape=self.view_shape,
            nearest_keys=self.nearest_keys,
            exogenous_keys=self.exogenous_keys,
        )
        items = []
        for number, seed in enumerate(batchdata["item_seed"].tolist()):
            item: dict[str, Any] = {
                name: MetaTensor(value[number], affine=affines[name.rsplit("_", 1)[1]][number].cpu())
                for name, value in views.items()
            }
            item["item_seed"] = seed
            self.transform.set_random_state(seed=seed)
            items.append(self.transform(item))
        return self.prepare(list_data_collate(items), device, non_blocking)


class _ViewsMade(Randomizable, Transform):
    """Stands where ``RandPixelViewsd`` stands in a worker: ``Compose`` deals its seeds out by place."""

    def randomize(self, data: Any = None) -> None:
        """Nothing is left to draw."""

    def __call__(self, data: Any) -> Any:
        """Return the item as it is."""
        return data
