"""Tables as CSV files."""

import csv
import io
import os
from collections.abc import Iterable, Sequence

from medpixcl.data.atomic import write_text_atomically


def write_csv(path: str | os.PathLike[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table as comma-separated UTF-8 text; after a crash the old file is still whole.

    Args:
        path: File to write; missing folders are made.
        rows: Rows of the table; the first one is the header.
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text_atomically(path, text.getvalue())
