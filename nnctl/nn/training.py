"""The training loop: minibatch stochastic gradient descent as an iterator of events.

The terminal output, the run directory and tests all consume the same events; the loop does not
depend on them. To understand it, read `Training.__iter__`, then `Training._take_steps`.
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

from nnctl.nn.dropout import Dropout
from nnctl.nn.examples import Examples, scale, scaled
from nnctl.nn.health import LayerHealth, Probe
from nnctl.nn.losses import Loss
from nnctl.nn.metrics import Labels, make_targets, mean_loss_and_accuracy
from nnctl.nn.network import Backpropagation, Network, Parameters
from nnctl.nn.optimizer import Optimizer
from nnctl.nn.parallel import ThreadTeam
from nnctl.nn.regularization import (
    EMA_EVERY,
    Regularization,
    fast_gradient_step,
    project_max_norm,
    squared_norm,
    update_ema,
)
from nnctl.nn.schedules import Schedule
from nnctl.nn.streams import Purpose, stream
from nnctl.nn.types import Array

_BLOCK = 512  # examples per block: they are gathered, and their losses computed, together
_BLOCK_FLOPS = 1e10  # maximum work per block, some tenths of a second: large networks get less
_SNAPSHOT_STEPS = 32  # minimum number of steps between snapshots: copying a network takes time
_FLUSH_STEPS = 32  # minimum number of steps between searches for denormal numbers
_TINY = 1e-30  # far above the denormal numbers of float32, far below values that matter
_PROBE_SHARE = 50  # the probe has 1/50 of the examples, so that measuring is cheap
_PROBE_SIZES = (32, 256)  # minimum and maximum size of the probe


@dataclass(frozen=True)
class EarlyStopping:
    """Stop when the metric has not improved for `patience` epochs in a row."""

    patience: int
    metric: Literal["val_accuracy", "val_loss"] = "val_accuracy"


@dataclass(frozen=True)
class BatchesDone:
    """A block of batches is done: `batch` of the epoch's `batches` (Keras: on_train_batch_end)."""

    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True)
class EpochDone:
    """An epoch is complete: one row of ``metrics.jsonl`` (Keras: on_epoch_end).

    Training loss and accuracy are means over the epoch, measured on each batch before the update
    with that batch. The learning rate is the one in the middle of the epoch. `seconds` is the wall
    time of the batches, without validation.
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
    """Where the first infinity or NaN occurred: epoch, batch and layer, all counted from 1."""

    epoch: int
    batch: int
    layer: int
    what: Literal["outputs", "gradient", "parameters"]
    last_finite_loss: float | None


@dataclass(frozen=True)
class Finished:
    """The last event (Keras: on_train_end); "interrupted" is set by a consumer that stops early."""

    reason: Literal["finished", "stopped_early", "diverged", "interrupted"]
    divergence: Divergence | None = None


Event = BatchesDone | EpochDone | Finished


@dataclass
class Best:
    """The best epoch so far: highest validation accuracy, then lowest validation loss."""

    epoch: int
    val_accuracy: float | None
    val_loss: float | None

    def is_beaten_by(self, val_accuracy: float | None, val_loss: float | None) -> bool:
        """Return whether a later epoch is better; without validation data it always is."""
        if val_accuracy is None or val_loss is None:
            return True
        assert self.val_accuracy is not None
        assert self.val_loss is not None
        return (val_accuracy, -val_loss) > (self.val_accuracy, -self.val_loss)


@dataclass
class Progress:
    """Progress of the training. Parameters, `slots` and this are enough to resume it.

    Parameters
    ----------
    shuffling : dict
        State of the random generator for shuffling at the start of the current epoch.
    epoch : int
        Number of complete epochs.
    batch : int
        Number of batches done in the current epoch.
    loss_sum, correct, seconds : float, int, float
        Sum of losses, correct predictions and wall time of these batches.
    best : Best, optional
        Best complete epoch.
    patience_best, patience_used : float, int
        Best score of the metric for early stopping (the negative loss for ``val_loss``), and the
        number of epochs since.
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
    """A minibatch: its number in the epoch, and views of its rows in the block's arrays."""

    number: int  # counted from 0
    rows: slice
    inputs: Array  # (batch, features)
    targets: Array  # (batch, units)
    logits: Array  # (batch, units), written by the forward pass
    masks: Sequence[Array | None] | None  # dropout masks, see `Backpropagation.forward`
    input_mask: Array | None  # dropout mask that is already applied to the inputs

    def masks_of(self, rows: slice) -> Sequence[Array | None] | None:
        """Return the dropout masks of some of the examples."""
        if self.masks is None:
            return None
        return [None if mask is None else mask[rows] for mask in self.masks]


