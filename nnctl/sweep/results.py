"""The results of a sweep: files with a row a trial, and what they tell when taken together."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.data.dataset import Dataset
from nnctl.errors import NnctlError
from nnctl.files import require_own, write_atomically
from nnctl.runs.comparison import Judged, judge, mcnemar, paired_t_test
from nnctl.runs.directory import Run, cannot_write
from nnctl.sweep.space import Point
from nnctl.sweep.trials import COMPLETE, TrialResult, metrics_so_far


class ResultFiles:
    """``results.jsonl`` and ``results.csv``: a row a trial, in the order in which they end.

    Parameters
    ----------
    directory : Path
        Of the sweep.
    keys : sequence of str
        The keys that vary: a column each.
    """

    def __init__(self, directory: Path, keys: Sequence[str]) -> None:
        self._lines = directory / "results.jsonl"
        self._table = directory / "results.csv"
        self._keys = tuple(keys)

    def add(self, rows: Sequence[TrialResult]) -> None:
        """Add rows to both files, if they are not held open by another program.

        Raises
        ------
        StorageError
            They cannot be written.
        """
        if not rows:
            return
        try:
            require_own(self._lines)
            require_own(self._table)
            with self._lines.open("a", encoding="utf-8", newline="") as lines:
                lines.write(_json_lines(rows))
            with self._table.open("a", encoding="utf-8", errors="replace", newline="") as table:
                table.write(self._csv(rows))
        except PermissionError:
            pass  # on Windows another program has them open; they are written anew at the end
        except OSError as error:
            raise cannot_write(self._lines.parent, error) from None

    def write(self, rows: Iterable[TrialResult]) -> None:
        """Write both files anew, in the order of the trials; see `add`."""
        ordered = sorted(rows, key=lambda row: row.trial)
        try:
            write_atomically(self._lines, _json_lines(ordered).encode())
            write_atomically(self._table, self._csv(ordered, header=True).encode(errors="replace"))
        except OSError as error:
            raise cannot_write(self._lines.parent, error) from None

    def _csv(self, rows: Sequence[TrialResult], *, header: bool = False) -> str:
        """Return rows with a column for each key that varies."""
        text = io.StringIO(newline="")
        names = [name for name in TrialResult.__dataclass_fields__ if name != "parameters"]
        writer = csv.DictWriter(text, [*names, *self._keys], lineterminator="\n")
        if header:
            writer.writeheader()
        for row in rows:
            cells = row.to_json()
            parameters = {key: cell(value) for key, value in cells.pop("parameters").items()}
            for name in ("reason", "log"):  # a row is a line
                cells[name] = " / ".join(cells[name].splitlines())
            writer.writerow(cells | parameters)
        return text.getvalue()


def _json_lines(rows: Sequence[TrialResult]) -> str:
    return "".join(f"{json.dumps(row.to_json())}\n" for row in rows)


def cell(value: Any) -> str | int | float:
    """Return a value as it stands in a table: text and numbers as they are, all else as JSON."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


@dataclass(frozen=True)
class Setting:
    """What the trials of one point, which differ in their seeds, come to.

    Parameters
    ----------
    trials : tuple of TrialResult
        Those that are complete, in the order of their seeds.
    best : TrialResult
        The best of them.
    point : dict
        The values of the keys that vary.
    accuracy, loss : float
        Means of the validation accuracy and loss.
    deviation : float or None
        Standard deviation of the metric that ranks, over the seeds; None for a single one.
    """

    trials: tuple[TrialResult, ...]
    best: TrialResult
    point: Point
    accuracy: float
    loss: float
    deviation: float | None


def ranked(rows: Iterable[TrialResult], metric: str, seeds: int = 1) -> list[Setting]:
    """Return the settings all of whose trials are complete, the best first.

    Parameters
    ----------
    rows : iterable of TrialResult
        In any order.
    metric : str
        ``val_accuracy`` or ``val_loss``; the other one decides ties.
    seeds : int
        How many trials a setting has.
    """
    by_point: dict[str, list[TrialResult]] = {}
    for row in sorted(rows, key=lambda row: row.trial):
        if row.status in COMPLETE:
            by_point.setdefault(json.dumps(row.parameters, sort_keys=True), []).append(row)
    settings = [_setting(rows, metric) for rows in by_point.values() if len(rows) >= seeds]
    return sorted(settings, key=lambda one: _rank(one.accuracy, one.loss, metric))


def _rank(accuracy: float, loss: float, metric: str) -> tuple[float, float]:
    """Return what sorts the best to the front; the other metric decides ties."""
    return (-accuracy, loss) if metric == "val_accuracy" else (loss, -accuracy)


def _setting(rows: list[TrialResult], metric: str) -> Setting:
    def rank(row: TrialResult) -> tuple[float, float]:
        return _rank(score_of(row, "val_accuracy"), score_of(row, "val_loss"), metric)

    scores = [score_of(row, metric) for row in rows]
    return Setting(
        trials=tuple(rows),
        best=min(rows, key=rank),
        point=rows[0].parameters,
        accuracy=statistics.fmean(score_of(row, "val_accuracy") for row in rows),
        loss=statistics.fmean(score_of(row, "val_loss") for row in rows),
        deviation=statistics.stdev(scores) if len(scores) > 1 else None,
    )


