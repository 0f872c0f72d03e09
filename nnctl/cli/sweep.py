"""``nnctl sweep``: train a configuration with many combinations of values, and rank them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import click

from nnctl.cli.options import (
    CONFIG,
    FOLDER,
    OVERRIDES,
    SETTING,
    SWEEP,
    FiniteRange,
    data_dir_option,
    output_options,
    override_options,
)
from nnctl.config import Override
from nnctl.data.dataset import find_cached
from nnctl.errors import InterruptedRunError, NnctlError, StorageError
from nnctl.runs.run import RUNS, Run, named_directory
from nnctl.signals import ignore_signals, stop_on_signals
from nnctl.sweeps.dask_cluster import DaskPool
from nnctl.sweeps.journal import is_sweep
from nnctl.sweeps.plan import Plan, TrialFactory, read_plan
from nnctl.sweeps.pool import LocalPool
from nnctl.sweeps.results import compute_p_values, edges
from nnctl.sweeps.scheduler import Limits, Sweep
from nnctl.sweeps.space import Params
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import COMPLETE, TrialResult
from nnctl.sweeps.workers import WorkerPool
from nnctl.system import cores
from nnctl.text import shell_command
from nnctl.views.console import notices, say
from nnctl.views.download import DownloadView
from nnctl.views.step_summary import summarize_sweep
from nnctl.views.sweep import LEADERS, SweepView, show_plan, show_results, show_unfinished

_EXTENDING = ("varied", "trials", "seeds")
"""Options that can extend a sweep when it is resumed."""
_PLANNED = (*_EXTENDING, "base", "folds", "sweep_dir", "name", "dry_run", *OVERRIDES)
"""Options that determine which trials a sweep has, as opposed to how they run."""


@click.command(
    epilog="Example: nnctl sweep sigmoid -p training.batch_size=10,32,100",
    help="""Train many variants of a configuration and rank them.

    CONFIG is a sweep file, or a training configuration together with -p: a file, the name of a
    preset (see nnctl presets), or - for standard input.

    The sweep directory contains results.csv, results.jsonl and a run directory per trial. At the
    end, a leaderboard is printed. Its column p is the p-value of the difference from the best
    setting: by McNemar's test on the same validation images, or by a paired t-test if there are
    several seeds or folds. The last line of stdout is the directory of the best run.
    """,
)
@click.argument("config", type=CONFIG, required=False)
@click.option(
    "-p",
    "--parameter",
    "varied",
    type=SETTING,
    metavar="KEY=V1,V2,...",
    multiple=True,
    help="Values to try for KEY, or a range such as log:0.001:1:7 (also lin:, int:). Repeatable; "
    "all combinations are tried.",
)
@click.option(
    "--base", type=CONFIG, help="Configuration to vary, instead of the one in the sweep file."
)
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="Number of points to try: drawn at random from ranges such as log:0.001:1, or by the "
    "method of the sweep file.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Number of seeds to train each point with; points are ranked by the mean.",
)
@click.option(
    "--folds",
    type=click.IntRange(2, 1000),
    metavar="K",
    help="Number of folds for cross-validation: each point is trained K times, each time with "
    "another part of the training set held out; points are ranked by the mean.",
)
@override_options
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Number of worker processes, one trial each (default: the number of cores).",
)
@click.option(
    "--scheduler", metavar="ADDR", help="Train on a Dask cluster; address of its scheduler."
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop after N trials have failed or diverged. A sweep always stops if the first three "
    "fail with the same error.",
)
@click.option(
    "--trial-timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Time limit per trial, from its start on a worker; a trial that takes longer fails.",
)
@click.option("--sweep-dir", type=FOLDER, help="Directory for the sweep, new or empty.")
@click.option(
    "--name", help="Name of the new sweep directory in runs (default: CONFIG and the time)."
)
@click.option(
    "--resume",
    type=SWEEP,
    metavar="DIR",
    help="Resume a sweep; finished trials are not repeated. Also extends it: --trials or --seeds "
    "with a larger number, or -p with more values for a grid.",
)
@click.option("--retry-failed", is_flag=True, help="With --resume: repeat only the failed trials.")
@click.option("--show", type=SWEEP, metavar="DIR", help="Print the results of a sweep.")
@click.option("--dry-run", is_flag=True, help="List the trials without training them.")
@data_dir_option
@output_options
def sweep(
    config: Path | None,
    varied: tuple[str, ...],
    base: Path | None,
    trials: int | None,
    seeds: int | None,
    folds: int | None,
    overrides: list[Override],
    workers: int | None,
    scheduler: str | None,
    max_failures: int | None,
    trial_timeout: float | None,
    sweep_dir: Path | None,
    name: str | None,
    resume: Path | None,
    retry_failed: bool,
    show: Path | None,
    dry_run: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    given = click.get_current_context().params
    _check_usage(given)
    if show:
        _show(show, as_json)
        return
    if name is not None and sweep_dir:
        raise click.UsageError("--name and --sweep-dir cannot be combined")
    if name is not None:
        sweep_dir = named_directory(name, RUNS)
    plan = None
    if config:
        plan = read_plan(
            config, varied, overrides, base=base, trials=trials, seeds=seeds, folds=folds
        )
        checked = plan.checked_points()
        if dry_run:
            _list_points(plan, [point for point, _ in checked], as_json)
            return
    with _start_workers(scheduler, workers) as pool:
        with DownloadView(quiet=quiet) as notify:
            factory = TrialFactory(notify)
            if config and plan:
                factory.fetch(checked)
                stem = f"sweep-{config.stem.removeprefix('sweep-')}"
                run = Run.create_at(sweep_dir) if sweep_dir else Run.create(stem, RUNS)
                started = Sweep.create(run.directory, plan, checked, factory)
            elif resume:
                extension = {option: given[option] for option in _typed(_EXTENDING)}
                started = Sweep.resume(resume, factory, extension, retry_failed=retry_failed)
        limits = Limits(max_failures, trial_timeout)
        hint = _resume_hint(started.directory, scheduler, workers)
        with started:
            stopped = _train(started, pool, limits, hint, as_json=as_json, quiet=quiet)
            state = started.state
            summarize_sweep(started.directory.name, state.settings, started.config.ranked_by)
            if not as_json:
                _show_results(state)
            _raise_unless_done(started, stopped, hint)


def _check_usage(given: Mapping[str, Any]) -> None:
    """Raise an error for options that cannot be combined."""
    typed = _typed(_PLANNED)
    if sum(given[source] is not None for source in ("config", "resume", "show")) != 1:
        raise click.UsageError("use exactly one of CONFIG, --resume DIR and --show DIR")
    if given["retry_failed"] and not given["resume"]:
        raise click.UsageError("--retry-failed needs --resume DIR")
    if given["show"] and typed:
        raise click.UsageError("with --show, no option can change the trials of a sweep")
    if given["resume"] and typed.difference(_EXTENDING):
        raise click.UsageError(
            "with --resume, -p, --trials and --seeds can add trials; no other option can change "
            "the trials of a sweep"
        )
    if given["retry_failed"] and typed:
        raise click.UsageError("--retry-failed repeats trials, and cannot add some")
    if given["scheduler"] and _typed(["workers"]):
        raise click.UsageError(
            "--workers and --scheduler cannot be combined; start workers on the cluster"
        )


def _typed(names: Iterable[str]) -> set[str]:
    """Return which options are on the command line: environment variables are for new sweeps."""
    source_of = click.get_current_context().get_parameter_source
    return {name for name in names if source_of(name) is click.core.ParameterSource.COMMANDLINE}


def _list_points(plan: Plan, points: Sequence[Params], as_json: bool) -> None:
    if plan.sweep.method == "tpe":
        message = "tpe chooses each point from earlier results; all values and ranges are valid"
        click.echo(message, err=True)
    elif as_json:
        for number, point in enumerate(points, start=1):
            click.echo(json.dumps({"trial": number, "parameters": point}))
    else:
        show_plan(points)


def _start_workers(scheduler: str | None, count: int | None) -> WorkerPool:
    if scheduler is None:
        return LocalPool(count or cores())
    # These messages explain why a sweep waits, so --quiet does not hide them.
    return DaskPool(scheduler, notify=lambda text: say(notices(), text))


def _train(
    sweep: Sweep, pool: WorkerPool, limits: Limits, hint: str, *, as_json: bool, quiet: bool
) -> bool:
    """Train the trials and show their results; return whether a signal requested a stop."""
    saved = "What was saved before is intact."
    if as_json:
        _print_rows(sweep.results.values())
    try:
        with stop_on_signals() as stop, SweepView(sweep, quiet=quiet) as view:
            for result in sweep.train(pool, stop, limits):
                if result and as_json:
                    _print_rows([result])
                view.show(result)
    except KeyboardInterrupt:
        ignore_signals()
        raise InterruptedRunError(
            "interrupted before the trials saved their state", hint=f"{saved} {hint}"
        ) from None
    except NnctlError as error:
        if is_sweep(sweep.directory):
            advice = None if isinstance(error, StorageError) else error.hint
            error.hint = f"{advice or saved} {hint}"
        else:
            error.hint = "The journal of the sweep was removed; start the sweep again."
        raise
    return stop()


def _show(directory: Path, as_json: bool) -> None:
    state = SweepState.read(directory)
    if as_json:
        _print_rows(state.rows)
    else:
        _show_results(state)
        show_unfinished(state)


def _show_results(state: SweepState) -> None:
    config, settings = state.plan.sweep, state.settings
    find = cache(find_cached)
    compared = compute_p_values(settings[:LEADERS], config.ranked_by, find) if settings else []
    at_edges = edges(settings, config.space, state.plan.allows)
    show_results(state.rows, settings, compared, config.ranked_by, at_edges)


def _print_rows(rows: Iterable[TrialResult]) -> None:
    for row in rows:
        click.echo(json.dumps(row.to_json()))


def _raise_unless_done(sweep: Sweep, stopped: bool, hint: str) -> None:
    """Raise an error if trials are left, or if no trial is complete."""
    total = sweep.state.total
    complete = sum(row.status in COMPLETE for row in sweep.results.values())
    if stopped and sweep.state.left:
        raise InterruptedRunError(
            f"interrupted: {complete} of {total} trials are complete, in {sweep.directory}",
            hint=hint,
        )
    if sweep.ended_because:
        raise NnctlError(
            f"{sweep.ended_because}; {complete} of {total} trials are complete",
            hint=f"{hint} (add --retry-failed to train the failed trials again)",
        )
    if not complete:
        raise NnctlError(
            f"none of the {total} trials of {sweep.directory} is complete",
            hint="See results.csv for the reason of each.",
        )


def _resume_hint(directory: Path, scheduler: str | None, workers: int | None) -> str:
    where = ("--scheduler", scheduler) if scheduler else ("--workers", workers) if workers else ()
    return f"Resume with: {shell_command('nnctl', 'sweep', '--resume', directory, *where)}"
