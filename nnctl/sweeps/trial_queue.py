"""The trial queue of a sweep: trials that wait to start, and points that a search suggests."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Container, Iterable

from nnctl.config import Config
from nnctl.sweeps.journal import (
    Event,
    PlanComplete,
    Suggestion,
    SuggestionImpossible,
    SuggestionRepeated,
    TrialPlanned,
)
from nnctl.sweeps.plan import TrialFactory
from nnctl.sweeps.space import Params
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import Trial


class TrialQueue:
    """Queue of the trials of a sweep; each new trial is an event.

    Each point has one trial per seed. A point whose trials all exist already is not tried again.

    Parameters
    ----------
    state : SweepState
        State of the sweep.
    factory : TrialFactory
        Factory of the trials.
    log : callable
        Function that applies an event to the state and adds it to the journal.
    """

    def __init__(
        self, state: SweepState, factory: TrialFactory, log: Callable[[Event], None]
    ) -> None:
        self._state = state
        self._factory = factory
        self._log = log
        self._waiting: deque[Trial] = deque()
        self._only_known = False

    def plan(self, points: Iterable[tuple[Params, Config]]) -> None:
        """Queue the trials of a grid or of random points; the points of tpe are not known yet.

        Trials that are planned already stay unchanged.

        Raises
        ------
        DataError
            A dataset is not available.
        """
        if self._state.plan.sweep.method != "tpe":
            for number, (point, config) in enumerate(points, start=1):
                self._plan_point(number, point, config)
        self._log(PlanComplete(trials=len(self._state.planned)))

    def restore(self, only: Container[int] | None = None) -> None:
        """Queue the trials without a result again, and complete the plan of a killed sweep.

        Parameters
        ----------
        only : container of int, optional
            Trial numbers; only these are queued, and no points are suggested.

        Raises
        ------
        DataError
            The dataset of an unfinished trial is not available.
        """
        state, planned = self._state, list(self._state.planned.values())
        self._only_known = only is not None
        self._waiting.extend(
            self._factory.restore(state.directory, one)
            for one in planned
            if one.trial not in state.results and (only is None or one.trial in only)
        )
        if not state.is_planned:
            self.plan(state.plan.checked_points())
        elif planned and planned[-1].suggestion is not None:
            last = planned[-1]
            config = state.plan.config_at(last.parameters)
            self._plan_point(last.point, last.parameters, config, last.suggestion)

    def ask(self) -> Trial | None:
        """Return the trial to start next, or None if no trial can start now.

        Raises
        ------
        NnctlError
            The dataset of a suggested point is not available, or this machine cannot train it.
        """
        while not self.is_done and not self._waiting:
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
        return not self._waiting and (self._only_known or not self._state.to_suggest)

    def _suggest(self) -> None:
        """Queue the trials of the next suggested point."""
        state = self._state
        assert state.search is not None
        number = state.last_point + 1
        point, suggestion = state.search.ask(number)
        # Each value was checked alone, but some combinations may still be invalid.
        if not state.plan.allows(point):
            self._log(SuggestionImpossible(point=number, suggestion=suggestion))
            return
        config = state.plan.config_at(point)
        if not self._plan_point(number, point, config, suggestion):
            same = state.numbers[self._factory.identity(config)]
            self._log(SuggestionRepeated(point=number, trial=same, suggestion=suggestion))

    def _plan_point(
        self, number: int, point: Params, config: Config, suggestion: Suggestion | None = None
    ) -> bool:
        """Queue the trials of a point; return whether any of them is new."""
        state = self._state
        before = len(state.planned)
        for offset in range(state.plan.sweep.seeds):
            seed, trial_number = config.training.seed + offset, len(state.planned) + 1
            trial = self._factory.make(state.directory, trial_number, point, config, seed)
            if trial.id in state.numbers:
                continue
            self._waiting.append(trial)
            self._log(
                TrialPlanned(
                    trial=trial.number,
                    id=trial.id,
                    point=number,
                    seed=seed,
                    parameters=point,
                    suggestion=suggestion,
                    config=json.loads(trial.config),
                )
            )
        return len(state.planned) > before
