"""``nnctl check``: check a configuration before training, or diagnose a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import config_options, output_options, read_overrides


@click.command(
    epilog="Example: nnctl check configs/relu.yaml --gradients",
    help="""Check a configuration before training, or diagnose a run.

    For CONFIG, a YAML file, shows layers, shapes, parameters, initialization, memory and steps,
    and warns of settings that prevent learning. For RUN, a run directory, shows the health of
    each layer.
    """,
)
@click.argument("source", metavar="CONFIG|RUN", type=click.Path(path_type=Path), required=False)
@config_options
@click.option(
    "--gradients",
    is_flag=True,
    help="Compare backpropagation with numerical gradients; exit 1 if they differ.",
)
@click.option(
    "--samples",
    type=click.IntRange(min=1, max=1000),
    metavar="N",
    help="Show N training images as the network sees them.",
)
@click.option("--activations", is_flag=True, help="List and plot all activation functions.")
@output_options
def check(
    source: Path | None,
    gradients: bool,
    samples: int | None,
    activations: bool,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    from nnctl.analysis.inspection import (
        inspect,
        inspect_run,
        report_gradients,
        sample_images,
        trained_network,
    )
    from nnctl.files import to_json_text
    from nnctl.runs.resolve import load_config
    from nnctl.runs.run import Run
    from nnctl.views.check import show_gradients, show_inspection, show_samples

    settings = read_overrides(**overrides)
    if activations == (source is not None) or (activations and (settings or gradients or samples)):
        raise click.UsageError("expected a CONFIG, a RUN, or --activations alone")
    if source is None:
        _show_activations(as_json)
        return
    trained = None
    if source.is_dir():
        if settings:
            raise click.UsageError(
                "the configuration of a RUN is fixed: remove the options that change it"
            )
        run = Run.open(source)
        config, trained = run.config, trained_network(run)
        inspection = inspect_run(run, trained)
    else:
        config = load_config(source, settings)
        inspection = inspect(config)
    images = sample_images(config, samples) if samples else []
    report = report_gradients(config, trained) if gradients else None
    if as_json:
        result = inspection.to_json()
        if images:
            result["samples"] = [sample.to_json() for sample in images]
        if report:
            result["gradients"] = report.to_json()
        click.echo(to_json_text(result))
    elif not quiet:
        show_inspection(str(source), inspection)
        if images:
            show_samples(images, config.data.dataset, config.training.adversarial)
        if report:
            show_gradients(report)
    if report:
        report.raise_unless_right()


def _show_activations(as_json: bool) -> None:
    from nnctl.analysis.inspection import list_activations
    from nnctl.files import to_json_text
    from nnctl.views.check import show_activations

    if as_json:
        click.echo(to_json_text({"activations": list_activations()}))
    else:
        show_activations()
