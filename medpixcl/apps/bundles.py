"""Finds bundles and runs their configurations: a program of the bundle's author, over which a user's data are put."""

import copy
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import merge_kv
from yaml import YAMLError

import medpixcl
from medpixcl.apps.renamed import renamed_id
from medpixcl.training.config_data import PROGRAM_KEYS, as_data, is_plain

BUNDLES_VARIABLE = "MEDPIXCL_BUNDLES"
# Loggers that say again what is raised as an error.
ECHOES = (
    "ignite.engine.engine.SupervisedEvaluator",
    "ignite.engine.engine.SupervisedTrainer",
    "monai.bundle.workflows",
)


_BUILDING = re.compile(
    r"Failed to instantiate component '([^']+)'"
)  # MONAI's sentence around an error of a constructor


class BundleError(ValueError):
    """A bundle cannot be found or does not run as asked."""


class UntrustedBundleError(BundleError):
    """A configuration is a program from a place that nobody vouched for."""


@dataclass(frozen=True)
class Reference:
    """What a setting ``key=@id`` asks for: the value of another id of the bundle's own configuration.

    Attributes:
        id: Id of the configuration, without ``@``.
    """

    id: str


def bundle_roots() -> list[Path]:
    """Folders of bundles in the order of search: the working folder's, ``$MEDPIXCL_BUNDLES``, the installation's.

    The installation's are ``medpixcl/bundles`` in a wheel and ``bundles`` in a checkout of the sources.
    """
    package = Path(medpixcl.__file__).parent
    checkout = package.parent if (package.parent / "pyproject.toml").is_file() else package
    named = [Path(os.environ[BUNDLES_VARIABLE])] if os.environ.get(BUNDLES_VARIABLE) else []
    return [Path("bundles"), *named, checkout / "bundles"]


def find_bundle(name: str | os.PathLike[str] | None, default: str = "", *, trust: bool = False) -> Path:
    """Folder of a bundle.

    Args:
        name: Folder of the bundle, or its name in the working folder or one of :func:`bundle_roots`.
        default: Name that is taken if there is none.
        trust: Whether a bundle from any other place may be taken.

    Raises:
        BundleError: If there is no such bundle.
        UntrustedBundleError: If the bundle lies elsewhere and is not trusted.
    """
    asked = Path(name or default)
    places = [asked] if name else []
    if len(asked.parts) == 1:
        places += [root / asked for root in bundle_roots()]
    for place in places:
        if (place / "configs" / "metadata.json").is_file():
            if not (trust or _is_trusted(place)):
                raise UntrustedBundleError(_question(f"the bundle {place}"))
            return place
    looked = " or ".join(str(place) for place in places)
    raise BundleError(f"no bundle at {looked}: give --bundle, or set {BUNDLES_VARIABLE} to the folder of the bundles")


def check_config(file: Path, *, trust: bool = False) -> None:
    """Look whether a config file may be put over a bundle's; one that holds nothing but data always may.

    Args:
        file: The config file.
        trust: Whether a program from a place outside the trusted ones may be taken, too.

    Raises:
        UntrustedBundleError: If the file holds a program, lies elsewhere and is not trusted.
    """
    if not (trust or _is_trusted(file)) and _holds_program(_read_file(file)):
        raise UntrustedBundleError(_question(f"the configuration {file}"))


def _is_trusted(place: Path) -> bool:
    """Whether a path lies in the working folder or in one of :func:`bundle_roots`."""
    return any(place.resolve().is_relative_to(root.resolve()) for root in (Path(), *bundle_roots()))


def _question(what: str) -> str:
    return (
        f"{what} is a program that will run with your rights, and it lies outside the working folder, the installation "
        f"and {BUNDLES_VARIABLE}: run it with --trust if you trust its author"
    )


def _holds_program(config: Any) -> bool:
    """Whether MONAI would build or evaluate anything in a configuration."""
    if isinstance(config, str):
        return not is_plain(config)
    if isinstance(config, Mapping):
        keys = {part for key in config for part in ReferenceResolver.split_id(key)}
        return bool(keys & PROGRAM_KEYS) or any(_holds_program(one) for one in config.values())
    return isinstance(config, list) and any(_holds_program(one) for one in config)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """``key=value`` words as settings; values are JSON where they parse as such, a reference as ``@id``, else text.

    Example:
        >>> parse_settings(["max_epochs=3", "device=cpu", "view_shape=[64, 64]", "radius_mm=@sigma_mm"])
        {'max_epochs': 3, 'device': 'cpu', 'view_shape': [64, 64], 'radius_mm': Reference(id='sigma_mm')}
    """
    values: dict[str, Any] = {}
    for setting in settings:
        key, found, text = setting.partition("=")
        if not found or not key:
            raise BundleError(f"{setting!r} is no setting: write key=value, as in --set max_epochs=20")
        try:
            values[key] = json.loads(text)
        except (json.JSONDecodeError, RecursionError):
            values[key] = Reference(text[1:]) if re.fullmatch(r"@\w+(::\w+)*", text) else text
    return values


def checked_device(name: str) -> str:
    """Name of a device that works; a ValueError says that it does not."""
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device {name!r} cannot be used ({reason}); give cpu, or what `doctor` lists") from None
    return name


