"""The trial queue of a sweep: trials that wait to start, and points that a search suggests."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnctl.config import Config
from nnctl.sweeps.plan import Plan, TrialFactory
from nnctl.sweeps.results import score_of
from nnctl.sweeps.search import Search, Suggestion
from nnctl.sweeps.space import Params
from nnctl.sweeps.trials import COMPLETE, Trial, TrialResult, metrics_so_far

Line = Mapping[str, Any]
"""A line of the journal."""


class TrialQueue:
    """Queue of the trials of a sweep; each change of the queue produces a line for the journal.

    Each point has one trial per seed. A point whose trials all exist already is not tried again.

    Parameters
    ----------
    home : Path
        Sweep directory.
    plan : Plan
        Base configuration and search space.
    maker : TrialFactory
        Factory of the trials.
    log : callable
        Function that receives the journal lines.
    """

    def __init__(
        self, home: Path, plan: Plan, maker: TrialFactory, log: Callable[[Line], None]
    ) -> None:
        sweep = plan.sweep
        self._home = home
        self._plan = plan
        self._maker = maker
        self._log = log
        self._waiting: deque[Trial] = deque()
        self._numbers: dict[str, int] = {}  # trial numbers by trial ID
        self._points: dict[int, int] = {}  # point of each trial
        self._sizes: dict[int, int] = {}  # number of trials of each point
        self._results: dict[int, list[TrialResult]] = {}  # finished trials of each point
        self._to_suggest = (sweep.most or 0) if sweep.method == "tpe" else 0
        self._suggested = 0
        self._search = Search(sweep) if sweep.method == "tpe" or sweep.early_terminate else None

    @property
    def total(self) -> int:
        """Total number of trials, if the search does not suggest a point twice."""
        to_come = self._to_suggest - self._suggested
        return len(self._points) + to_come * self._plan.sweep.seeds

    def plan(self, points: Iterable[tuple[Params, Config]]) -> None:
        """Queue the trials of a grid or of random points; the points of tpe are not known yet.

        Trials that are in the queue already stay unchanged.

        Raises
        ------
        DataError
            A dataset is not available.
        """
        for number, (point, config) in enumerate(points if not self._to_suggest else (), start=1):
            if self._plan_point(number, point, config) and self._search:
                self._search.begin(number)
        self._log({"event": "complete", "trials": len(self._points)})

    def replay(
        self,
        lines: Sequence[Line],
        results: Mapping[int, TrialResult],
        only: Container[int] | None = None,
    ) -> None:
        """Restore the queue from a journal: trials without a final result are queued again.

        Parameters
        ----------
        lines : sequence of mapping
            All lines except the first.
        results : mapping of int to TrialResult
            Final results by trial number.
        only : container of int, optional
            Trial numbers; only these of the unfinished trials are queued.

        Raises
        ------
        DataError
            The dataset of an unfinished trial is not available.
        """
        planned: list[Line] = []
        reported: set[int] = set()
        for line in lines:
            match line["event"]:
                case "planned":
                    planned.append(line)
                    self._replay_planned(line)
                case "repeated" | "impossible":
                    self._suggested = line["point"]
                    if self._search:
                        self._search.begin(line["point"], line["suggestion"])
                        self._report_repeated(line["point"], line.get("trial"))
                case "ended" if line["trial"] in results and line["trial"] not in reported:
                    result = results[line["trial"]]
                    if line["status"] == result.status:
                        reported.add(line["trial"])
                        self._replay_scores(result, line.get("scores"))
                        self.learn(result)
        self._waiting.extend(
            self._maker.restore(self._home, line)
            for line in planned
            if line["trial"] not in results and (only is None or line["trial"] in only)
        )
        self._complete_plan(lines, planned)
        if only is not None:
            self._to_suggest = self._suggested

    def _complete_plan(self, lines: Sequence[Line], planned: Sequence[Line]) -> None:
        """Add planned trials that are missing because the sweep was killed while it wrote them."""
        if not any(line["event"] == "complete" for line in lines):
            self.plan(self._plan.checked_points())
        elif planned and (suggestion := planned[-1]["suggestion"]) is not None:
            point = planned[-1]["parameters"]
            config = self._plan.config_at(point)
            self._plan_point(planned[-1]["point"], point, config, suggestion)

    def next(self) -> Trial | None:
        """Return the trial to start next, or None if no trial can start now.

        Raises
        ------
        NnctlError
            The dataset of a suggested point is not available, or this machine cannot train it.
        """
        while not self._waiting and self._suggested < self._to_suggest:
            self._suggest()
        return self._waiting.popleft() if self._waiting else None

    def requeue(self, trial: Trial, *, last: bool = False) -> None:
        """Put a trial back into the queue, at its front or at its end."""
        if last:
            self._waiting.append(trial)
        else:
            self._waiting.appendleft(trial)

    @property
    def is_done(self) -> bool:
        """Whether the queue is empty and the search adds no more points."""
        return not self._waiting and self._suggested >= self._to_suggest

    def should_prune(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Check whether to prune a trial, given its scores after each epoch so far."""
        if self._search is None or self._plan.sweep.early_terminate is None:
            return False
        return self._search.should_prune(self._points[trial.number], scores)

    def learn(self, result: TrialResult) -> None:
        """Report the result of a trial to the search."""
        point = self._points[result.trial]
        results = self._results.setdefault(point, [])
        results.append(result)
        if self._search and len(results) == self._sizes[point]:
            self._search.end(point, *self._outcome_of(results))

    def _outcome_of(self, results: Sequence[TrialResult]) -> tuple[Any, float | None]:
        if any(result.status == "failed" for result in results):
            return "unknown", None
        if any(result.status not in COMPLETE for result in results):
            return "bad", None
        metric = self._plan.sweep.ranked_by
        return "complete", statistics.fmean(score_of(result, metric) for result in results)

    def _suggest(self) -> None:
        """Queue the trials of the next suggested point."""
        assert self._search is not None
        self._suggested += 1
        number = self._suggested
        point, suggestion = self._search.suggest(number)
        fields = {"point": number, "suggestion": suggestion}
        # Each value was checked alone, but some combinations may still be invalid.
        if not self._plan.allows(point):
            self._log({"event": "impossible", **fields})
            self._report_repeated(number, None)
            return
        config = self._plan.config_at(point)
        if not self._plan_point(number, point, config, suggestion):
            same = self._numbers[self._maker.identity(config)]
            self._log({"event": "repeated", "trial": same, **fields})
            self._report_repeated(number, same)

    def _report_repeated(self, point: int, trial: int | None) -> None:
        """Report to the search the score of a point that was tried already or is not valid."""
        assert self._search is not None
        known = None if trial is None else self._results.get(self._points[trial])
        if trial is None:
            self._search.end(point, "bad", None)
        elif known:
            self._search.end(point, *self._outcome_of(known))
        else:
            self._search.end(point, "unknown", None)

    def _plan_point(
        self, number: int, point: Params, config: Config, suggestion: Suggestion | None = None
    ) -> bool:
        """Queue the trials of a point; return whether they are the first trials of the point."""
        new = number not in self._sizes
        for offset in range(self._plan.sweep.seeds):
            seed = config.training.seed + offset
            trial = self._maker.make(self._home, len(self._points) + 1, point, config, seed)
            if trial.id in self._numbers:
                continue
            self._register(trial.number, trial.id, number)
            self._waiting.append(trial)
            self._log(
                {
                    "event": "planned",
                    "trial": trial.number,
                    "id": trial.id,
                    "point": number,
                    "seed": seed,
                    "parameters": point,
                    "suggestion": suggestion,
                    "config": json.loads(trial.config),
                }
            )
        return new and number in self._sizes

    def _register(self, trial: int, identity: str, point: int) -> None:
        self._numbers[identity] = trial
        self._points[trial] = point
        self._sizes[point] = self._sizes.get(point, 0) + 1

    def _replay_planned(self, line: Line) -> None:
        new = line["point"] not in self._sizes
        self._register(line["trial"], line["id"], line["point"])
        if line["suggestion"] is not None:
            self._suggested = line["point"]
        if new and self._search:
            self._search.begin(line["point"], line["suggestion"])

    def _replay_scores(self, result: TrialResult, scores: Sequence[float] | None) -> None:
        """Report the scores of a trial; for old journals, read them from its run directory."""
        if self._search and self._plan.sweep.early_terminate:
            if scores is None:
                metric = self._plan.sweep.ranked_by
                rows = metrics_so_far(Path(result.run_dir))
                scores = [row[metric] for row in rows if row[metric] is not None]
            self._search.should_prune(self._points[result.trial], scores)
