"""Skips the inputs that are 0 in a whole block of examples, such as the corners of MNIST's images.

Such an input adds nothing to z, and the gradient of its weights is 0. While the steps of a block
are taken, the rows of the first weight matrix that belong to unused inputs stand at its beginning,
so that all other parameters are one slice of the vector, and the steps work on views without these
rows. Then the rows return to their places, changed as the optimizer changes weights that have no
gradient.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nnctl.nn.batches import Batch, UnusedInputs
from nnctl.nn.optimizers import Shard
from nnctl.nn.parallel import ParallelStep
from nnctl.nn.step import Step
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array


class SkippingStep:
    """Takes the steps of a block without the inputs that are unused in it.

    Parameters
    ----------
    step : Step
        The step with all inputs, whose optimizer is linear without a gradient.
    team : ThreadTeam
        Threads that share each step.
    """

    def __init__(self, step: Step, team: ThreadTeam) -> None:
        self._step = step
        self._team = team
        self._steps = {0: self._with_threads(step)}  # by the number of inputs that they ignore
        weights = step.network.parameters.weights[0]
        vectors = [step.network.parameters.vector, *step.state.values()]
        # The rows of the first weight matrix, and what the optimizer remembers for them.
        self._rows = [vector[: weights.size].reshape(weights.shape) for vector in vectors]

    def run(
        self, batches: Sequence[Batch], first_step: int, unused: UnusedInputs | None = None
    ) -> None:
        """Take one step per batch; steps are counted from 1."""
        if unused is None:
            self._steps[0].run(batches, first_step)
            return
        count = unused.count
        if count not in self._steps:
            self._steps[count] = self._with_threads(self._step.without_inputs(count))
        for rows in self._rows:
            unused.exchange(rows)
        try:
            self._steps[count].run(batches, first_step)
            self._update_skipped(count, range(first_step, first_step + len(batches)))
        finally:
            for rows in self._rows:
                unused.exchange(rows)

    def _with_threads(self, step: Step) -> Step | ParallelStep:
        return ParallelStep(step, self._team) if self._team.size > 1 else step

    def _update_skipped(self, count: int, steps: range) -> None:
        """Change the first rows as the optimizer does in some steps without a gradient."""
        factors = self._linear_map(steps)
        if np.array_equal(factors, np.eye(len(factors))):
            return
        before = [rows[:count].copy() for rows in self._rows]
        for rows, coefficients in zip(self._rows, factors, strict=True):
            rows[:count] = sum(
                rows.dtype.type(factor) * old
                for factor, old in zip(coefficients, before, strict=True)
                if factor
            )

    def _linear_map(self, steps: range) -> Array:
        """Return the matrix that maps a weight and its state to their values after some steps.

        The optimizer itself updates the unit vectors: the rules are not written a second time.
        """
        factors: Array = np.eye(len(self._rows))
        weights, *state = factors
        shard = Shard(
            parameters=weights,
            gradient=np.zeros_like(weights),
            weights=weights,
            columns=[],
            state=dict(zip(self._step.state, state, strict=True)),
        )
        for step in steps:
            shard.gradient[...] = 0  # rules may overwrite it
            self._step.optimizer.update(shard, self._step.rate(step), step)
        return factors
