"""`medpixcl leak-probe`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from medpixcl.cli.console import progress_bars, say
from medpixcl.cli.options import Configs, Settings, Trust, chosen_bundle


def leak_probe(
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan`.")],
    bundle: Annotated[
        str | None,
        typer.Option(help="Name or folder of a mix-up pretraining bundle; xray_mixup_pretraining by default."),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="File pretraining.pt of a run, to print the R2 of its network as well.")
    ] = None,
    mixtures: Annotated[int, typer.Option(min=50, help="Number of mixtures to draw.")] = 400,
    config: Configs = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Measure how well global statistics alone predict the opacity of mixtures (lower is better)."""
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.mixing_probe import probe_bundle

    folder = chosen_bundle(bundle, "xray_mixup_pretraining", configs=config, trust=trust)
    with progress_bars() as show:
        found = probe_bundle(
            folder,
            data,
            mixtures=mixtures,
            weights=weights,
            overrides=parse_settings(settings or []),
            extra_configs=config or [],
            progress=partial(show, "mixing"),
        )
    say(str(found.leak))
    if found.network_r2 is not None:
        say(f"network: R2 {found.network_r2:.3f} on the same mixtures")
