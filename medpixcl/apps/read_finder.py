"""Build a matcher or a detector from the inference configuration of a bundle."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from monai.bundle import ConfigParser

from medpixcl._typing import AnyPath
from medpixcl.apps.bundle_search import find_bundle
from medpixcl.apps.bundles import checked_device, own_errors, read_bundle, refuse_arguments, why_not_made_for
from medpixcl.apps.digests import value_digest
from medpixcl.apps.finder import LandmarkFinder
from medpixcl.data.paths import checked_path
from medpixcl.networks.weights import load_weights

TYPED = {"template", "landmarks", "images", "calibration", "reference", "unlabelled", "unlabelled_limit", "pixel_mm"}
"""Config ids for which calls have an argument, so that a setting would have no effect."""
PLACES = {"bundle_root", "weights", "device"}
"""Config ids that say where a run takes place; its results depend on the content of the weights alone."""
F = TypeVar("F", bound=LandmarkFinder)


def read_finder(
    kind: type[F],
    bundle: AnyPath | None,
    *,
    default: str,
    weights: AnyPath | None,
    device: str | torch.device,
    settings: Mapping[str, Any] | None,
    trust: bool,
    configs: Sequence[Path | Mapping[str, Any]] = (),
) -> F:
    """Build the component ``finder`` of a bundle's inference configuration and load its weights.

    Args:
        kind: Class that the component must have: matcher or detector.
        bundle: Name or folder of the bundle.
        default: Name of the bundle to take if ``bundle`` is None.
        weights: Weights of the network; those that the configuration names by default.
        device: Device of the network; ``"auto"`` leaves the choice to the configuration.
        settings: Values by config id, all of them plain data.
        trust: Accept a bundle from any folder.
        configs: Config files or their content, merged over the bundle's.

    Raises:
        BundleError: If there is no such bundle, or it has no such setting.
        ValueError: If a setting has an argument of its own, or the weights do not fit.
    """
    if not isinstance(settings or {}, Mapping) or not all(isinstance(key, str) for key in settings or {}):
        raise ValueError(f"settings are {settings!r}; expected a mapping of the names of settings to values")
    given = None if weights is None else checked_path(weights, "the file of weights")
    folder, values = find_bundle(bundle, default, trust=trust), dict(settings or {})
    refuse_arguments(values, TYPED)
    if str(device) != "auto":
        values["device"] = torch.device(checked_device(str(device)))
    parser = read_bundle(folder, "inference", values, extra_configs=configs)
    with own_errors():
        finder, path = _component(parser, folder, kind, default), parser.get_parsed_content("weights")
    if given is not None:
        path = given
    if path is not None:
        load_weights(finder.network, checked_path(path, "the file of weights"))
    finder.settings_digest = _settings_digest(parser)
    finder.facts |= {"bundle": folder.resolve().name, "weights": given.name if given else "of the bundle"}
    return finder


def _settings_digest(parser: ConfigParser) -> str:
    """Digest of a configuration, without what may differ where the same is computed."""
    content = {key: value for key, value in parser.get().items() if key not in PLACES}
    return value_digest(json.dumps(content, sort_keys=True, default=str))


def _component(parser: ConfigParser, folder: Path, kind: type[F], default: str) -> F:
    """The component ``finder`` of a configuration."""
    if "finder" not in parser or not isinstance(finder := parser.get_parsed_content("finder"), kind):
        raise ValueError(why_not_made_for(folder, kind.title.lower(), default))
    return finder
