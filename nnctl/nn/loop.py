"""The training loop: minibatch gradient descent as an iterator of events.

The terminal output, the run directory and tests all consume the same events; the loop does not
depend on them. To understand it, read `TrainingLoop.__iter__`, then `nnctl.nn.step.Step`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.batches import Batch, BatchLoader, Block
from nnctl.nn.divergence import (
    NotFiniteError,
    Snapshot,
    divergence_of_parameters,
    find_divergence,
    is_finite,
)
from nnctl.nn.events import BatchesDone, Divergence, EpochDone, Event, Finished
from nnctl.nn.examples import Examples, scaled
from nnctl.nn.health import Probe
from nnctl.nn.losses import Loss
from nnctl.nn.metrics import make_targets, mean_loss_and_accuracies
from nnctl.nn.network import Network
from nnctl.nn.optimizers import EMA_EVERY, Optimizer, flush_denormals
from nnctl.nn.schedules import ConstantSchedule, LearningRate, PlateauSchedule, Schedule
from nnctl.nn.state import EarlyStopping, Plateau, Progress, Stopping
from nnctl.nn.step import Step
from nnctl.nn.types import Array
from nnctl.nn.unused_inputs import SkippingStep

_SNAPSHOT_STEPS = 32  # minimum number of steps between snapshots: copying a network takes time
_FLUSH_STEPS = 32  # minimum number of steps between searches for denormal numbers
_PROBE_SHARE = 50  # the probe has 1/50 of the examples, so that measuring is cheap
_PROBE_SIZES = (32, 256)  # minimum and maximum size of the probe


@dataclass
class TrainingLoop:
    """Trains a network; iterate over it to train and to receive the events.

    To resume, set the parameters of the network, `progress` and `state` before iterating.

    Parameters
    ----------
    network : Network
        Network to train, in place.
    loss : Loss
        Loss to minimize.
    optimizer : Optimizer
        Rules that update the parameters.
    batches : BatchLoader
        Loader of the training examples, with the threads that take the steps.
    learning_rate : float
        Learning rate.
    schedule : Schedule
        Learning-rate schedule, evaluated at each step.
    validation : Examples, optional
        Examples for validation after each epoch.
    epochs : int
        Total number of epochs.
    steps : int, optional
        Maximum number of steps. If the last step is within an epoch, the epoch counts as complete.
    early_stopping : EarlyStopping, optional
        Rule for stopping before the last epoch.
    validate_every : int
        Number of epochs from one measurement to the next. The last epoch is always measured.
    validate_after : float
        Minimum number of seconds from one measurement to the next.
    monitor_every : int, optional
        Number of steps from one loss in the events `BatchesDone` to the next; None: no losses.
    adversarial : float, optional
        Distance of adversarial training; see `nnctl.nn.adversarial.perturb`.

    Attributes
    ----------
    progress : Progress
        Progress so far.
    state : dict of str to array, shape (size,)
        State of the optimizer; "average" is the moving average of the parameters.
    """

    network: Network
    loss: Loss
    optimizer: Optimizer
    batches: BatchLoader
    learning_rate: float
    schedule: Schedule = field(default_factory=ConstantSchedule)
    validation: Examples | None = None
    epochs: int = 1
    steps: int | None = None
    early_stopping: EarlyStopping | None = None
    validate_every: int = 1
    validate_after: float = 0.0
    monitor_every: int | None = None
    adversarial: float | None = None
    progress: Progress = field(init=False)
    state: dict[str, Array] = field(init=False)

    def __post_init__(self) -> None:
        batches, n_batches = self.batches, len(self.batches)
        self.progress = Progress(batches.rng.bit_generator.state)
        self.state = self.optimizer.init_state(self.network.parameters)
        self._n_steps = min(self.epochs * n_batches, self.steps or sys.maxsize)
        self._scheduled_rate = LearningRate(
            self.learning_rate, self.schedule, n_batches, self._n_steps
        )
        plateau = Plateau(self.schedule) if isinstance(self.schedule, PlateauSchedule) else None
        self._stopping: list[Stopping] = [
            rule for rule in (self.early_stopping, plateau) if rule is not None
        ]
        last_batch = len(batches.examples) % batches.batch_size or batches.batch_size
        self._step = Step(
            self.network,
            self.loss,
            self.optimizer,
            self.state,
            self._rate,
            sorted({batches.batch_size, last_batch}),
            self.adversarial,
        )
        self._take_steps = SkippingStep(self._step, batches.team).run
        averages = "average" in self.state
        self._ema_network = (
            Network(self.network.sizes[0], self.network.layers) if averages else None
        )
        self._last_loss: float | None = None
        self._snapshot: Snapshot | None = None
        self._probe = self._make_probe()
        self._measured_at = time.monotonic()
        self._step_losses: dict[int, float] = {}

    def __iter__(self) -> Iterator[Event]:
        """Train to the end, or until the consumer stops iterating."""
        try:
            while (reason := self.stop_reason()) is None:
                order = self._epoch_order()
                n_batches = math.ceil(len(order) / self.batches.batch_size)
                blocks = self.batches.blocks(order, self.progress.epoch, self.progress.batch)
                while self._train_block(blocks):
                    epoch, batch = self.progress.epoch + 1, self.progress.batch
                    yield BatchesDone(epoch, batch, n_batches, self._step_losses)
                if done := self._complete_epoch(order):
                    yield done
            yield Finished(reason)
        except NotFiniteError as error:
            yield Finished("diverged", error.divergence or self._find_divergence(order))
        finally:
            self.batches.team.stop()

    def _train_block(self, blocks: Iterator[Block]) -> bool:
        """Take a step per batch of the next block, and add up the losses; return False at the end.

        Raises
        ------
        NotFiniteError
            A loss or parameter is not finite.
        """
        started = time.perf_counter()
        block = next(blocks, None)
        if block is None:
            return False
        snapshot = self._snapshot
        if snapshot is None or self.progress.batch - snapshot.batch >= _SNAPSHOT_STEPS:
            self._require_finite()
            self._snapshot = Snapshot.take(self._step, self.progress.batch, self._last_loss)
        # No warnings of overflows: the check below finds them, as a loss that is not finite.
        with np.errstate(over="ignore", invalid="ignore"):
            first_step = self._steps_before + self.progress.batch + 1
            self._take_steps(block.batches, first_step, block.unused)
            self._flush_denormals(block)
            losses = self.loss.weighted_values(block.logits, block.targets, block.weights)
        loss_sum = float(losses.sum(dtype=np.float64))
        if not math.isfinite(loss_sum):
            raise NotFiniteError
        last_batch = len(block.batches[-1].inputs)
        self._last_loss = float(losses[-last_batch:].mean(dtype=np.float64))
        if self.monitor_every:
            self._step_losses = self._losses_by_step(block, losses)
        predicted = self.network.predict_classes(block.logits)
        self.progress.batch += len(block.batches)
        self.progress.loss_sum += loss_sum
        self.progress.correct += int(np.count_nonzero(predicted == block.labels))
        self.progress.seconds += time.perf_counter() - started
        return True

    def _losses_by_step(self, block: Block, losses: Array) -> dict[int, float]:
        """Return the loss of every `monitor_every`-th step of a block, by number of the step."""
        size, by_step = self.batches.batch_size, {}
        for i, batch in enumerate(block.batches):
            step = self._steps_before + batch.number + 1
            if self.monitor_every and step % self.monitor_every == 0:
                of_batch = losses[i * size : i * size + len(batch.inputs)]
                by_step[step] = float(of_batch.mean(dtype=np.float64))
        return by_step

    def _complete_epoch(self, order: NDArray[np.int64]) -> EpochDone | None:
        """Prepare the next epoch; return the metrics of this one if it is due to be measured."""
        if self._snapshot:
            self._require_finite()
        self._snapshot = None
        done = self._measure_epoch(order) if self._is_measured() else None
        self.progress.start_next_epoch(done, self.batches.rng.bit_generator.state)
        return done

    def _is_measured(self) -> bool:
        """Return whether the current epoch, whose batches are done, is validated and recorded."""
        if self._steps_before + self.progress.batch >= self._n_steps:
            return True
        elapsed = time.monotonic() - self._measured_at
        due = (self.progress.epoch + 1) % self.validate_every == 0
        return due and elapsed >= self.validate_after

    def _measure_epoch(self, order: NDArray[np.int64]) -> EpochDone:
        """Validate the network, and update what depends on the metrics."""
        progress = self.progress
        val_loss, val_accuracy, class_accuracies = None, None, None
        learning_rate = self._rate(self._steps_before + progress.batch // 2 + 1)
        with np.errstate(over="ignore", invalid="ignore"):
            steps = self._steps_before + progress.batch
            descent = self.optimizer.descent
            health = self._probe.measure(descent.step_size(self.state, learning_rate, steps))
            if self.validation:
                val_loss, val_accuracy, class_accuracies = mean_loss_and_accuracies(
                    self.eval_network, self.loss, self.validation, self.batches.team.size
                )
        # After the epoch's last step, the parameters may be so large that outputs overflow.
        overflowing = [i for i, layer in enumerate(health, start=1) if not layer.is_finite()]
        if overflowing or not math.isfinite(val_loss or 0.0):
            layer = overflowing[0] if overflowing else len(health)
            in_outputs = not (overflowing and math.isfinite(health[layer - 1].std))
            raise NotFiniteError(
                Divergence(
                    epoch=progress.epoch + 1,
                    batch=progress.batch,
                    layer=layer,
                    what="outputs" if in_outputs else "gradient",
                    last_finite_loss=self._last_loss,
                )
            )
        done = EpochDone(
            epoch=progress.epoch + 1,
            train_loss=progress.loss_sum / len(order),
            train_accuracy=progress.correct / len(order),
            val_loss=val_loss,
            val_accuracy=val_accuracy,
            val_class_accuracies=class_accuracies,
            learning_rate=learning_rate,
            seconds=progress.seconds,
            is_best=progress.best is None or progress.best.is_beaten_by(val_accuracy, val_loss),
            health=health,
        )
        for rule in self._stopping:
            rule.update(progress, done)
        self._measured_at = time.monotonic()
        return done

    def stop_reason(self) -> Literal["finished", "stopped_early"] | None:
        """Return why training ends before the next epoch, or None if it continues."""
        if self._steps_before >= self._n_steps:
            return "finished"
        if any(rule.is_due(self.progress) for rule in self._stopping):
            return "stopped_early"
        return None

    def is_finite(self) -> bool:
        """Return whether all parameters and the optimizer's state are finite."""
        return is_finite(self._step)

    def _require_finite(self) -> None:
        if not self.is_finite():
            raise NotFiniteError

    @property
    def steps_done(self) -> int:
        """Number of steps so far; the last epoch may be shorter than the others."""
        return min(self._steps_before + self.progress.batch, self._n_steps)

    @property
    def has_average(self) -> bool:
        """Whether the parameters were averaged: after some steps, if at all."""
        return self._ema_network is not None and self.steps_done >= EMA_EVERY

    @property
    def eval_network(self) -> Network:
        """The network to validate, and to save if it is the best: the averaged one, if any."""
        if self._ema_network is None or not self.has_average:
            return self.network
        self._ema_network.parameters.vector[...] = self.state["average"]
        # Batch normalization keeps the statistics of the trained network: those of the averaged one
        # would take another pass over the training set.
        self._ema_network.statistics[...] = self.network.statistics
        return self._ema_network

    @property
    def _steps_before(self) -> int:
        """Number of steps in the complete epochs."""
        return self.progress.epoch * len(self.batches)

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self._scheduled_rate(step) * self.progress.rate_factor

    def _epoch_order(self) -> NDArray[np.int64]:
        """Return the order of the examples in the current epoch, until the last step."""
        steps_left = self._n_steps - self._steps_before
        return self.batches.order(self.progress)[: steps_left * self.batches.batch_size]

    def _flush_denormals(self, block: Block) -> None:
        """Set tiny numbers of the optimizer's state to 0; few steps need that."""
        before = self._steps_before + block.batches[0].number
        if before // _FLUSH_STEPS < (before + len(block.batches)) // _FLUSH_STEPS:
            flush_denormals(self.state)

    def _find_divergence(self, order: NDArray[np.int64]) -> Divergence:
        """Repeat the steps since the last snapshot to find where a number was not finite."""
        epoch, snapshot = self.progress.epoch + 1, self._snapshot
        if snapshot is None:
            return divergence_of_parameters(self.network.parameters, epoch, self.progress.batch + 1)
        snapshot.restore(self._step)
        self.progress.batch = snapshot.batch
        with np.errstate(over="ignore", invalid="ignore"):
            repeated = self._repeated_steps(order, snapshot.batch)
            return find_divergence(self._step, repeated, epoch, snapshot.last_loss)

    def single_steps(self) -> Iterator[float]:
        """Take all steps one by one, and yield the loss of each batch, measured before its update.

        Nothing is validated, so that no event, early stopping or divergence ends the training.
        """
        try:
            while self._steps_before < self._n_steps:
                order = self._epoch_order()
                for _, loss in self._repeated_steps(order, 0):
                    yield loss
                self.progress.epoch += 1
                self.progress.rng_state = self.batches.rng.bit_generator.state
        finally:
            self.batches.team.stop()

    def _repeated_steps(
        self, order: NDArray[np.int64], first: int
    ) -> Iterator[tuple[Batch, float]]:
        """Take the steps of the epoch one by one, from a batch on; yield each with its loss."""
        for block in self.batches.blocks(order, self.progress.epoch, first):
            for batch in block.batches:
                self._take_steps([batch], self._steps_before + batch.number + 1, block.unused)
                losses = self.loss.weighted_values(batch.logits, batch.targets, batch.weights)
                yield batch, float(losses.mean(dtype=np.float64))
            self._flush_denormals(block)

    def _make_probe(self) -> Probe:
        """Return the probe for layer health, with validation examples if there are any."""
        smallest, largest = _PROBE_SIZES
        count = min(max(smallest, len(self.batches.examples) // _PROBE_SHARE), largest)
        examples = self.validation or self.batches.examples
        units, dtype = self.network.sizes[-1], self.network.dtype
        return Probe(
            self.network,
            self.loss,
            scaled(examples.inputs[:count], dtype),
            make_targets(examples.labels[:count], units, dtype),
            self._step.gradient,
        )
