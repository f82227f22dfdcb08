"""What the pages promise exists: commands and their options, files, configs, modules; the examples run."""

import itertools
import json
import pkgutil
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from typer.main import get_command

from medpixcl.cli import app
from tests.test_layers import LEVELS

ROOT = Path(__file__).parents[1]
BUNDLES = sorted(path.parents[1] for path in (ROOT / "bundles").glob("*/configs/metadata.json"))
CARDS = [bundle / "docs" / "README.md" for bundle in BUNDLES]
FOLDERS = [ROOT, ROOT / "docs", ROOT / "docs/guide", ROOT / "docs/evidence", ROOT / "data_manifests"]
PAGES = [*sorted(page for folder in FOLDERS for page in folder.glob("*.md")), *CARDS]
COMMANDS = get_command(app).commands
STUBS = sorted((ROOT / "medpixcl").rglob("__init__.pyi"))
PRETRAINING = "xray_infoaug_pretraining"

FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```.*?^```$|`[^`\n]+`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"!?\[[^\]]*\]\((?P<target>[^)\s]+)\)")


class Block(NamedTuple):
    """One fenced block of a page."""

    page: str
    line: int
    info: str
    code: str


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text(encoding="utf-8")
    for found in FENCE.finditer(text):
        yield Block(name_of(page), text[: found.start()].count("\n") + 1, found["info"].strip(), found["code"])


def shell_lines(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Words of every command line of the shell blocks, with where it stands."""
    for block in blocks(page):
        if block.info in ("sh", "bash", "bat", "powershell"):
            joined = re.sub(r"[\\^`]\n", " ", block.code)
            for line in joined.splitlines():
                if words := shlex.split(line, comments=True):
                    yield f"{block.page}:{block.line}", words


