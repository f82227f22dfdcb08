import csv
from pathlib import Path

import pytest

from medpixcl.data.tables import write_csv

TABLE = [["name", "n"], ['comma, "quote"\nline', "1"], ["µ", ""]]


def test_csv_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "table.csv"
    write_csv(path, TABLE)
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == TABLE


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    write_csv(path, TABLE)
    with pytest.raises(ZeroDivisionError):
        write_csv(path, ([1 / number] for number in (2, 1, 0)))
    with path.open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == TABLE
    assert list(tmp_path.iterdir()) == [path]
