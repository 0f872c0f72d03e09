"""A training step that several threads share; the mathematics is that of `nnctl.nn.step`.

Each thread runs the forward and the backward pass for some of the examples. The gradient of a
weight is a sum over all examples, so the threads then wait for each other. After that, each thread
computes the gradient of some of the parameters, and updates them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nnctl.nn.adversarial import perturb
from nnctl.nn.backprop import Backpropagation
from nnctl.nn.batches import Batch
from nnctl.nn.network import Parameters
from nnctl.nn.optimizers import Shard, State
from nnctl.nn.step import Step
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array


class ParallelStep:
    """A step that is taken by a team of threads.

    Parameters
    ----------
    step : Step
        The same step for one thread; its buffers are shared.
    team : ThreadTeam
        The threads.
    """

    def __init__(self, step: Step, team: ThreadTeam) -> None:
        self._step = step
        self._team = team
        self._shards = split_parameters(step.parameters, step.gradient, step.state, team)
        self._views = {size: backprop.split(team) for size, backprop in step.backprops.items()}

    def run(self, batches: Sequence[Batch], first_step: int) -> None:
        """Take one step per batch; steps are counted from 1."""

        def take_steps(thread: int) -> None:
            for step, batch in enumerate(batches, first_step):
                self._take_part(batch, step, thread)

        self._team.run(take_steps)

    def _take_part(self, batch: Batch, step: int, thread: int) -> None:
        """Do a thread's part of a step: its rows of the batch, then its part of the update."""
        serial, size = self._step, len(batch.inputs)
        rows, backprop = self._views[size][thread]
        part, shard, learning_rate = batch.part(rows), self._shards[thread], serial.rate(step)
        if serial.adversarial:
            perturb(backprop, serial.loss, part, serial.adversarial)
        outputs = backprop.forward(part.inputs, part.logits, part.masks)
        deltas = serial.loss.gradient(
            part.logits, outputs, part.targets, out=backprop.output_deltas
        )
        if part.weights is not None:
            deltas *= part.weights[:, None]
        deltas *= serial.optimizer.gradient_scale(learning_rate) / size
        if thread == 0:
            for normalization in backprop.normalizations:
                normalization.update_running_statistics()
        backprop.propagate()
        self._team.wait()
        shard.write_gradient(serial.backprops[size], batch.inputs)
        serial.optimizer.update(shard, learning_rate, step)
        self._team.wait()  # the next forward pass reads all parameters


@dataclass(frozen=True, eq=False)
class ThreadShard(Shard):
    """The parameters that one thread updates: whole rows of weight matrices.

    Parameters
    ----------
    rows : list of (int, slice)
        Layers with weights in the shard, and the rows of their weight matrices.
    is_last : bool
        Whether the shard is the last one, which also contains all other parameters.
    thread : int
        Number of the thread.
    team : ThreadTeam
        The threads of all shards.
    sums : list of float
        A number per thread, shared by all shards.
    """

    rows: Sequence[tuple[int, slice]] = ()
    is_last: bool = False
    thread: int = 0
    team: ThreadTeam = field(default_factory=lambda: ThreadTeam(1))
    sums: list[float] = field(default_factory=list)

    def sum(self, value: float) -> float:
        """Return the sum of a value over all threads."""
        self.sums[self.thread] = value
        self.team.wait()
        return sum(self.sums)

    def wait(self) -> None:
        """Wait until all threads have updated their shards."""
        self.team.wait()

    def write_gradient(self, backprop: Backpropagation, inputs: Array) -> None:
        """Compute the gradient of the shard, from the deltas of all examples of the batch."""
        for layer, rows in self.rows:
            a = backprop.layer_inputs(layer, inputs)
            # For some of the rows, np.dot would make a copy.
            np.matmul(a.T[rows], backprop.deltas[layer], out=backprop.gradient.weights[layer][rows])
        if self.is_last:
            backprop.write_bias_gradient()


def split_parameters(
    parameters: Parameters, gradient: Parameters, state: State, team: ThreadTeam
) -> list[ThreadShard]:
    """Split all parameters into one shard per thread, of similar length, between rows of weights.

    The gradient and the update of each shard can be computed independently of the others.
    """
    row_ends = np.cumsum([row.size for weights in parameters.weights for row in weights])
    targets = parameters.decaying.size * np.arange(1, team.size) / team.size
    cuts = [0, *row_ends[np.searchsorted(row_ends, targets)].tolist(), parameters.vector.size]
    columns = [team.split(weights.shape[1]) for weights in parameters.weights]
    sums = [0.0] * team.size
    return [
        ThreadShard(
            parameters=parameters.vector[begin:end],
            gradient=gradient.vector[begin:end],
            weights=parameters.decaying[begin:end],
            columns=[
                weights[:, parts[thread]]
                for weights, parts in zip(parameters.weights, columns, strict=True)
            ],
            state={name: values[begin:end] for name, values in state.items()},
            rows=[*_rows_within(parameters, begin, end)],
            is_last=thread == team.size - 1,
            thread=thread,
            team=team,
            sums=sums,
        )
        for thread, (begin, end) in enumerate(itertools.pairwise(cuts))
    ]


def _rows_within(parameters: Parameters, begin: int, end: int) -> Iterator[tuple[int, slice]]:
    """Yield the layers with weights in a range of the vector, and the rows of these weights."""
    first = 0
    for layer, weights in enumerate(parameters.weights):
        inside = np.clip([begin - first, end - first], 0, weights.size)
        first_row, end_row = (inside // weights.shape[1]).tolist()
        if first_row < end_row:
            yield layer, slice(first_row, end_row)
        first += weights.size
