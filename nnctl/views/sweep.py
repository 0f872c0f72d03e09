"""Output of a sweep: a live table or a line per trial, then the leaderboard and effects of keys."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Literal

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from nnctl.analysis.comparison import ALPHA
from nnctl.runs.history import epochs_of
from nnctl.sweeps.results import Edge, Setting, effects
from nnctl.sweeps.scheduler import RunningTrial, Sweep
from nnctl.sweeps.space import Params, short_keys, varied_keys
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import (
    COMPLETE,
    FAILED,
    METRICS,
    TrialResult,
    best_score,
    history_so_far,
    trial_directory,
)
from nnctl.text import duration, p_value, percent, shell_command, short_value
from nnctl.views.console import (
    GREEN,
    ORANGE,
    View,
    is_live,
    is_unicode,
    notices,
    results,
    say,
    warn,
)

LEADERS = 10
"""Number of settings in the leaderboard."""
_SHOWN = 12  # trials in the live table
_CURVE = 16  # characters of a sparkline
_WIDE = 72  # characters of a window that has room for curves
_BARS = "▁▂▃▄▅▆▇█"


class SweepView(View):
    """Progress of a sweep, shown on stderr.

    Parameters
    ----------
    sweep : Sweep
        Sweep, before it trains.
    quiet : bool
        Whether to show nothing.
    """

    def __init__(self, sweep: Sweep, *, quiet: bool) -> None:
        self._sweep = sweep
        self._console = notices(quiet=quiet)
        self._live = Live(console=self._console, transient=True, auto_refresh=False)
        self._is_live = is_live(self._console)
        self._keys = varied_keys(sweep.config.space)
        self._before = self._done = len(sweep.results)
        self._began = time.monotonic()
        rows = list(sweep.results.values())
        complete = [row for row in rows if row.status in COMPLETE]
        self._best = min(complete, key=self._sort_key, default=None)
        self._failures = sum(row.status in FAILED for row in rows)

    def start(self) -> None:
        """Print the number of trials, and start the live table."""
        if self._sweep.warning:
            warn(self._sweep.warning, self._console)
        total = self._sweep.state.total
        count = "1 trial" if total == 1 else f"{total} trials"
        done = f", {self._before} of them already done" if self._before else ""
        say(self._console, f"{count} in {self._sweep.directory}{done}")
        if self._is_live:
            self._live.start()

    def stop(self) -> None:
        """Remove the live table."""
        if self._is_live:
            self._live.stop()

    def show(self, result: TrialResult | None) -> None:
        """Print a result, if there is one, and update the live table."""
        if result:
            self._done += 1
            self._failures += result.status in FAILED
            if result.status in COMPLETE:
                self._best = min(filter(None, (self._best, result)), key=self._sort_key)
            self._console.print(self._line(result), soft_wrap=not self._is_live)
        if self._is_live:
            self._live.update(self._table(), refresh=True)

    @property
    def _by_loss(self) -> bool:
        return self._sweep.config.ranked_by != "val_accuracy"

    def _sort_key(self, row: TrialResult) -> tuple[float, float]:
        return row.sort_key(self._sweep.config.ranked_by)

    def _score(self, row: TrialResult) -> str:
        """Return the metric that ranks a trial, as text."""
        accuracy, loss = row.figures(self._sweep.config.ranked_by)
        return f"loss {_number(loss)}" if self._by_loss else percent(accuracy)

    def _line(self, result: TrialResult) -> Text:
        done = f"{self._done} of {self._sweep.state.total} done"
        label = f"trial {result.trial} ({done})"
        what = describe_point(result.parameters, self._keys)
        if self._sweep.config.seeds > 1:
            what += f", seed={result.seed}"
        if result.fold is not None:
            what += f", fold={result.fold}"
        if result.status in COMPLETE:
            return Text(f"{label}: {self._score(result)} with {what}")
        reason = "" if result.status == "interrupted" else f": {result.reason}"
        style = ORANGE if result.status in FAILED else "dim"
        return Text(f"{label}: {result.status} with {what}{reason}", style)

    def _table(self) -> Group:
        """Return the live table: running trials with their curves, and a status line."""
        table = Table(box=box.SIMPLE)
        for name in ("trial", "epoch"):
            table.add_column(name, justify="right", no_wrap=True)
        name = METRICS[self._sweep.config.ranked_by].replace("validation", "val.")
        if self._shows_curves:
            table.add_column(name, min_width=_CURVE, no_wrap=True)
        for name in ("last", "best"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("parameters")
        for running in list(self._sweep.running.values())[:_SHOWN]:
            table.add_row(*self._cells(running))
        return Group(table, Text(f" {self._state()}"))

    @property
    def _shows_curves(self) -> bool:
        """Whether the parameters leave room for a curve."""
        return is_unicode(self._console) and self._console.width >= _WIDE

    def _cells(self, running: RunningTrial) -> tuple[str | Text, ...]:
        scores, trial = [*running.history.scores.values()], running.trial
        last = scores[-1] if scores else None
        best = best_score(scores, self._sweep.config.ranked_by) if scores else None
        show = _number if self._by_loss else percent
        return (
            str(trial.number),
            f"{running.history.epoch}/{self._sweep.state.planned[trial.number].epochs}",
            *((sparkline(scores),) if self._shows_curves else ()),
            show(last),
            show(best),
            Text(describe_point(trial.point, self._keys), overflow="fold"),
        )

    def _state(self) -> str:
        """Return the status line: best trial, failures, trials per minute and time left."""
        sweep, done = self._sweep, self._done
        parts = []
        if self._best:
            parts.append(f"best {self._score(self._best)} (trial {self._best.trial})")
        parts.append(f"{done} of {sweep.state.total} done")
        if self._failures:
            parts.append(f"{self._failures} failed")
        new, seconds = done - self._before, time.monotonic() - self._began
        if new:
            rate = new / seconds
            parts.append(f"{rate * 60:.3g} per minute")
            parts.append(f"about {duration((sweep.state.total - done) / rate)} left")
        return ", ".join(parts)


def sparkline(scores: Sequence[float]) -> str:
    """Return a curve as a row of bars; the lowest value has the lowest bar."""
    if not scores:
        return ""
    count = min(len(scores), _CURVE)
    picked = [scores[(i + 1) * len(scores) // count - 1] for i in range(count)]
    low, high = min(picked), max(picked)
    steps = (len(_BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(_BARS[round(steps * (score - low))] for score in picked)


def show_plan(points: Sequence[Params]) -> None:
    """Print the points of a sweep on stdout."""
    keys = varying_keys(points)
    for number, point in enumerate(points, start=1):
        say(results(), f"{number:>4}  {describe_point(point, keys)}")


def show_results(
    rows: Sequence[TrialResult],
    settings: Sequence[Setting],
    p_values: Sequence[float | None],
    metric: str,
    edges: Iterable[Edge] = (),
) -> None:
    """Print the results on stdout; the last line is the directory of the best run.

    Parameters
    ----------
    rows : sequence of TrialResult
        Results of all trials.
    settings : sequence of Setting
        Settings, best first.
    p_values : sequence of float or None
        p-values of the second, third, ... setting compared with the first.
    metric : str
        Metric that ranks the settings.
    edges : iterable of Edge
        Keys whose best value is at an end of its range.
    """
    console, name = results(), METRICS[metric]
    if settings:
        repeats = settings[0].repeats
        of_repeats = f", mean of {repeats} ± standard deviation" if repeats else ""
        say(console, Text(f"Best by {name}{of_repeats}", "bold"))
        console.print(_leaderboard(settings[:LEADERS], p_values, metric, console))
        conclusions = (_conclusion(settings, p_values, metric), *map(_describe_edge, edges))
        if sentences := [*filter(None, conclusions)]:
            console.print(Text("\n".join(sentences)), end="\n\n")
    keys = varying_keys([row.parameters for row in rows]) if rows else []
    if len(settings) > 1:
        say(console, Text(f"Mean {name} by value", "bold"))
        console.print(_effects_table(rows, keys, metric))
    _show_others(rows)
    if settings:
        best = settings[0].best.run_dir
        say(console, f"to evaluate it: {shell_command('nnctl', 'eval', best)}")
        say(console, str(best))


def show_unfinished(state: SweepState) -> None:
    """Print the unfinished trials on stderr, with their last epochs."""
    console, keys = notices(), varied_keys(state.plan.sweep.space)
    for trial in state.unfinished:
        history = history_so_far(trial_directory(state.directory, trial))
        scores = [epoch.val_accuracy for epoch in history]
        last = f", {percent(scores[-1])}" if scores and scores[-1] is not None else ""
        planned = state.planned[trial]
        epochs = f"epoch {epochs_of(history)} of {planned.epochs}"
        what = describe_point(planned.parameters, keys)
        say(console, f"trial {trial} is at {epochs}{last} with {what}")
    if state.left:
        say(console, f"unfinished trials: {state.left}")


def _show_others(rows: Sequence[TrialResult]) -> None:
    """Print the trials that are not ranked: failed and pruned ones."""
    console = results()
    others = sorted((row for row in rows if row.status in FAILED), key=lambda row: row.trial)
    for row in others[:LEADERS]:
        reason = row.reason.replace("\n", " ")
        say(console, f"trial {row.trial} {row.status}: {reason}")
    if len(others) > LEADERS:
        say(console, f"and {len(others) - LEADERS} more; see results.csv")
    pruned = sum(row.status == "pruned" for row in rows)
    if pruned:
        say(console, f"pruned trials (worse than others): {pruned}; see results.csv")


def _leaderboard(
    settings: Sequence[Setting], p_values: Sequence[float | None], metric: str, console: Console
) -> Table:
    """Return the leaderboard with the metrics, and the columns of parameters, that fit."""
    accuracy, loss = ("accuracy", "last acc."), ("loss", "last loss")
    other, other_last = loss if metric == "val_accuracy" else accuracy
    unlimited = console.options.update(width=1000)
    left_out: tuple[str, ...] = ()
    for left_out in ((), (other_last,), (other_last, other)):
        table = _leader_table(settings, p_values, metric, left_out)
        if Measurement.get(console, unlimited, table).maximum <= console.width:
            return table
    return _leader_table(settings, p_values, metric, left_out, in_columns=False)


def _leader_table(
    settings: Sequence[Setting],
    p_values: Sequence[float | None],
    metric: str,
    left_out: Sequence[str],
    *,
    in_columns: bool = True,
) -> Table:
    """Return a leaderboard without some columns; `in_columns`: with a column per parameter."""
    is_mean = any(setting.deviation is not None for setting in settings)
    by_accuracy, by_training = metric == "val_accuracy", metric == "train_loss"
    rows = [
        {
            "trials" if is_mean else "trial": _span([row.trial for row in setting.trials]),
            "accuracy": percent(setting.accuracy)
            + (_plus_minus(setting.deviation, percent=True) if by_accuracy else ""),
            "loss": _number(setting.loss) + ("" if by_accuracy else _plus_minus(setting.deviation)),
            "epoch": str(setting.best.best_epoch),
            "last acc.": percent(setting.last_accuracy),
            "last loss": _number(setting.last_loss),
            "p": p_value(p),
        }
        for setting, p in zip(settings, (None, *p_values), strict=True)
    ]
    hidden = {*left_out}
    if is_mean or by_training:
        hidden.add("epoch")
    if by_training or all(setting.last_loss is None for setting in settings):
        hidden |= {"last acc.", "last loss"}
    if all(p is None for p in p_values):
        hidden.add("p")
    shown = [name for name in rows[0] if name not in hidden]
    table = Table(box=box.SIMPLE)
    for name in shown:
        table.add_column(name, justify="right", no_wrap=True)
    keys = varying_keys([setting.point for setting in settings])
    for key in short_keys(keys) if in_columns else ["parameters"]:
        justify: Literal["left", "right"] = "right" if in_columns else "left"
        table.add_column(key, justify=justify, overflow="fold", no_wrap=in_columns)
    for i, (setting, cells) in enumerate(zip(settings, rows, strict=True)):
        values = [short_value(setting.point[key]) for key in keys]
        table.add_row(
            *(cells[name] for name in shown),
            *(values if in_columns else [describe_point(setting.point, keys)]),
            style="" if i else f"bold {GREEN}",
        )
    return table


def _conclusion(
    settings: Sequence[Setting], p_values: Sequence[float | None], metric: str
) -> str | None:
    """Return a sentence on whether the best setting is significantly better."""
    not_worse = [
        setting
        for setting, p in zip(settings[1:], p_values, strict=False)
        if p is not None and p >= ALPHA
    ]
    if not p_values or all(p is None for p in p_values):
        return None
    several = len(settings[0].trials) > 1
    if several:
        repeats = settings[0].repeats
        test = f"a paired t-test over {repeats}"
        more = "more --seeds" if "seeds" in repeats else "--seeds 3"
    else:
        name = "McNemar's test" if metric == "val_accuracy" else "a paired t-test"
        test, more = f"{name} on the same validation images", "--seeds 3"
    noun, verb = ("Trial", "is") if not several else ("Trials", "are")
    best = f"{noun} {_span([row.trial for row in settings[0].trials])} {verb}"
    if not not_worse:
        return f"{best} significantly better than the others: p < {ALPHA} by {test}."
    names = ", ".join(_span([row.trial for row in setting.trials]) for setting in not_worse)
    return (
        f"{best} not significantly better than {names}: p >= {ALPHA} by {test}. "
        f"Train with {more} to find out."
    )


def _describe_edge(edge: Edge) -> str:
    value, low, high = map(short_value, (edge.value, edge.low, edge.high))
    end, others = ("upper", "larger") if edge.is_upper else ("lower", "smaller")
    return (
        f"The best {edge.key}, {value}, is at the {end} edge of its range {low} to {high}: "
        f"try {others} values."
    )


def _effects_table(rows: Sequence[TrialResult], keys: Sequence[str], metric: str) -> Table:
    """Return a table with the mean score of each value of each key."""
    table = Table(box=box.SIMPLE)
    table.add_column("parameter")
    for heading in ("value", "trials", "mean", "best"):
        table.add_column(heading, justify="right", overflow="fold")
    show = percent if metric == "val_accuracy" else _number
    for short, key in zip(short_keys(keys), keys, strict=True):
        for i, effect in enumerate(effects(rows, key, metric)):
            ends = effect.value if isinstance(effect.value, tuple) else (effect.value,)
            table.add_row(
                "" if i else short,
                " to ".join(map(short_value, ends)),
                str(effect.count),
                show(effect.mean),
                show(effect.best),
            )
        table.add_section()
    return table


def describe_point(point: Params, keys: Sequence[str]) -> str:
    """Return the values of the given keys of a point, on one line."""
    named = zip(short_keys(keys), keys, strict=True)
    return ", ".join(f"{short}={short_value(point[key])}" for short, key in named)


def varying_keys(points: Sequence[Params]) -> list[str]:
    """Return the keys whose values differ between points, or all keys if none differs."""
    first = points[0]
    varying = [key for key in first if any(point[key] != first[key] for point in points)]
    return varying or list(first)


def _span(numbers: Sequence[int]) -> str:
    """Return trial numbers as text, such as ``3``, ``3-5`` or ``3+6``."""
    first, last = numbers[0], numbers[-1]
    if first == last:
        return str(first)
    if list(numbers) == list(range(first, last + 1)):
        return f"{first}-{last}"
    return "+".join(map(str, numbers))


def _plus_minus(deviation: float | None, *, percent: bool = False) -> str:
    if deviation is None:
        return ""
    return f" ± {100 * deviation:.2f}" if percent else f" ± {deviation:.2g}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
