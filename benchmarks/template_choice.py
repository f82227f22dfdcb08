"""Does the label-free score of an image tell its error as the template? On training images of the ISBI 2015 set.

All 150 training images are ranked by ``medpixcl choose-template``. Five templates used elsewhere and others drawn at
random are then matched to the 40 development images of ``ceph.py``, with the annotations of training images
alone. An error has two parts that a score cannot both see: how well the image is found in others, and how well it was
annotated. The second, a shift common to all images, is separated by taking each landmark's median offset away.
Measuring takes 8 s a template; ``--measured`` keeps the offsets, and a second call adds those that it lacks.

    medpixcl scan $DATA/ceph_isbi2015/images -o manifest.json --spacing-mm 0.5 --split $DATA/ceph_isbi2015/splits.csv
    medpixcl choose-template --images manifest.json --split training -k 3 -o choice
    python benchmarks/template_choice.py --ranking choice/ranking.csv --json template_choice.json
"""

import argparse
import csv
import json
import time
from pathlib import Path
from typing import Any

import torch
from ceph import BUNDLE, DATA, TEMPLATES, Cephalograms
from torch import Tensor

from medpixcl.matching import LandmarkMatcher


def spearman(first: Tensor, second: Tensor) -> float:
    """Correlation of the ranks."""
    ranks = [values.argsort().argsort().double() for values in (first, second)]
    return float(torch.corrcoef(torch.stack(ranks))[0, 1])


def interval(first: Tensor, second: Tensor, repeats: int = 2000) -> list[float]:
    """95 % bootstrap interval of the rank correlation over templates."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(len(first), (repeats, len(first)), generator=generator)
    values = torch.tensor([spearman(first[draw], second[draw]) for draw in draws if len(draw.unique()) > 2])
    return [round(value, 2) for value in values.quantile(torch.tensor([0.025, 0.975])).tolist()]


def templates_of(cephalograms: Cephalograms, count: int) -> list[str]:
    """The templates used elsewhere, and training images drawn at random, none of them a development image."""
    left_out = {*cephalograms.images("dev"), *TEMPLATES}
    free = [name for name in cephalograms.images("train") if name not in left_out]
    order = torch.randperm(len(free), generator=torch.Generator().manual_seed(7)).tolist()
    return [*TEMPLATES, *[free[number] for number in order[:count]]]


def statistics(offsets: Tensor) -> dict[str, float]:
    """Errors of one template in mm, from offsets (images, landmarks, 2); ``matching`` is without the median offset."""
    error = torch.linalg.vector_norm(offsets, dim=2)
    matching = torch.linalg.vector_norm(offsets - offsets.median(dim=0).values, dim=2)
    return {
        "mre_mm": float(error.mean()),
        "median_mm": float(error.median()),
        "matching_mre_mm": float(matching.mean()),
        "matching_odd_mm": float(matching[1::2].mean()),
        "matching_even_mm": float(matching[::2].mean()),
    }


@torch.no_grad()
def measure(cephalograms: Cephalograms, weights: Path, templates: list[str]) -> dict[str, Tensor]:
    """Offsets in mm from the annotation, of every template to the development images, (images, landmarks, 2)."""
    embed, spacing = cephalograms.matcher(weights).model, [cephalograms.spacing_mm] * 2
    matchers = {}
    for name in templates:
        image = cephalograms.load(name)
        points = cephalograms.truth(name, image)
        matchers[name] = LandmarkMatcher().fit(embed, embed.strides, image.as_tensor()[None], points, spacing)
    offsets: dict[str, list[Tensor]] = {name: [] for name in templates}
    for query in cephalograms.images("dev"):
        image = cephalograms.load(query)
        levels, true = embed(image.as_tensor()[None]), cephalograms.truth(query, image)
        for name, matcher in matchers.items():
            if name != query:
                found = matcher.match(levels, image.shape[1:], spacing).voxels
                offsets[name].append((found - true) * cephalograms.spacing_mm)
    return {name: torch.stack(rows) for name, rows in offsets.items()}


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Rank correlations of score and error (negated, so that 1 is a perfect score), and what bounds them."""
    column = {key: torch.tensor([row[key] for row in rows]) for key in rows[0] if key != "image"}
    correlations = {
        f"{score} against {error}": {
            "spearman": round(spearman(column[score], -column[error]), 2),
            "interval_95": interval(column[score], -column[error]),
        }
        for score in ("score", "similarity", "found_back_percent")
        for error in ("mre_mm", "median_mm", "matching_mre_mm")
    }
    spreads = {error: float(column[error].std()) for error in ("mre_mm", "matching_mre_mm")}
    halves = spearman(column["matching_odd_mm"], column["matching_even_mm"])
    return {"correlations": correlations, "standard_deviation": spreads, "spearman_of_two_halves": round(halves, 2)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranking", type=Path, required=True, help="ranking.csv of choose-template")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--weights", type=Path, default=BUNDLE / "models" / "model.pt")
    parser.add_argument("--count", type=int, default=14, help="templates drawn at random")
    parser.add_argument("--more", default="", help="other templates to measure, not counted in the correlation")
    parser.add_argument("--measured", type=Path, help="file that keeps the offsets")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()

    cephalograms = Cephalograms(data=options.data)
    with options.ranking.open(encoding="utf-8", newline="") as stream:
        ranking = list(csv.DictReader(stream))
    judged = templates_of(cephalograms, options.count)
    templates = [*judged, *filter(None, options.more.split(","))]
    place = {Path(row["image"]).stem: row for row in ranking}
    known = torch.load(options.measured) if options.measured and options.measured.is_file() else {}
    if new := [name for name in templates if name not in known]:
        known |= measure(cephalograms, options.weights, new)
    if options.measured:
        torch.save(known, options.measured)
    keys = ("score", "similarity", "cycle_mm", "found_back_percent")
    rows = [
        {
            "image": name,
            "rank": int(place[name]["rank"]),
            **{key: float(place[name][key]) for key in keys},
            **statistics(known[name]),
        }
        for name in sorted(templates, key=lambda name: int(place[name]["rank"]))
    ]
    for row in rows:
        print("  ".join(f"{key} {value:.3f}" if isinstance(value, float) else f"{value}" for key, value in row.items()))
    summary = summarise([row for row in rows if row["image"] in judged])
    result = {"images": cephalograms.images("dev"), "templates": rows, **summary}
    print(json.dumps(summary, indent=1))
    print(f"{time.monotonic() - start:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
