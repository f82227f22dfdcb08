"""Printing of messages and tables by the commands."""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task, TaskID
from rich.table import Column, Table
from rich.text import Text

from medpixcl.apps import progress
from medpixcl.data.reasons import SHOWN, Reasons
from medpixcl.data.result_folders import REJECTED_TABLE

if TYPE_CHECKING:
    import medpixcl.apps.output
    import medpixcl.apps.results

SOME_FAILED = 3
"""Exit status of a run that finished, though some of its images could not be searched."""
console = Console(markup=False, highlight=False)  # file names may hold brackets


def say(text: str, style: str | None = None) -> None:
    """Print a line unchanged; the terminal wraps it."""
    console.print(text, style=style, soft_wrap=True)


def say_left_out(rejected: Mapping[str, str], listed_in: Path | None = None) -> None:
    """Print the images that were left out, with the reasons.

    Args:
        rejected: Reason for every image.
        listed_in: File that lists all of them, of which a summary is printed; without one all are printed.
    """
    lines = [f"rejected {path}: {reason}" for path, reason in rejected.items()]
    if listed_in is not None and len(lines) > SHOWN:
        lines = [*Reasons(rejected.items()).lines(), f"rejected {len(rejected)} files in all; {listed_in} lists them"]
    for line in lines:
        say(line, style="yellow")


def say_results(
    results: "medpixcl.apps.results.Results", not_written: Sequence[Any], output: "medpixcl.apps.output.Output"
) -> None:
    """Print what a run left out, its warnings, its errors, and where its files are.

    Args:
        results: Results of the run.
        not_written: What a format cannot hold.
        output: Settings with which they were written.

    Raises:
        typer.Exit: With status 3 if an image could not be searched, while the others were.
    """
    folder, part = output.folder, output.part_id
    table = None if part is not None else folder / REJECTED_TABLE
    say_left_out(results.rejected, table)
    for one in not_written[:SHOWN]:
        say(f"no {one.format} of {one.image}: {one.reason}", style="yellow")
    if len(not_written) > SHOWN:
        say(f"{len(not_written)} images could not be written in a format; {table} lists them", style="yellow")
    for warning in results.warnings:
        say(warning, style="yellow")
    for fact in (name for name in ("reading habit", "measured") if name in results.facts):
        say(f"{fact}: {results.facts[fact]}")
    if results.metrics is not None:
        print_metrics(results.metrics)
    say(results.summary)
    if part is not None:
        say(
            f"part {part} of {output.num_parts} is kept in {folder}; after all parts the same command without "
            "--part-id puts them together"
        )
    else:
        say(f"report: {folder / 'report.html'}; landmarks: {folder / 'landmarks.csv'}")
    if results.failed:
        if table is not None:
            say(f"not searched, with the reason: {table}")
        raise typer.Exit(SOME_FAILED)


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar for every step of a command, and remove them at its end.

    Yields:
        Function to call with the name of a step, its number of finished items and their total.
    """
    with Progress(console=console, transient=True) as bars:
        tasks: dict[str, TaskID] = {}

        def show(step: str, done: int, total: int) -> None:
            if step not in tasks:
                tasks[step] = bars.add_task(step)
            bars.update(tasks[step], completed=done, total=total)

        yield show


class RateColumn(ProgressColumn):
    """Column of a progress bar with the number of items finished per second; the task's field ``unit`` names them."""

    def render(self, task: Task) -> Text:
        """Show the rate."""
        return Text(f"{task.completed / task.elapsed:.1f} {task.fields['unit']}/s" if task.elapsed else "")


class ProgressLines(progress.ProgressLines):
    """Prints a line about a long step now and then, in the output of the command."""

    def show(self, line: str) -> None:
        """Print a line."""
        say(line)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say_log() -> None:
    """Print what the package logs while a command runs, such as which weights were loaded."""
    logger = logging.getLogger("medpixcl")
    if not any(isinstance(handler, _Saying) for handler in logger.handlers):
        logger.addHandler(_Saying())
    logger.setLevel(logging.INFO)


def print_table(rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a table whose first row is the header."""
    header, *body = rows
    table = Table(*[Column(name, overflow="fold") for name in header], title=title)
    for row in body:
        table.add_row(*[str(cell) for cell in row])
    console.print(table)


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print the overall error of a run."""
    from medpixcl.reports.tables import overall_rows

    print_table(overall_rows(metrics))


def print_comparison(comparisons: list[tuple[str, dict[str, Any]]]) -> None:
    """Print the overall errors of several runs, one row each; what is not known stays a dash."""
    from medpixcl.reports.tables import ABSENT, decimals

    rows = [("method", "MRE (mm)", "95 % interval", "median (mm)")]
    for name, metrics in comparisons:
        bounds = metrics["interval_95"]
        mean, median = (
            ABSENT if one is None else decimals(one, 1) for one in (metrics["mre_mm"], metrics["median_mm"])
        )
        interval = ABSENT if bounds is None else " to ".join(decimals(bound, 1) for bound in bounds["mre_mm"])
        rows.append((name, mean, interval, median))
    print_table(rows)
