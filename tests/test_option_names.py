"""Advice names arguments to those who call Python, and options to those who type commands."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from medpixcl.apps.bundle_search import UntrustedBundleError, find_bundle
from medpixcl.cli.option_names import as_options
from medpixcl.cli.program import COMMANDS, app
from medpixcl.data.manifest import Manifest
from medpixcl.data.pixels import MissingSpacingError
from medpixcl.data.scan import scan
from medpixcl.data.wording import worded
from tests.data.dicom_files import write_series
from tests.data.scanned import picture, reasons
from tests.tiny import ROOT, medpixcl

PARAMETERS = {name for command in COMMANDS for name in inspect.signature(command).parameters}
OPTIONS = {option for command in typer.main.get_command(app).commands.values() for one in command.params
           for option in one.opts}  # fmt: skip
ADVICE = r"\bgive (\w+_\w+)\b(?!=)|\b(\w+)=True\b"


def sentences() -> list[str]:
    """All texts of the package outside of its commands, with what stands in their gaps left out."""
    found = []
    for path in (ROOT / "medpixcl").rglob("*.py"):
        if path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" not in node.value:
                found.append(node.value)
    return found


def test_every_argument_that_is_advised_is_an_option() -> None:
    advised = {one or two for text in sentences() for one, two in re.findall(ADVICE, text)} & PARAMETERS
    assert advised >= {"spacing_mm", "tolerance_mm", "trust"}
    spelt = {as_options(f"{name}=True", {name}) for name in advised}
    assert {"--spacing-mm", "--continue", "--overwrite"} <= spelt <= OPTIONS


def test_no_sentence_tells_a_caller_of_python_to_type_an_option() -> None:
    """Whole commands are another thing: both can run them."""
    texts = [text for text in sentences() if re.search(r"\b(give|with|or) --[a-z]", text)]
    assert not [text for text in texts if "medpixcl " not in text]


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("give spacing_mm.", "give --spacing-mm."),
        ("a.csv: position in pixels without spacing_mm; add that column", None),
        ("give x_mm, y_mm, z_mm", None),
        ("give tolerance_mm below 0.5.", "give --tolerance-mm below 0.5."),
        ("run it with trust=True if", "run it with --trust if"),
        ("give start_weights=null", None),
        ("/home/give spacing_mm_old/a.png does not exist", None),
    ],
)
def test_only_advice_is_translated(sentence: str, expected: str | None) -> None:
    assert as_options(sentence, PARAMETERS) == (expected or sentence)


def test_the_manifest_has_the_words_of_who_made_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture(tmp_path / "a" / "a.png", seed=0)
    write_series(tmp_path / "a" / "ct", np.random.default_rng(0).integers(0, 99, (5, 4, 5)))
    in_python = reasons(scan(tmp_path / "a", tolerance_mm=2.0))
    assert in_python["a.png"] == "has no pixel spacing; give spacing_mm."
    assert "give tolerance_mm below 1.25" in in_python["ct"]
    for name in ("m.json", "m.jsonl"):
        assert medpixcl("scan", tmp_path / "a", "-o", tmp_path / name, "--tolerance-mm", 2, "--workers", 1) == 2
        typed = reasons(Manifest.read(tmp_path / name))
        assert typed["a/a.png"] == "has no pixel spacing; give --spacing-mm."
        assert "give --tolerance-mm below 1.25" in typed["a/ct"]
    assert worded("give spacing_mm.") == "give spacing_mm."  # the command is over


def test_errors_have_the_words_of_their_caller(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from medpixcl.apps.measure import measure

    table = tmp_path / "l.csv"
    table.write_text("image,landmark,x_px,y_px\na.png,sella,1,2\n")
    with pytest.raises(
        MissingSpacingError, match=r"without spacing_mm; add that column, or give mm, or give spacing_mm"
    ):
        measure(table, tmp_path / "out")
    assert medpixcl("measure", table, "-o", tmp_path / "out") == 2
    assert capsys.readouterr().err.endswith("without spacing_mm; add that column, or give mm, or give --spacing-mm.\n")


def test_a_foreign_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = tmp_path / "foreign"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "configs" / "metadata.json").write_text("{}")
    with pytest.raises(UntrustedBundleError, match="run it with trust=True if you trust its author"):
        find_bundle(bundle)
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    words = ("detect", "--images", tmp_path / "a.png", "-o", tmp_path / "out", "--bundle", bundle)
    assert medpixcl(*words) == 2
    assert "run it with --trust if you trust its author" in capsys.readouterr().err
