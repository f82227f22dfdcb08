"""Runs a bundle's configuration with values put over it: what the command line calls."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow

BUNDLES_VARIABLE = "MEDPIXCL_BUNDLES"


class BundleError(ValueError):
    """A bundle cannot be found or does not run as asked."""


def find_bundle(name: str | None, default: str) -> Path:
    """Folder of a bundle: the one given, else the default one in ``./bundles`` or in ``$MEDPIXCL_BUNDLES``.

    Raises:
        BundleError: If there is none.
    """
    if name is not None:
        places = [Path(name)]
    else:
        roots = [Path("bundles")] + ([Path(os.environ[BUNDLES_VARIABLE])] if BUNDLES_VARIABLE in os.environ else [])
        places = [root / default for root in roots]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            return place
    looked = " or ".join(str(place) for place in places)
    raise BundleError(f"no bundle at {looked}: give --bundle, or set {BUNDLES_VARIABLE} to the folder of the bundles")


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as overrides; values are JSON where they parse as such, else text.

    Example:
        >>> parse_settings(["max_epochs=3", "device=cpu", "view_shape=[64, 64]"])
        {'max_epochs': 3, 'device': 'cpu', 'view_shape': [64, 64]}
    """
    overrides: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key:
            raise BundleError(f"{setting!r} is no setting: write key=value, as in --set max_epochs=20")
        try:
            overrides[key] = json.loads(text)
        except json.JSONDecodeError:
            overrides[key] = text
    return overrides


def run_bundle(
    bundle: Path, config: str, overrides: Mapping[str, Any], *, extra_configs: Sequence[Path] = (), kind: str = "train"
) -> ConfigWorkflow:
    """Initialize, run and finalize a configuration of a bundle, exactly as ``python -m monai.bundle run`` does.

    Args:
        bundle: Folder of the bundle.
        config: Name of the configuration, without suffix.
        overrides: Config ids to values.
        extra_configs: Config files put over it, before the overrides.
        kind: ``train`` or ``infer``.

    Returns:
        The workflow after the run.

    Raises:
        BundleError: If an override names no id of the configuration.
        ValueError: What the components say of bad input, without MONAI's frame around it.
    """
    files = [bundle / "configs" / f"{config}.json", *extra_configs]
    if missing := [str(file) for file in files if not file.is_file()]:
        raise BundleError(f"no configuration at {', '.join(missing)}")
    known = ConfigParser(ConfigParser.load_config_files([str(file) for file in files]))
    if unknown := [key for key in overrides if key not in known]:
        raise BundleError(f"the bundle {bundle.name} has no setting {', '.join(unknown)}: see {files[0]}")
    with own_errors():
        workflow = ConfigWorkflow(
            config_file=[str(file) for file in files],
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
            bundle_root=str(bundle),
            **overrides,
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return workflow


@contextmanager
def own_errors() -> Iterator[None]:
    """Let an error of a component through as it was raised, instead of MONAI's wrapping of it."""
    try:
        yield
    except RuntimeError as error:
        root: BaseException = error
        while root.__cause__ is not None:
            root = root.__cause__
        if root is error:
            raise
        raise root from None
