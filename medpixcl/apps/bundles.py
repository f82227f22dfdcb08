"""Find bundles and run their configurations, which are programs, with the user's settings as plain data."""

import copy
import inspect
import logging
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import torch
from ignite.exceptions import NotComputableError
from monai.bundle import ConfigParser, ConfigWorkflow, ReferenceResolver
from monai.bundle.utils import merge_kv
from yaml import YAMLError

from medpixcl._json import parsed_json
from medpixcl.apps.bundle_search import BundleError, UntrustedBundleError, distrust, is_trusted
from medpixcl.apps.renamed import renamed_id
from medpixcl.data.folder_lock import locked_folder
from medpixcl.limits import regular_file
from medpixcl.training.config_data import PROGRAM_KEYS, as_data, is_plain
from medpixcl.training.interruption import stopping_early
from medpixcl.training.record import RECORD, TrainingRecord, recorded_settings

# Loggers that repeat what is raised as an error.
ECHOES = (
    "ignite.engine.engine.SupervisedEvaluator",
    "ignite.engine.engine.SupervisedTrainer",
    "monai.bundle.workflows",
)


# MONAI's sentence around an error of a constructor.
_BUILDING = re.compile(r"Failed to instantiate component '([^']+)'")
# How configurations move a network to its device.
_MOVED = re.compile(r"\$@\w+\.to\(@device\)")


@dataclass(frozen=True)
class Reference:
    """Setting ``key=@id``: refers to the value of another id in the bundle's own configuration.

    Attributes:
        id: Config id that is referred to, without ``@``.
    """

    id: str


def check_config(file: Path, *, trust: bool = False) -> None:
    """Check whether a config file may be merged over a bundle's; a file that holds only data always may.

    Args:
        file: The config file.
        trust: Accept a program from outside the trusted folders, too.

    Raises:
        UntrustedBundleError: If the file holds a program, lies elsewhere and is not trusted.
    """
    if not (trust or is_trusted(file)) and _holds_program(_read_file(file)):
        raise UntrustedBundleError(distrust(f"the configuration {file}"))


def _holds_program(config: Any) -> bool:
    """Whether MONAI would build or evaluate anything in a configuration."""
    if isinstance(config, str):
        return not is_plain(config)
    if isinstance(config, Mapping):
        keys = {part for key in config for part in ReferenceResolver.split_id(key)}
        return bool(keys & PROGRAM_KEYS) or any(_holds_program(one) for one in config.values())
    return isinstance(config, list) and any(_holds_program(one) for one in config)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse ``key=value`` settings; a value is JSON if it parses as such, a reference if ``@id``, else text.

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
            values[key] = parsed_json(text)
        except ValueError:
            values[key] = Reference(text[1:]) if re.fullmatch(r"@\w+(::\w+)*", text) else text
    return values


def checked_device(name: str) -> str:
    """Return the name of a device after checking that it works; raise a ValueError if it does not."""
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
        settings: Values by config id, all of them plain data, see :func:`read_bundle`.
        extra_configs: Config files (programs) or their content, merged over the configuration before the settings.
        kind: ``train`` or ``infer``.

    Returns:
        The workflow after the run.

    Raises:
        BundleError: If a setting names no id of the configuration.
        ValueError: If a component rejects its input; MONAI's wrapper around the message is removed. If another process
            trains in the output folder, or the training there began with other annotations.
    """
    parser = read_bundle(bundle, config, settings, extra_configs=extra_configs)
    for name in ECHOES:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with own_errors(), _training_folder(parser):
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


@contextmanager
def _training_folder(parser: ConfigParser) -> Iterator[None]:
    """Lock the folder of a training and compare the settings with those that it began with; nothing for other runs."""
    trains = any("train::trainer" in str(step) for step in parser.get("run") or ())
    if not trains or "output_dir" not in parser or int(os.environ.get("RANK", "0")) > 0:
        yield
        return
    folder = Path(parser.get_parsed_content("output_dir"))
    there = folder.exists()
    try:
        with locked_folder(folder), stopping_early():
            record, settings = TrainingRecord(folder), recorded_settings(parser.get())
            if (folder / "resume.pt").is_file():
                record.compare_settings(settings)
            else:
                record.begin(settings)
            yield
    finally:
        if not there and [path.name for path in folder.glob("*")] == [RECORD]:  # nothing has been trained
            shutil.rmtree(folder)


def read_bundle(
    bundle: Path,
    config: str,
    settings: Mapping[str, Any],
    *,
    extra_configs: Sequence[Path | Mapping[str, Any]] = (),
) -> ConfigParser:
    """Read a configuration of a bundle with settings merged over it, so that components can be built from it.

    Args:
        bundle: Folder of the bundle.
        config: Name of the configuration, without suffix.
        settings: Values by config id. They are plain data: no text in them is evaluated or looked up, except a
            :class:`Reference` to an id that the configuration has.
        extra_configs: Config files (programs) or their content, merged over the configuration before the settings.

    Raises:
        BundleError: If a setting names no id of the configuration, or a config file cannot be read.
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
            f"the setting {key} is a part of the program, and {value!r} is data: set one of the values below it, as in "
            f"{key}::NAME=VALUE, or put it into a configuration file"
        )


def _is_component(value: Any) -> bool:
    """Whether a class is built or a network moved to its device here; data may replace any other value."""
    if isinstance(value, str):
        return _MOVED.fullmatch(value) is not None
    target = value.get("_target_") if isinstance(value, Mapping) else None
    return isinstance(target, str) and not inspect.isroutine(locate(target))


def refuse_arguments(settings: Collection[str], arguments: set[str]) -> None:
    """Refuse settings for which a call has arguments of its own.

    Raises:
        BundleError: If one of the settings is among the arguments.
    """
    if typed := sorted(arguments.intersection(settings)):
        raise BundleError(f"{typed[0]} is no setting of a bundle here; give it as the argument or option of that name")


def why_not_made_for(bundle: Path, purpose: str, default: str) -> str:
    """Say that a bundle does something else than what is asked for, and which one does it."""
    return (
        f"the bundle {bundle.name} is not made for {purpose}; give one that is, such as {default} (`medpixcl bundles "
        "list` says what each is for)"
    )


def refuse_renamed(keys: Sequence[str]) -> None:
    """Refuse settings whose id has been renamed.

    Raises:
        BundleError: If a setting uses an old id.
    """
    for key in keys:
        if (name := renamed_id(key)) is not None:
            raise BundleError(f"the setting {key} has another name now: give {name}")


def _read(configs: Sequence[Path | Mapping[str, Any]]) -> dict[str, Any]:
    """Read configuration files and contents, merged in order."""
    parser = ConfigParser(config={})
    for config in configs:
        content = config if isinstance(config, Mapping) else _read_file(config)
        refuse_renamed([key for key in content if parser.get() and key not in parser])
        for key, value in content.items():
            merge_kv(parser, key, copy.deepcopy(value))
    return parser.get()


def _read_file(file: Path) -> dict[str, Any]:
    """The content of a configuration file."""
    if not regular_file(file).is_file():
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
    """Raise a component's own error instead of MONAI's wrapper around it.

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
        if building and isinstance(own, TypeError | AttributeError | LookupError | ArithmeticError | RuntimeError):
            reason = f"{type(own).__name__}: {str(own).strip().partition(chr(10))[0]}"
            raise ValueError(f"{building} cannot be built with the settings it is given ({reason})") from own
        if own is error:
            raise
        raise own from own.__cause__
