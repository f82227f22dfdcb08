"""Mix-up pretraining in MONAI's engines: batches, metrics and pictures."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from jaxtyping import Float
from monai.engines import PrepareBatch
from PIL import Image
from torch import Tensor

from medpixcl._typing import Image as ImageTensor
from medpixcl.losses.mixup import pool_opacity
from medpixcl.reports.figures import figure_to_array
from medpixcl.reports.mixup import opacity_agreement, unmixed_images
from medpixcl.training.batches import plain_tensor
from medpixcl.training.event_files import EventWriter
from medpixcl.training.ratio import RatioOfSums


class MixUpPrepareBatch(PrepareBatch):
    """The mixture as input; the mixed images and the target's opacity, in float32, as target.

    Args:
        image_key: Batch key of the mixture. ``RandCrossDomainMixUpd`` also adds ``image_key + "_target"``,
            ``"_source"`` (not needed), ``"_opacity"`` and, for the dense head, ``"_opacity_map"``.
        dense: Give the opacity of every voxel as target instead of one per image.
        shuffle_opacity: Give every mixture its neighbour's opacity, as a control in which nothing can be learnt.

    Raises:
        ValueError: On a call, if a key is missing, or opacities are to be shuffled in a batch of one.
    """

    def __init__(self, image_key: str = "image", dense: bool = False, shuffle_opacity: bool = False) -> None:
        self.image_key, self.shuffle_opacity = image_key, shuffle_opacity
        opacity = f"{image_key}_opacity_map" if dense else f"{image_key}_opacity"
        self.keys = {"target": f"{image_key}_target", "opacity": opacity, "source": f"{image_key}_source"}

    def __call__(
        self,
        batchdata: Mapping[str, Any],
        device: str | torch.device | None = None,
        non_blocking: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Move the required tensors to the device."""
        needed = (self.image_key, self.keys["target"], self.keys["opacity"])
        absent = [key for key in needed if key not in batchdata]
        if absent:
            raise ValueError(f"the batch has no {absent[0]!r}; mix the images by RandCrossDomainMixUpd")
        truth = {
            name: plain_tensor(batchdata[key], device, non_blocking)
            for name, key in self.keys.items()
            if key in batchdata
        }
        mixed = plain_tensor(batchdata[self.image_key], device, non_blocking)
        opacity = truth["opacity"].float()
        if self.shuffle_opacity:
            if len(opacity) < 2:
                raise ValueError("opacities can be shuffled in batches of at least 2; found a batch of 1")
            opacity = opacity.roll(1, dims=0)
        return mixed, truth | {"opacity": opacity, "mixed": mixed}


