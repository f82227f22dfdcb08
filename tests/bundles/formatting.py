"""How the bundles' JSON files are laid out; ``python -m tests.bundles.formatting`` rewrites them so.

An object or a list that holds no object stands on one line if the line has at most 120 columns, and a longer list fills
its lines. Anything else has one entry on a line, four spaces further in.
"""

import json
from pathlib import Path
from typing import Any

COLUMNS = 120


def layout(value: Any, indent: int = 0, before: int = 0) -> str:
    """JSON text of a value.

    Args:
        value: What ``json.loads`` gives.
        indent: Number of spaces before the line on which the value begins.
        before: Number of columns that are taken on that line, a comma after the value included.
    """
    line = json.dumps(value)
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    flat = not any(_holds_object(one) for one in inner)
    if not inner or (flat and before and before + len(line) <= COLUMNS):
        return line
    step = indent + 4
    if isinstance(value, list) and flat:
        return _between("[]", _filled([json.dumps(one) for one in value], COLUMNS - step), indent)
    if isinstance(value, list):
        return _between("[]", [layout(one, step, step + 1) for one in value], indent)
    keys = [f"{json.dumps(key)}: " for key in value]
    entries = [key + layout(one, step, step + len(key) + 1) for key, one in zip(keys, inner, strict=True)]
    return _between("{}", entries, indent)


def _between(brackets: str, entries: list[str], indent: int) -> str:
    lines = ",\n".join(" " * (indent + 4) + entry for entry in entries)
    return f"{brackets[0]}\n{lines}\n{' ' * indent}{brackets[1]}"


def _filled(entries: list[str], columns: int) -> list[str]:
    """Entries joined to lines, as many to each as fit."""
    lines = entries[:1]
    for entry in entries[1:]:
        if len(lines[-1]) + len(entry) + 3 <= columns:
            lines[-1] += f", {entry}"
        else:
            lines.append(entry)
    return lines


def _holds_object(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and any(_holds_object(one) for one in value))


def formatted(text: str) -> str:
    """The same JSON, laid out."""
    return layout(json.loads(text)) + "\n"


def main() -> None:
    """Rewrite all configurations of all bundles."""
    for path in sorted(Path("bundles").glob("*/configs/*.json")):
        path.write_text(formatted(path.read_text(encoding="ascii")), encoding="ascii")


if __name__ == "__main__":
    main()