@dataclass(frozen=True, eq=False)
class _Block:
    """Consecutive batches, and the arrays that contain the rows of all of them."""

    labels: Labels
    targets: Array
    logits: Array
    batches: list[_Batch]


@dataclass(frozen=True, eq=False)
class _Snapshot:
    """A state of the training in which all numbers are finite."""

    parameters: Array
    slots: Array
    batch: int
    last_loss: float | None


@dataclass
class Training:
    """Trains a network; iterate over it to train and to receive the events.

    To resume, set the parameters of the network, `progress` and `slots` before iterating.

    Parameters
    ----------
    network : Network
        Network to train, in place.
    loss : Loss
        Loss to minimize.
    optimizer : Optimizer
        Update rule.
    schedule : Schedule
        Learning-rate schedule, evaluated at each step.
    examples, validation : Examples
        Training examples, and examples for validation after each epoch, if any.
    epochs, batch_size : int
        Total number of epochs, and examples per step. The last batch of an epoch may be smaller.
    early_stopping : EarlyStopping, optional
        Rule for stopping before the last epoch.
    shuffle : numpy.random.Generator
        Generator that shuffles the examples in each epoch.
    steps : int, optional
        Maximum number of steps. If the last step is within an epoch, the epoch counts as complete.
    with_replacement : bool
        Whether to sample the examples of an epoch with replacement instead of using each one once.
    threads : int
        Number of threads per training step. Small steps are faster with one.
    seed : int
        Seed of dropout and augmentation.
    regularization : Regularization
        Dropout, augmentation, clipping and averaging.

    Attributes
    ----------
    progress : Progress
        Progress so far.
    slots : array, shape (n_slots, size), or (n_slots + 1, size) with averaging
        Optimizer state, one row per state vector. With `Regularization.average`, an additional last
        row holds the exponential moving average of the parameters.
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
    slots: Array = field(init=False)

    def __post_init__(self) -> None:
        units, dtype = self.network.sizes[-1], self.network.dtype
        self.progress = Progress(shuffling=self.shuffle.bit_generator.state)
        self.slots = self._initial_slots()
        self.batch_size = min(self.batch_size, len(self.examples))
        self._batches = math.ceil(len(self.examples) / self.batch_size)
        self._steps = min(self.epochs * self._batches, self.steps or sys.maxsize)
        # A step with few examples is limited by reading and writing the weights.
        flops_per_step = 6 * max(self.batch_size, 64) * self.network.parameters.vector.size
        batches = min(_BLOCK // self.batch_size, int(_BLOCK_FLOPS / flops_per_step))
        self._block = self.batch_size * max(1, batches)
        self._gradient = Parameters(self.network.sizes[0], self.network.layers, dtype)
        self._team = ThreadTeam(self.threads)
        self._shards = self._gradient.shards(self.threads)
        # An epoch's last batch may be shorter than the others.
        sizes = {self.batch_size, len(self.examples) % self.batch_size or self.batch_size}
        self._workspaces = {size: self._make_workspace(size) for size in sizes}
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
        self._squared_norms = [0.0] * self.threads
        averages = self.regularization.average is not None
        self._ema_network = (
            Network(self.network.sizes[0], self.network.layers) if averages else None
        )
        self._last_loss: float | None = None
        self._snapshot: _Snapshot | None = None
        self._probe = self._make_probe()

    def __iter__(self) -> Iterator[Event]:
        """Train to the end, or until the consumer stops iterating."""
        with self._team:
            while (reason := self.stop_reason()) is None:
                order, first = self._epoch_order(), self.progress.batch * self.batch_size
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
        """Take one training step per batch: forward pass, loss, backward pass, update.

        In the passes, each thread processes its part of the examples. When all threads are done,
        each one computes the gradient of its part of the parameters, and updates this part.
        """
        settings, shard = self.regularization, self._shards[thread]
        mine = slice(shard.begin, shard.end)
        parameters = self.network.parameters.vector[mine]
        weights = self.network.parameters.decaying[mine]
        gradient, optimizer_state = self._gradient.vector[mine], self._optimizer_state[:, mine]
        for batch in batches:
            workspace, views = self._workspaces[len(batch.inputs)]
            rows, view = views[thread]
            learning_rate = self.learning_rate(batch.number)
            gradient_scale = self.optimizer.gradient_scale(learning_rate)
            self._compute_output_deltas(batch, rows, view)
            if settings.adversarial:
                view.backward()
                input_mask = None if batch.input_mask is None else batch.input_mask[rows]
                input_gradient = view.input_gradient()
                fast_gradient_step(
                    batch.inputs[rows], input_gradient, settings.adversarial, input_mask
                )
                self._compute_output_deltas(batch, rows, view)
            view.deltas[-1] *= gradient_scale / len(batch.inputs)
            view.backward()
            # The gradient of a weight is a sum over all examples of the batch.
            self._team.wait()
            workspace.write_gradient(batch.inputs, shard)
            if settings.clip_norm:
                self._clip_by_global_norm(gradient, settings.clip_norm * gradient_scale, thread)
            self.optimizer.decay(weights, learning_rate)
            step = self._steps_before + batch.number + 1
            self.optimizer.update(parameters, gradient, optimizer_state, learning_rate, step)
            # The next forward pass reads all parameters.
            self._team.wait()
            if settings.max_norm:
                self._project_max_norm(settings.max_norm, thread)
            if settings.average is not None:
                update_ema(self.slots[-1, mine], parameters, settings.average, step)

    def _compute_output_deltas(self, batch: _Batch, rows: slice, view: Backpropagation) -> None:
        """Run the forward pass on some examples, and write the deltas of the output layer."""
        logits, targets = batch.logits[rows], batch.targets[rows]
        outputs = view.forward(batch.inputs[rows], logits, batch.masks_of(rows))
        self.loss.gradient(logits, outputs, targets, out=view.deltas[-1])

    def _clip_by_global_norm(self, gradient: Array, max_norm: float, thread: int) -> None:
        """Scale down a thread's part of the gradient if the whole gradient is too long."""
        self._squared_norms[thread] = squared_norm(gradient)
        self._team.wait()
        norm = math.sqrt(sum(self._squared_norms))
        if norm > max_norm:
            gradient *= max_norm / norm

    def _project_max_norm(self, max_norm: float, thread: int) -> None:
        """Limit the norm of the incoming weights for a thread's part of the units."""
        for weights in self.network.parameters.weights:
            project_max_norm(weights[:, self._team.divide(weights.shape[1])[thread]], max_norm)
        self._team.wait()

    def _train_block(self, order: NDArray[np.int64], begin: int) -> Divergence | None:
        """Train on a block of batches, and add up their losses; return a divergence, if any."""
        block = self._gather(order, begin)
        snapshot = self._snapshot
        if snapshot is None or self.progress.batch - snapshot.batch >= _SNAPSHOT_STEPS:
            if not self.is_finite():
                return self._find_divergence(order, begin)
            self._snapshot = self._take_snapshot()
        # No warnings of overflows: the check below finds them, as a loss that is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            self._team.run(functools.partial(self._take_steps, block.batches))
            self._flush_denormals(block)
            losses = self.loss.values(block.logits, block.targets)
        loss_sum = float(losses.sum(dtype=np.float64))
        if not math.isfinite(loss_sum):
            return self._find_divergence(order, begin + len(block.labels))
        self.progress.batch += len(block.batches)
        last_batch = len(losses) % self.batch_size or self.batch_size
        self._last_loss = float(losses[-last_batch:].mean(dtype=np.float64))
        self.progress.loss_sum += loss_sum
        predicted = self.network.predict_classes(block.logits)
        self.progress.correct += int(np.count_nonzero(predicted == block.labels))
        return None

    def _gather(self, order: NDArray[np.int64], begin: int) -> _Block:
        """Return the block of batches that begins at this position in the order of the epoch."""
        chosen = order[begin : begin + self._block]
        parts = self._team.divide(len(chosen))
        number = begin // self.batch_size
        augmentation = self.regularization.augmentation
        deformations = augmentation and augmentation.draw(
            len(chosen), self._side, self._stream("augmentation", number)
        )

        def gather(thread: int) -> None:
            rows = parts[thread]
            # All indices are valid; but without mode="clip" NumPy writes to a temporary copy.
            np.take(self.examples.inputs, chosen[rows], 0, out=self._pixels[rows], mode="clip")
            if deformations:
                deformations.apply(self._pixels[rows], rows.start, out=self._inputs[rows])
            else:
                scale(self._pixels[rows], out=self._inputs[rows])

        self._team.run(gather)
        labels = self.examples.labels[chosen]
        targets = make_targets(labels, self.network.sizes[-1], self.network.dtype)
        targets = self.regularization.smooth(targets)
        logits = self._logits[: len(chosen)]
        batches = []
        for i, first in enumerate(range(0, len(chosen), self.batch_size), number):
            rows = slice(first, min(first + self.batch_size, len(chosen)))
            inputs, input_mask = self._inputs[rows], self._dropout.input_mask(rows)
            masks = self._dropout.masks(rows) if self._dropout.is_used else None
            batches.append(_Batch(i, rows, inputs, targets[rows], logits[rows], masks, input_mask))
        if self._dropout.is_used:
            self._team.run(functools.partial(self._apply_dropout, batches))
        return _Block(labels, targets, logits, batches)

    def _apply_dropout(self, batches: Sequence[_Batch], thread: int) -> None:
        """Draw the dropout masks of a thread's part of the batches, and apply the input masks."""
        for batch in batches[thread :: self.threads]:
            self._dropout.draw(batch.rows, self._stream("dropout", batch.number))
            if batch.input_mask is not None:
                np.multiply(batch.inputs, batch.input_mask, out=batch.inputs)

    def _stream(self, purpose: Purpose, batch: int) -> np.random.Generator:
        """Return the random generator for a batch of the current epoch."""
        return stream(self.seed, purpose, self.progress.epoch, batch)

    def _flush_denormals(self, block: _Block) -> None:
        """Set tiny numbers of the optimizer state to 0: denormal numbers are 30 times slower.

        With momentum, the velocity of a weight without gradient, such as that of a black pixel,
        decays until it is denormal. This takes many steps, so not every step needs a search.
        """
        before = self._steps_before + block.batches[0].number
        if before // _FLUSH_STEPS < (before + len(block.batches)) // _FLUSH_STEPS:
            for row in self._optimizer_state:
                row *= np.abs(row) >= _TINY

    def learning_rate(self, batch: int) -> float:
        """Return the learning rate of a batch, counted from 0, of the current epoch."""
        time = self.progress.epoch + (batch + 0.5) / self._batches
        epochs = self._steps / self._batches
        return self.optimizer.learning_rate * self.schedule.factor(time, epochs)

    @property
    def _steps_before(self) -> int:
        """Number of steps in the complete epochs."""
        return self.progress.epoch * self._batches

    def stop_reason(self) -> Literal["finished", "stopped_early"] | None:
        """Return why training ends before the next epoch, or None if it continues."""
        if self._steps_before >= self._steps:
            return "finished"
        if self.early_stopping and self.progress.patience_used >= self.early_stopping.patience:
            return "stopped_early"
        return None

    def _epoch_order(self) -> NDArray[np.int64]:
        """Return the order of examples in the current epoch; a resumed run gets the same order."""
        self.shuffle.bit_generator.state = self.progress.shuffling
        count = len(self.examples)
        draws = self.shuffle.integers(count, size=count) if self.with_replacement else None
        order = self.shuffle.permutation(count) if draws is None else draws
        steps_left = self._steps - self._steps_before
        return order[: steps_left * self.batch_size]

    def _make_workspace(
        self, size: int
    ) -> tuple[Backpropagation, list[tuple[slice, Backpropagation]]]:
        """Return buffers for batches of this size, with the rows and the view of each thread."""
        workspace = Backpropagation(self.network, self._gradient, size, dropout=True)
        return workspace, [(rows, workspace.part(rows)) for rows in self._team.divide(size)]

    def _make_probe(self) -> Probe:
        """Return the probe for layer health, with validation examples if there are any."""
        smallest, largest = _PROBE_SIZES
        count = min(max(smallest, len(self.examples) // _PROBE_SHARE), largest)
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
        """Measure the epoch, update the best one, and prepare the next epoch."""
        if self._snapshot and not self.is_finite():
            return self._find_divergence(order, len(order))
        self._snapshot = None
        progress = self.progress
        val_loss, val_accuracy = None, None
        learning_rate = self.learning_rate(progress.batch // 2)
        with np.errstate(over="ignore", invalid="ignore"):
            health = self._probe.measure(
                self.optimizer.step_size(
                    self._optimizer_state, learning_rate, self._steps_before + progress.batch
                )
            )
            if self.validation:
                val_loss, val_accuracy = mean_loss_and_accuracy(
                    self.eval_network, self.loss, self.validation, self.threads
                )
        # After the epoch's last step, the parameters may be so large that outputs overflow.
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
            self._update_patience(self.early_stopping, done)
        progress.shuffling = self.shuffle.bit_generator.state
        progress.epoch, progress.batch = done.epoch, 0
        progress.loss_sum, progress.correct, progress.seconds = 0.0, 0, 0.0
        return done

    def _initial_slots(self) -> Array:
        """Return the initial optimizer state, with the averaged parameters as the last row."""
        state = self.optimizer.init_state(self.network.parameters)
        if self.regularization.average is None:
            return state
        return np.concatenate([state, self.network.parameters.vector[None]])

    @property
    def _optimizer_state(self) -> Array:
        """State vectors of the optimizer, ``(n_slots, size)``, without the averaged parameters."""
        return self.slots[: self.optimizer.n_slots]

    @property
    def eval_network(self) -> Network:
        """The network to validate, and to save if it is the best: the averaged one, if any."""
        steps = min(self._steps_before + self.progress.batch, self._steps)
        if self._ema_network is None or steps < EMA_EVERY:
            return self.network
        self._ema_network.parameters.vector[...] = self.slots[-1]
        return self._ema_network

    def _update_patience(self, stopping: EarlyStopping, done: EpochDone) -> None:
        """Count the epochs since the last improvement of the metric for early stopping."""
        value = done.val_accuracy if stopping.metric == "val_accuracy" else done.val_loss
        assert value is not None, "early stopping needs validation examples"
        score = value if stopping.metric == "val_accuracy" else -value
        best = self.progress.patience_best
        if best is None or score > best:
            self.progress.patience_best, self.progress.patience_used = score, 0
        else:
            self.progress.patience_used += 1

    def is_finite(self) -> bool:
        """Return whether all parameters and the optimizer state are finite."""
        return bool(
            np.isfinite(self.network.parameters.vector).all() and np.isfinite(self.slots).all()
        )

    def _take_snapshot(self) -> _Snapshot:
        return _Snapshot(
            self.network.parameters.vector.copy(),
            self.slots.copy(),
            self.progress.batch,
            self._last_loss,
        )

    def _find_divergence(self, order: NDArray[np.int64], end: int) -> Divergence:
        """Repeat the steps since the last snapshot, checking all numbers after each step.

        Normally only the losses of a block are checked, which costs almost nothing. The steps are
        deterministic, so the repetition diverges at the same batch.
        """
        snapshot, parameters = self._snapshot, self.network.parameters
        if snapshot is None:  # the initial parameters are not finite
            layers = range(1, len(self.network.layers))
            layer = next((i for i in layers if not _is_finite(parameters, i)), len(layers) + 1)
            step = self.progress.batch + 1
            return Divergence(self.progress.epoch + 1, step, layer, "parameters", None)
        self.network.parameters.vector[...] = snapshot.parameters
        self.slots[...] = snapshot.slots
        self.progress.batch, last_finite_loss = snapshot.batch, snapshot.last_loss
        with np.errstate(over="ignore", invalid="ignore"):
            for begin in range(snapshot.batch * self.batch_size, end, self._block):
                block = self._gather(order[:end], begin)
                for batch in block.batches:
                    self._team.run(functools.partial(self._take_steps, [batch]))
                    loss = float(
                        self.loss.values(batch.logits, batch.targets).mean(dtype=np.float64)
                    )
                    workspace, _ = self._workspaces[len(batch.inputs)]
                    not_finite = self._first_not_finite(workspace, batch.logits, loss)
                    if not_finite:
                        layer, what = not_finite
                        return Divergence(
                            epoch=self.progress.epoch + 1,
                            batch=batch.number + 1,
                            layer=layer,
                            what=what,
                            last_finite_loss=last_finite_loss,
                        )
                    last_finite_loss = loss
                self._flush_denormals(block)
        raise AssertionError("the divergence did not occur again when the steps were repeated")

    def _first_not_finite(
        self, workspace: Backpropagation, logits: Array, loss: float
    ) -> tuple[int, Literal["outputs", "gradient", "parameters"]] | None:
        """Return the layer and kind of the first numbers in the last step that are not finite."""
        depth = len(self.network.layers)
        for layer, outputs in enumerate([*workspace.outputs[:-1], logits], start=1):
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
        return None if np.isfinite(self.slots).all() else (depth, "gradient")


def _is_finite(parameters: Parameters, layer: int) -> bool:
    """Return whether all numbers of a layer, counted from 1, are finite."""
    views = (parameters.weights, parameters.biases, parameters.slopes)
    return all(bool(np.isfinite(view[layer - 1]).all()) for view in views)
