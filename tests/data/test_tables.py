import csv
from pathlib import Path

import pytest

from medpixcl.data.class_labels import ClassTable
from medpixcl.data.splits import SplitFile
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


def test_split_and_class_tables_of_a_spreadsheet(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("image;split;label\na.png;train;0\nb, c.png;test;1\n")
    assert SplitFile(path).splits == {"a.png": "train", "b, c.png": "test"}
    assert ClassTable(path).labels == {"a.png": 0, "b, c.png": 1}
