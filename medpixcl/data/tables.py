"""Tables as CSV files, also as spreadsheets of other languages write them."""

import csv
import io
import os
from collections.abc import Collection, Iterable, Sequence

from medpixcl.data.atomic import write_text_atomically

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Signs that spreadsheets write between columns, and their names."""


def separator_of(text: str, known: Collection[str]) -> str:
    """Find the sign between the columns of a table from its header line.

    Args:
        text: The table.
        known: Names of columns that such a table may have.

    Returns:
        The one of comma, semicolon and tab that gives at least two known columns; a comma if none does.

    Example:
        >>> separator_of("image;landmark;x_px;y_px", {"image", "landmark"})
        ';'
    """
    found = {sign: len({name.strip() for name in _header(text, sign)} & set(known)) for sign in SEPARATORS}
    best = max(found, key=lambda sign: found[sign])
    return best if found[best] > 1 else ","


def table_reader(text: str, known: Collection[str]) -> csv.DictReader:
    """Read a table separated by commas, semicolons or tabs; see :func:`separator_of`."""
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=separator_of(text, known))


def decimal_point(cell: str, separator: str) -> str:
    """Write a number with a decimal point that may have a comma, where columns are not separated by commas."""
    return cell if separator == "," else cell.replace(",", ".")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as comma-separated UTF-8 text; after a crash the old file is still whole.

    Args:
        path: File to write; missing folders are made.
        rows: Rows of the table; the first one is the header.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text_atomically(path, text.getvalue())


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
