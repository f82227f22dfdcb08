"""Identify the landmarks of the face by their names in a file."""

import re
from collections.abc import Mapping, Sequence
from functools import cache

from medpixcl.landmarks.cephalometry.definitions import read_table


def landmark_roles(names: Sequence[str], given: Mapping[str, str] | None = None) -> tuple[str | None, ...]:
    """Find the standard abbreviation of each landmark, None for unknown ones.

    Known names are the abbreviations (``S``, ``Pog'``, ``ANS``) and English names (``sella``, ``subspinale (A)``),
    regardless of case. If all names are numbers from 1 to 19, they follow the order of the ISBI 2015 challenge.

    Args:
        names: Names of the landmarks in the file.
        given: Mapping from names in the file to known names (abbreviation or English).

    Raises:
        ValueError: If no name is known, a name in ``given`` is unknown, or two landmarks are the same.

    Example:
        >>> landmark_roles(["1", "2", "19"])
        ('S', 'N', 'Ar')
        >>> landmark_roles(["Sella", "soft tissue pogonion", "my point"])
        ('S', "Pog'", None)
        >>> landmark_roles(["p1", "p2"], {"p1": "sella"})
        ('S', None)
    """
    renamed = dict(given or {})
    numbered = _isbi_order() if all(name in _isbi_order() for name in names) else {}
    roles = tuple(_role_of(renamed[name]) if name in renamed else numbered.get(name) or _known(name) for name in names)
    if not any(roles):
        raise ValueError(
            f"none of the landmarks {', '.join(map(repr, names[:5]))}{'...' if len(names) > 5 else ''} is a known "
            "cephalometric landmark; expected names such as S or sella, or the numbers 1 to 19: give their names."
        )
    for name, role in zip(names, roles, strict=True):
        if role is not None and (first := names[roles.index(role)]) != name:
            raise ValueError(f"the landmarks {first!r} and {name!r} both stand for {role}; keep one of the two.")
    return roles


@cache
def _isbi_order() -> dict[str, str]:
    entries = read_table("landmarks.json")
    return {str(entry["isbi_2015"]): entry["role"] for entry in entries if entry["isbi_2015"] is not None}


@cache
def _by_name() -> dict[str, str]:
    return {
        _plain(name): entry["role"]
        for entry in read_table("landmarks.json")
        for name in (entry["role"], entry["name"], *entry["aliases"])
    }


def _known(name: str) -> str | None:
    return _by_name().get(_plain(name))


def _role_of(name: str) -> str:
    if (role := _known(name)) is None:
        raise ValueError(f"{name!r} is no known cephalometric landmark; expected names such as S, sella, ANS or Pog'.")
    return role


def _plain(name: str) -> str:
    return re.sub(r"[\s_\-()]+", "", name).casefold()
