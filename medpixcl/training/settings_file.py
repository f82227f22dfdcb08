"""Settings of a network, stored as data next to its weights, so that other configurations can build it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from medpixcl._json import parsed_json
from medpixcl.data.atomic import remove_drafts, write_text_atomically
from medpixcl.data.wording import about
from medpixcl.landmarks.pseudo import PseudoLandmarks
from medpixcl.limits import regular_file
from medpixcl.matching import ShapeStatistics
from medpixcl.training.config_data import is_plain

_TEXT = {"type": "string"}
_TEXTS = {"type": "array", "items": _TEXT}
_FLAG = {"type": "boolean"}
_WHOLE = {"type": ["integer", "null"]}
_OPTIONS = {
    "type": "object",
    "propertyNames": {"pattern": "^[a-z][a-z_]*$"},
    "additionalProperties": {"type": ["number", "boolean"]},
}
_LAYER = {
    "anyOf": [
        _TEXT,
        {"type": "array", "prefixItems": [_TEXT, _OPTIONS], "items": False, "minItems": 2},
    ]
}
"""A layer by its name, or as MONAI takes it: ``["group", {"num_groups": 8}]``."""
_NUMBERS = {"type": ["number", "array", "null"], "items": {"type": "number"}}
_NUMBER = {"type": "number"}
_ROWS = {"type": "array", "items": {"type": "array", "items": _NUMBER}}
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        **dict.fromkeys(("landmark_names", "classes"), _TEXTS),
        **dict.fromkeys(("backbone", "activation", "head", "fine_backbone", "fine_activation"), _TEXT),
        **dict.fromkeys(("norm", "fine_norm"), _LAYER),
        **dict.fromkeys(("use_offsets", "fine_use_offsets", "encoder_only", "overlapping"), _FLAG),
        **dict.fromkeys(("spatial_dims", "stride", "fine_stride", "configuration_stride"), _WHOLE),
        **dict.fromkeys(("channels", "fine_channels", "strides", "window_shape", "crop_shape"), _NUMBERS),
        **dict.fromkeys(("working_spacing_mm", "fine_spacing_mm", "window"), _NUMBERS),
        "fine_shape_mm": {"type": ["array", "null"], "items": _NUMBERS},
        "window_overlap": _NUMBERS,
        "shape": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "required": ["names", "images", "mean_mm", "modes_mm", "rest_mm", "size_sd"],
            "properties": {
                "names": _TEXTS,
                "images": {"type": "integer"},
                **dict.fromkeys(("mean_mm", "modes_mm"), _ROWS),
                **dict.fromkeys(("rest_mm", "size_sd"), _NUMBER),
            },
        },
        "trained_on": {
            "type": ["object", "null"],
            "additionalProperties": False,
            "properties": {"images": {"type": "integer"}, "start": _TEXT},
        },
    },
}
"""JSON schema of a settings file: allowed ids of the inference configurations and the types of their values."""


def read_settings(path: str | Path) -> dict[str, Any]:
    """Read the settings stored next to a detector's weights.

    Args:
        path: Settings file that a training wrote.

    Returns:
        Values by id of the inference configuration.

    Raises:
        ValueError: If the file is not JSON, has an unknown key or a value of another type, or holds text that MONAI
            would evaluate.
        FileNotFoundError: If there is no such file.
    """
    file = regular_file(path)
    try:
        settings = parsed_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); give the settings file that the training wrote") from None
    check_settings(settings, path)
    if settings.get("shape"):
        with about(str(path)):
            ShapeStatistics.from_data(settings["shape"])
    return settings


def check_settings(settings: Any, path: str | Path) -> None:
    """Raise a ValueError naming the file if its settings violate :data:`SCHEMA` or hold text that is not plain."""
    import jsonschema

    for fault in jsonschema.Draft202012Validator(SCHEMA).iter_errors(settings):
        where = "".join(f"{key}: " for key in fault.absolute_path)
        raise ValueError(f"{path}: {where}{fault.message[:200]}; give the settings file that the training wrote")
    for key, text in _texts(settings):
        if not is_plain(text):
            raise ValueError(
                f"{path}: {key} is {text!r}, but MONAI would evaluate or change text that begins with $, @ or % or "
                "holds #; give it another name"
            )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts in the settings, each with the keys that lead to it."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping | list):
        for inner, one in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _texts(one, f"{key}[{inner!r}]" if key else str(inner))


class SettingsFile:
    """Writes settings as JSON when a training starts, for use by another configuration.

    Args:
        path: File to write.
        settings: Values by id of the inference configuration.
        labels: Pseudo-landmarks of a self-training, whose shape is added as ``shape`` when the training ends; None for
            a training with other labels.

    Raises:
        ValueError: If the file could not be read back, for instance because MONAI would evaluate a landmark's name.
    """

    def __init__(self, path: str, settings: Mapping[str, Any], labels: PseudoLandmarks | None = None) -> None:
        self.path, self.settings, self.labels = Path(path), dict(settings), labels
        check_settings(json.loads(json.dumps(self.settings)), self.path)

    def attach(self, engine: Engine) -> None:
        """Write when the training starts, and once more at its end if the labels are known then only."""
        engine.add_event_handler(Events.STARTED, self)
        if self.labels is not None:
            engine.add_event_handler(Events.COMPLETED, self._add_shape)

    def __call__(self, engine: Engine) -> None:
        """Write the file; on the first process only."""
        if idist.get_rank() == 0:
            remove_drafts(self.path)
            write_text_atomically(self.path, json.dumps(self.settings, indent=4) + "\n")

    def _add_shape(self, engine: Engine) -> None:
        if self.labels is not None:
            shape = ShapeStatistics.of(self.labels.trusted_mm(), self.labels.names)
            self.settings["shape"] = None if shape is None else shape.to_data()
            self(engine)
