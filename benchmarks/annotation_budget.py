"""How many images to annotate: error of matching on the ISBI 2015 cephalograms against the number of templates.

One template: seven named ones. More: sets of training images drawn at random, the same for every run. Nothing is
trained or chosen here; see :mod:`ceph` for the splits. With ``--corrected``, images of the split that a reader
corrected are templates beside each of the seven, as in ``medpixcl match --corrections``; the others are measured.

    python benchmarks/annotation_budget.py --split test1 --json budget.json
    python benchmarks/annotation_budget.py --split test1 --counts --corrected 1 3 --draws 2
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
    parser.add_argument("--corrected", type=int, nargs="*", default=[], help="numbers of corrected images")
    parser.add_argument("--draws", type=int, default=10, help="sets drawn for each number")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)

    cephalograms = Cephalograms(data=options.data, target=options.target)
    images = cephalograms.images(options.split)
    free = [name for name in cephalograms.images("train") if name not in images]
    results: dict[str, object] = {"split": options.split, "target": options.target, "images": images}
    print(f"{options.split}: {len(images)} images, target {options.target}; mean and spread over the sets")
    for count in options.counts:
        sets = list(NAMED) if count == 1 else drawn_sets(free, count, options.draws)
        report(results, f"{count} annotated", cephalograms, images, sets)
    for count in options.corrected:
        sets = [f"{one}+{others}" for one in NAMED for others in drawn_sets(images, count, options.draws)]
        report(results, f"1 annotated, {count} corrected", cephalograms, images, sets)
    if options.json:
        options.json.write_text(json.dumps(results, indent=1), encoding="utf-8")


def report(
    results: dict[str, object], title: str, cephalograms: Cephalograms, images: list[str], sets: list[str]
) -> None:
    """Measure sets of templates on the images that are not among them, print and keep the result."""
    network = cephalograms.matcher().network
    errors = cephalograms.matching_errors(network, images, sets, modes=("consistent",))["consistent"]
    others = {name: [number for number, image in enumerate(images) if image not in name.split("+")] for name in sets}
    rows = summaries({name: errors[name][others[name]] for name in sets})
    results[title] = rows
    means, within = [row["mre_mm"] for row in rows.values()], [row["sdr_percent"]["2"] for row in rows.values()]
    print(
        f"{title}: {np.mean(means):.2f} +- {np.std(means, ddof=1):.2f} mm (least {min(means):.2f}, greatest "
        f"{max(means):.2f}), {np.mean(within):.1f} % within 2 mm",
        flush=True,
    )


if __name__ == "__main__":
    main()
