"""How many images to annotate: error of matching on the ISBI 2015 cephalograms against the number of templates.

One template: seven named ones. More: sets of training images drawn at random, the same for every run. No test image is
a template, and nothing is trained or chosen here; see :mod:`ceph` for the splits.

    python benchmarks/annotation_budget.py --split test1 --json budget.json
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from ceph import DATA, TARGETS, Cephalograms, summaries

NAMED = ("115", "125", "126", "144", "010", "050", "077")
"""Templates that others used or that stand in other tables here."""
SEED = 11


def drawn_sets(free: list[str], count: int, draws: int) -> list[str]:
    """Sets of ``count`` templates, each written with ``+`` between the names."""
    generator = np.random.default_rng([SEED, count])
    return ["+".join(sorted(generator.permutation(free)[:count].tolist())) for _ in range(draws)]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--split", choices=("dev", "test1"), default="dev")
    parser.add_argument("--target", choices=TARGETS, default=TARGETS[0])
    parser.add_argument("--counts", type=int, nargs="*", default=[1, 2, 3, 5, 10], help="numbers of templates")
    parser.add_argument("--draws", type=int, default=10, help="sets drawn for each number above 1")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data, target=options.target)
    images, network = cephalograms.images(options.split), cephalograms.matcher().network
    free = [name for name in cephalograms.images("train") if name not in images]
    results: dict[str, object] = {"split": options.split, "target": options.target, "images": images}
    print(f"{options.split}: {len(images)} images, target {options.target}; mean and spread over the sets")
    for count in options.counts:
        sets = list(NAMED) if count == 1 else drawn_sets(free, count, options.draws)
        measured = [name for name in images if name not in sets]
        errors = cephalograms.matching_errors(network, measured, sets, modes=("consistent",))["consistent"]
        rows = summaries(errors)
        results[str(count)] = rows
        means, rates = ([row[key] for row in rows.values()] for key in ("mre_mm", "sdr_percent"))
        within = np.mean([rate["2"] for rate in rates])
        spread = np.std(means, ddof=1) if len(means) > 1 else 0.0
        print(
            f"{count:2d} annotated: {np.mean(means):.2f} +- {spread:.2f} mm (least {min(means):.2f}, greatest "
            f"{max(means):.2f}), {within:.1f} % within 2 mm",
            flush=True,
        )
        if options.json:
            options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
