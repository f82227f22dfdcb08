"""PixPro with an exogenous channel and its controls: the same training of a bundle, once for every control and seed.

Prints the error on held-out views and the positives of the last epoch; a claim about depth needs "none" to be better
than "shuffled" and "random_deletion" by more than the seeds differ, and a downstream task besides.

    python benchmarks/depth_controls.py bundles/xray_depth_pixpro_pretraining --data manifest.json -o runs/controls
"""

import argparse
import statistics
from pathlib import Path

from medpixcl.engines.controls import CONTROLS
from medpixcl.engines.workflow import parse_settings, run_bundle


def train(bundle: Path, data: str, output: Path, control: str, seed: int, settings: list[str]) -> dict[str, float]:
    """Train once; best error on the held-out views, and the means over the last epoch's positives."""
    overrides = {"data_list_file_path": data, "output_dir": str(output), "ckpt_dir": str(output / "models")}
    workflow = run_bundle(bundle, "train", {**overrides, "control": control, "seed": seed, **parse_settings(settings)})
    trainer, evaluator = (workflow.parser.get_parsed_content(f"{name}") for name in ENGINES)
    return {"val_pixel_error": evaluator.state.best_metric, **trainer.state.metrics}


ENGINES = ("train::trainer", "validate::evaluator")


def main() -> None:
    """Train all, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--data", required=True, help="manifest; for the control labels it names `labels`, too")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--controls", nargs="+", choices=CONTROLS, default=[c for c in CONTROLS if c != "labels"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--set", action="append", default=[], help="key=value of the configuration")
    options = parser.parse_args()
    print("| control | val_pixel_error | spread | kill rate at the largest T | positives |\n|---|---|---|---|---|")
    for control in options.controls:
        runs = [
            train(options.bundle, options.data, options.output / f"{control}_{seed}", control, seed, options.set)
            for seed in options.seeds
        ]
        errors = [run["val_pixel_error"] for run in runs]
        spread = statistics.stdev(errors) if len(errors) > 1 else float("nan")
        tag = [name for name in runs[0] if name.startswith("pairs/kill_rate_")][-1].removeprefix("pairs/kill_rate_")
        killed, kept = (
            statistics.mean(run[f"pairs/{name}_{tag}"] for run in runs) for name in ("kill_rate", "positives")
        )
        print(f"| {control} | {statistics.mean(errors):.3f} | {spread:.3f} | {killed:.3f} | {kept:.0f} |", flush=True)


if __name__ == "__main__":
    main()
