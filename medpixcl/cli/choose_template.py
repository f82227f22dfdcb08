"""`medpixcl choose-template`."""

from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import print_table, progress_bars, say, say_left_out
from medpixcl.cli.options import Device, MatchingBundle, MatchingWeights, Settings, Spacing, Trust, chosen_matcher

_SHOWN = 10


def choose_template(
    images: Annotated[Path, typer.Option(help="Unlabelled images: a folder or a manifest.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")],
    count: Annotated[int, typer.Option("-k", "--count", min=1, help="Number of images to choose.")] = 1,
    bundle: MatchingBundle = None,
    weights: MatchingWeights = None,
    spacing_mm: Spacing = None,
    split: Annotated[str | None, typer.Option(help="Section or split of the manifest; all images by default.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=2, help="Number of images to compare, drawn at random; all by default.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed.")] = 0,
    device: Device = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Choose the images most worth annotating: those whose anatomy is found again best in all others."""
    from medpixcl.apps.choose_template import ChoiceSettings, choose_templates, write_choice
    from medpixcl.apps.images import ImageList

    matcher = chosen_matcher(bundle, weights, settings, images, device=device, trust=trust)
    listed = ImageList(images, spacing_mm, spatial_dims=matcher.spatial_dims)
    listed.check()
    matcher.take_spacing(listed.datalist[0], of_network=True)
    with progress_bars() as show:
        choice = choose_templates(
            listed,
            matcher.preprocessing,
            matcher.model,
            matcher.model.strides,
            ChoiceSettings(count=count, limit=limit, seed=seed),
            split=split,
            progress=show,
        )
    write_choice(choice, listed, matcher.preprocessing, output)
    say_left_out(choice.rejected)
    rows = [(row["rank"], row["image"], f"{row['score']:.3f}") for row in choice.ranking]
    print_table([("rank", "image", "score"), *rows[:_SHOWN]], title=f"Best of {len(rows)} images")
    say(f"annotate: {', '.join(choice.chosen)}")
    say(f"all images: {output / 'ranking.csv'}")
