"""Sampling and pruning with Optuna; the only module that imports it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

from nnctl.config.sweeps import Choice, EarlyTermination, SweepConfig
from nnctl.errors import UsageError
from nnctl.sweeps.space import Params, draw

Suggestion = dict[str, Any]
"""Optuna's parameters for a point, by name."""


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
        try:
            import optuna
        except ImportError:
            feature = "method: tpe" if sweep.method == "tpe" else "early_terminate"
            raise UsageError(
                f"{feature} needs Optuna", hint="Install it with: pip install 'nnctl[sweep]'"
            ) from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna = optuna
        self._sweep = sweep
        self._study = optuna.create_study(
            direction="maximize" if sweep.ranked_by == "val_accuracy" else "minimize",
            pruner=_pruner(sweep.early_terminate),
        )
        self._trials: dict[int, Any] = {}

    def suggest(self, number: int) -> tuple[Params, Suggestion]:
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

    def begin(self, number: int, suggestion: Suggestion | None = None) -> None:
        """Register a point as running; `suggestion` holds its parameters if Optuna suggested it."""
        if suggestion is None:
            self._trials[number] = self._study.ask()
        else:
            self._study.enqueue_trial(suggestion)
            self._ask(number)

    def should_prune(self, number: int, scores: Sequence[float]) -> bool:
        """Check whether to prune a trial, given its scores after each epoch so far.

        Parameters
        ----------
        number : int
            Number of the point.
        scores : sequence of float
            Metric after each epoch.
        """
        trial = self._trials[number]
        hopeless = False
        for epoch, score in enumerate(scores, start=1):
            if epoch > (trial.user_attrs.get("epochs") or 0):
                trial.report(score, epoch)
                trial.set_user_attr("epochs", epoch)
                hopeless = hopeless or trial.should_prune()
        return hopeless

    def end(
        self, number: int, outcome: Literal["complete", "bad", "unknown"], score: float | None
    ) -> None:
        """Report the outcome of a point.

        ``complete`` comes with a score, ``bad`` ranks below all scores, ``unknown`` is ignored.
        """
        states = self._optuna.trial.TrialState
        state = {"complete": states.COMPLETE, "bad": states.PRUNED, "unknown": states.FAIL}[outcome]
        self._study.tell(self._trials.pop(number), score, state=state)

    def _ask(self, number: int) -> tuple[Params, Suggestion]:
        trial = self._study.ask()
        point = draw(self._sweep.space, _OptunaDice(trial))
        self._trials[number] = trial
        return point, dict(trial.params)


class _OptunaDice:
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
