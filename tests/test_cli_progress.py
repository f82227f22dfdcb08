"""A long scan tells how far it is where no terminal shows its progress bar."""

import functools
import re
import time
from pathlib import Path

import pytest

import medpixcl.cli.scan as command
from medpixcl.cli.console import ProgressLines
from tests.data.scanned import picture
from tests.tiny import medpixcl

LINE = re.compile(r"(looked at|read) (\d) of (?:5 files|4 images), \d+\.\d (files|images)/s, about \d:\d\d:\d\d left")


def test_a_line_holds_number_rate_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines("read", "images", every_s=0.0)
    time.sleep(0.2)
    lines(1, 18001)
    found = re.fullmatch(
        r"read 1 of 18001 images, (\d\.\d) images/s, about (\d+):(\d\d):\d\d left\n", capsys.readouterr().out
    )
    assert found
    assert float(found[1]) <= 5
    assert int(found[2]) >= 1  # 18,000 images at 5 a second are an hour
    lines(18001, 18001)
    assert capsys.readouterr().out == ""


def test_nothing_is_printed_before_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    lines = ProgressLines("read", "images")
    for done in range(100):
        lines(done, 100)
    assert capsys.readouterr().out == ""


def test_the_command_prints_lines_to_a_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Of both phases: what the files are, and the reading of the images among them."""
    for number in range(4):
        picture(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "images" / "notes.txt").write_text("none")
    words = ("scan", tmp_path / "images", "-o", tmp_path / "m.json", "--spacing-mm", 1)
    assert medpixcl(*words) == 0
    assert not LINE.search(capfd.readouterr().out)
    monkeypatch.setattr(command, "ProgressLines", functools.partial(ProgressLines, every_s=0.0))
    (tmp_path / "m.json").unlink()
    assert medpixcl(*words) == 0
    shown = capfd.readouterr().out
    looked_at = [("looked at", done, "files") for done in "1234"]
    assert LINE.findall(shown) == looked_at + [("read", done, "images") for done in "123"]
    assert re.search(r"read 4 images in \d+\.\d s, \d+\.\d images/s", shown)
