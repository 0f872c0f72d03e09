"""Comparison of several runs: how their configurations and test accuracies differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnctl.analysis.comparison import ALPHA, count_only_right, mcnemar
from nnctl.report.run_report import RunReport
from nnctl.runs.differences import varied_settings
from nnctl.sweeps.trials import sort_key
from nnctl.text import p_equals, short_value


@dataclass(frozen=True)
class RankedRun:
    """A run compared with the best run.

    Parameters
    ----------
    run_report : RunReport
        The run.
    values : list of str
        Values of the keys in which the configurations differ.
    only_this, only_best : int or None
        Number of test images that only this run, or only the best run, classifies correctly.
    p_value : float or None
        p-value of McNemar's test; None for the best run itself, and if the two runs were not
        evaluated on the same images.
    """

    run_report: RunReport
    values: list[str]
    only_this: int | None = None
    only_best: int | None = None
    p_value: float | None = None

    @property
    def is_distinct(self) -> bool:
        """Whether the difference from the best run is statistically significant."""
        return self.p_value is not None and self.p_value < ALPHA


def rank(reports: Sequence[RunReport]) -> list[RunReport]:
    """Return runs by validation accuracy, the highest first; runs without one come last."""

    def key(run_report: RunReport) -> tuple[float, float]:
        best = run_report.best
        accuracy, loss = (best.val_accuracy, best.val_loss) if best else (None, None)
        return sort_key(accuracy, loss, "val_accuracy")

    return sorted(reports, key=key)


@dataclass(frozen=True)
class Comparison:
    """A comparison of several runs.

    Parameters
    ----------
    keys : list of str
        Keys in which the configurations differ.
    rows : list of RankedRun
        The runs, the best first.
    """

    keys: list[str]
    rows: list[RankedRun]

    def sentence(self, names: Mapping[Path, str]) -> str:
        """Return how many of the other runs differ significantly from the best, as a sentence."""
        best, *others = self.rows
        tested = [row for row in others if row.p_value is not None]
        name = names[best.run_report.run.directory]
        if not tested:
            return (
                f"{name} has the best validation accuracy; no other run has the same test images."
            )
        if len(tested) == 1:
            return f"{name} has the best validation accuracy. {_describe_difference(tested[0])}"
        distinct = sum(row.is_distinct for row in tested)
        return (
            f"{name} has the best validation accuracy. On the test images it differs significantly "
            f"from {distinct} of the other {len(tested)} (McNemar's test, p < {ALPHA:g})."
        )


def _describe_difference(other: RankedRun) -> str:
    assert other.only_best is not None
    assert other.only_this is not None
    assert other.p_value is not None
    differing = other.only_best + other.only_this
    verdict = "significant" if other.is_distinct else "not significant"
    return (
        f"Of the {differing} test images that only one of the two runs gets right, it gets "
        f"{other.only_best} right: {verdict} (McNemar's test, {p_equals(other.p_value)})."
    )


def compare(ranked: Sequence[RunReport]) -> Comparison:
    """Compare each run with the first one.

    Parameters
    ----------
    ranked : sequence of RunReport
        The runs, the best first; see `rank`.
    """
    varied = varied_settings(run_report.config for run_report in ranked)
    return Comparison(
        [*varied[0]],
        [
            _compare(ranked[0], run_report, settings)
            for run_report, settings in zip(ranked, varied, strict=True)
        ],
    )


def _compare(best: RunReport, run_report: RunReport, settings: Mapping[str, Any]) -> RankedRun:
    values = ["" if value is None else short_value(value) for value in settings.values()]
    if run_report is best or best.evaluation is None or run_report.evaluation is None:
        return RankedRun(run_report, values)
    theirs, ours = best.evaluation.predictions, run_report.evaluation.predictions
    if not theirs.has_same_examples(ours):
        return RankedRun(run_report, values)
    only_this, only_best = count_only_right(ours.right, theirs.right)
    return RankedRun(
        run_report,
        values,
        only_this=only_this,
        only_best=only_best,
        p_value=mcnemar(ours.right, theirs.right),
    )
