"""Before a foreign configuration runs, a terminal is asked; a script needs --trust."""

import os
import pty
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer

from medpixcl.cli.options import chosen_bundle
from tests.tiny import MATCHING, edited_bundle, medpixcl


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle beside the working folder."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("MEDPIXCL_BUNDLES", raising=False)
    return edited_bundle(MATCHING, tmp_path, "inference")


@contextmanager
def terminal(typed: bytes) -> Iterator[int]:
    """A terminal at which something was typed; gives the user's end of it."""
    user, program = pty.openpty()
    os.write(user, typed)
    with (
        os.fdopen(os.dup(program)) as reading,
        os.fdopen(program, "w") as writing,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "stdin", reading)
        patch.setattr(sys, "stderr", writing)
        yield user
    os.close(user)


def test_yes(foreign: Path) -> None:
    with terminal(b"y\n") as user:
        assert chosen_bundle(foreign) == foreign
        asked = os.read(user, 10_000).decode()
    assert f"the bundle {foreign} is a program that will run with your rights" in " ".join(asked.split())
    assert "Run it? [y/N]" in " ".join(asked.split())


def test_no(foreign: Path) -> None:
    with terminal(b"\n"), pytest.raises(typer.Abort):
        chosen_bundle(foreign)


def test_each_is_asked_for(foreign: Path) -> None:
    """Trust in a bundle is none in a configuration put over it."""
    over = foreign.parent / "over.json"
    over.write_text('{"matcher": "$1"}')
    with terminal(b"y\nn\n"), pytest.raises(typer.Abort):
        chosen_bundle(foreign, configs=[over])
    assert chosen_bundle(foreign, configs=[over], trust=True) == foreign


def test_without_a_terminal(foreign: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["choose-template", "--images", "absent", "-o", "out", "--bundle", foreign]
    assert medpixcl(*words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "run it with --trust if you trust its author" in said
    assert medpixcl(*words, "--trust") == 2
    assert "no weights at" in capsys.readouterr().err  # the copy has none, so its configuration has run
