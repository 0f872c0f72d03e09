"""``nnctl report``: write an HTML report of runs."""

from __future__ import annotations

from pathlib import Path

import click

from nnctl.cli.options import FILE, RUN_OR_SWEEP, data_dir_option, output_options
from nnctl.files import to_json_text
from nnctl.report import html_report
from nnctl.views.console import notices, say, warn
from nnctl.views.download import DownloadView


@click.command(
    "report",
    epilog="Example: nnctl report runs/sigmoid-20260921-101500 --open",
    help="""Write an HTML report of RUN that works offline.

    RUN is a run directory. The report shows learning curves, the confusion matrix with example
    images, the worst mistakes, calibration and layers. It has a canvas to draw digits on, which
    the network classifies in the browser. Several runs, or the directory of a sweep, are
    compared. A run that is still training is shown up to its last epoch. Requires the
    extra plot. The last line on stdout is the file.
    """,
)
@click.argument("runs", type=RUN_OR_SWEEP, nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--output",
    "-o",
    "file",
    type=FILE,
    help="Output file (default: report.html in RUN, or in the working directory for several runs).",
)
@click.option("--open", "open_it", is_flag=True, help="Open the report in a browser.")
@data_dir_option
@output_options
def report(
    runs: tuple[Path, ...],
    file: Path | None,
    open_it: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    file = file or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    with DownloadView(quiet=quiet) as notify:
        written = html_report.report(runs, file, notify=notify)
    for run_report in written.reports:
        if run_report.evaluation_error:
            warn(f"{run_report.run.directory} was not evaluated: {run_report.evaluation_error}")
    say(notices(quiet=quiet), f"Open it in a browser: {written.file.resolve().as_uri()}")
    click.echo(to_json_text(written.to_json()) if as_json else written.file)
    if open_it and click.launch(str(written.file.resolve())):
        warn(f"could not start a browser; open {written.file} yourself")