def run_bundle(
    bundle: Path,
    config: str,
    settings: Mapping[str, Any],
    *,
    extra_configs: Sequence[Path | Mapping[str, Any]] = (),
    kind: str = "train",
) -> ConfigWorkflow:
    """Initialize, run and finalize a configuration of a bundle, as ``python -m monai.bundle run`` does.

    Args:
        bundle: Folder of the bundle.
        config: Name of the configuration, without suffix.
        settings: Config ids to values, all of them data, see :func:`read_bundle`.
        extra_configs: Config files or their content, put over the configuration before the settings: programs, too.
        kind: ``train`` or ``infer``.

    Returns:
        The workflow after the run.

    Raises:
        BundleError: If a setting names no id of the configuration.
        ValueError: What the components say of bad input, without MONAI's frame around it.
    """
    parser = read_bundle(bundle, config, settings, extra_configs=extra_configs)
    for name in ECHOES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with own_errors():
        workflow = ConfigWorkflow(
            config_file=str(bundle / "configs" / f"{config}.json"),
            meta_file=str(bundle / "configs" / "metadata.json"),
            logging_file=False,
            workflow_type=kind,
        )
        workflow.parser.update(parser.get())
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    return workflow


def read_bundle(
    bundle: Path,
    config: str,
    settings: Mapping[str, Any],
    *,
    extra_configs: Sequence[Path | Mapping[str, Any]] = (),
) -> ConfigParser:
    """A configuration of a bundle with values put over it, of which single components can be asked for.

    Args:
        bundle: Folder of the bundle.
        config: Name of the configuration, without suffix.
        settings: Config ids to values. Values are data: no text in them is evaluated or looked up, but for a
            :class:`Reference` to an id that the configuration has.
        extra_configs: Config files or their content, put over the configuration before the settings: programs, too.

    Raises:
        BundleError: If a setting names no id of the configuration, or a file is none.
        ValueError: If the value of a setting is a component.
    """
    file = bundle / "configs" / f"{config}.json"
    parser = ConfigParser(_read([file, *extra_configs]))
    unknown = [key for key in settings if not key or key == "bundle_root" or key not in parser]
    refuse_renamed(unknown)
    if unknown:
        raise BundleError(f"the bundle {bundle.name} has no setting {', '.join(unknown)}: see {file}")
    for key, value in settings.items():
        if PROGRAM_KEYS.intersection(ReferenceResolver.split_id(key)):
            raise BundleError(f"the setting {key!r} is part of the program: put it into a configuration file")
        if isinstance(value, Reference) and value.id not in parser:
            value = f"@{value.id}"
        if key == "device" and not isinstance(value, Reference | torch.device):
            checked_device(str(value))
        _refuse_lost_component(key, parser[key], value)
        parser[key] = f"@{value.id}" if isinstance(value, Reference) else as_data(value)
    parser["bundle_root"] = as_data(str(bundle))
    return parser


def _refuse_lost_component(key: str, before: Any, value: Any) -> None:
    """Refuse data in the place of a component; a reference, or null for none of it, may stand there."""
    if value is None or isinstance(value, Reference):
        return
    several = isinstance(before, list) and any(map(_is_component, before))
    if _is_component(before) or (several and not isinstance(value, list)):
        raise BundleError(
            f"the setting {key} is a part of the program, and {value!r} is data: set an id below it, or put it into a "
            "configuration file"
        )


def _is_component(value: Any) -> bool:
    return isinstance(value, Mapping) and "_target_" in value


def refuse_renamed(keys: Sequence[str]) -> None:
    """Refuse settings under ids that have another name now.

    Raises:
        BundleError: If there is one.
    """
    for key in keys:
        if (name := renamed_id(key)) is not None:
            raise BundleError(f"the setting {key} has another name now: give {name}")


def _read(configs: Sequence[Path | Mapping[str, Any]]) -> dict[str, Any]:
    """Configuration files and their contents, merged in order."""
    parser = ConfigParser(config={})
    for config in configs:
        content = config if isinstance(config, Mapping) else _read_file(config)
        refuse_renamed([key for key in content if parser.get() and key not in parser])
        for key, value in content.items():
            merge_kv(parser, key, copy.deepcopy(value))
    return parser.get()


def _read_file(file: Path) -> dict[str, Any]:
    """The content of a configuration file."""
    if not file.is_file():
        raise BundleError(f"no configuration at {file}: give the path of a .json or .yaml file")
    try:
        content = ConfigParser.load_config_file(str(file))
    except (ValueError, YAMLError, RecursionError) as error:
        reason = str(error).replace("\n", " ")
        raise BundleError(f"{file} is no configuration ({reason}): give a .json or .yaml file") from None
    if not isinstance(content, dict):
        raise BundleError(f"{file} is no configuration (no mapping at its top): give a .json or .yaml file")
    return content


@contextmanager
def own_errors() -> Iterator[None]:
    """Let an error of a component through as it was raised, instead of MONAI's wrapping of it.

    Raises:
        ValueError: For a component that cannot be built of the values that it is given, and for a metric that cannot be
            computed: neither is an error of the program.
    """
    try:
        yield
    except RuntimeError as error:
        own: BaseException = error
        building = ""
        while isinstance(own, RuntimeError) and own.__cause__ is not None:
            building = name[1] if (name := _BUILDING.match(str(own))) else building
            own = own.__cause__
        if isinstance(own, NotComputableError):
            raise ValueError(str(own)) from own
        if building and isinstance(own, TypeError | AttributeError | LookupError):
            kind = type(own).__name__
            raise ValueError(f"{building} cannot be built with the settings it is given ({kind}: {own})") from own
        if own is error:
            raise
        raise own from own.__cause__
