"""Tables as CSV files, also as spreadsheets of other languages write them.

A spreadsheet computes a cell that begins like a formula, whoever wrote it: a landmark or a file may be called
``=cmd|'/C calc'!A0``. Such text is written with an apostrophe before it, which makes it text in spreadsheets, and read
without it. Numbers stay as they are.

Reference: OWASP, CSV Injection, https://owasp.org/www-community/attacks/CSV_Injection.
"""

import csv
import io
import os
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from medpixcl.data.atomic import write_text_atomically
from medpixcl.data.text import require_unique, utf8_text

SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""Signs that spreadsheets write between columns, and their names."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?|[+-]?(inf|nan)")
_FORMULA = r"[=+\-@\t\r\n＝＋－＠](?=.)"
_RUN, _MADE_INERT = re.compile(f"'*{_FORMULA}", re.DOTALL), re.compile(f"'+{_FORMULA}", re.DOTALL)


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        columns: Names of the columns.
        separator: Sign between the columns.
        rows: Number of each row's line and its cells by column, without spaces around them; empty where it is short.
    """

    columns: tuple[str, ...]
    separator: str
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: Path, known: Collection[str]) -> Table:
    """Read a table separated by commas, semicolons or tabs; see :func:`separator_of`.

    Args:
        path: CSV file.
        known: Names of columns that such a table may have.

    Raises:
        ValueError: If it is no UTF-8 text or no CSV, has a column twice, or a row with more cells than columns.
    """
    text = utf8_text(path)
    separator = separator_of(text, known)
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    filled_lines = filter(None, lines)
    rows = []
    try:
        columns = tuple(map(_read_cell, next(filled_lines, [])))
        require_unique(path, columns)
        for cells in filled_lines:
            if any(cells[len(columns) :]):
                hint = "; is a comma a decimal point?" if separator == "," else "; write as many."
                raise ValueError(f"{path}: line {lines.line_num} has more cells than the header{hint}")
            padded = [*map(_read_cell, cells), *[""] * len(columns)]
            rows.append((lines.line_num, dict(zip(columns, padded, strict=False))))
    except csv.Error as error:
        raise ValueError(f"{path}: line {lines.line_num} cannot be read as CSV ({error}).") from None
    return Table(columns, separator, tuple(rows))


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


def decimal_point(cell: str, separator: str) -> str:
    """Write a number with a decimal point that may have a comma, where columns are not separated by commas."""
    return cell if separator == "," else cell.replace(",", ".")


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as comma-separated UTF-8 text without formulas; after a crash the old file is still whole.

    Args:
        path: File to write; missing folders are made.
        rows: Rows of the table; the first one is the header.
    """
    text = io.StringIO()
    plain, quoting = (csv.writer(text, lineterminator="\n", quoting=one) for one in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        split = any(
            "\r" in cell for cell in row if isinstance(cell, str)
        )  # which csv does not quote before Python 3.13
        (quoting if split else plain).writerow(map(inert_cell, row))
    write_text_atomically(path, text.getvalue())


def inert_cell(cell: object) -> object:
    """The cell, which a spreadsheet shows and does not compute: an apostrophe goes before text that is a formula.

    Example:
        >>> inert_cell("=1+1"), inert_cell("-1.5"), inert_cell("'=1+1")
        ("'=1+1", '-1.5', "''=1+1")
    """
    return f"'{cell}" if isinstance(cell, str) and _RUN.match(cell) and not _NUMBER.fullmatch(cell) else cell


def _read_cell(cell: str) -> str:
    """Text of a cell as it was before :func:`inert_cell`."""
    cell = cell.strip()
    return cell[1:] if _MADE_INERT.match(cell) else cell


def _header(text: str, separator: str) -> list[str]:
    try:
        return next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), [])
    except csv.Error:
        return []
