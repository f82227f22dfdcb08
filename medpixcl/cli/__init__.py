"""The command line: parse arguments, call :mod:`medpixcl.apps`, print the result."""

from medpixcl.cli.program import app, main

__all__ = ["app", "main"]
