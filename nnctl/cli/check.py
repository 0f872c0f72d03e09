"""``nnctl check``: check a configuration before training, or diagnose a run."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.analysis import inspection as inspections
from nnctl.cli.options import RUN_OR_CONFIG, output_options, override_options, print_json
from nnctl.config import Override
from nnctl.config.presets import is_preset
from nnctl.errors import NnctlError
from nnctl.runs.resolve import load_config
from nnctl.runs.run import Run
from nnctl.views.check import (
    show_activations,
    show_gradients,
    show_inspection,
    show_samples,
    show_statistics,
)
from nnctl.views.console import results
from nnctl.views.diagnosis import show_diagnoses


@click.command(
    epilog="Example: nnctl check relu --gradients",
    help="""Check a configuration before training, or diagnose a run.

    CONFIG is a YAML file, the name of a preset (see nnctl presets), or - for standard input. Shows
    layers, shapes, parameters, initialization, memory and steps, and warns of settings that
    prevent learning. Cures of problems of the initial weights have been tried on this very
    network. RUN is a run directory; --layers shows the health of its layers.
    With --quiet, prints only the problems found.
    """,
)
@click.argument("source", metavar="CONFIG|RUN", type=RUN_OR_CONFIG, required=False)
@override_options
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
@click.option(
    "--layers", is_flag=True, help="Show statistics of each layer: initial, and by epoch."
)
@click.option("--strict", is_flag=True, help="Exit 1 if a problem is found.")
@click.option("--activations", is_flag=True, help="List and plot all activation functions.")
@click.option(
    "--one-scale",
    is_flag=True,
    help="With --activations: plot function and derivative on one scale.",
)
@output_options
def check(
    source: Path | None,
    gradients: bool,
    samples: int | None,
    layers: bool,
    strict: bool,
    activations: bool,
    one_scale: bool,
    as_json: bool,
    quiet: bool,
    overrides: list[Override],
) -> None:
    others = overrides or gradients or samples or layers
    if activations == (source is not None) or (activations and others):
        raise click.UsageError("expected a CONFIG, a RUN, or --activations alone")
    if one_scale and not activations:
        raise click.UsageError("--one-scale needs --activations")
    if source is None:
        if as_json:
            softmax = inspections.softmax_of_large_numbers()
            print_json({"activations": inspections.list_activations(), "softmax": softmax})
        else:
            show_activations(one_scale=one_scale)
        return
    run = trained = None
    # A folder that is not a run may have the name of a preset.
    if source.is_dir() and (Run(source).config_path.exists() or not is_preset(source)):
        if overrides:
            raise click.UsageError(
                "the configuration of a RUN is fixed: remove the options that change it"
            )
        run = Run.open(source)
        config, trained = run.config, inspections.trained_network(run)
        inspection = inspections.inspect_run(run, trained)
    else:
        config = load_config(source, overrides)
        inspection = inspections.inspect(config)
    images = inspections.sample_images(config, samples) if samples else []
    statistics = inspections.layer_statistics(config, run) if layers else []
    report = inspections.report_gradients(config, trained) if gradients else None
    if as_json:
        result = inspection.to_json()
        if images:
            result["samples"] = [sample.to_json() for sample in images]
        if statistics:
            result["statistics"] = [one.to_json() for one in statistics]
        if report:
            result["gradients"] = report.to_json()
        print_json(result)
    elif quiet:
        show_diagnoses(results(), "Problems found:", inspection.diagnoses)
    else:
        show_inspection(str(source), inspection)
        if statistics:
            show_statistics(config, statistics)
        if images:
            show_samples(images, config.data.dataset, config.training.adversarial)
        if report:
            show_gradients(report)
    if report:
        report.raise_unless_right()
    if strict and inspection.diagnoses:
        count = len(inspection.diagnoses)
        raise NnctlError(f"{count} problem{'s' * (count > 1)} found in {source}")
