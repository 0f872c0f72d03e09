"""``nnctl compare``: compare trained runs."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.analysis.run_comparison import compare_runs
from nnctl.cli.options import RUN, data_dir_option, output_options, print_json
from nnctl.runs.run import Run
from nnctl.views.download import DownloadView
from nnctl.views.runs import show_comparison


@click.command(
    epilog="Example: nnctl compare runs/sigmoid-20260921-101500 latest",
    help="""Compare two or more RUNs.

    Prints the settings in which they differ, their accuracies, and on how many test images each of
    them is right while the first one is wrong, with the p-value of McNemar's test. A RUN is a run
    directory, the directory of a sweep for its best trial, or the word latest.
    """,
)
@click.argument("runs", type=RUN, nargs=-1, required=True, metavar="RUN RUN...")
@data_dir_option
@output_options
def compare(runs: tuple[Path, ...], as_json: bool, quiet: bool) -> None:
    with DownloadView(quiet=quiet) as notify:
        opened = [Run.open(path) for path in runs]
        compared = compare_runs(opened, notify=notify)
    if as_json:
        print_json({"runs": [run.to_json() for run in compared]})
    else:
        show_comparison(compared)
