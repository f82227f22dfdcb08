"""How far a long step is, where no terminal shows a bar."""

import re

import pytest

from medpixcl.apps import progress


def test_a_line_a_minute_on_the_error_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert list(progress.progress(range(3), "Landmark matching", "image")) == [0, 1, 2]
    assert capsys.readouterr().err == "", "it is not time yet"
    monkeypatch.setattr(progress, "EVERY_S", 0.0)
    assert list(progress.progress(range(3), "Landmark matching", "image")) == [0, 1, 2]
    shown = capsys.readouterr()
    line = r"Landmark matching: (\d) of 3 images, \d+\.\d images/s, about \d:\d\d:\d\d left\n"
    assert [found[1] for found in re.finditer(line, shown.err)] == ["1", "2"]
    assert shown.out == ""
