"""Learning-rate range test: trains for some hundred steps, each with a larger rate (Smith, 2017).

It does not need a run directory. The loss of each step is measured before the update, on the batch
of that step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from nnctl.build import build_loop, build_network
from nnctl.config import Config
from nnctl.data.dataset import Dataset
from nnctl.nn.examples import Examples
from nnctl.nn.schedules import Schedule
from nnctl.nn.streams import stream
from nnctl.runs.resolve import Notify, Working, split
from nnctl.system import single_threaded_blas

LOWEST, HIGHEST = 1e-5, 10.0
"""Default rates of the first and of the last step."""
MIN_STEPS, MAX_STEPS = 20, 10_000
_STEPS, _MOST_STEPS = 200, 2000  # by default; the more, the smaller the batches are
_EXAMPLES = 6400  # for these steps, as the losses of few examples are noisy; at most an epoch
_SPAN = 20  # each loss is smoothed over 1/20 of the steps
_DIVERGED = 4.0  # multiple of the lowest loss at which the test ends
_FALL = 0.85  # a loss that stays above this share of the first one does not fall, but is noisy


@dataclass(frozen=True)
class RangeStep:
    """A step of the test: its rate, the loss of its batch, and the smoothed loss."""

    learning_rate: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class RangeTest:
    """Result of a learning-rate range test.

    Parameters
    ----------
    suggestion : float or None
        Geometric mean of the following two rates, to two digits; None if the loss did not fall.
    reason : str
        Why this rate is suggested, or why none is.
    fastest, lowest : float or None
        Rates at which the smoothed loss fell fastest, and was lowest.
    diverged : float or None
        Rate at which the training diverged, if it did.
    steps : list of RangeStep
        Steps with a finite loss.
    """

    suggestion: float | None
    reason: str
    fastest: float | None
    lowest: float | None
    diverged: float | None
    steps: list[RangeStep]

    @property
    def option(self) -> str | None:
        """Option of ``nnctl train`` for the suggested rate."""
        return None if self.suggestion is None else f"--lr {self.suggestion:g}"

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-compatible values."""
        return {
            "suggestion": self.suggestion,
            "option": self.option,
            **vars(self),
            "steps": [vars(step) for step in self.steps],
        }


@dataclass(frozen=True)
class _Rates(Schedule):
    """One rate for each step of the training."""

    name: ClassVar[str] = "rates"
    rates: list[float] = field(default_factory=list)

    def decay(self, time: float, epochs: float) -> float:
        """Return the rate of the step whose middle is at this time."""
        return self.rates[int(time / epochs * len(self.rates))]


def find_learning_rate(
    config: Config,
    dataset: Dataset,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int | None = None,
    notify: Notify = lambda _: None,
) -> RangeTest:
    """Train a new network with growing learning rates, until it diverges, and suggest a rate.

    The rates grow by a constant factor per step. The schedule of the configuration is ignored;
    everything else is as in training, so the same seed gives the same result.

    Parameters
    ----------
    config : Config
        Configuration without ``auto`` values.
    dataset : Dataset
        Its dataset.
    lowest, highest : float
        Rates of the first and of the last step.
    steps : int, optional
        Number of steps, from `MIN_STEPS` to `MAX_STEPS`; default: 200, or more if the batches
        are small.
    notify : callable
        Function that receives `Working` notices.

    Raises
    ------
    DataError
        The dataset does not have more examples than are held out for validation.
    """
    training, _ = split(config, dataset)
    if steps is None:
        examples = min(len(training.labels), _EXAMPLES)
        steps = min(max(examples // config.training.batch_size, _STEPS), _MOST_STEPS)
    rates = np.geomspace(lowest, highest, steps).tolist()
    span = steps // _SPAN
    taken: list[RangeStep] = []
    average, best, diverged = 0.0, math.inf, None
    with single_threaded_blas(), np.errstate(over="ignore", invalid="ignore"):
        for rate, loss in zip(rates, _losses(config, training, rates), strict=True):
            # The mean of the first steps, and then an exponential average.
            average += (loss - average) / min(len(taken) + 1, span)
            if not math.isfinite(loss) or average > _DIVERGED * best:
                diverged = rate
                break
            taken.append(RangeStep(rate, loss, average))
            if len(taken) >= span:
                best = min(best, average)
            notify(Working("testing learning rates", len(taken) / steps))
    # The first averages are of too few steps.
    taken[:span] = [replace(step, smoothed=taken[:span][-1].smoothed) for step in taken[:span]]
    return _suggest(taken, diverged, span)


def _losses(config: Config, training: Examples, rates: list[float]) -> Iterator[float]:
    """Train with these rates, one per step, and yield the loss of each step before its update."""
    network = build_network(config, training.inputs.shape[1])
    network.initialize(stream(config.training.seed, "initialization"))
    loop = replace(
        build_loop(config, network, training, None),
        learning_rate=1.0,
        schedule=_Rates(rates=rates),
        epochs=len(rates),
        steps=len(rates),
        early_stopping=None,
    )
    return loop.single_steps()


def _suggest(taken: list[RangeStep], diverged: float | None, span: int) -> RangeTest:
    """Return the result of a test, with a suggestion if the loss fell."""
    losses = np.array([step.smoothed for step in taken])
    lowest = int(losses.argmin()) if taken else 0
    if lowest < span or losses[lowest] > _FALL * losses[0]:
        return RangeTest(None, _describe_failure(taken, diverged), None, None, diverged, taken)
    falls = losses[: lowest + 1 - span] - losses[span : lowest + 1]
    fastest = taken[int(falls.argmax()) + span // 2].learning_rate
    stable = taken[lowest].learning_rate
    # Where the loss falls fastest, training is still slow; where it is lowest, hardly stable.
    suggestion = float(f"{math.sqrt(fastest * stable):.2g}")
    reason = (
        f"between {fastest:.2g}, where the loss falls fastest, and {stable:.2g}, where it is lowest"
    )
    if lowest == len(taken) - 1 and not diverged:
        reason += ", at the end of the range: try a higher --to"
    if diverged:
        reason += f"; from {diverged:.2g} on, training diverges"
    return RangeTest(suggestion, reason, fastest, stable, diverged, taken)


def _describe_failure(taken: list[RangeStep], diverged: float | None) -> str:
    """Return why no rate is suggested."""
    if diverged and not taken:
        return "training diverges in its first step"
    if diverged:
        return f"the loss does not fall before training diverges, at {diverged:.2g}"
    first, last = taken[0].learning_rate, taken[-1].learning_rate
    return f"the loss falls too little at all rates from {first:g} to {last:g}"
