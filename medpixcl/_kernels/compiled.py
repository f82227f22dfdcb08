"""Loops compiled by numba."""

from collections.abc import Callable
from typing import Any

from numba import njit  # noqa: TID253 (this module is imported only where compiled loops are asked for)


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function for one core at its first call, and keep the result on disk where that is possible.

    Functions that call each other stay in one file: numba's cache on disk looks only at the file of the caller. Below
    this decorator stands ``typing.no_type_check``, which keeps run-time type checkers away from the bare function.
    """
    options = {"nogil": True, "error_model": "numpy"}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:  # no folder to keep it in, as in a read-only container without a home
        return njit(**options)(function)
