"""Command line: parse, call the bundle's workflow or the function, print."""

from medpixcl.cli.program import app, main

__all__ = ["app", "main"]
