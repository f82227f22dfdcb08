"""The program: its commands, and how it exits on bad input."""

import inspect
import io
import os
import sys
import warnings
from functools import cache
from typing import Annotated, NoReturn

import typer
from rich.console import Console

import medpixcl
from medpixcl import limits
from medpixcl._cpus import set_threads
from medpixcl.apps.run_folder import FinishedError
from medpixcl.cli.adapt import adapt
from medpixcl.cli.bundles import bundles
from medpixcl.cli.calibrate import calibrate
from medpixcl.cli.choose_template import choose_template
from medpixcl.cli.compare_controls import compare_controls
from medpixcl.cli.console import SOME_FAILED, console, say
from medpixcl.cli.demo import demo
from medpixcl.cli.detect import detect
from medpixcl.cli.doctor import doctor
from medpixcl.cli.estimate_jitter import estimate_jitter
from medpixcl.cli.evaluate import evaluate
from medpixcl.cli.export import export
from medpixcl.cli.finetune import finetune
from medpixcl.cli.leak_probe import leak_probe
from medpixcl.cli.match import match
from medpixcl.cli.measure import measure
from medpixcl.cli.option_names import as_options
from medpixcl.cli.pretrain import pretrain
from medpixcl.cli.register import register
from medpixcl.cli.scan import scan
from medpixcl.cli.selftrain import selftrain
from medpixcl.cli.signals import Stopped, stopping
from medpixcl.data.wording import wording
from medpixcl.limits import MAX_VOXELS

COMMANDS = (
    scan,
    estimate_jitter,
    pretrain,
    leak_probe,
    compare_controls,
    choose_template,
    calibrate,
    match,
    register,
    selftrain,
    adapt,
    finetune,
    detect,
    export,
    evaluate,
    measure,
    demo,
    doctor,
)

app = typer.Typer(
    help="Learn pixel embeddings without labels, and find landmarks from one annotated image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _command in COMMANDS:
    app.command()(_command)
app.add_typer(bundles, name="bundles")


def _version(wanted: bool) -> bool:
    if wanted:
        console.print(f"medpixcl {medpixcl.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
    max_voxels: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER",
            envvar=MAX_VOXELS,
            help="Largest number of voxels of an image; by default from the memory.",
        ),
    ] = None,
) -> None:
    """Options of the program itself."""
    if max_voxels is not None:
        os.environ[MAX_VOXELS] = max_voxels  # the processes that read images inherit it
        limits.max_voxels()


def main() -> None:
    """Run the program; on bad input it prints one sentence and exits with status 2, at a signal with that of it."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    set_threads()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names may hold bytes that are not UTF-8
    try:
        with wording(_in_options), stopping():
            app()
    except Stopped as stop:
        _end(str(stop), stop.status)
    except FinishedError as done:
        if done.failed:
            _end(str(done), SOME_FAILED)
        say(str(done))
    except (ValueError, ModuleNotFoundError, FloatingPointError) as error:
        _end(str(error), 2)
    except OSError as error:
        _end(f"{error.filename}: {error.strerror}" if error.filename else str(error), 2)


def _in_options(sentence: str) -> str:
    return as_options(sentence, _parameters())


@cache
def _parameters() -> frozenset[str]:
    """Names of the parameters of all commands."""
    return frozenset(name for command in COMMANDS for name in inspect.signature(command).parameters)


def _end(reason: str, status: int) -> NoReturn:
    reason = _in_options(reason)
    line = reason if reason.isprintable() else repr(reason)[1:-1]  # line breaks and bytes in a file's name
    Console(stderr=True).print(f"medpixcl: {line}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(status)
