"""Names of arguments in advice, as the command line has them."""

import re
from collections.abc import Collection

_OPTIONS = {"resume": "continue"}
"""Options that are named otherwise than the argument, as the name is a word of Python."""
_ADVICE = re.compile(r"\bgive (\w+_\w+)\b(?!=)|\b(\w+)=(?:True|(\d+))\b")


def as_options(sentence: str, arguments: Collection[str]) -> str:
    """Replace arguments that a sentence advises by the options of these names.

    Args:
        sentence: Sentence in Python's words.
        arguments: Names of the parameters of all commands.

    Example:
        >>> as_options("has no pixel spacing; give spacing_mm.", {"spacing_mm"})
        'has no pixel spacing; give --spacing-mm.'
        >>> as_options("run it with trust=True, or give x_mm", {"trust"})
        'run it with --trust, or give x_mm'
        >>> as_options("search with part_id=2 first", {"part_id"})
        'search with --part-id 2 first'
    """

    def option(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in arguments:
            return found[0]
        value = f" {found[3]}" if found[3] else ""
        return f"{'give ' if found[1] else ''}--{_OPTIONS.get(name, name).replace('_', '-')}{value}"

    return _ADVICE.sub(option, sentence)
