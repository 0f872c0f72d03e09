"""The trial queue of a sweep: trials that wait to start, and points that a search suggests."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Container, Iterable

from nnctl.config import Config
from nnctl.sweeps import events
from nnctl.sweeps.plan import TrialFactory, trial_id
from nnctl.sweeps.space import Params, to_key
from nnctl.sweeps.state import SweepState
from nnctl.sweeps.trials import Trial


class TrialQueue:
    """Queue of the trials of a sweep; each new trial is an event.

    Each point has one trial per seed and fold. A point whose trials all exist already is not tried
    again.

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
        self, state: SweepState, factory: TrialFactory, log: Callable[[events.Event], None]
    ) -> None:
        self._state = state
        self._factory = factory
        self._log = log
        self._waiting: deque[int] = deque()  # trial numbers
        self._only_known = False

    def plan(self, points: Iterable[tuple[Params, Config]]) -> None:
        """Queue the trials of a grid or of random points; the points of tpe are not known yet.

        Trials that are planned already stay unchanged.

        Raises
        ------
        DataError
            A dataset is not available.
        """
        state = self._state
        if state.plan.sweep.method != "tpe":
            for point, config in points:
                # A process may have died after it planned only some of a point's trials.
                latest = state.planned.get(len(state.planned))
                is_new = latest is None or latest.parameters != point
                self._plan_point(state.last_point + is_new, point, config)
        self._log(events.PlanComplete(trials=len(state.planned)))

    def restore(self, only: Container[int] | None = None) -> None:
        """Queue the trials without a result again, and complete the plan of a killed sweep.

        Parameters
        ----------
        only : container of int, optional
            Trial numbers; only these are queued, and no points are suggested.

        Raises
        ------
        DataError
            A dataset is not available.
        """
        state = self._state
        self._only_known = only is not None
        self._waiting.extend(
            trial
            for trial in state.planned
            if trial not in state.results and (only is None or trial in only)
        )
        last = state.planned.get(len(state.planned))
        if not state.is_planned:
            self.plan(state.plan.checked_points())
        elif last and last.suggestion is not None:
            config = state.plan.config_at(last.parameters)
            self._plan_point(last.point, last.parameters, config, last.suggestion)

    def ask(self) -> Trial | None:
        """Return the trial to start next, or None if no trial can start now.

        Raises
        ------
        NnctlError
            The dataset of the trial is not available, or this machine cannot train it.
        """
        while not self.is_done and not self._waiting:
            self._suggest()
        if not self._waiting:
            return None
        planned = self._state.planned[self._waiting.popleft()]
        return self._factory.make(self._state.directory, planned)

    def requeue(self, trial: int, *, last: bool = False) -> None:
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
            self._log(events.Impossible(point=number, suggestion=suggestion))
            return
        config = state.plan.config_at(point)
        if not self._plan_point(number, point, config, suggestion):
            same = state.numbers[trial_id(self._factory.resolve(config, config.training.seed))]
            self._log(events.Repeated(point=number, trial=same, suggestion=suggestion))

    def _plan_point(
        self,
        number: int,
        point: Params,
        config: Config,
        suggestion: events.Suggestion | None = None,
    ) -> bool:
        """Queue the trials of a point; return whether any of them is new."""
        state = self._state
        before = len(state.planned)
        first, sweep = config.training.seed, state.plan.sweep
        folds = range(1, sweep.folds + 1) if sweep.folds else [None]
        for seed, fold in itertools.product(range(first, first + sweep.seeds), folds):
            if suggestion is None and (to_key(point), seed, fold) in state.known:
                continue
            resolved = self._factory.resolve(config, seed, fold)
            planned = events.Planned(
                trial=len(state.planned) + 1,
                id=trial_id(resolved),
                point=number,
                seed=seed,
                fold=fold,
                parameters=point,
                suggestion=suggestion,
                config=resolved,
            )
            if planned.id not in state.numbers:
                self._log(planned)
                self._waiting.append(planned.trial)
        return len(state.planned) > before
