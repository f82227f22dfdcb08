"""The settings of a network beside its weights, so that another configuration can build it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events

from medpixcl.data.atomic import write_text_atomically


def read_settings(path: str | Path) -> dict[str, Any]:
    """Settings that stand beside a detector's weights: ids of the inference configuration and their values."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


class SettingsFile:
    """Writes values of configuration ids as JSON when a training starts, to be put over another configuration.

    Args:
        path: The file.
        settings: Ids and their values.
    """

    def __init__(self, path: str, settings: Mapping[str, Any]) -> None:
        self.path, self.settings = Path(path), dict(settings)

    def attach(self, engine: Engine) -> None:
        """Write at the start."""
        engine.add_event_handler(Events.STARTED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the file; on the first process only."""
        if idist.get_rank() == 0:
            write_text_atomically(self.path, json.dumps(self.settings, indent=4) + "\n")
