"""Values for MONAI configurations that are data and come out as they went in.

MONAI evaluates a string that begins with ``$``, looks up one that begins with ``@``, replaces one that begins with
``%`` by another part of a configuration or by a file, resolves ``@::`` and ``%::`` anywhere in a string, and writes
``::`` for every ``#``. The name of a file or of a landmark must undergo none of this.
"""

from collections.abc import Mapping
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ConfigComponent

COMPONENT_KEYS = ConfigComponent.non_arg_keys
"""Keys that make MONAI build a component from a mapping: ``_target_``, ``_mode_`` and the like."""
PROGRAM_KEYS = COMPONENT_KEYS - {"_disabled_"}
"""Component keys whose values a user must not set; switching a component off is harmless."""
SIGNS = ("$", "@", "%")


def is_plain(text: str) -> bool:
    """Whether MONAI reads a string as plain text.

    Example:
        >>> [is_plain(text) for text in ("a@b 50 % $5", "$5", "@device", "%x.json", "case#3", "a@::b")]
        [True, False, False, False, False, False]
    """
    return not (text.startswith(SIGNS) or "#" in text or ConfigParser.relative_id_prefix.search(text))


def as_data(value: Any) -> Any:
    r"""Convert a value so that MONAI resolves it to ``value`` itself, whatever text it holds.

    Text that is not plain becomes an expression: a Python string literal in which every character but ASCII letters and
    digits is escaped, so that nothing in it can end the literal or be taken for a reference.

    Args:
        value: Text, numbers, None, and lists and mappings of these; other objects are returned unchanged.

    Raises:
        ValueError: If a mapping has a key that would make it a component, or that MONAI would split.

    Example:
        >>> as_data({"name": "plain.png", "sizes": [1, "#2"]})
        {'name': 'plain.png', 'sizes': [1, "$'\\U000000232'"]}
    """
    if isinstance(value, str):
        return str(value) if is_plain(value) else f"${_literal(value)}"
    if isinstance(value, Mapping):
        return {_checked_key(key): as_data(one) for key, one in value.items()}
    if isinstance(value, list):
        return [as_data(one) for one in value]
    return value


def _literal(text: str) -> str:
    return "'" + "".join(one if one.isascii() and one.isalnum() else f"\\U{ord(one):08x}" for one in text) + "'"


def _checked_key(key: Any) -> Any:
    if key in COMPONENT_KEYS:
        raise ValueError(
            f"a setting is data, but this one has the key {key}, of which MONAI makes a component: put it into a "
            "configuration file"
        )
    if isinstance(key, str) and ("#" in key or "::" in key):
        raise ValueError(f"a setting has the key {key!r}, at which MONAI would split it: give a key without # and ::")
    return key
