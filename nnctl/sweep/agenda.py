"""What a sweep has still to do: the trials that wait, and the points that a search will add."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nnctl.config import Config
from nnctl.sweep.plan import Plan, TrialMaker
from nnctl.sweep.results import score_of
from nnctl.sweep.search import Search, Suggestion
from nnctl.sweep.space import Point
from nnctl.sweep.trials import COMPLETE, Trial, TrialResult, metrics_so_far

Line = Mapping[str, Any]
"""A line of the journal."""


class Agenda:
    """The trials of a sweep in their order; each change is told as a line for the journal.

    A point has a trial for each seed. A point whose trials are all there already is not tried
    again.

    Parameters
    ----------
    home : Path
        The directory of the sweep.
    plan : Plan
        What is varied.
    maker : TrialMaker
        Makes the trials.
    tell : callable
        Takes the lines.
    """

    def __init__(
        self, home: Path, plan: Plan, maker: TrialMaker, tell: Callable[[Line], None]
    ) -> None:
        sweep = plan.sweep
        self._home = home
        self._plan = plan
        self._maker = maker
        self._tell = tell
        self._waiting: deque[Trial] = deque()
        self._numbers: dict[str, int] = {}  # of the trials, by their identities
        self._points: dict[int, int] = {}  # the point of each trial
        self._sizes: dict[int, int] = {}  # how many trials each point has
        self._results: dict[int, list[TrialResult]] = {}  # of each point
        self._to_suggest = (sweep.most or 0) if sweep.method == "tpe" else 0
        self._suggested = 0
        self._search = Search(sweep) if sweep.method == "tpe" or sweep.early_terminate else None

    @property
    def total(self) -> int:
        """How many trials there will be, if no suggestion is one that was tried before."""
        to_come = self._to_suggest - self._suggested
        return len(self._points) + to_come * self._plan.sweep.seeds

    def plan(self, points: Iterable[tuple[Point, Config]]) -> None:
        """Plan the trials of points that are known beforehand, which those of tpe are not.

        Those that are planned already are left as they are.

        Raises
        ------
        DataError
            A dataset cannot be had.
        """
        for number, (point, config) in enumerate(points if not self._to_suggest else (), start=1):
            if self._plan_point(number, point, config) and self._search:
                self._search.begin(number)
        self._tell({"event": "complete", "trials": len(self._points)})

    def replay(
        self,
        lines: Sequence[Line],
        results: Mapping[int, TrialResult],
        only: Container[int] | None = None,
    ) -> None:
        """Take what a journal tells for done, and what it does not for still to do.

        Parameters
        ----------
        lines : sequence of mapping
            All lines but the first.
        results : mapping of int to TrialResult
            What is final, by the number of the trial.
        only : container of int, optional
            Leave it at these of the trials that are still to do.

        Raises
        ------
        DataError
            The dataset of a trial that is still to do cannot be had.
        """
        planned: list[Line] = []
        learned: set[int] = set()
        for line in lines:
            match line["event"]:
                case "planned":
                    planned.append(line)
                    self._replay_planned(line)
                case "repeated" | "impossible":
                    self._suggested = line["point"]
                    if self._search:
                        self._search.begin(line["point"], line["suggestion"])
                        self._learn_repeated(line["point"], line.get("trial"))
                case "ended" if line["trial"] in results and line["trial"] not in learned:
                    result = results[line["trial"]]
                    if line["status"] == result.status:
                        learned.add(line["trial"])
                        self._replay_scores(result, line.get("scores"))
                        self.learn(result)
        self._waiting.extend(
            self._maker.restore(self._home, line)
            for line in planned
            if line["trial"] not in results and (only is None or line["trial"] in only)
        )
        self._mend_plan(lines, planned)
        if only is not None:
            self._to_suggest = self._suggested

    def _mend_plan(self, lines: Sequence[Line], planned: Sequence[Line]) -> None:
        """Plan what was about to be planned when the sweep was killed, in the midst of writing."""
        if not any(line["event"] == "complete" for line in lines):
            self.plan(self._plan.checked_points())
        elif planned and (suggestion := planned[-1]["suggestion"]) is not None:
            point = planned[-1]["parameters"]
            config = self._plan.config_at(point)
            self._plan_point(planned[-1]["point"], point, config, suggestion)

    def next(self) -> Trial | None:
        """Return the trial to begin next, or None if there is none now.

        Raises
        ------
        NnctlError
            A point is suggested whose dataset cannot be had, or that this machine cannot train.
        """
        while not self._waiting and self._suggested < self._to_suggest:
            self._suggest()
        return self._waiting.popleft() if self._waiting else None

    def put_back(self, trial: Trial, *, last: bool = False) -> None:
        """Let a trial be begun again: at once, or when all others have been."""
        if last:
            self._waiting.append(trial)
        else:
            self._waiting.appendleft(trial)

    @property
    def is_done(self) -> bool:
        """Whether no trial is left to begin."""
        return not self._waiting and self._suggested >= self._to_suggest

    def is_hopeless(self, trial: Trial, scores: Sequence[float]) -> bool:
        """Tell whether a trial should be ended, by its scores of the epochs so far."""
        if self._search is None or self._plan.sweep.early_terminate is None:
            return False
        return self._search.is_hopeless(self._points[trial.number], scores)

    def learn(self, result: TrialResult) -> None:
        """Take note of what came of a trial."""
        point = self._points[result.trial]
        results = self._results.setdefault(point, [])
        results.append(result)
        if self._search and len(results) == self._sizes[point]:
            self._search.end(point, *self._judged(results))

    def _judged(self, results: Sequence[TrialResult]) -> tuple[Any, float | None]:
        if any(result.status == "failed" for result in results):
            return "unknown", None
        if any(result.status not in COMPLETE for result in results):
            return "bad", None
        metric = self._plan.sweep.ranked_by
        return "complete", statistics.fmean(score_of(result, metric) for result in results)

    def _suggest(self) -> None:
        """Plan the next point of a search."""
        assert self._search is not None
        self._suggested += 1
        number = self._suggested
        point, suggestion = self._search.suggest(number)
        told = {"point": number, "suggestion": suggestion}
        # The ends of all ranges are right, but perhaps not all of them together.
        if not self._plan.allows(point):
            self._tell({"event": "impossible", **told})
            self._learn_repeated(number, None)
            return
        config = self._plan.config_at(point)
        if not self._plan_point(number, point, config, suggestion):
            same = self._numbers[self._maker.identity(config)]
            self._tell({"event": "repeated", "trial": same, **told})
            self._learn_repeated(number, same)

    def _learn_repeated(self, point: int, trial: int | None) -> None:
        """Take note of a suggestion that was tried before, or that no configuration can have."""
        assert self._search is not None
        known = None if trial is None else self._results.get(self._points[trial])
        if trial is None:
            self._search.end(point, "bad", None)
        elif known:
            self._search.end(point, *self._judged(known))
        else:
            self._search.end(point, "unknown", None)

    def _plan_point(
        self, number: int, point: Point, config: Config, suggestion: Suggestion | None = None
    ) -> bool:
        """Plan the trials of a point; tell whether it had none before, and has some now."""
        new = number not in self._sizes
        for offset in range(self._plan.sweep.seeds):
            seed = config.training.seed + offset
            trial = self._maker.make(self._home, len(self._points) + 1, point, config, seed)
            if trial.id in self._numbers:
                continue
            self._add(trial.number, trial.id, number)
            self._waiting.append(trial)
            self._tell(
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

    def _add(self, trial: int, identity: str, point: int) -> None:
        self._numbers[identity] = trial
        self._points[trial] = point
        self._sizes[point] = self._sizes.get(point, 0) + 1

    def _replay_planned(self, line: Line) -> None:
        new = line["point"] not in self._sizes
        self._add(line["trial"], line["id"], line["point"])
        if line["suggestion"] is not None:
            self._suggested = line["point"]
        if new and self._search:
            self._search.begin(line["point"], line["suggestion"])

    def _replay_scores(self, result: TrialResult, scores: Sequence[float] | None) -> None:
        """Report the scores of a trial; the first journals left them in its directory."""
        if self._search and self._plan.sweep.early_terminate:
            if scores is None:
                metric = self._plan.sweep.ranked_by
                rows = metrics_so_far(Path(result.run_dir))
                scores = [row[metric] for row in rows if row[metric] is not None]
            self._search.is_hopeless(self._points[result.trial], scores)