def opacity_pairs(output: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Predicted and true opacity of each image (the mean of a map), for Ignite's metrics such as ``R2Score``."""
    return tuple(pool_opacity(output[key]["opacity"].float(), ())[:, 0] for key in ("pred", "label"))  # type: ignore[return-value]


def reconstruction_pairs(output: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Reconstructed and true voxels of the target, flattened, for Ignite's metrics such as ``MeanAbsoluteError``."""
    return output["pred"]["target"].float().flatten(), output["label"]["target"].float().flatten()


def mixtures_and_opacity(output: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mixtures and the true opacity of each, for :class:`medpixcl.training.leak_probe.LeakProbeR2`."""
    return output["label"]["mixed"], opacity_pairs(output)[1]


def pixelwise_linear_error(mixed: ImageTensor, target: ImageTensor) -> Float[Tensor, " b"]:
    """Mean squared error per image of the affine map of single mixture voxels that fits the target best.

    The map is fitted to the image that it is evaluated on, which makes this a strong baseline: a network with a lower
    error uses the surroundings of a voxel or prior knowledge of the images. For uncorrelated images of
    equal variance and an opacity ``o``, the expectation is ``(1 - o)^2 / (o^2 + (1 - o)^2)`` times the variance of
    the target.
    """
    x, t = (image.double().flatten(1) - image.double().flatten(1).mean(1, keepdim=True) for image in (mixed, target))
    power = x.square().mean(1)
    return t.square().mean(1) - (x * t).mean(1).square() / power.clamp_min(torch.finfo(power.dtype).tiny)


class ErrorAgainstLinear(RatioOfSums):
    """Squared error of the reconstruction over that of the best pixelwise linear one; below 1 is better.

    Args:
        output_transform: Function from the engine's output to (prediction, truth), such as MONAI's
            ``from_engine(["pred", "label"])``.
    """

    def __init__(self, output_transform: Callable = lambda output: output) -> None:
        super().__init__("every mixture is a linear map of its target: mix with other sources", output_transform)

    def quantities(self, output: tuple[Mapping[str, Tensor], Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
        """Squared errors of the images of a batch, and those of the best pixelwise linear map."""
        found, truth = output
        error = found["target"].double() - truth["target"].double()
        return error.square().flatten(1).mean(1), pixelwise_linear_error(truth["mixed"], truth["target"])


class MixUpPictures:
    """Draws some separated mixtures, and predicted against true opacity of all, after each validation.

    Args:
        log_dir: Folder of the TensorBoard events; None for none.
        items: Number of mixtures to draw from the first batch.
        folder: Folder for the last pictures as ``unmixed.png`` and ``opacity.png``; None for none.
        metrics: Names of evaluator metrics to show in the second picture, by their title.
    """

    def __init__(
        self,
        log_dir: str | None,
        items: int = 4,
        folder: str | None = None,
        metrics: Mapping[str, str] = MappingProxyType({"R2": "val_opacity_r2", "leak probe": "val_leak_r2"}),
    ) -> None:
        self.items, self.folder, self.metrics = items, folder, dict(metrics)
        self.events = EventWriter(log_dir)
        self.kept: dict[str, Tensor] = {}
        self.opacities: list[tuple[Tensor, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        """Keep the first batch and all opacities of a validation, and draw at its end."""
        engine.add_event_handler(Events.EPOCH_STARTED, self.start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.draw)

    def start(self, engine: Engine) -> None:
        """Clear the data of the last validation."""
        self.kept, self.opacities = {}, []

    def keep(self, engine: Engine) -> None:
        """Keep the data of a batch to draw."""
        output = engine.state.output
        self.opacities.append(tuple(values.detach().cpu() for values in opacity_pairs(output)))  # type: ignore[arg-type]
        if self.kept:
            return
        found, truth = output["pred"], output["label"]
        images = {"mixed": truth["mixed"], "reconstructed": found["target"], "target": truth["target"]}
        if "source" in truth:
            images["source"] = truth["source"]
        if "source" in found:
            images["reconstructed source"] = found["source"]
        self.kept = {name: values[: self.items, 0].detach().cpu() for name, values in images.items()}

    def draw(self, engine: Engine) -> None:
        """Write the pictures."""
        if not self.kept:
            return
        predicted, truth = (torch.cat(values) for values in zip(*self.opacities, strict=True))
        measured = {name: engine.state.metrics.get(key) for name, key in self.metrics.items()}
        note = ", ".join(f"{name} {value:.2f}" for name, value in measured.items() if value is not None)
        shown = len(self.kept["mixed"])
        pictures = {
            "unmixed": unmixed_images(self.kept, truth[:shown], predicted[:shown]),
            "opacity": opacity_agreement(predicted, truth, note),
        }
        drawn = {name: figure_to_array(picture) for name, picture in pictures.items()}
        if self.folder is not None:
            Path(self.folder).mkdir(parents=True, exist_ok=True)
            for name, picture in drawn.items():
                Image.fromarray(np.moveaxis(picture, 0, -1)).save(Path(self.folder) / f"{name}.png")
        self.events.write(engine.state.epoch, {f"validation/{name}": picture for name, picture in drawn.items()})
