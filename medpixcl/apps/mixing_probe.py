"""Measure how well the opacity of a bundle's mixtures is predicted, by global statistics and by its network."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from monai.data import list_data_collate
from torch import Tensor, nn

from medpixcl.apps.bundle_search import BundleError
from medpixcl.apps.bundles import own_errors, read_bundle
from medpixcl.networks.weights import load_weights
from medpixcl.training.leak_probe import LeakProbe, global_statistics, leak_probe, r_squared
from medpixcl.training.mixup import MixUpPrepareBatch, mixtures_and_opacity, opacity_pairs


@dataclass(frozen=True)
class MixingProbe:
    """Results of the leak probe and the network on the same mixtures.

    Attributes:
        leak: Result of the leak probe on global statistics.
        network_r2: R2 of the network's opacity; None without weights.
    """

    leak: LeakProbe
    network_r2: float | None


def probe_bundle(
    bundle: Path,
    data: Path,
    *,
    mixtures: int = 400,
    weights: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    extra_configs: Sequence[Path] = (),
    progress: Callable[[int, int], None] | None = None,
) -> MixingProbe:
    """Mix held-out images as a bundle's validation does, and run the leak probe and, with weights, the network.

    Args:
        bundle: Folder of a mix-up pretraining bundle.
        data: Manifest of the images to mix.
        mixtures: Number of mixtures; images are reused with other patches, opacities and sources.
        weights: Weights of the whole network: the ``pretraining.pt`` of a run.
        overrides: Values by config id.
        extra_configs: Config files merged over the bundle's.
        progress: Function called with (done, total) after each batch.

    Raises:
        BundleError: If the bundle does not mix images.
        ValueError: If the data set, the mixing or the leak probe rejects its input.
    """
    changes = {"data_list_file_path": str(data), "pictures": False, **(overrides or {})}
    parser = read_bundle(bundle, "train", changes, extra_configs=extra_configs)
    with own_errors():
        dataset = parser.get_parsed_content("validate::dataset")
        batches = parser.get_parsed_content("prepare_batch")
        network = None if weights is None else parser.get_parsed_content("network_def")
    if not isinstance(batches, MixUpPrepareBatch):
        raise BundleError(f"the bundle {bundle.name} does not mix images: give one of mix-up pretraining")
    if network is not None and weights is not None:
        load_weights(network, weights)
        network.eval()
    size, rows, truth, said = parser["batch_size"], [], [], []
    for start in range(0, mixtures, size):
        places = range(start, min(start + size, mixtures))
        items = [dataset[divmod(place, len(dataset))] for place in places]
        image, label = batches(list_data_collate(items), "cpu")
        mixed, opacity = mixtures_and_opacity({"pred": label, "label": label})
        rows.append(global_statistics(mixed))
        truth.append(opacity)
        if network is not None:
            said.append(_read(network, image, label))
        if progress is not None:
            progress(places.stop, mixtures)
    opacity = torch.cat(truth)
    found = r_squared(torch.cat(said), opacity) if said else None
    return MixingProbe(leak_probe(torch.cat(rows), opacity), found)


def _read(network: nn.Module, image: Tensor, label: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        return opacity_pairs({"pred": network(image), "label": label})[0]
