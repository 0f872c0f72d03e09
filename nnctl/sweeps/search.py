"""Sampling and pruning with Optuna; the only module that imports it."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nnctl.config.sweeps import Choice, EarlyTermination, SweepConfig
from nnctl.errors import requiring
from nnctl.sweeps import events
from nnctl.sweeps.space import Params, draw
from nnctl.sweeps.trials import COMPLETE, TrialResult, history_so_far, scores_of

Outcome = Literal["complete", "bad", "unknown"]
"""Outcome of a point: with a score; worse than all scores; to be ignored."""


class Search:
    """Sampler and pruner: suggests points, and decides which trials to stop early.

    Parameters
    ----------
    sweep : SweepConfig
        Sweep configuration with ``method: tpe`` or ``early_terminate``.

    Raises
    ------
    UsageError
        Optuna is not installed.
    """

    def __init__(self, sweep: SweepConfig) -> None:
        feature = "method: tpe" if sweep.method == "tpe" else "early_terminate"
        with requiring("Optuna", feature, extra="sweep"):
            import optuna
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._sweep = sweep
        self._study = optuna.create_study(
            direction="maximize" if sweep.ranked_by == "val_accuracy" else "minimize",
            pruner=_pruner(sweep.early_terminate),
        )
        self._asked: dict[int, Any] = {}  # Optuna's trials that have no outcome yet, by point
        self._planned: dict[int, events.Planned] = {}  # by trial
        self._trials_of: dict[int, list[int]] = {}  # trial numbers of each point

    def ask(self, number: int) -> tuple[Params, events.Suggestion]:
        """Return the point to try next.

        Each suggestion has its own seed, so that it depends only on the earlier points: a resumed
        sweep suggests the same points as one that was not interrupted.

        Parameters
        ----------
        number : int
            Number of the point, from 1.
        """
        seed = (self._sweep.seed * 1_000_003 + number) % 2**32
        with warnings.catch_warnings():
            # `constant_liar`, which counts running trials as bad, is experimental until Optuna 5.
            warnings.simplefilter("ignore", self._optuna.exceptions.ExperimentalWarning)
            self._study.sampler = self._optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        return self._ask(number)

    def observe(self, event: events.Event, results: Mapping[int, TrialResult]) -> None:
        """Learn from an event of the sweep.

        Parameters
        ----------
        event : events.Event
            The event.
        results : mapping of int to TrialResult
            Results of all trials after the event, by number.
        """
        match event:
            case events.Planned(trial=trial, point=point):
                self._planned[trial] = event
                self._trials_of.setdefault(point, []).append(trial)
                self.add(point, event.suggestion)
            case events.Started(trial=trial):  # a trial that failed may start again
                self.add(self._planned[trial].point, self._planned[trial].suggestion)
            case events.Repeated(point=point, trial=trial):
                self.add(point, event.suggestion)
                self.tell(point, *self._outcome(self._final(self._planned[trial].point, results)))
            case events.Impossible(point=point):
                self.add(point, event.suggestion)
                self.tell(point, "bad")
            case events.Ended(trial=trial) if event.is_final:
                point = self._planned[trial].point
                self.add(point, self._planned[trial].suggestion)
                if self._sweep.early_terminate:
                    scores = event.scores_by_epoch
                    if scores is None:  # a journal of an early version
                        history = history_so_far(results[trial].run_dir)
                        scores = scores_of(history, self._sweep.ranked_by)
                    self.should_prune(point, scores)
                ended = self._final(point, results)
                if len(ended) == len(self._trials_of[point]):
                    self.tell(point, *self._outcome(ended))

    def _final(self, point: int, results: Mapping[int, TrialResult]) -> list[TrialResult]:
        """Return the final results of a point's trials."""
        known = [results[trial] for trial in self._trials_of[point] if trial in results]
        return [result for result in known if result.is_final]

    def _outcome(self, results: Sequence[TrialResult]) -> tuple[Outcome, float | None]:
        """Return the outcome of a point with these results."""
        if not results or any(result.status == "failed" for result in results):
            return "unknown", None
        if any(result.status not in COMPLETE for result in results):
            return "bad", None
        metric = self._sweep.ranked_by
        return "complete", statistics.fmean(result.score(metric) for result in results)

    def add(self, number: int, suggestion: events.Suggestion | None = None) -> None:
        """Add a point that was not asked for; with its parameters, if Optuna once suggested it."""
        if number in self._asked:
            return
        if suggestion is None:
            self._asked[number] = self._study.ask()
        else:
            self._study.enqueue_trial(suggestion)
            self._ask(number)

    def should_prune(self, number: int, scores: Mapping[int, float]) -> bool:
        """Check whether to prune a trial, given its scores so far.

        Parameters
        ----------
        number : int
            Number of the point.
        scores : mapping of int to float
            Metric by epoch, of the epochs that were validated.
        """
        if self._sweep.early_terminate is None:
            return False
        trial = self._asked[number]
        hopeless = False
        for epoch, score in scores.items():
            if epoch > (trial.user_attrs.get("epochs") or 0):
                trial.report(score, epoch)
                trial.set_user_attr("epochs", epoch)
                hopeless = hopeless or trial.should_prune()
        return hopeless

    def tell(self, number: int, outcome: Outcome, score: float | None = None) -> None:
        """Report the outcome of a point, with its score if it is complete."""
        states = self._optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "bad": states.PRUNED, "unknown": states.FAIL}[outcome]
        self._study.tell(self._asked.pop(number), score, state=state)

    def _ask(self, number: int) -> tuple[Params, events.Suggestion]:
        trial = self._study.ask()
        point = draw(self._sweep.space, _OptunaSampler(trial))
        self._asked[number] = trial
        return point, dict(trial.params)


class _OptunaSampler:
    """Sampler that takes its values from a trial of Optuna."""

    def __init__(self, trial: Any) -> None:
        self._trial = trial

    def index(self, name: str, choice: Choice) -> int:
        return int(self._trial.suggest_categorical(name, range(len(choice.values))))

    def unit(self, name: str) -> float:
        return float(self._trial.suggest_float(name, 0.0, 1.0))


def _pruner(early: EarlyTermination | None) -> Any:
    """Return the pruner for the early termination of a sweep."""
    from optuna import pruners

    if early is None:
        return pruners.NopPruner()
    if early.type == "median":
        return pruners.MedianPruner(n_warmup_steps=early.first_epoch)
    return pruners.SuccessiveHalvingPruner(
        min_resource=early.first_epoch, reduction_factor=early.eta
    )
