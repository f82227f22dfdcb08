"""Command line: parse, call the bundle's workflow or the function, print."""

import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

import medpixcl

app = typer.Typer(
    help="Pixel embeddings learnt without labels, and landmarks found from one annotated image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(markup=False, highlight=False)  # file names may hold brackets

Spacing = Annotated[
    float | None, typer.Option("--spacing-mm", min=1e-6, help="Pixel size in mm of pictures that do not say theirs.")
]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override of a setting; may be repeated.")
]


def _version(wanted: bool) -> bool:
    if wanted:
        console.print(f"medpixcl {medpixcl.__version__}")
        raise typer.Exit
    return wanted


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def scan(
    paths: Annotated[list[Path], typer.Argument(help="Folders or files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Manifest to write (.json).")],
    spacing_mm: Spacing = None,
    landmarks: Annotated[Path | None, typer.Option(help="Landmark file or folder.")] = None,
    split: Annotated[Path | None, typer.Option(help="CSV that gives each image a split.")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the images, kept in the manifest.")] = None,
) -> None:
    """List the images under some folders in a manifest; whatever is not usable is listed with its reason."""
    from medpixcl.data.manifest import SUMMARY_COLUMNS
    from medpixcl.data.scan import scan as scan_images

    with Progress(console=console, transient=True) as progress:
        task = progress.add_task("Reading images", total=None)
        manifest = scan_images(
            paths,
            spacing_mm=spacing_mm,
            landmarks=landmarks,
            split=split,
            licence=licence,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    manifest.write(output)
    rows = [[row[column] for column in SUMMARY_COLUMNS] for row in manifest.summary()]
    _print_table([SUMMARY_COLUMNS, *rows], title=f"{manifest.name}: {output}")
    if not any(True for _ in manifest.entries()):
        raise ValueError(f"nothing usable found in {', '.join(map(str, paths))}: the reasons are in {output}")


@app.command()
def pretrain(
    bundle: Annotated[Path, typer.Argument(help="Folder of a pretraining bundle.")],
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan`.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the run; a second call resumes.")],
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs in all.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...")] = None,
    config: Annotated[list[Path] | None, typer.Option(help="Config file put over the bundle's own.")] = None,
    settings: Settings = None,
) -> None:
    """Pretrain a network without labels; TensorBoard logs, checkpoints and the best weights go to the run's folder."""
    from medpixcl.engines.workflow import find_bundle, parse_settings, run_bundle

    overrides: dict[str, Any] = {"data_list_file_path": str(data), "output_dir": str(output)}
    overrides["ckpt_dir"] = str(output / "models")
    if epochs is not None:
        overrides["max_epochs"] = epochs
    if device is not None:
        overrides["device"] = _checked_device(device)
    overrides |= parse_settings(settings or [])
    run_bundle(find_bundle(str(bundle), ""), "train", overrides, extra_configs=config or [])
    _say(f"weights: {output / 'models' / 'model.pt'}; curves: tensorboard --logdir {output}")


@app.command()
def match(
    template: Annotated[Path, typer.Option(help="The annotated image.")],
    landmarks: Annotated[Path, typer.Option(help="Its landmarks: CSV, .mrk.json, .fcsv or a folder of these.")],
    images: Annotated[Path, typer.Option(help="Images to search: a file, a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    bundle: Annotated[str | None, typer.Option(help="Folder of a matching bundle.")] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of the network; the bundle's own by default.")] = None,
    reference: Annotated[Path | None, typer.Option(help="Landmark file with true positions, to measure.")] = None,
    spacing_mm: Spacing = None,
    settings: Settings = None,
) -> None:
    """Find the landmarks of one annotated image in other images."""
    from medpixcl.engines.workflow import find_bundle, parse_settings, run_bundle

    folder = find_bundle(bundle, "xray_landmark_matching")
    overrides: dict[str, Any] = {
        "template": str(template),
        "landmarks": str(landmarks),
        "images": str(images),
        "output_dir": str(output),
        "spacing_mm": spacing_mm,
        "reference": None if reference is None else str(reference),
        "facts": {"bundle": folder.resolve().name, "weights": weights.name if weights else "of the bundle"},
    }
    if weights is not None:
        overrides["weights"] = str(weights)
    overrides |= parse_settings(settings or [])
    workflow = run_bundle(folder, "inference", overrides, kind="infer")
    rejected = workflow.parser.get_parsed_content("found").rejected
    for path, reason in rejected.items():
        _say(f"rejected {path}: {reason}", style="yellow")
    metrics = workflow.parser.get_parsed_content("handlers")[1].metrics
    if metrics is not None:
        _print_metrics(metrics)
    _say(f"report: {output / 'report.html'}; landmarks: {output / 'landmarks.csv'}")


@app.command()
def evaluate(
    predictions: Annotated[Path, typer.Option(help="Landmark file with predicted positions.")],
    reference: Annotated[Path, typer.Option(help="Landmark file with true positions.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="metrics.json")],
    exclude: Annotated[Path | None, typer.Option(help="Text file, one image per line, left out.")] = None,
) -> None:
    """Measure predicted against true landmarks: MRE, median, p95, SDR, each landmark, bootstrap intervals."""
    from medpixcl.data.landmark_files import read_landmarks
    from medpixcl.landmarks.metrics import evaluate_positions
    from medpixcl.reports.tables import write_metrics_json

    lines = [] if exclude is None else exclude.read_text(encoding="utf-8-sig").splitlines()
    excluded = [line.strip() for line in lines if line.strip()]
    predicted, true = (read_landmarks(path).positions_mm() for path in (predictions, reference))
    metrics = evaluate_positions(predicted, true, exclude=excluded)
    write_metrics_json(output, metrics)
    _print_metrics(metrics)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the demo.")] = Path("demo"),
) -> None:
    """Radiographs rendered from a chest CT, a small pretraining, landmarks matched from one view; minutes on a CPU."""
    from medpixcl.engines.demo import run_demo

    _print_comparison(run_demo(output, report=_say))
    _say(f"report: {output / 'report.html'}")


@app.command()
def doctor() -> None:
    """What is installed, which devices there are, which extras are missing."""
    from medpixcl.engines.doctor import diagnose

    _print_table([("what", "found", "note"), *diagnose()], title=f"medpixcl {medpixcl.__version__}")


def _say(text: str, style: str | None = None) -> None:
    """A line as it is: breaking it is left to the terminal."""
    console.print(text, style=style, soft_wrap=True)


def _checked_device(name: str) -> str:
    import torch

    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"the device {name!r} cannot be used ({reason}); give cpu, or what `doctor` lists") from None
    return name


def _print_metrics(metrics: dict[str, Any]) -> None:
    from medpixcl.reports.tables import overall_rows

    _print_table(overall_rows(metrics))


def _print_comparison(comparisons: list[tuple[str, dict[str, Any]]]) -> None:
    rows = [("start", "MRE (mm)", "95 % interval", "median (mm)")]
    for name, metrics in comparisons:
        low, high = metrics["interval_95"]["mre_mm"]
        rows.append((name, f"{metrics['mre_mm']:.1f}", f"{low:.1f} to {high:.1f}", f"{metrics['median_mm']:.1f}"))
    _print_table(rows)


def _print_table(rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    header, *body = rows
    table = Table(*[Column(name, overflow="fold") for name in header], title=title)
    for row in body:
        table.add_row(*[str(cell) for cell in row])
    console.print(table)


def main() -> None:
    """Run the program; bad input ends with one sentence and exit status 2."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
    try:
        app()
    except (ValueError, ModuleNotFoundError, FloatingPointError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"{error.filename}: {error.strerror}" if error.filename else str(error))


def _fail(reason: str) -> NoReturn:
    Console(stderr=True).print(f"medpixcl: {reason}", style="red", markup=False, highlight=False, soft_wrap=True)
    sys.exit(2)
