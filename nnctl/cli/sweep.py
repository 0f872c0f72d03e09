"""``nnctl sweep``: many trainings with other values, and which were the best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnctl.cli.options import (
    FILE,
    FOLDER,
    config_options,
    data_dir_option,
    output_options,
    read_overrides,
)

if TYPE_CHECKING:
    from nnctl.sweep.trials import TrialResult


@click.command(epilog="Example: nnctl sweep configs/sigmoid.yaml -p training.batch_size=10,32,100")
@click.argument("config", type=FILE)
@click.option(
    "-p",
    "--parameter",
    "varied",
    metavar="KEY=V1,V2,...",
    multiple=True,
    help="Try each of these values; every combination if there are several. Repeatable.",
)
@config_options
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes, one trial each at a time; default: the number of cores.",
)
@click.option("--sweep-dir", type=FOLDER, help="The directory of the sweep, new or empty.")
@click.option("--dry-run", is_flag=True, help="List the trials, and stop.")
@data_dir_option
@output_options
def sweep(
    config: Path,
    varied: tuple[str, ...],
    workers: int | None,
    sweep_dir: Path | None,
    dry_run: bool,
    data_dir: Path | None,
    as_json: bool,
    quiet: bool,
    **overrides: Any,
) -> None:
    """Train many variants of CONFIG: a sweep file, or a training configuration with -p.

    Each trial is a run directory of its own below the sweep's, beside results.csv and
    results.jsonl. The last line of stdout is the directory of the best run.
    """
    from nnctl.runs.directory import Run
    from nnctl.runs.machine import cores
    from nnctl.runs.stopping import stop_on_signals
    from nnctl.sweep.pool import run_trials
    from nnctl.sweep.results import write_results
    from nnctl.sweep.trials import make_trials, plan_points, read_plan
    from nnctl.views.download import DownloadView
    from nnctl.views.sweep import SweepView, show_leaderboard, show_plan

    plan = read_plan(config, varied)
    planned = plan_points(plan, read_overrides(**overrides))
    if dry_run:
        points = [point for point, _ in planned]
        if as_json:
            for number, point in enumerate(points, start=1):
                click.echo(json.dumps({"trial": number, "parameters": point}))
        else:
            show_plan(points)
        return

    with DownloadView(quiet=quiet) as notify:
        home = (
            Run.create_at(sweep_dir)
            if sweep_dir
            else Run.create(f"sweep-{config.stem.removeprefix('sweep-')}", Path("runs"))
        ).directory
        trials = make_trials(planned, home, data_dir, notify)
    results: list[TrialResult] = []
    with stop_on_signals() as stop, SweepView(trials, quiet=quiet) as view:
        for result in run_trials(trials, workers or cores(), stop):
            if result:
                results.append(result)
                write_results(home, results)
                if as_json:
                    click.echo(json.dumps(result.to_json()))
            view.show(result)
    if not as_json:
        show_leaderboard(results, plan.sweep.metric)
    _raise_unless_done(results, len(trials), stop.requested, home)


def _raise_unless_done(
    results: list[TrialResult], trials: int, stopped: bool, directory: Path
) -> None:
    from nnctl.errors import InterruptedRunError, NnctlError
    from nnctl.sweep.trials import COMPLETE

    complete = sum(result.status in COMPLETE for result in results)
    if stopped:
        raise InterruptedRunError(
            f"interrupted: {complete} of {trials} trials are complete, in {directory}"
        )
    if not complete:
        raise NnctlError(
            f"none of the {trials} trials of {directory} was trained to its end",
            hint="results.csv gives the reason of each.",
        )
