"""``nnctl sweep``: many trainings with other values, and which were the best."""

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

    from nnctl.sweep.plan import Plan, TrialMaker
    from nnctl.sweep.sweep import Sweep
    from nnctl.sweep.trials import TrialResult
    from nnctl.sweep.workers import Workers


_PLANNED = (
    *("varied", "base", "trials", "seeds", "sweep_dir", "dry_run"),
    *("settings", "dataset", "subset", "epochs", "seed", "threads"),
)
"""The options that say what is trained, and not how."""


@click.command(
    epilog="Example: nnctl sweep configs/sigmoid.yaml -p training.batch_size=10,32,100",
    help="""Train many variants of CONFIG: a sweep file, or a training configuration with -p.

    Each trial is a run directory of its own below the sweep's, beside results.csv and
    results.jsonl. At the end there is a leaderboard; its column p says how often chance alone
    would make a setting differ so much from the best: by McNemar's test on the same validation
    images, or with several seeds by a paired t-test. The last line of stdout is the directory of
    the best run.
    """,
)
@click.argument("config", type=FILE, required=False)
@click.option(
    "-p",
    "--parameter",
    "varied",
    metavar="KEY=V1,V2,...",
    multiple=True,
    help="Try each of these values, or of log:0.001:1:7 (lin:, int:); every combination if there "
    "are several. Repeatable.",
)
@click.option("--base", type=FILE, help="The configuration to vary, instead of the sweep file's.")
@click.option(
    "--trials",
    type=click.IntRange(min=1),
    metavar="N",
    help="Try N points: drawn at random from ranges such as log:0.001:1, or by the sweep file's "
    "method.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Train each point with N seeds, and rank by the mean.",
)
@config_options
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    metavar="N",
    help="Processes, one trial each at a time; default: the number of cores.",
)
@click.option(
    "--scheduler", metavar="ADDR", help="Train on the Dask cluster of this scheduler instead."
)
@click.option(
    "--max-failures",
    type=click.IntRange(min=1),
    metavar="N",
    help="End when N trials in all have failed or diverged; it ends anyway if the first three "
    "fail alike.",
)
@click.option(
    "--trial-timeout",
    type=FiniteRange(min=0, min_open=True),
    metavar="SECONDS",
    help="Let a trial fail that takes longer, from when it is given to a worker.",
)
@click.option("--sweep-dir", type=FOLDER, help="The directory of the sweep, new or empty.")
@click.option(
    "--resume", type=FOLDER, metavar="DIR", help="Go on with a sweep; no trial is done twice."
)
@click.option("--retry-failed", is_flag=True, help="With --resume: only those trials that failed.")
@click.option("--show", type=FOLDER, metavar="DIR", help="Print what came of a sweep.")
@click.option("--dry-run", is_flag=True, help="List the trials, and stop.")
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
    from nnctl.sweep.plan import TrialMaker
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
            maker = TrialMaker(data_dir, notify)
            if resume:
                sweep_to_do = _resume(resume, maker, retry_failed=options["retry_failed"])
            else:
                assert config is not None
                assert plan is not None
                maker.fetch(checked)
                sweep_to_do = _begin(config, options["sweep_dir"], plan, checked, maker)
        with sweep_to_do:
            _train(sweep_to_do, workers, data_dir, as_json=as_json, quiet=quiet, **options)


def _check_usage(
    config: Path | None, resume: Path | None, show: Path | None, options: dict[str, Any]
) -> None:
    given = [what for what in (config, resume, show) if what is not None]
    if len(given) != 1:
        raise click.UsageError("give one of CONFIG, --resume DIR and --show DIR")
    if options["retry_failed"] and not resume:
        raise click.UsageError("--retry-failed needs --resume DIR")
    context, here = click.get_current_context(), click.core.ParameterSource.COMMANDLINE
    if config is None and any(context.get_parameter_source(name) is here for name in _PLANNED):
        raise click.UsageError(
            "a sweep keeps its plan: with --resume and --show no option can change it"
        )
    if options["scheduler"] and context.get_parameter_source("workers") is here:
        raise click.UsageError("--workers is for this machine; a cluster has its own")


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
    from nnctl.sweep.plan import read_plan

    names = ("dataset", "subset", "epochs", "seed", "threads")
    overrides = read_overrides(settings, **{name: others[name] for name in names})
    return read_plan(config, varied, overrides, base=base, trials=trials, seeds=seeds)


def _list_points(plan: Plan, points: list[dict[str, Any]], as_json: bool) -> None:
    from nnctl.views.sweep import show_plan

    if plan.sweep.method == "tpe":
        told = "each point of tpe follows from the trials before; all values and ranges are right"
        click.echo(told, err=True)
    elif as_json:
        for number, point in enumerate(points, start=1):
            click.echo(json.dumps({"trial": number, "parameters": point}))
    else:
        show_plan(points)


