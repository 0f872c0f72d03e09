"""A sweep, as a page shows it: which values of its parameters did well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nnctl.errors import UsageError
from nnctl.report.charts import Chart, draw_points
from nnctl.runs.directory import Run, require_same
from nnctl.runs.plan import changeable
from nnctl.sweep.results import ranked, score_of
from nnctl.sweep.space import varied_keys
from nnctl.sweep.sweep import Record
from nnctl.sweep.trials import COMPLETE, JOURNAL, TrialResult

_MOST_KEYS = 24  # that are drawn
_METRICS = {"val_accuracy": "validation accuracy", "val_loss": "validation loss"}


@dataclass(frozen=True)
class Study:
    """A sweep, at its end or before.

    Parameters
    ----------
    name : str
        Its folder.
    method : str
        How points are chosen.
    metric : str
        What ranks them, in words.
    complete, begun, left : int
        How many trials are complete, are being trained, and are still to do, as far as one knows.
    charts : list of Chart
        A key each: its values, and what came of them.
    runs : list of Run
        The best ones, and those that are being trained.
    """

    name: str
    method: str
    metric: str
    complete: int
    begun: int
    left: int
    charts: list[Chart]
    runs: list[Run]

    @classmethod
    def of(cls, directory: Path, most: int) -> Study:
        """Read the journal of a sweep, and find its best runs that are still there.

        Raises
        ------
        NnctlError
            The journal is damaged, nothing has begun yet, or a run is not the journal's.
        """
        record = Record(directory)
        metric = record.plan.sweep.ranked_by
        rows = list(record.results.values())
        complete = [row for row in rows if row.status in COMPLETE]
        best = [setting.best.trial for setting in ranked(rows, metric)]
        trained = [(trial, Run(record.run_dir(trial))) for trial in (*best, *record.begun)]
        there = [(trial, run) for trial, run in trained if run.config_path.is_file()][:most]
        for trial, run in there:
            found, planned = run.config, record.config(trial)
            require_same(
                found,
                run.config_path,
                planned,
                JOURNAL,
                but=changeable(found, planned),
                hint=f"Remove or restore {run.directory}, which was changed.",
            )
        runs = [run for _, run in there]
        if not runs:
            raise UsageError(
                f"no trial of {directory} has begun, or all are gone", hint="Wait for the first."
            )
        keys = varied_keys(record.plan.sweep.space)
        return cls(
            name=directory.resolve().name,
            method=record.plan.sweep.method,
            metric=_METRICS[metric],
            complete=len(complete),
            begun=len(record.begun),
            left=record.left,
            charts=[_chart(complete, key, metric) for key in keys[:_MOST_KEYS] if complete],
            runs=runs,
        )


def _chart(rows: Sequence[TrialResult], key: str, metric: str) -> Chart:
    scores = [score_of(row, metric) for row in rows]
    accuracy = metric == "val_accuracy"
    best = scores.index(max(scores) if accuracy else min(scores))
    values = [row.parameters.get(key) for row in rows]
    return draw_points(key, values, scores, percent=accuracy, best=best)
