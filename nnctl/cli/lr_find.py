"""``nnctl lr-find``: suggest a learning rate by a range test."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.options import (
    CONFIG,
    FiniteRange,
    data_dir_option,
    output_options,
    override_options,
    print_json,
)
from nnctl.config import Override
from nnctl.errors import NnctlError
from nnctl.runs.lr_range_test import HIGHEST, LOWEST, MAX_STEPS, MIN_STEPS, find_learning_rate
from nnctl.runs.resolve import find_dataset, load_config, resolve_auto
from nnctl.text import shell_command
from nnctl.views.download import DownloadView
from nnctl.views.lr_range_test import show_range_test

_RATE = FiniteRange(min=0, min_open=True)


@click.command(
    "lr-find",
    epilog="Example: nnctl lr-find sigmoid",
    help="""Suggest a learning rate for CONFIG by a range test.

    CONFIG is a YAML file, the name of a preset (see nnctl presets), or - for standard input. Trains
    for some hundred steps, each with a larger learning rate, until training diverges, and suggests
    a rate between the one at which the loss falls fastest and the one at which it is lowest. Writes
    no files. The last line on stdout is the command that trains with this rate; with --quiet, it is
    the option alone, as in --lr 0.03.
    """,
)
@click.argument("config", type=CONFIG)
@click.option(
    "--from",
    "lowest",
    type=_RATE,
    metavar="RATE",
    default=LOWEST,
    help="Learning rate of the first step.",
)
@click.option(
    "--to",
    "highest",
    type=_RATE,
    metavar="RATE",
    default=HIGHEST,
    help="Learning rate of the last step.",
)
@click.option(
    "--steps",
    type=click.IntRange(MIN_STEPS, MAX_STEPS),
    metavar="N",
    help="Number of steps (default: 200, or more if the batches are small).",
)
@override_options
@data_dir_option
@output_options
def lr_find(
    config: Path,
    lowest: float,
    highest: float,
    steps: int | None,
    overrides: list[Override],
    as_json: bool,
    quiet: bool,
) -> None:
    if lowest >= highest:
        raise click.UsageError(f"--from ({lowest:g}) must be below --to ({highest:g})")
    if any(override.key == "optimizer.learning_rate" for override in overrides):
        raise click.UsageError("lr-find tries the rates from --from to --to: remove --lr")
    requested = load_config(config, overrides)
    with DownloadView(quiet=quiet) as notify:
        dataset = find_dataset(requested.data, notify)
        resolved = resolve_auto(requested, dataset, notify)
        result = find_learning_rate(
            resolved, dataset, lowest=lowest, highest=highest, steps=steps, notify=notify
        )
    if as_json:
        print_json(result.to_json())
    elif not quiet:
        show_range_test(result)
    if result.suggestion is None:
        raise NnctlError(f"no suggestion: {result.reason}", hint=_advice(result.steps == []))
    if not as_json:
        typed = [word for override in overrides for word in override.source.split(" ", 1)]
        command = shell_command("nnctl", "train", config, *typed)
        click.echo(result.option if quiet else f"{command} {result.option}")


def _advice(at_once: bool) -> str:
    """Return what to do without a suggestion."""
    if at_once:
        return "Check the initial weights with: nnctl check CONFIG"
    return "Use more --steps or other rates (--from, --to), or see: nnctl check CONFIG"
