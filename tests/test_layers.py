"""The arrow goes down only: a module imports lower levels, nothing beside it and nothing above."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "medpixcl"
LEVELS = {
    "_cpus": 0,
    "_json": 0,
    "_typing": 0,
    "_kernels": 0,
    "blur": 1,
    "coordinates": 1,
    "limits": 1,
    "informativeness": 2,
    "mutual_information": 2,
    "views": 2,
    "correspondence": 3,
    "landmarks": 3,
    "losses": 4,
    "data": 4,
    "transforms": 5,
    "networks": 5,
    "matching": 5,
    "reports": 6,
    "training": 7,
    "apps": 8,
    "cli": 9,
    "__main__": 10,
}


def unit(path: Path) -> str:
    """Name of the top-level module or folder a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_units(path: Path) -> set[str]:
    """Units of the package that a file imports, wherever in the file it does so."""
    units = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: write imports in full"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        units |= {name.split(".")[1] for name in names if name.startswith("medpixcl.")}
    return units - {"__version__"}


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py" or path.parent != PACKAGE)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = unit(path)
    assert own in LEVELS, f"{own} has no level"
    wrong = {other for other in imported_units(path) - {own} if LEVELS[other] >= LEVELS[own]}
    assert not wrong, f"{path.relative_to(PACKAGE)} (level {LEVELS[own]}) must not import {sorted(wrong)}"