def at_best_epoch(row: TrialResult, metric: str) -> TrialResult:
    """Return a row with the figures of the epoch that is the best by a metric.

    Those of a training are of its highest accuracy, whatever ranks the trials of a sweep.
    """
    if metric == "val_accuracy" or row.best_epoch is None:
        return row
    epochs = [epoch for epoch in metrics_so_far(Path(row.run_dir)) if epoch["val_loss"] is not None]
    if not epochs:
        return row
    best = min(epochs, key=lambda epoch: (epoch["val_loss"], -epoch["val_accuracy"]))
    return replace(
        row,
        val_accuracy=best["val_accuracy"],
        val_loss=best["val_loss"],
        best_epoch=best["epoch"],
    )


def score_of(row: TrialResult, metric: str) -> float:
    """Return the metric of a trial; the worst there is, if it has none."""
    if metric == "val_accuracy":
        return row.val_accuracy or 0.0
    return float("inf") if row.val_loss is None else row.val_loss


@dataclass(frozen=True)
class Effect:
    """How the trials with one value of a key did.

    Parameters
    ----------
    value : object
        Of the key; of numbers drawn from a range, the lowest and the highest of a quarter of them.
    count : int
        How many trials.
    mean, best : float
        Of the metric.
    """

    value: Any
    count: int
    mean: float
    best: float


_ROUNDED = 2.5  # images that two machines may classify differently
_SAME_LOSS = 1e-3
_MANY = 8  # values, more of which are taken together, or left out


def effects(rows: Iterable[TrialResult], key: str, metric: str) -> list[Effect]:
    """Return how the complete trials did by the values of a key.

    Where a key has many values, as of a range, they are taken together in quarters; of many that
    are no numbers, there are the best.
    """
    complete = [row for row in rows if row.status in COMPLETE]
    groups: dict[str, list[TrialResult]] = {}
    for row in complete:
        groups.setdefault(json.dumps(row.parameters[key], sort_keys=True), []).append(row)
    values = [row.parameters[key] for row in complete]
    if len(groups) > _MANY and all(isinstance(value, int | float) for value in values):
        complete.sort(key=lambda row: row.parameters[key])
        quarters = [
            complete[i * len(complete) // 4 : (i + 1) * len(complete) // 4] for i in range(4)
        ]
        named = [
            ((quarter[0].parameters[key], quarter[-1].parameters[key]), quarter)
            for quarter in quarters
        ]
    else:
        named = [(group[0].parameters[key], group) for group in groups.values()]
    found = [_effect(value, group, metric) for value, group in named]
    if all(isinstance(effect.value, int | float) for effect in found):
        return sorted(found, key=lambda effect: effect.value)
    if len(found) > _MANY:
        found.sort(key=lambda effect: effect.mean, reverse=metric == "val_accuracy")
    return found[:_MANY]


def _effect(value: Any, rows: Sequence[TrialResult], metric: str) -> Effect:
    scores = [score_of(row, metric) for row in rows]
    best = max(scores) if metric == "val_accuracy" else min(scores)
    return Effect(value, len(rows), statistics.fmean(scores), best)


def chances(
    settings: Sequence[Setting], metric: str, find: Callable[[str], Dataset | None]
) -> list[float | None]:
    """Return how often chance alone would make each setting differ so much from the first.

    With several seeds it is a t-test of the pairs that were trained with the same seed. Else their
    best networks are compared on the validation images: by McNemar's test, or where the loss ranks
    by a t-test of the losses.

    Parameters
    ----------
    settings : sequence of Setting
        As they are ranked.
    metric : str
        Which ranks them.
    find : callable
        Returns the dataset of a name, if it is there.

    Returns
    -------
    list of float or None
        One for each setting but the first; None where they cannot be compared.
    """
    first, *others = settings
    if first.deviation is not None:
        ours = [score_of(row, metric) for row in first.trials]
        return [
            paired_t_test(ours, [score_of(row, metric) for row in other.trials])
            if len(other.trials) == len(ours)
            else None
            for other in others
        ]
    judged = [_judge(setting, find) for setting in settings]
    return [_chance(judged[0], other, metric) for other in judged[1:]]


def _judge(setting: Setting, find: Callable[[str], Dataset | None]) -> Judged | None:
    """Judge the best network of a setting, if it does as well as its row says.

    It does not if the directory was edited, or if the loss ranks and was lowest in another epoch.
    """
    row = setting.best
    run = Run(Path(row.run_dir))
    try:
        dataset = find(run.config.data.dataset)
        judged = judge(run, dataset) if dataset else None
    except NnctlError:
        return None
    if judged is None or row.val_accuracy is None or row.val_loss is None:
        return None
    # Another machine may round to another answer where two are as likely.
    same_accuracy = abs(judged.right.mean() - row.val_accuracy) <= _ROUNDED / len(judged.right)
    same_loss = math.isclose(judged.losses.mean(), row.val_loss, rel_tol=_SAME_LOSS)
    return judged if same_accuracy and same_loss else None


def _chance(ours: Judged | None, theirs: Judged | None, metric: str) -> float | None:
    if ours is None or theirs is None or not np.array_equal(ours.labels, theirs.labels):
        return None
    if metric == "val_accuracy":
        return mcnemar(ours.right, theirs.right)
    return paired_t_test(ours.losses.tolist(), theirs.losses.tolist())
