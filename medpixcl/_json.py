"""Parsing of JSON from files that anybody may have written."""

import json
from typing import Any

_WHOLE_DIGITS = 20
"""Number of digits of the longest whole number that stays whole; 64 bits have as many."""


def parsed_json(text: str | bytes) -> Any:
    """Parse JSON; whatever is wrong with it is a ValueError, also brackets that are nested too deeply.

    Whole numbers that no 64 bits hold become floats, as in other programs, in which all numbers are floats.

    Raises:
        ValueError: If the text is no JSON.

    Example:
        >>> parsed_json("[1, 1" + "0" * 30 + "]")
        [1, 1e+30]
    """
    try:
        return json.loads(text, parse_int=_whole)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _WHOLE_DIGITS else float(digits)
