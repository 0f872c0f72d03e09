"""``nnctl eval``: evaluate a trained network."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.analysis import evaluation as evaluations
from nnctl.analysis.evaluation import Split
from nnctl.cli.options import (
    ACCURACY,
    DATASET,
    RUN,
    checkpoint_option,
    data_dir_option,
    output_options,
    print_json,
)
from nnctl.errors import BelowThresholdError
from nnctl.runs.run import Run, Which
from nnctl.views.console import warn
from nnctl.views.download import DownloadView
from nnctl.views.evaluation import show_evaluation
from nnctl.views.step_summary import summarize_evaluation


@click.command(
    "eval",
    epilog="Example: nnctl eval runs/sigmoid-20260921-101500 --json",
    help="""Evaluate the network trained in RUN on the test set.

    RUN is a run directory. Prints accuracy, loss, metrics per digit and the confusion matrix; for
    a logic gate, the truth table. With --gain, shows how sigmoid neurons become perceptrons as
    their weights grow.
    """,
)
@click.argument("run", type=RUN)
@click.option(
    "--split",
    "split_name",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    help="Images to evaluate on.",
)
@checkpoint_option
@click.option(
    "--dataset",
    "dataset_name",
    type=DATASET,
    metavar="NAME",
    help="Dataset to evaluate on, if not the run's own.",
)
@click.option(
    "--gain",
    "gains",
    metavar="C1,C2,...",
    help="Also evaluate with all weights and biases multiplied by each factor: 1,10,100,inf.",
)
@click.option(
    "--mistakes",
    type=click.IntRange(min=0),
    default=0,
    show_default=False,
    metavar="N",
    help="Show the N worst mistakes, drawn as images in a terminal.",
)
@click.option(
    "--corrupt",
    is_flag=True,
    help="Also evaluate on corrupted images: noise, rotation, blur and others.",
)
@click.option(
    "--threshold",
    type=ACCURACY,
    metavar="P",
    help="Show how many predictions have at least this probability, and how many of these are "
    "correct.",
)
@click.option(
    "--fail-under", type=ACCURACY, metavar="ACC", help="Exit 5 if the accuracy is below this."
)
@data_dir_option
@output_options
def evaluate(
    run: Path,
    split_name: Split,
    checkpoint: Which,
    dataset_name: str | None,
    gains: str | None,
    mistakes: int,
    corrupt: bool,
    threshold: float | None,
    fail_under: float | None,
    as_json: bool,
    quiet: bool,
) -> None:
    gain_values = [] if gains is None else _read_gains(gains)
    opened = Run.open(run)
    with DownloadView(quiet=quiet) as notify:
        evaluation = evaluations.evaluate(
            opened,
            split_name=split_name,
            checkpoint=checkpoint,
            dataset_name=dataset_name,
            gains=gain_values,
            mistakes=mistakes,
            corrupt=corrupt,
            threshold=threshold,
            notify=notify,
        )
    if evaluation.is_test_result:
        opened.record_evaluation(evaluation.record())
    if evaluation.dataset != evaluation.trained_on:
        warn(f"{run} was trained on {evaluation.trained_on}, not on {evaluation.dataset}")
    elif not evaluation.same_files:
        warn(f"the files of {evaluation.dataset} have changed since {run} was trained")
    summarize_evaluation(evaluation)
    if as_json:
        print_json(evaluation.to_json())
    else:
        show_evaluation(evaluation)
    if fail_under is not None and evaluation.accuracy < fail_under:
        raise BelowThresholdError(
            f"the accuracy, {evaluation.accuracy:.4f}, is below {fail_under:g}"
        )


def _read_gains(text: str) -> list[float]:
    """Return the numbers in a comma-separated list, which may include inf."""
    try:
        gains = [float(number) for number in text.split(",")]
    except ValueError:
        gains = [0.0]
    if not all(gain > 0 for gain in gains):
        raise click.BadParameter(
            f"{text!r} is not a list of positive numbers, such as 1,10,inf", param_hint="--gain"
        )
    return gains