def inline_commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """``medpixcl <command> ...`` in running text."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for found in re.finditer(r"`(medpixcl [a-z][^`]*)`", text):
        yield name_of(page), shlex.split(found[1])


ALL_BLOCKS = [block for page in PAGES for block in blocks(page)]
SHELL = [case for page in PAGES for case in shell_lines(page)]
CALLS = [(place, words[1:]) for place, words in SHELL if words[0] == "medpixcl"]
INLINE = [(place, words[1:]) for page in PAGES for place, words in inline_commands(page)]
RUN = [block for block in ALL_BLOCKS if block.info == "python run" and "..." not in block.code]


def test_pages_are_found() -> None:
    assert [card.parts[-3] for card in CARDS] == sorted(path.name for path in BUNDLES)
    assert {"README.md", "docs/guide/quickstart.md"} <= {name_of(page) for page in PAGES}
    assert len(CALLS) >= 8
    assert len(RUN) >= 3


@pytest.mark.parametrize(("place", "words"), CALLS, ids=[" ".join(words[:2]) for _, words in CALLS])
def test_command_lines_parse(place: str, words: list[str]) -> None:
    """Full lines: known command and options, all that is required given, values of the right kind."""
    name, *arguments = words
    assert name in COMMANDS, f"{place}: no command {name}"
    COMMANDS[name].make_context(name, arguments)


@pytest.mark.parametrize(("place", "words"), INLINE, ids=[" ".join(words[:2]) for _, words in INLINE])
def test_commands_in_the_text_exist(place: str, words: list[str]) -> None:
    name, *arguments = words
    assert name in COMMANDS, f"{place}: no command {name}"
    known = {option for parameter in COMMANDS[name].params for option in parameter.opts}
    assert {word.partition("=")[0] for word in arguments if re.match(r"--?[a-z]", word)} <= known, place


def test_a_wrong_option_would_be_found() -> None:
    with pytest.raises(Exception, match="No such option: --spacing"):
        COMMANDS["scan"].make_context("scan", ["images", "-o", "manifest.json", "--spacing", "1"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    text = CODE.sub("", page.read_text(encoding="utf-8"))
    for found in LINK.finditer(text):
        target, _, anchor = found["target"].partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        file = page.parent / target if target else page
        assert file.exists(), f"{name_of(page)} links to {target}, which does not exist"
        if anchor:
            assert anchor in headings(file), f"{name_of(page)} links to #{anchor}, which {name_of(file)} does not have"


def headings(page: Path) -> set[str]:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


@pytest.mark.parametrize("block", RUN, ids=[f"{block.page}:{block.line}" for block in RUN])
def test_examples_run(block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block.code, f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})


def test_json_examples_are_json() -> None:
    for block in ALL_BLOCKS:
        if block.info == "json":
            json.loads(block.code)


@pytest.mark.parametrize("bundle", BUNDLES, ids=lambda bundle: bundle.name)
def test_cards_name_the_configs(bundle: Path) -> None:
    """Every config named exists, and every config but the metadata has a command."""
    text = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    present = {path.name for path in (bundle / "configs").glob("*.json")}
    named = set(re.findall(r"(?<!/)configs/([\w.]+\.(?:json|conf))", text))
    assert named <= {*present, "logging.conf"}
    commands = " ".join(block.code for block in blocks(bundle / "docs" / "README.md") if block.info == "sh")
    assert present - {"metadata.json"} <= set(re.findall(r"configs/([\w.]+\.json)", commands))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_of_the_project_exist(page: Path) -> None:
    folders = "bundles|benchmarks|data_manifests|tests"
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\.(?:json|md|py|csv)", text):
        assert (ROOT / name).exists(), f"{name_of(page)} names {name}, which does not exist"


CONFIG_RUNS = [(place, words) for place, words in SHELL if "monai.bundle" in words]


@pytest.mark.parametrize(
    ("place", "words"), CONFIG_RUNS, ids=[f"{place} {number}" for number, (place, _) in enumerate(CONFIG_RUNS)]
)
def test_bundle_commands_name_settings(place: str, words: list[str]) -> None:
    """The overrides of ``monai.bundle`` commands are ids of the configs that they load, or go into one of them."""
    following = dict(itertools.pairwise(words))
    files = re.findall(r"configs/\w+\.json", following.get("--config_file", ""))
    own = place.split("/")[1] if place.startswith("bundles/") else "xray_infoaug_pretraining"
    own = next((word.split("/")[1] for word in words if word.startswith("bundles/")), own)
    known: set[str] = {"args_file", "bundle_root", "ckpt_file", "config_file", "filepath", "meta_file"}
    for file in files:
        known |= json.loads((ROOT / "bundles" / own / file).read_text(encoding="utf-8")).keys()
    after = words[words.index("monai.bundle") :]
    assert {word.removeprefix("--").split("::")[0] for word in after if word.startswith("--")} <= known, place


def test_settings_named_in_the_pages_exist() -> None:
    train = json.loads((ROOT / "bundles/xray_infoaug_pretraining/configs/train.json").read_text(encoding="utf-8"))
    page = (ROOT / "docs" / "guide" / "bundles.md").read_text(encoding="utf-8")
    table = page.partition("| id | meaning |")[2].partition("\n\n")[0]
    named = {name for row in table.splitlines()[2:] for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert len(named) > 15
    assert named <= train.keys()
    for place, words in CALLS:
        settings = {word.split("=")[0].split("::")[0] for word in words if re.match(r"[a-z_:]+=", word)}
        if words[0] == "pretrain" and settings:
            name = next((bundle.name for bundle in BUNDLES if bundle.name in words), PRETRAINING)
            config = (ROOT / "bundles" / name / "configs" / "train.json").read_text(encoding="utf-8")
            assert settings <= json.loads(config).keys(), place


REFERENCE = re.findall(r"^::: ([\w.]+)$", (ROOT / "docs" / "reference.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("name", REFERENCE)
def test_reference_names_what_exists(name: str) -> None:
    assert pkgutil.resolve_name(name).__doc__


@pytest.mark.parametrize("stub", STUBS, ids=lambda stub: stub.parent.name)
def test_reference_lists_the_public_names(stub: Path) -> None:
    """Every name that a package exports stands in the reference; those of the front door stand there once."""
    package = ".".join(stub.parent.relative_to(ROOT).parts)
    exported = set(re.findall(r" as (\w+)", stub.read_text(encoding="utf-8")))
    listed = {name.rpartition(".")[2] for name in REFERENCE if name.rpartition(".")[0] in (package, "medpixcl")}
    assert exported <= listed


def test_level_table() -> None:
    """The table of levels in CONTRIBUTING.md is that of the test that guards them."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", text, re.MULTILINE)
    table = {unit: int(level) for level, cells in rows for unit in re.findall(r"`(\w+)`", cells)}
    assert table == LEVELS


def test_extras_table() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    section = (ROOT / "docs" / "index.md").read_text(encoding="utf-8").partition("## Extras")[2].partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]*) \|", section, re.MULTILINE)
    assert {name for cell in first_cells for name in re.findall(r"`([\w-]+)`", cell)} == extras.keys()


def test_every_page_is_in_the_navigation() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    entries = [page for entry in config["nav"] for page in entry.values()]
    nested = [list(entry.values()) for section in entries if isinstance(section, list) for entry in section]
    listed = [page for page in entries if isinstance(page, str)] + list(itertools.chain(*nested))
    docs = ROOT / "docs"
    assert sorted(listed) == sorted(page.relative_to(docs).as_posix() for page in docs.rglob("*.md"))
