"""Data of a sweep for its report: the metric by the value of each parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnctl.errors import UsageError
from nnctl.report import findings
from nnctl.report.charts import Chart, draw_points
from nnctl.runs.differences import require_same
from nnctl.runs.run import Run
from nnctl.sweeps.results import ranked
from nnctl.sweeps.space import varied_keys
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import (
    COMPLETE,
    JOURNAL,
    METRICS,
    TrialResult,
    best_score,
    trial_directory,
)

_MAX_CHARTS = 24  # parameters with a chart


@dataclass(frozen=True)
class SweepReport:
    """Data of a sweep that is complete or still running.

    Parameters
    ----------
    name : str
        Name of its directory.
    method : str
        Search method.
    metric : str
        Metric that ranks the trials, in words.
    complete, unfinished, remaining : int
        Number of trials that are complete, in training, and still to do, as far as it is known.
    charts : list of Chart
        A chart of the metric for each varied key.
    runs : list of Run
        The best runs, then the runs in training.
    """

    name: str
    method: str
    metric: str
    complete: int
    unfinished: int
    remaining: int
    charts: list[Chart]
    runs: list[Run]

    @classmethod
    def of(cls, directory: Path, max_runs: int) -> SweepReport:
        """Read the journal of a sweep, and open its best runs that still exist.

        Raises
        ------
        NnctlError
            The journal is corrupt, no trial has started, or a run does not match the journal.
        """
        state = SweepState.read(directory)
        metric = state.plan.sweep.ranked_by
        rows = list(state.results.values())
        complete = [row for row in rows if row.status in COMPLETE]
        best = [setting.best.trial for setting in ranked(rows, metric)]
        trained = [
            (trial, Run(trial_directory(directory, trial))) for trial in (*best, *state.unfinished)
        ]
        existing = [(trial, run) for trial, run in trained if run.config_path.is_file()][:max_runs]
        for trial, run in existing:
            hint = f"{run.directory} was changed: remove or restore it."
            require_same(run.config, run.config_path, state.config(trial), JOURNAL, hint=hint)
        runs = [run for _, run in existing]
        if not runs:
            raise UsageError(
                f"{directory} contains no runs: no trial has started, or all were removed",
                hint="Wait until the first trial starts.",
            )
        keys = varied_keys(state.plan.sweep.space)
        return cls(
            name=directory.resolve().name,
            method=state.plan.sweep.method,
            metric=METRICS[metric],
            complete=len(complete),
            unfinished=len(state.unfinished),
            remaining=state.left,
            charts=[_chart(complete, key, metric) for key in keys[:_MAX_CHARTS] if complete],
            runs=runs,
        )


def _chart(rows: Sequence[TrialResult], key: str, metric: str) -> Chart:
    scores = [row.score(metric) for row in rows]
    best = scores.index(best_score(scores, metric))
    values = [row.parameters.get(key) for row in rows]
    finding = findings.about_points(values, best)
    percent = metric == "val_accuracy"
    return draw_points(key, values, scores, percent=percent, best=best, finding=finding)
