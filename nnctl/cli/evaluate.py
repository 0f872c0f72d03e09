"""``nnctl eval``: how good a trained network is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import ACCURACY, FOLDER, data_dir_option, output_options


@click.command("eval", epilog="Example: nnctl eval runs/sigmoid-20260921-101500 --json")
@click.argument("run", type=FOLDER)
@click.option(
    "--split",
    "split_name",
    type=click.Choice(["test", "validation", "train"]),
    default="test",
    show_default=True,
    help="The images to evaluate on.",
)
@click.option(
    "--checkpoint",
    type=click.Choice(["best", "last"]),
    default="best",
    show_default=True,
    help="The best epoch's network, or the last one.",
)
@click.option("--dataset", "dataset_name", metavar="NAME", help="Another dataset than the run's.")
@click.option(
    "--fail-under", type=ACCURACY, metavar="ACC", help="Exit 5 if the accuracy is below this."
)
@data_dir_option
@output_options
def evaluate(
    run: Path, fail_under: float | None, as_json: bool, quiet: bool, **options: Any
) -> None:
    """Evaluate the network of RUN, a run directory, on the test set.

    Prints accuracy, loss, the metrics of each digit and the confusion matrix.
    """
    from nnctl.errors import BelowThresholdError
    from nnctl.runs.directory import Run
    from nnctl.runs.evaluation import evaluate as evaluate_run
    from nnctl.views.console import warn
    from nnctl.views.download import DownloadView
    from nnctl.views.evaluation import show_evaluation

    with DownloadView(quiet=quiet) as notify:
        evaluation = evaluate_run(Run.open(run), notify=notify, **options)
    if evaluation.dataset != evaluation.trained_on:
        warn(f"{run} was trained on {evaluation.trained_on}, not on {evaluation.dataset}")
    elif not evaluation.same_files:
        warn(f"the files of {evaluation.dataset} are not those that {run} was trained with")
    if as_json:
        click.echo(json.dumps(evaluation.to_json()))
    else:
        show_evaluation(evaluation)
    if fail_under is not None and evaluation.accuracy < fail_under:
        raise BelowThresholdError(
            f"the accuracy, {evaluation.accuracy:.4f}, is below {fail_under:g}"
        )
