"""``nnctl check``: what a configuration comes to, and why a run does not learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import config_options, output_options, read_overrides


@click.command(epilog="Example: nnctl check configs/relu.yaml --gradients")
@click.argument("source", metavar="CONFIG|RUN", type=click.Path(path_type=Path), required=False)
@config_options
@click.option(
    "--gradients",
    is_flag=True,
    help="Compare backpropagation with central differences; exit 1 if it is wrong.",
)
@click.option("--activations", is_flag=True, help="List and draw all activations.")
@output_options
def check(
    source: Path | None,
    gradients: bool,
    activations: bool,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    """Explain CONFIG before any training, or say why RUN, a run directory, does not learn.

    Shows layers, shapes, parameters, how they begin, memory and steps, and warns of what will not
    learn. A RUN is told of by the health of its layers.
    """
    from nnctl.files import to_json_text
    from nnctl.runs.directory import Run
    from nnctl.runs.inspection import inspect, inspect_run, report_gradients, trained_network
    from nnctl.runs.plan import load_config
    from nnctl.views.check import show_gradients, show_inspection

    settings = read_overrides(**overrides)
    if activations == (source is not None) or (activations and (settings or gradients)):
        raise click.UsageError("a CONFIG or a RUN is needed, or --activations alone")
    if source is None:
        _show_activations(as_json)
        return
    trained = None
    if source.is_dir():
        if settings:
            raise click.UsageError("a RUN keeps its configuration: leave out the other options")
        run = Run.open(source)
        config, trained = run.config, trained_network(run)
        inspection = inspect_run(run, trained)
    else:
        config = load_config(source, settings)
        inspection = inspect(config)
    report = report_gradients(config, trained) if gradients else None
    if as_json:
        checked = {"gradients": report.to_json()} if report else {}
        click.echo(to_json_text(inspection.to_json() | checked))
    elif not quiet:
        show_inspection(str(source), inspection)
        if report:
            show_gradients(report)
    if report:
        report.raise_unless_right()


def _show_activations(as_json: bool) -> None:
    from nnctl.files import to_json_text
    from nnctl.runs.inspection import list_activations
    from nnctl.views.check import show_activations

    if as_json:
        click.echo(to_json_text({"activations": list_activations()}))
    else:
        show_activations()