def _begin(
    config: Path, directory: Path | None, plan: Plan, checked: list[Any], maker: TrialMaker
) -> Sweep:
    from nnctl.runs.directory import Run
    from nnctl.sweep.sweep import Sweep

    name = f"sweep-{config.stem.removeprefix('sweep-')}"
    home = Run.create_at(directory) if directory else Run.create(name, Path("runs"))
    return Sweep.begin(home.directory, plan, checked, maker)


def _resume(directory: Path, maker: TrialMaker, *, retry_failed: bool) -> Sweep:
    from nnctl.sweep.sweep import Sweep

    return Sweep.resume(directory, maker, retry_failed=retry_failed)


def _train(
    sweep: Sweep,
    trainers: Workers,
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
    from nnctl.runs.stopping import ignore_signals, interrupt, stop_on_signals
    from nnctl.sweep.journal import is_sweep
    from nnctl.sweep.sweep import Limits
    from nnctl.views.sweep import SweepView

    limits = Limits(max_failures, trial_timeout)
    go_on = _how_to_go_on(sweep, scheduler, workers)
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
        hint = f"What was saved before is intact. {go_on}"
        raise InterruptedRunError("interrupted at once", hint=hint) from None
    except NnctlError as error:
        if not is_sweep(sweep.directory):
            error.hint = "The sweep is gone, its journal as well: begin it again."
            raise
        saved = "What was saved before is intact."
        hint = saved if isinstance(error, StorageError) else error.hint or saved
        error.hint = f"{hint} {go_on}"
        raise
    if not as_json:
        _show_results(list(sweep.results.values()), sweep.config, data_dir)
    _raise_unless_done(sweep, stop.requested, go_on)


def _start_workers(scheduler: str | None, count: int | None) -> Workers:
    from nnctl.runs.machine import cores
    from nnctl.sweep.pool import LocalPool
    from nnctl.views.console import notices, say

    if scheduler is None:
        return LocalPool(count or cores())
    from nnctl.sweep.cluster.cluster import Cluster

    # Not only progress: with --quiet, too, a sweep that waits says what it waits for.
    return Cluster(scheduler, notify=lambda text: say(notices(), text))


def _show(directory: Path, data_dir: Path | None, as_json: bool) -> None:
    from nnctl.sweep.sweep import Record
    from nnctl.views.sweep import show_unfinished

    record = Record(directory)
    rows = sorted(record.results.values(), key=lambda row: row.trial)
    if as_json:
        _print_json(rows)
    else:
        _show_results(rows, record.plan.sweep, data_dir)
        show_unfinished(record)


def _show_results(rows: list[TrialResult], config: Any, data_dir: Path | None) -> None:
    from functools import cache

    from nnctl.data.dataset import present_dataset
    from nnctl.sweep.results import chances, ranked
    from nnctl.views.sweep import LEADERS, show_results

    find = cache(lambda name: present_dataset(name, data_dir))
    settings = ranked(rows, config.ranked_by, config.seeds)
    compared = chances(settings[:LEADERS], config.ranked_by, find) if settings else []
    show_results(rows, settings, compared, config.ranked_by)


def _print_json(rows: Iterable[TrialResult]) -> None:
    for row in rows:
        click.echo(json.dumps(row.to_json()))


def _raise_unless_done(sweep: Sweep, stopped: bool, go_on: str) -> None:
    from nnctl.errors import InterruptedRunError, NnctlError
    from nnctl.sweep.trials import COMPLETE

    complete = sum(row.status in COMPLETE for row in sweep.results.values())
    if stopped and sweep.left:
        raise InterruptedRunError(
            f"interrupted: {complete} of {sweep.total} trials are complete, in {sweep.directory}",
            hint=go_on,
        )
    if sweep.ended_because:
        raise NnctlError(
            f"{sweep.ended_because}; {complete} of {sweep.total} trials are complete",
            hint=f"{go_on} (with --retry-failed: those that failed, again)",
        )
    if not complete:
        raise NnctlError(
            f"none of the {sweep.total} trials of {sweep.directory} was trained to its end",
            hint="results.csv gives the reason of each.",
        )


def _how_to_go_on(sweep: Sweep, scheduler: str | None, workers: int | None) -> str:
    from nnctl.errors import shell_command

    where = ("--scheduler", scheduler) if scheduler else ("--workers", workers) if workers else ()
    return f"Go on with: {shell_command('nnctl', 'sweep', '--resume', sweep.directory, *where)}"
