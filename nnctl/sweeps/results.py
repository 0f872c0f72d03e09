"""The results of a sweep: result files, ranking of settings, and effects of single keys."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.analysis.comparison import mcnemar, paired_t_test
from nnctl.analysis.evaluation import Predictions, predict_validation
from nnctl.config.sweeps import Range
from nnctl.data.dataset import Dataset
from nnctl.errors import NnctlError, storage_errors
from nnctl.files import require_own, write_atomically
from nnctl.runs.run import Run
from nnctl.sweeps.space import Params, Space, quantile, to_key
from nnctl.sweeps.trials import COMPLETE, TrialResult, best_score, history_so_far, sort_key


class ResultFiles:
    """``results.jsonl`` and ``results.csv``: a row per trial, in the order in which they end.

    Parameters
    ----------
    directory : Path
        Sweep directory.
    keys : sequence of str
        Keys that vary, one column each.
    """

    def __init__(self, directory: Path, keys: Sequence[str]) -> None:
        self._lines = directory / "results.jsonl"
        self._table = directory / "results.csv"
        self._keys = tuple(keys)

    def add(self, rows: Sequence[TrialResult]) -> None:
        """Append rows to both files, unless another program holds them open.

        Raises
        ------
        StorageError
            The files cannot be written.
        """
        if not rows:
            return
        # A file may be open in another program on Windows; `write` replaces both at the end.
        with storage_errors(self._lines.parent), contextlib.suppress(PermissionError):
            require_own(self._lines)
            require_own(self._table)
            with self._lines.open("a", encoding="utf-8", newline="") as lines:
                lines.write(_json_lines(rows))
            with self._table.open("a", encoding="utf-8", errors="replace", newline="") as table:
                table.write(self._csv(rows))

    def write(self, rows: Iterable[TrialResult]) -> None:
        """Replace both files; rows are in the order of the trials. See `add`."""
        ordered = sorted(rows, key=lambda row: row.trial)
        with storage_errors(self._lines.parent):
            write_atomically(self._lines, _json_lines(ordered).encode())
            write_atomically(self._table, self._csv(ordered, header=True).encode(errors="replace"))

    def _csv(self, rows: Sequence[TrialResult], *, header: bool = False) -> str:
        """Return rows as CSV with a column for each key that varies."""
        text = io.StringIO(newline="")
        names = [name for name in TrialResult.model_fields if name != "parameters"]
        writer = csv.DictWriter(text, [*names, *self._keys], lineterminator="\n")
        if header:
            writer.writeheader()
        for row in rows:
            cells = row.to_json()
            parameters = {key: cell(value) for key, value in cells.pop("parameters").items()}
            for name in ("reason", "log"):  # a row must stay on one line
                cells[name] = " / ".join(cells[name].splitlines())
            writer.writerow(cells | parameters)
        return text.getvalue()


def _json_lines(rows: Sequence[TrialResult]) -> str:
    return "".join(f"{json.dumps(row.to_json())}\n" for row in rows)


def cell(value: Any) -> str | int | float:
    """Return a value for a table cell: text and numbers unchanged, other values as JSON."""
    plain = isinstance(value, str | int | float) and not isinstance(value, bool)
    return value if plain else json.dumps(value)


@dataclass(frozen=True)
class Setting:
    """Summary of the trials of one point, which differ only in their seeds and folds.

    Parameters
    ----------
    trials : tuple of TrialResult
        Complete trials, in the order of their seeds and folds.
    best : TrialResult
        Best of these trials.
    point : dict
        Values of the keys that vary.
    accuracy, loss : float
        Mean accuracy and mean loss; see `TrialResult.figures`.
    last_accuracy, last_loss : float or None
        Mean validation metrics of the last epoch; None without validation examples, and for the
        trials of early versions.
    deviation : float or None
        Standard deviation of the ranking metric over the trials; None for a single one.
    """

    trials: tuple[TrialResult, ...]
    best: TrialResult
    point: Params
    accuracy: float
    loss: float
    last_accuracy: float | None
    last_loss: float | None
    deviation: float | None

    @property
    def repeats(self) -> str:
        """What the trials differ in: ``3 seeds``, ``5 folds``, or ``3 seeds x 5 folds``."""
        counts = {
            "seeds": len({row.seed for row in self.trials}),
            "folds": len({row.fold for row in self.trials}),
        }
        return " x ".join(f"{count} {noun}" for noun, count in counts.items() if count > 1)


def ranked(rows: Iterable[TrialResult], metric: str, repeats: int = 1) -> list[Setting]:
    """Return the settings whose trials are all complete, best first.

    Parameters
    ----------
    rows : iterable of TrialResult
        Results in any order.
    metric : str
        A key of `METRICS`; of accuracy and loss, the other one breaks ties.
    repeats : int
        Number of trials per setting.
    """
    by_point: dict[str, list[TrialResult]] = {}
    for row in sorted(rows, key=lambda row: row.trial):
        if row.status in COMPLETE:
            by_point.setdefault(to_key(row.parameters), []).append(row)
    settings = [_setting(rows, metric) for rows in by_point.values() if len(rows) >= repeats]
    return sorted(settings, key=lambda one: sort_key(one.accuracy, one.loss, metric))


def _setting(rows: list[TrialResult], metric: str) -> Setting:
    scores = [row.score(metric) for row in rows]
    accuracies, losses = zip(*(row.figures(metric) for row in rows), strict=True)
    accuracy, loss = _mean(accuracies), _mean(losses)
    return Setting(
        trials=tuple(rows),
        best=min(rows, key=lambda row: row.sort_key(metric)),
        point=rows[0].parameters,
        accuracy=accuracy or 0.0,
        loss=math.inf if loss is None else loss,
        last_accuracy=_mean([row.last_val_accuracy for row in rows]),
        last_loss=_mean([row.last_val_loss for row in rows]),
        deviation=statistics.stdev(scores) if len(scores) > 1 else None,
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean, or None if a value is missing."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if len(known) == len(values) else None


def at_best_epoch(row: TrialResult, metric: str) -> TrialResult:
    """Return a row with the metrics of the best epoch by a given metric.

    Training itself always selects the epoch with the highest accuracy.
    """
    if metric != "val_loss" or row.best_epoch is None:
        return row
    epochs = [epoch for epoch in history_so_far(row.run_dir) if epoch.val_loss is not None]
    if not epochs:
        return row
    best = min(epochs, key=lambda epoch: sort_key(epoch.val_accuracy, epoch.val_loss, metric))
    return row.model_copy(
        update={
            "val_accuracy": best.val_accuracy,
            "val_loss": best.val_loss,
            "best_epoch": best.epoch,
        }
    )


@dataclass(frozen=True)
class Effect:
    """Scores of the trials that share one value of a key.

    Parameters
    ----------
    value : object
        Value of the key, or the lowest and highest value of a quarter of the trials.
    count : int
        Number of trials.
    mean, best : float
        Mean and best value of the metric.
    """

    value: Any
    count: int
    mean: float
    best: float


_ROUNDED = 2.5  # images that two machines may classify differently, due to rounding
_SAME_LOSS = 1e-3
_MANY = 8  # values of a key; more are grouped into quarters, or cut off


def effects(rows: Iterable[TrialResult], key: str, metric: str) -> list[Effect]:
    """Return the scores of the complete trials, grouped by the values of a key.

    If a key has more than eight values, numbers are grouped into quarters of the trials, and of
    other values only the eight best are returned.
    """

    def value_of(row: TrialResult) -> Any:
        return row.parameters[key]

    complete = [row for row in rows if row.status in COMPLETE]
    groups: dict[str, list[TrialResult]] = {}
    for row in complete:
        groups.setdefault(to_key(value_of(row)), []).append(row)
    if len(groups) > _MANY and all(isinstance(value_of(row), int | float) for row in complete):
        complete.sort(key=value_of)
        count = len(complete)
        quarters = [complete[i * count // 4 : (i + 1) * count // 4] for i in range(4)]
        pairs = [((value_of(part[0]), value_of(part[-1])), part) for part in quarters]
    else:
        pairs = [(value_of(group[0]), group) for group in groups.values()]
    result = [_effect(value, group, metric) for value, group in pairs]
    if all(isinstance(effect.value, int | float) for effect in result):
        return sorted(result, key=lambda effect: effect.value)
    if len(result) > _MANY:
        result.sort(key=lambda effect: effect.mean, reverse=metric == "val_accuracy")
    return result[:_MANY]


def _effect(value: Any, rows: Sequence[TrialResult], metric: str) -> Effect:
    scores = [row.score(metric) for row in rows]
    return Effect(value, len(rows), statistics.fmean(scores), best_score(scores, metric))


@dataclass(frozen=True)
class Edge:
    """A key whose best value is at an end of its range, so that better values may be beyond.

    Parameters
    ----------
    key : str
        Key that varies.
    value, low, high : float
        Best value, and the ends of the range.
    is_upper : bool
        Whether the value is at the upper end.
    """

    key: str
    value: float
    low: float
    high: float
    is_upper: bool


_EDGE = 0.05  # share of a range that counts as its end
_MIN_LISTED, _MIN_DRAWN = 3, 5  # different values of complete trials
_UNORDERED = ("training.seed", "data.positive_digit")


def edges(
    settings: Sequence[Setting], space: Space, allows: Callable[[Params], bool]
) -> Iterator[Edge]:
    """Yield the keys whose best value is at an end of its range.

    Keys without a numeric order or with too few complete trials are left out, and so are ends
    beyond which no value is valid.

    Parameters
    ----------
    settings : sequence of Setting
        Settings, best first.
    space : mapping
        Values or range of each key.
    allows : callable
        Function that returns whether a point has a valid configuration.
    """
    for key, spec in space.items():
        tried: list[Any] = [setting.point.get(key) for setting in settings]
        if key in _UNORDERED or not tried or not all(map(_is_number, tried)):
            continue
        best, count = tried[0], len(set(tried))
        if isinstance(spec, Range):
            if count < _MIN_DRAWN or not spec.is_bounded:
                continue
            low, high = quantile(spec, 0.0), quantile(spec, 1.0)
            margin = _EDGE
        elif count < _MIN_LISTED or not all(map(_is_number, spec.values)):
            continue
        else:
            low, high, margin = min(spec.values), max(spec.values), 0.0
        is_log = isinstance(spec, Range) and spec.shape.startswith("log") and min(low, best) > 0
        scale = math.log if is_log else float
        share = (scale(best) - scale(low)) / (scale(high) - scale(low))
        if margin < share < 1 - margin:
            continue
        is_upper = share > 0.5
        beyond = _beyond(low, high, is_upper=is_upper)
        if allows({**settings[0].point, key: beyond}):
            yield Edge(key, best, low, high, is_upper)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _beyond(low: float, high: float, *, is_upper: bool) -> float:
    """Return a number a little outside a range; it is an integer if both ends are."""
    whole = isinstance(low, int) and isinstance(high, int)
    step = 1 if whole else _EDGE * (high - low)
    if is_upper:
        return high + step
    if low > 0:
        return low // 2 if whole else low / 2
    return low - step


def compute_p_values(
    settings: Sequence[Setting], metric: str, find: Callable[[str], Dataset | None]
) -> list[float | None]:
    """Return the p-value of the difference between the best setting and each other one.

    With several seeds or folds, it is from a paired t-test; trials with the same seed and fold form
    a pair. Otherwise, the best networks are compared on the validation images: by McNemar's test
    if the accuracy ranks, or by a paired t-test of the losses if the validation loss ranks.

    Parameters
    ----------
    settings : sequence of Setting
        Settings, best first.
    metric : str
        Metric that ranks them.
    find : callable
        Function that returns the dataset with a name, or None if it is not on this machine.

    Returns
    -------
    list of float or None
        One p-value for each setting except the first; None if they cannot be compared.
    """
    first, *others = settings
    if first.deviation is not None:
        first_scores = [row.score(metric) for row in first.trials]
        return [
            paired_t_test(first_scores, [row.score(metric) for row in other.trials])
            if len(other.trials) == len(first_scores)
            else None
            for other in others
        ]
    if metric == "train_loss":
        return [None for _ in others]
    evaluated = [_evaluate(setting, find) for setting in settings]
    return [_p_value(evaluated[0], other, metric) for other in evaluated[1:]]


def _evaluate(setting: Setting, find: Callable[[str], Dataset | None]) -> Predictions | None:
    """Evaluate the best network of a setting; return None if it does not match its row.

    It differs if the directory was edited, or if the loss ranks and was lowest in another epoch.
    """
    row = setting.best
    run = Run(row.run_dir)
    try:
        dataset = find(run.config.data.dataset)
        predictions = predict_validation(run, dataset) if dataset else None
    except NnctlError:
        return None
    if predictions is None or row.val_accuracy is None or row.val_loss is None:
        return None
    # Due to rounding, another machine may choose the other class where two are equally likely.
    same_accuracy = abs(predictions.right.mean() - row.val_accuracy) <= _ROUNDED / len(
        predictions.right
    )
    same_loss = math.isclose(predictions.loss, row.val_loss, rel_tol=_SAME_LOSS)
    return predictions if same_accuracy and same_loss else None


def _p_value(best: Predictions | None, other: Predictions | None, metric: str) -> float | None:
    if best is None or other is None or not np.array_equal(best.labels, other.labels):
        return None
    if metric == "val_accuracy":
        return mcnemar(best.right, other.right)
    return paired_t_test(best.losses.tolist(), other.losses.tolist())
