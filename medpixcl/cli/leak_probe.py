"""`medpixcl leak-probe`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from medpixcl.cli.console import console, say
from medpixcl.cli.options import Settings, Trust, chosen_bundle


def leak_probe(
    data: Annotated[Path, typer.Option(help="Manifest from `medpixcl scan`.")],
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a mix-up pretraining bundle.")] = None,
    weights: Annotated[
        Path | None, typer.Option(help="pretraining.pt of a run: the network's own R2 stands beside.")
    ] = None,
    mixtures: Annotated[int, typer.Option(min=50, help="Number of mixtures drawn.")] = 400,
    config: Annotated[list[Path] | None, typer.Option(help="Config file put over the bundle's own.")] = None,
    settings: Settings = None,
    trust: Trust = False,
) -> None:
    """Find how well the opacity of mixtures can be read from global statistics alone: low is good."""
    from medpixcl.apps.bundles import parse_settings
    from medpixcl.apps.mixing_probe import probe_bundle

    folder = chosen_bundle(bundle, "xray_mixup_pretraining", configs=config, trust=trust)
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("mixing", total=None)
        found = probe_bundle(
            folder,
            data,
            mixtures=mixtures,
            weights=weights,
            overrides=parse_settings(settings or []),
            extra_configs=config or [],
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    say(str(found.leak))
    if found.network_r2 is not None:
        say(f"network: R2 {found.network_r2:.3f} on the same mixtures")
