"""``nnctl sweep``: train a configuration with many combinations of values, and rank them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nnctl.cli.options import (
    FILE,
    FOLDER,
    FiniteRange,
    config_options,
    data_dir_option,
    output_options,
    read_overrides,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from nnctl.sweeps.plan import Plan, TrialFactory
    from nnctl.sweeps.scheduler import Sweep
    from nnctl.sweeps.trials import TrialResult
    from nnctl.sweeps.workers import WorkerPool


_PLANNED = (
    *("varied", "base", "trials", "seeds", "sweep_dir", "dry_run"),
    *("settings", "dataset", "subset", "epochs", "seed", "threads"),
)
"""Options that determine which trials a sweep has, as opposed to how they run."""


@click.command(
    epilog="Example: nnctl sweep configs/sigmoid.yaml -p training.batch_size=10,32,100",
    help="""Train many variants of a configuration and rank them.

    CONFIG is a sweep file, or a training configuration together with -p.

    The sweep directory contains results.csv, results.jsonl and a run directory per trial. At the
    end, a leaderboard is printed. Its column p is the p-value of the difference from the best
    setting: by McNemar's test on the same validation images, or by a paired t-test if there are
    several seeds. The last line of stdout is the directory of the best run.
    """,
)
@click.argument("config", type=FILE, required=False)
@click.option(
    "-p",
    "--parameter",
    "varied",
    metavar="KEY=V1,V2,...",
    multiple=True,
    help="Values to try for KEY, or a range such as log:0.001:1:7 (also lin:, int:). Repeatable; "
    "all combinations are tried.",
)
@click.option(
    "--base", type=FILE, help="Configuration to vary, instead of the one in the sweep file."
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
@config_options
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
    "--resume", type=FOLDER, metavar="DIR", help="Resume a sweep; finished trials are not repeated."
)
@click.option("--retry-failed", is_flag=True, help="With --resume: repeat only the failed trials.")
@click.option("--show", type=FOLDER, metavar="DIR", help="Print the results of a sweep.")
@click.option("--dry-run", is_flag=True, help="List the trials without training them.")
@data_dir_option
@output_options
def sweep(
    config: Path | None,
    resume: Path | None,
    show: Path | None,
    data_dir: Path | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    from nnctl.sweeps.plan import TrialFactory
    from nnctl.views.download import DownloadView

    _check_usage(config, resume, show, options)
    if show:
        _show(show, data_dir, as_json)
        return
    plan = _read_plan(config, **options) if config else None
    checked = plan.checked_points() if plan else []
    if plan and options["dry_run"]:
        _list_points(plan, [point for point, _ in checked], as_json)
        return
    with _start_workers(options["scheduler"], options["workers"]) as workers:
        with DownloadView(quiet=quiet) as notify:
            factory = TrialFactory(data_dir, notify)
            if resume:
                sweep_to_do = _resume(resume, factory, retry_failed=options["retry_failed"])
            else:
                assert config is not None
                assert plan is not None
                factory.fetch(checked)
                sweep_to_do = _begin(config, options["sweep_dir"], plan, checked, factory)
        with sweep_to_do:
            _train(sweep_to_do, workers, data_dir, as_json=as_json, quiet=quiet, **options)


def _check_usage(
    config: Path | None, resume: Path | None, show: Path | None, options: dict[str, Any]
) -> None:
    sources = [source for source in (config, resume, show) if source is not None]
    if len(sources) != 1:
        raise click.UsageError("use exactly one of CONFIG, --resume DIR and --show DIR")
    if options["retry_failed"] and not resume:
        raise click.UsageError("--retry-failed needs --resume DIR")
    source_of = click.get_current_context().get_parameter_source
    typed = click.core.ParameterSource.COMMANDLINE
    if config is None and any(source_of(name) is typed for name in _PLANNED):
        raise click.UsageError(
            "with --resume or --show, no option can change the trials of a sweep"
        )
    if options["scheduler"] and source_of("workers") is typed:
        raise click.UsageError(
            "--workers and --scheduler cannot be combined; start workers on the cluster"
        )


def _read_plan(
    config: Path,
    *,
    varied: tuple[str, ...],
    base: Path | None,
    trials: int | None,
    seeds: int | None,
    settings: tuple[str, ...],
    **others: Any,
) -> Plan:
    from nnctl.sweeps.plan import read_plan

    names = ("dataset", "subset", "epochs", "seed", "threads")
    overrides = read_overrides(settings, **{name: others[name] for name in names})
    return read_plan(config, varied, overrides, base=base, trials=trials, seeds=seeds)


def _list_points(plan: Plan, points: list[dict[str, Any]], as_json: bool) -> None:
    from nnctl.views.sweep import show_plan

    if plan.sweep.method == "tpe":
        message = "tpe chooses each point from earlier results; all values and ranges are valid"
        click.echo(message, err=True)
    elif as_json:
        for number, point in enumerate(points, start=1):
            click.echo(json.dumps({"trial": number, "parameters": point}))
    else:
        show_plan(points)


def _begin(
    config: Path, directory: Path | None, plan: Plan, checked: list[Any], factory: TrialFactory
) -> Sweep:
    from nnctl.runs.run import Run
    from nnctl.sweeps.scheduler import Sweep

    name = f"sweep-{config.stem.removeprefix('sweep-')}"
    run = Run.create_at(directory) if directory else Run.create(name, Path("runs"))
    return Sweep.create(run.directory, plan, checked, factory)


def _resume(directory: Path, factory: TrialFactory, *, retry_failed: bool) -> Sweep:
    from nnctl.sweeps.scheduler import Sweep

    return Sweep.resume(directory, factory, retry_failed=retry_failed)


def _train(
    sweep: Sweep,
    trainers: WorkerPool,
    data_dir: Path | None,
    *,
    workers: int | None,
    scheduler: str | None,
    max_failures: int | None,
    trial_timeout: float | None,
    as_json: bool,
    quiet: bool,
    **_: Any,
) -> None:
    from nnctl.errors import InterruptedRunError, NnctlError, StorageError
    from nnctl.signals import ignore_signals, interrupt, stop_on_signals
    from nnctl.sweeps.journal import is_sweep
    from nnctl.sweeps.scheduler import Limits
    from nnctl.views.sweep import SweepView

    limits = Limits(max_failures, trial_timeout)
    resume_hint = _resume_hint(sweep, scheduler, workers)
    if as_json:
        _print_json(sweep.results.values())
    try:
        with stop_on_signals(interrupt) as stop, SweepView(sweep, quiet=quiet) as view:
            for result in sweep.train(trainers, stop, limits):
                if result and as_json:
                    _print_json([result])
                view.show(result)
    except KeyboardInterrupt:
        ignore_signals()
        hint = f"What was saved before is intact. {resume_hint}"
        raise InterruptedRunError(
            "interrupted before the trials saved their state", hint=hint
        ) from None
    except NnctlError as error:
        if not is_sweep(sweep.directory):
            error.hint = "The journal of the sweep was removed; start the sweep again."
            raise
        saved = "What was saved before is intact."
        hint = saved if isinstance(error, StorageError) else error.hint or saved
        error.hint = f"{hint} {resume_hint}"
        raise
    if not as_json:
        _show_results(list(sweep.results.values()), sweep.config, data_dir)
    _raise_unless_done(sweep, stop.requested, resume_hint)


def _start_workers(scheduler: str | None, count: int | None) -> WorkerPool:
    from nnctl.sweeps.pool import LocalPool
    from nnctl.system import cores
    from nnctl.views.console import notices, say

    if scheduler is None:
        return LocalPool(count or cores())
    from nnctl.sweeps.cluster.cluster import Cluster

    # These messages explain why a sweep waits, so --quiet does not hide them.
    return Cluster(scheduler, notify=lambda text: say(notices(), text))


def _show(directory: Path, data_dir: Path | None, as_json: bool) -> None:
    from nnctl.sweeps.state import SweepState
    from nnctl.views.sweep import show_unfinished

    state = SweepState.read(directory)
    rows = sorted(state.results.values(), key=lambda row: row.trial)
    if as_json:
        _print_json(rows)
    else:
        _show_results(rows, state.plan.sweep, data_dir)
        show_unfinished(state)


def _show_results(rows: list[TrialResult], config: Any, data_dir: Path | None) -> None:
    from functools import cache

    from nnctl.data.dataset import find_cached
    from nnctl.sweeps.results import compute_p_values, ranked
    from nnctl.views.sweep import LEADERS, show_results

    find = cache(lambda name: find_cached(name, data_dir))
    settings = ranked(rows, config.ranked_by, config.seeds)
    compared = compute_p_values(settings[:LEADERS], config.ranked_by, find) if settings else []
    show_results(rows, settings, compared, config.ranked_by)


def _print_json(rows: Iterable[TrialResult]) -> None:
    for row in rows:
        click.echo(json.dumps(row.to_json()))


def _raise_unless_done(sweep: Sweep, stopped: bool, resume_hint: str) -> None:
    from nnctl.errors import InterruptedRunError, NnctlError
    from nnctl.sweeps.trials import COMPLETE

    total = sweep.state.total
    complete = sum(row.status in COMPLETE for row in sweep.results.values())
    if stopped and sweep.state.left:
        raise InterruptedRunError(
            f"interrupted: {complete} of {total} trials are complete, in {sweep.directory}",
            hint=resume_hint,
        )
    if sweep.ended_because:
        raise NnctlError(
            f"{sweep.ended_because}; {complete} of {total} trials are complete",
            hint=f"{resume_hint} (add --retry-failed to train the failed trials again)",
        )
    if not complete:
        raise NnctlError(
            f"none of the {total} trials of {sweep.directory} is complete",
            hint="See results.csv for the reason of each.",
        )


def _resume_hint(sweep: Sweep, scheduler: str | None, workers: int | None) -> str:
    from nnctl.text import shell_command

    where = ("--scheduler", scheduler) if scheduler else ("--workers", workers) if workers else ()
    return f"Resume with: {shell_command('nnctl', 'sweep', '--resume', sweep.directory, *where)}"
