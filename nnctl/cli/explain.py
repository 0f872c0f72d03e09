"""``nnctl explain``: follow one example through a trained network, forward and back."""

from __future__ import annotations

import re
from pathlib import Path

import click

from nnctl.analysis import explanation as explanations
from nnctl.cli.options import RUN, checkpoint_option, data_dir_option, output_options, print_json
from nnctl.runs.run import Run, Which
from nnctl.views.download import DownloadView
from nnctl.views.explanation import show_explanation


@click.command(
    epilog="Example: nnctl explain latest --image 7",
    help="""Follow one example through the network trained in RUN, and back.

    Shows the weighted inputs and the activations of the layers, the pixels that speak for and
    against the answer, why it is this class and not the second best, the loss, and the error of
    every layer. For a small network, such as that of a logic gate, shows the whole arithmetic.
    RUN is a run directory.
    """,
)
@click.argument("run", type=RUN)
@click.option(
    "--image",
    metavar="N|FILE",
    help="Number of a test image, from 0, or an image file; - for standard input (default: 0).",
)
@click.option(
    "--input",
    "typed",
    metavar="X1,X2,...",
    help="Inputs of the network in place of an image: 0,1 for a logic gate.",
)
@click.option("--label", metavar="CLASS", help="True class, if it is not known.")
@checkpoint_option
@data_dir_option
@output_options
def explain(
    run: Path,
    image: str | None,
    typed: str | None,
    label: str | None,
    checkpoint: Which,
    as_json: bool,
    quiet: bool,
) -> None:
    if image is not None and typed is not None:
        raise click.UsageError("--image and --input exclude each other")
    inputs = None if typed is None else _read_numbers(typed)
    with DownloadView(quiet=quiet) as notify:
        explanation = explanations.explain(
            Run.open(run),
            image=image,
            inputs=inputs,
            label=label,
            checkpoint=checkpoint,
            notify=notify,
        )
    if as_json:
        print_json(explanation.to_json())
    else:
        show_explanation(explanation)


def _read_numbers(text: str) -> list[float]:
    """Return the numbers in a list that commas or spaces separate."""
    try:
        return [float(number) for number in re.split(r"\s*,\s*|\s+", text.strip())]
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a list of numbers, such as 0,1", param_hint="--input"
        ) from None
