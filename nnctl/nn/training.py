"""The training loop: minibatch stochastic gradient descent as an iterator of events.

Whoever watches (the terminal, the run directory, a test) consumes the same events; the loop knows
none of them. Read `Training.__iter__`, then `Training._take_steps`: that is all of it.
"""

from __future__ import annotations

import functools
import math
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import Array
from nnctl.nn.crew import Crew
from nnctl.nn.dropout import Dropout
from nnctl.nn.examples import Examples, scale, scaled
from nnctl.nn.health import LayerHealth, Probe
from nnctl.nn.losses import Loss
from nnctl.nn.metrics import Labels, make_targets, mean_loss_and_accuracy
from nnctl.nn.network import Backpropagation, Network, Parameters
from nnctl.nn.optimizer import Optimizer
from nnctl.nn.regularization import STRIDE, Regularization, follow, move_uphill, shorten, square
from nnctl.nn.schedules import Schedule
from nnctl.nn.streams import Purpose, stream

_BLOCK = 512  # examples that are gathered, and whose losses are computed, at a time
_BLOCK_FLOPS = 1e10  # some tenths of a second: a block of a large network has fewer batches
_REPLAYED = 32  # steps between snapshots, at least: copying a large network takes time
_FLUSHED = 32  # steps between looks for denormal numbers, at least: that takes time, too
_NEARLY_NOTHING = 1e-30  # far above the denormal numbers of float32, far below what matters
_PROBE_SHARE = 50  # of so many examples one is in the probe: looking costs little
_PROBE_SIZES = (32, 256)  # but the probe is no smaller, and no larger


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when `patience` epochs in a row did not improve the metric."""

    patience: int
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"


@dataclass(frozen=True)
class BatchesDone:
    """A block of batches was trained on; `batch` of `batches` of the epoch are done."""

    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is complete: one row of ``metrics.jsonl``.

    The training loss and accuracy are means over the epoch's batches, each measured before the
    update it led to. The learning rate is that of the middle of the epoch. `seconds` is the wall
    time of the batches, without the validation.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    learning_rate: float
    seconds: float
    is_best: bool
    health: list[LayerHealth]


@dataclass(frozen=True)
class Divergence:
    """Where a training left the finite numbers: epoch, batch and layer, all counted from 1."""

    epoch: int
    batch: int
    layer: int
    what: Literal["outputs", "gradient", "parameters"]
    last_finite_loss: float | None


@dataclass(frozen=True)
class Finished:
    """The last event; `interrupted` is said by whoever stops asking for events."""

    reason: Literal["finished", "stopped_early", "diverged", "interrupted"]
    divergence: Divergence | None = None


Event = BatchesDone | EpochDone | Finished


@dataclass
class Best:
    """The best epoch so far: highest validation accuracy, ties to the lower validation loss."""

    epoch: int
    val_accuracy: float | None
    val_loss: float | None

    def is_beaten_by(self, val_accuracy: float | None, val_loss: float | None) -> bool:
        """Tell whether a later epoch is better; without validation data, any later one is."""
        if val_accuracy is None or val_loss is None:
            return True
        assert self.val_accuracy is not None
        assert self.val_loss is not None
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


@dataclass
class Progress:
    """Where a training stands: with parameters and velocity, all that it needs to go on.

    Parameters
    ----------
    shuffling : dict
        The state of the generator that shuffles, as it was before the running epoch.
    epoch : int
        Complete epochs.
    batch : int
        Batches done of the running epoch.
    loss_sum, correct, seconds : float, int, float
        Over these batches.
    best : Best, optional
        The best complete epoch.
    patience_best, patience_used : float, int
        The best value of the metric that early stopping watches, and the epochs since.
    """

    shuffling: Mapping[str, Any]
    epoch: int = 0
    batch: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    seconds: float = 0.0
    best: Best | None = None
    patience_best: float | None = None
    patience_used: int = 0


class _Batch(NamedTuple):
    """Some examples, and where their logits are written.

    Parameters
    ----------
    number : int
        Counts from 0 in the epoch.
    rows : slice
        Its examples in the block.
    inputs, targets, logits : array, shape (batch, features), (batch, units), (batch, units)
        Views into the block's.
    kept : sequence of array or None, optional
        See `Backpropagation.forward`.
    kept_inputs : array, shape (batch, features), or None
        The factors of dropout that are in the inputs already.
    """

    number: int
    rows: slice
    inputs: Array
    targets: Array
    logits: Array
    kept: Sequence[Array | None] | None
    kept_inputs: Array | None

    def kept_of(self, rows: slice) -> Sequence[Array | None] | None:
        """Return what dropout keeps of some of the examples."""
        if self.kept is None:
            return None
        return [None if factors is None else factors[rows] for factors in self.kept]


@dataclass(frozen=True)
class _Block:
    """Some batches, ready to be trained on, and what they have in one piece."""

    labels: Labels
    targets: Array
    logits: Array
    batches: list[_Batch]


@dataclass(frozen=True)
class _Snapshot:
    """Where a training stood when all its numbers were finite."""

    parameters: Array
    velocity: Array
    batch: int
    last_loss: float | None


@dataclass
class Training:
    """A training, begun or to be gone on with: iterate over it to train.

    Parameters
    ----------
    network : Network
        Trained in place.
    loss : Loss
        What is made small.
    optimizer : Optimizer
        The rule of an update.
    schedule : Schedule
        The factor on the learning rate, at each step.
    examples, validation : Examples
        What is trained on, and what is measured after each epoch.
    epochs, batch_size : int
        The whole number of epochs, and the examples a step; an epoch's last batch may be shorter.
    early_stopping : EarlyStopping, optional
        When to stop before the last epoch.
    shuffle : numpy.random.Generator
        Orders the examples anew each epoch.
    steps : int, optional
        End after so many steps, if that is before the last epoch; it is then a shorter one.
    with_replacement : bool
        Draw each example of an epoch from all of them, instead of each one once.
    threads : int
        That share each step. A small step is done sooner by one.
    seed : int
        Of dropout and augmentation.
    regularization : Regularization
        Dropout, augmentation, bounds and means.
    """

    network: Network
    loss: Loss
    optimizer: Optimizer
    schedule: Schedule
    examples: Examples
    validation: Examples | None
    epochs: int
    batch_size: int
    early_stopping: EarlyStopping | None
    shuffle: np.random.Generator
    steps: int | None = None
    with_replacement: bool = False
    threads: int = 1
    seed: int = 0
    regularization: Regularization = field(default_factory=Regularization)
    progress: Progress = field(init=False)
    velocity: Array = field(init=False)

    def __post_init__(self) -> None:
        units, dtype = self.network.sizes[-1], self.network.dtype
        self.progress = Progress(shuffling=self.shuffle.bit_generator.state)
        self.velocity = self._make_velocity()
        self.batch_size = min(self.batch_size, len(self.examples))
        self._batches = math.ceil(len(self.examples) / self.batch_size)
        self._steps = min(self.epochs * self._batches, self.steps or sys.maxsize)
        # A step of few examples takes as long as reading and writing the weights.
        flops_of_a_step = 6 * max(self.batch_size, 64) * self.network.parameters.vector.size
        batches = min(_BLOCK // self.batch_size, int(_BLOCK_FLOPS / flops_of_a_step))
        self._block = self.batch_size * max(1, batches)
        self._gradient = Parameters(self.network.sizes[0], self.network.layers, dtype)
        self._crew = Crew(self.threads)
        self._stretches = self._gradient.stretches(self.threads)
        # An epoch's last batch may be shorter than the others.
        sizes = {self.batch_size, len(self.examples) % self.batch_size or self.batch_size}
        self._passes = {size: self._make_passes(size) for size in sizes}
        self._pixels = np.empty((self._block, self.network.sizes[0]), np.uint8)
        self._inputs: Array = np.empty(self._pixels.shape, dtype)
        self._logits: Array = np.empty((self._block, units), dtype)
        self._side = math.isqrt(self.network.sizes[0])
        self._dropout = Dropout(
            self.network.sizes[0],
            self.regularization.input_dropout,
            self.network.layers,
            self._block,
            dtype,
        )
        self._squares = [0.0] * self.threads
        averages = self.regularization.average is not None
        self._averaged = Network(self.network.sizes[0], self.network.layers) if averages else None
        self._last_loss: float | None = None
        self._kept: _Snapshot | None = None
        self._probe = self._make_probe()

    def __iter__(self) -> Iterator[Event]:
        """Train until the end, or until nobody asks for the next event."""
        with self._crew:
            while (reason := self.reason_to_stop()) is None:
                order, first = self._order_of_epoch(), self.progress.batch * self.batch_size
                for begin in range(first, len(order), self._block):
                    started = time.perf_counter()
                    divergence = self._train_block(order, begin)
                    if divergence:
                        yield Finished("diverged", divergence)
                        return
                    self.progress.seconds += time.perf_counter() - started
                    batches = math.ceil(len(order) / self.batch_size)
                    yield BatchesDone(self.progress.epoch + 1, self.progress.batch, batches)
                done = self._complete_epoch(order)
                if isinstance(done, Divergence):
                    yield Finished("diverged", done)
                    return
                yield done
        yield Finished(reason)

    def _take_steps(self, batches: Sequence[_Batch], thread: int) -> None:
        """Learn from batches: forward, loss, backward, update.

        Each thread takes some examples of a batch through the network and back. When all have done
        so, each computes the gradient of some of the parameters, and updates them.
        """
        bounds, stretch = self.regularization, self._stretches[thread]
        place = slice(stretch.begin, stretch.end)
        parameters = self.network.parameters.vector[place]
        weights = self.network.parameters.decaying[place]
        gradient, velocity = self._gradient.vector[place], self._memory[:, place]
        for batch in batches:
            passes, parts = self._passes[len(batch.inputs)]
            rows, part = parts[thread]
            learning_rate = self.learning_rate(batch.number)
            error_scale = self.optimizer.error_scale(learning_rate)
            self._find_errors(batch, rows, part)
            if bounds.adversarial:
                part.backward()
                kept = None if batch.kept_inputs is None else batch.kept_inputs[rows]
                move_uphill(batch.inputs[rows], part.input_errors(), bounds.adversarial, kept)
                self._find_errors(batch, rows, part)
            part.errors[-1] *= error_scale / len(batch.inputs)
            part.backward()
            self._crew.wait()
            passes.write_gradient(batch.inputs, stretch)
            if bounds.clip_norm:
                self._clip(gradient, bounds.clip_norm * error_scale, thread)
            self.optimizer.decay(weights, learning_rate)
            count = self._steps_before + batch.number + 1
            self.optimizer.update(parameters, gradient, velocity, learning_rate, count)
            self._crew.wait()
            if bounds.max_norm:
                self._shorten(bounds.max_norm, thread)
            if bounds.average is not None:
                follow(self.velocity[-1, place], parameters, bounds.average, count)

    def _find_errors(self, batch: _Batch, rows: slice, part: Backpropagation) -> None:
        """Take some examples of a batch forward, to the errors of the output layer."""
        logits, targets = batch.logits[rows], batch.targets[rows]
        outputs = part.forward(batch.inputs[rows], logits, batch.kept_of(rows))
        self.loss.errors(logits, outputs, targets, out=part.errors[-1])

    def _clip(self, gradient: Array, most: float, thread: int) -> None:
        """Scale a thread's part of a gradient whose whole is longer than that."""
        self._squares[thread] = square(gradient)
        self._crew.wait()
        length = math.sqrt(sum(self._squares))
        if length > most:
            gradient *= most / length

    def _shorten(self, max_norm: float, thread: int) -> None:
        """Scale down the weights of a thread's part of the units of each layer."""
        for weights in self.network.parameters.weights:
            shorten(weights[:, self._crew.divide(weights.shape[1])[thread]], max_norm)
        self._crew.wait()

    def _train_block(self, order: NDArray[np.int64], begin: int) -> Divergence | None:
        """Take the steps of a block of examples, and add up their losses."""
        block = self._gather(order, begin)
        if self._kept is None or self.progress.batch - self._kept.batch >= _REPLAYED:
            if not self.is_finite():
                return self._find_divergence(order, begin)
            self._kept = self._snapshot()
        # An overflow is no warning here: it is found below, by the loss that is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            self._crew.run(functools.partial(self._take_steps, block.batches))
            self._flush_denormals(block)
            losses = self.loss.values(block.logits, block.targets)
        loss_sum = float(losses.sum(dtype=np.float64))
        if not math.isfinite(loss_sum):
            return self._find_divergence(order, begin + len(block.labels))
        self.progress.batch += len(block.batches)
        last_batch = len(losses) % self.batch_size or self.batch_size
        self._last_loss = float(losses[-last_batch:].mean(dtype=np.float64))
        self.progress.loss_sum += loss_sum
        decided = self.network.decide(block.logits)
        self.progress.correct += int(np.count_nonzero(decided == block.labels))
        return None

    def _gather(self, order: NDArray[np.int64], begin: int) -> _Block:
        """Return the block that begins there, its inputs in a buffer."""
        chosen = order[begin : begin + self._block]
        shares = self._crew.divide(len(chosen))
        number = begin // self.batch_size
        augmentation = self.regularization.augmentation
        deformations = augmentation and augmentation.draw(
            len(chosen), self._side, self._stream("augmentation", number)
        )

        def gather(thread: int) -> None:
            rows = shares[thread]
            # No index is wrong; but if not told to clip, NumPy writes to a copy, in case one is.
            np.take(self.examples.inputs, chosen[rows], 0, out=self._pixels[rows], mode="clip")
            if deformations:
                deformations.apply(self._pixels[rows], rows.start, out=self._inputs[rows])
            else:
                scale(self._pixels[rows], out=self._inputs[rows])

        self._crew.run(gather)
        labels = self.examples.labels[chosen]
        targets = make_targets(labels, self.network.sizes[-1], self.network.dtype)
        targets = self.regularization.smooth(targets)
        logits = self._logits[: len(chosen)]
        batches = []
        for i, first in enumerate(range(0, len(chosen), self.batch_size), number):
            rows = slice(first, min(first + self.batch_size, len(chosen)))
            inputs, kept_inputs = self._inputs[rows], self._dropout.kept_inputs(rows)
            kept = self._dropout.kept(rows) if self._dropout.is_used else None
            batches.append(_Batch(i, rows, inputs, targets[rows], logits[rows], kept, kept_inputs))
        if self._dropout.is_used:
            self._crew.run(functools.partial(self._drop, batches))
        return _Block(labels, targets, logits, batches)

    def _drop(self, batches: Sequence[_Batch], thread: int) -> None:
        """Draw what dropout keeps of a thread's part of some batches, and drop of their inputs."""
        for batch in batches[thread :: self.threads]:
            self._dropout.draw(batch.rows, self._stream("dropout", batch.number))
            if batch.kept_inputs is not None:
                np.multiply(batch.inputs, batch.kept_inputs, out=batch.inputs)

    def _stream(self, purpose: Purpose, batch: int) -> np.random.Generator:
        """Return the random numbers of a batch of the running epoch."""
        return stream(self.seed, purpose, self.progress.epoch, batch)

    def _flush_denormals(self, block: _Block) -> None:
        """Forget what is too small to matter: denormal numbers cost thirty times the time.

        Momentum makes them of every weight that long has no gradient, as those of black pixels; but
        it takes its steps, so that they are looked for once in a while.
        """
        before = self._steps_before + block.batches[0].number
        if before // _FLUSHED < (before + len(block.batches)) // _FLUSHED:
            for memory in self._memory:
                memory *= np.abs(memory) >= _NEARLY_NOTHING

    def learning_rate(self, batch: int) -> float:
        """Return the learning rate of a batch, counted from 0, of the running epoch."""
        time = self.progress.epoch + (batch + 0.5) / self._batches
        epochs = self._steps / self._batches
        return self.optimizer.learning_rate * self.schedule.factor(time, epochs)

    @property
    def _steps_before(self) -> int:
        """The steps of the complete epochs."""
        return self.progress.epoch * self._batches

    def reason_to_stop(self) -> Literal["finished", "stopped_early"] | None:
        """Return why there is no next epoch, if so."""
        if self._steps_before >= self._steps:
            return "finished"
        if self.early_stopping and self.progress.patience_used >= self.early_stopping.patience:
            return "stopped_early"
        return None

    def _order_of_epoch(self) -> NDArray[np.int64]:
        """Return the running epoch's examples in order, the same again after a resume."""
        self.shuffle.bit_generator.state = self.progress.shuffling
        count = len(self.examples)
        draws = self.shuffle.integers(count, size=count) if self.with_replacement else None
        order = self.shuffle.permutation(count) if draws is None else draws
        steps_left = self._steps - self._steps_before
        return order[: steps_left * self.batch_size]

    def _make_passes(
        self, size: int
    ) -> tuple[Backpropagation, list[tuple[slice, Backpropagation]]]:
        """Return the passes over a batch, and those over the examples of it that threads take."""
        passes = Backpropagation(self.network, self._gradient, size, dropout=True)
        return passes, [(rows, passes.part(rows)) for rows in self._crew.divide(size)]

    def _make_probe(self) -> Probe:
        """Return a batch to look at the layers with, of validation examples if there are."""
        least, most = _PROBE_SIZES
        count = min(max(least, len(self.examples) // _PROBE_SHARE), most)
        examples = self.validation or self.examples
        units, dtype = self.network.sizes[-1], self.network.dtype
        return Probe(
            self.network,
            self.loss,
            scaled(examples.inputs[:count], dtype),
            make_targets(examples.labels[:count], units, dtype),
            self._gradient,
        )

    def _complete_epoch(self, order: NDArray[np.int64]) -> EpochDone | Divergence:
        """Measure, remember the best, and get ready for the next epoch."""
        if self._kept and not self.is_finite():
            return self._find_divergence(order, len(order))
        self._kept = None
        progress = self.progress
        val_loss, val_accuracy = None, None
        learning_rate = self.learning_rate(progress.batch // 2)
        with np.errstate(over="ignore", invalid="ignore"):
            health = self._probe.measure(
                self.optimizer.step_size(
                    self._memory, learning_rate, self._steps_before + progress.batch
                )
            )
            if self.validation:
                val_loss, val_accuracy = mean_loss_and_accuracy(
                    self.candidate, self.loss, self.validation, self.threads
                )
        # The epoch's last step may have left parameters too large to compute with.
        overflowing = [i for i, layer in enumerate(health, start=1) if not layer.is_finite()]
        if overflowing or not math.isfinite(val_loss or 0.0):
            layer = overflowing[0] if overflowing else len(health)
            in_outputs = not (overflowing and math.isfinite(health[layer - 1].std))
            return Divergence(
                epoch=progress.epoch + 1,
                batch=progress.batch,
                layer=layer,
                what="outputs" if in_outputs else "gradient",
                last_finite_loss=self._last_loss,
            )
        done = EpochDone(
            epoch=progress.epoch + 1,
            train_loss=progress.loss_sum / len(order),
            train_accuracy=progress.correct / len(order),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            learning_rate=learning_rate,
            seconds=progress.seconds,
            is_best=progress.best is None or progress.best.is_beaten_by(val_accuracy, val_loss),
            health=health,
        )
        if done.is_best:
            progress.best = Best(done.epoch, val_accuracy, val_loss)
        if self.early_stopping:
            self._use_patience(self.early_stopping, done)
        progress.shuffling = self.shuffle.bit_generator.state
        progress.epoch, progress.batch = done.epoch, 0
        progress.loss_sum, progress.correct, progress.seconds = 0.0, 0, 0.0
        return done

    def _make_velocity(self) -> Array:
        """Return what the optimizer remembers, at rest, and below it the mean parameters."""
        memory = self.optimizer.make_velocity(self.network.parameters)
        if self.regularization.average is None:
            return memory
        return np.concatenate([memory, self.network.parameters.vector[None]])

    @property
    def _memory(self) -> Array:
        """What the optimizer remembers, ``(memories, size)``."""
        return self.velocity[: self.optimizer.memories]

    @property
    def candidate(self) -> Network:
        """The network that is validated, and kept if it is the best: of mean parameters, if any."""
        steps = min(self._steps_before + self.progress.batch, self._steps)
        if self._averaged is None or steps < STRIDE:
            return self.network
        self._averaged.parameters.vector[...] = self.velocity[-1]
        return self._averaged

    def _use_patience(self, stopping: EarlyStopping, done: EpochDone) -> None:
        """Count the epochs without an improvement of the watched metric."""
        watched = done.val_accuracy if stopping.metric == "val_accuracy" else done.val_loss
        assert watched is not None, "early stopping needs validation examples"
        score = watched if stopping.metric == "val_accuracy" else -watched
        best = self.progress.patience_best
        if best is None or score > best:
            self.progress.patience_best, self.progress.patience_used = score, 0
        else:
            self.progress.patience_used += 1

    def is_finite(self) -> bool:
        """Tell whether the parameters and what the optimizer remembers are finite numbers."""
        return bool(
            np.isfinite(self.network.parameters.vector).all() and np.isfinite(self.velocity).all()
        )

    def _snapshot(self) -> _Snapshot:
        return _Snapshot(
            self.network.parameters.vector.copy(),
            self.velocity.copy(),
            self.progress.batch,
            self._last_loss,
        )

    def _find_divergence(self, order: NDArray[np.int64], end: int) -> Divergence:
        """Take the steps since the last snapshot again, this time looking at every number.

        The fast path looks at the losses of a block alone, so that looking costs nothing. The steps
        are deterministic: what went wrong there goes wrong here, at the same batch.
        """
        kept, parameters = self._kept, self.network.parameters
        if kept is None:  # not even the first numbers were finite
            layers = range(1, len(self.network.layers))
            layer = next((i for i in layers if not _is_finite(parameters, i)), len(layers) + 1)
            step = self.progress.batch + 1
            return Divergence(self.progress.epoch + 1, step, layer, "parameters", None)
        self.network.parameters.vector[...] = kept.parameters
        self.velocity[...] = kept.velocity
        self.progress.batch, last_finite_loss = kept.batch, kept.last_loss
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(kept.batch * self.batch_size, end, self._block):
                block = self._gather(order[:end], begin)
                for batch in block.batches:
                    self._crew.run(functools.partial(self._take_steps, [batch]))
                    loss = float(
                        self.loss.values(batch.logits, batch.targets).mean(dtype=np.float64)
                    )
                    passes, _ = self._passes[len(batch.inputs)]
                    found = self._first_not_finite(passes, batch.logits, loss)
                    if found:
                        layer, what = found
                        return Divergence(
                            epoch=self.progress.epoch + 1,
                            batch=batch.number + 1,
                            layer=layer,
                            what=what,
                            last_finite_loss=last_finite_loss,
                        )
                    last_finite_loss = loss
                self._flush_denormals(block)
        raise AssertionError("a divergence that does not happen again")

    def _first_not_finite(
        self, passes: Backpropagation, logits: Array, loss: float
    ) -> tuple[int, Literal["outputs", "gradient", "parameters"]] | None:
        """Return the layer, and what of it, that first was not finite in the last step."""
        depth = len(self.network.layers)
        for layer, outputs in enumerate([*passes.outputs[:-1], logits], start=1):
            if not np.isfinite(outputs).all():
                return layer, "outputs"
        if not math.isfinite(loss):
            return depth, "outputs"
        for what, parameters in (
            ("gradient", self._gradient),
            ("parameters", self.network.parameters),
        ):
            for layer in range(depth, 0, -1):
                if not _is_finite(parameters, layer):
                    return layer, what  # type: ignore[return-value]
        return None if np.isfinite(self.velocity).all() else (depth, "gradient")


def _is_finite(parameters: Parameters, layer: int) -> bool:
    """Tell whether all numbers of a layer, counted from 1, are finite."""
    views = (parameters.weights, parameters.biases, parameters.learned)
    return all(bool(np.isfinite(view[layer - 1]).all()) for view in views)
