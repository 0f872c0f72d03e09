"""Events of a training, for the run directory, the terminal and tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from nnctl.nn.health import LayerHealth


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
