"""Runs a bundle's configuration with values put over it: what the command line calls."""

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from yaml import YAMLError

from medpixcl.apps.renamed import renamed_id

BUNDLES_VARIABLE = "MEDPIXCL_BUNDLES"
# Loggers that say again what is raised as an error.
ECHOES = (
    "ignite.engine.engine.SupervisedEvaluator",
    "ignite.engine.engine.SupervisedTrainer",
    "monai.bundle.workflows",
)


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
    read_bundle(bundle, config, overrides, extra_configs=extra_configs)
    files = [bundle / "configs" / f"{config}.json", *extra_configs]
    for name in ECHOES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
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


def read_bundle(
    bundle: Path, config: str, overrides: Mapping[str, Any], *, extra_configs: Sequence[Path] = ()
) -> ConfigParser:
    """A configuration of a bundle with values put over it, of which single components can be asked for.

    Args:
        bundle: Folder of the bundle.
        config: Name of the configuration, without suffix.
        overrides: Config ids to values.
        extra_configs: Config files put over it, before the overrides.

    Raises:
        BundleError: If an override names no id of the configuration, or a file is none.
    """
    files = [bundle / "configs" / f"{config}.json", *extra_configs]
    parser = ConfigParser(_read(files))
    refuse_renamed([key for key in overrides if key not in parser])
    if unknown := [key for key in overrides if key not in parser]:
        raise BundleError(f"the bundle {bundle.name} has no setting {', '.join(unknown)}: see {files[0]}")
    parser.update({"bundle_root": str(bundle), **overrides})
    return parser


def refuse_renamed(keys: Sequence[str]) -> None:
    """Refuse settings under ids that have another name now.

    Raises:
        BundleError: If there is one.
    """
    for key in keys:
        if (name := renamed_id(key)) is not None:
            raise BundleError(f"the setting {key} has another name now: give {name}")


def _read(files: Sequence[Path]) -> dict[str, Any]:
    """Configuration files, merged in order."""
    if missing := [str(file) for file in files if not file.is_file()]:
        raise BundleError(f"no configuration at {', '.join(missing)}: give the path of a .json or .yaml file")
    ids: list[str] = []
    for file in files:
        try:
            found = ConfigParser.load_config_file(str(file))
        except (ValueError, YAMLError) as error:
            reason = str(error).replace("\n", " ")
            raise BundleError(f"{file} is no configuration ({reason}): give a .json or .yaml file") from None
        refuse_renamed([key for key in found if ids and key not in ids])
        ids += found
    return ConfigParser.load_config_files([str(file) for file in files])


@contextmanager
def own_errors() -> Iterator[None]:
    """Let an error of a component through as it was raised, instead of MONAI's wrapping of it."""
    try:
        yield
    except RuntimeError as error:
        own: BaseException = error
        while isinstance(own, RuntimeError) and own.__cause__ is not None:
            own = own.__cause__
        if own is error:
            raise
        raise own from own.__cause__
