"""A sweep as people see it: a live table of trials, or one line a trial, and a leaderboard."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.live import Live
from rich.table import Table
from rich.text import Text

from nnctl.errors import shell_command
from nnctl.sweep.space import Point
from nnctl.sweep.trials import COMPLETE, Trial, TrialResult, metrics_so_far, ranked
from nnctl.views.console import View, is_live, notices, results, say

_SHOWN = 12  # trials in the live table, those that run and the newest results
_LEADERS = 10


class SweepView(View):
    """Shows on stderr how a sweep goes.

    Parameters
    ----------
    trials : sequence of Trial
        All of them.
    quiet : bool
        Show nothing.
    """

    def __init__(self, trials: Sequence[Trial], *, quiet: bool) -> None:
        self._trials = trials
        self._keys = varying_keys([trial.point for trial in trials])
        self._quiet = quiet
        self._console = notices()
        self._results: dict[int, TrialResult] = {}
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._moves = is_live(self._console) and not quiet

    def start(self) -> None:
        """Say how many trials there are."""
        if not self._quiet:
            count = "1 trial" if len(self._trials) == 1 else f"{len(self._trials)} trials"
            say(self._console, f"{count} in {self._trials[0].directory.parent}")
        if self._moves:
            self._live.start()

    def stop(self) -> None:
        """Take the table of running trials away."""
        if self._moves:
            self._live.stop()

    def show(self, result: TrialResult | None) -> None:
        """Show a result, or how far the running trials are."""
        if result:
            self._results[result.number] = result
            if not self._quiet:
                say(self._console, self._line(result))
        if self._moves:
            self._live.update(self._table(), refresh=True)

    def _line(self, result: TrialResult) -> Text:
        share = f"trial {result.number} ({len(self._results)} of {len(self._trials)} done)"
        what = describe_point(result.point, self._keys)
        if result.status in COMPLETE:
            return Text(f"{share}: {_percent(result.best_val_accuracy)} with {what}")
        reason = "" if result.status == "interrupted" else f": {result.reason}"
        return Text(f"{share}: {result.status} with {what}{reason}", "yellow")

    def _table(self) -> Table:
        """Return the trials that run, with their last epoch."""
        table = Table(box=box.SIMPLE)
        for name in ("trial", "epoch", "val accuracy", "best"):
            table.add_column(name, justify="right")
        table.add_column("parameters", overflow="fold")
        running = [
            trial
            for trial in self._trials
            if trial.number not in self._results and trial.directory.exists()
        ]
        for trial in running[:_SHOWN]:
            accuracies = [row["val_accuracy"] for row in metrics_so_far(trial)]
            last, best = (accuracies[-1], max(accuracies)) if accuracies else (None, None)
            epochs = trial.config["training"]["epochs"]
            table.add_row(
                str(trial.number),
                f"{len(accuracies)}/{epochs}",
                _percent(last),
                _percent(best),
                describe_point(trial.point, self._keys),
            )
        waiting = len(self._trials) - len(self._results) - len(running)
        table.caption = f"{len(self._results)} done, {len(running)} running, {waiting} waiting"
        return table


def show_plan(points: Sequence[Point]) -> None:
    """Print the points of a sweep on stdout."""
    keys = varying_keys(points)
    for number, point in enumerate(points, start=1):
        say(results(), f"{number:>4}  {describe_point(point, keys)}")


def show_leaderboard(trial_results: list[TrialResult], metric: str) -> None:
    """Print the best trials on stdout, and what failed; the last line is the best run."""
    console = results()
    leaders = ranked(trial_results, metric)
    if leaders:
        console.print(_leaderboard(leaders[:_LEADERS], metric))
    others = [result for result in trial_results if result.status in ("diverged", "failed")]
    for result in others[:_LEADERS]:
        reason = result.reason.replace("\n", " ")
        say(console, f"trial {result.number} {result.status}: {reason}")
    if len(others) > _LEADERS:
        say(console, f"and {len(others) - _LEADERS} more; see results.csv")
    if leaders:
        say(console, f"evaluate it  {shell_command('nnctl', 'eval', leaders[0].run_dir)}")
        say(console, leaders[0].run_dir)


def describe_point(point: Point, keys: Sequence[str]) -> str:
    """Return the values of some keys of a point in a line."""
    named = zip(short_keys(keys), keys, strict=True)
    return ", ".join(f"{short}={_short(point[key])}" for short, key in named)


def varying_keys(points: Sequence[Point]) -> list[str]:
    """Return the keys that do not have the same value at all points; of a single point, all."""
    first = points[0]
    varying = [key for key in first if any(point[key] != first[key] for point in points)]
    return varying or list(first)


def short_keys(keys: Sequence[str]) -> list[str]:
    """Return the shortest ends of dotted keys that still tell each from the others."""
    parts = [key.split(".") for key in keys]
    short = []
    for own in parts:
        length = 2 if own[-1].isdecimal() else 1
        while length < len(own) and sum(own[-length:] == other[-length:] for other in parts) > 1:
            length += 1
        short.append(".".join(own[-length:]))
    return short


def _leaderboard(leaders: list[TrialResult], metric: str) -> Table:
    title = "Best trials by validation " + metric.removeprefix("val_")
    table = Table(
        box=box.SIMPLE, padding=(0, 1), title=title, title_justify="left", title_style="bold"
    )
    for name in ("trial", "accuracy", "loss", "epoch"):
        table.add_column(name, justify="right")
    keys = varying_keys([result.point for result in leaders])
    for key in short_keys(keys):
        table.add_column(key, justify="right", overflow="fold")
    for rank, result in enumerate(leaders, start=1):
        table.add_row(
            str(result.number),
            _percent(result.best_val_accuracy),
            "-" if result.best_val_loss is None else f"{result.best_val_loss:.4g}",
            str(result.best_epoch),
            *(_short(result.point[key]) for key in keys),
            style="bold green" if rank == 1 else "",
        )
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f} %"


def _short(value: object) -> str:
    """Return a value in few characters, in YAML's notation."""
    match value:
        case float():
            return f"{value:.4g}"
        case dict():
            return f"{{{', '.join(f'{key}: {_short(below)}' for key, below in value.items())}}}"
        case list():
            return f"[{', '.join(map(_short, value))}]"
        case None:
            return "null"
    return str(value)
