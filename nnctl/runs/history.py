"""The history of a run, ``metrics.jsonl``: a line of JSON for each epoch that was measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator

from nnctl.errors import DamagedFileError
from nnctl.files import read_bytes
from nnctl.nn.events import EpochMetrics, Monitored
from nnctl.nn.health import LayerHealth
from nnctl.runs.records import Number, PositiveCount, Record, Share


class _Health(Record):
    mean: Number
    std: Number
    dead: Share
    saturated: Share
    error: Number
    error_ratio: Number | None
    update_ratio: Number


def _without_early_health(health: Any) -> Any:
    """Omit the health of early versions, which did not measure ``error``."""
    is_early = isinstance(health, list) and all(
        isinstance(layer, dict) and "error" not in layer for layer in health
    )
    return [] if is_early else health


class _Monitored(Record):
    cost: Number | None = None
    train_accuracy: Share | None = None
    test_loss: Number | None = None
    test_accuracy: Share | None = None


class _Epoch(Record):
    epoch: PositiveCount
    train_loss: Number
    train_accuracy: Share
    val_loss: Number | None
    val_accuracy: Share | None
    val_class_accuracies: list[Share | None] | None = None
    learning_rate: Number
    seconds: Number
    health: Annotated[list[_Health], BeforeValidator(_without_early_health)]
    monitor: _Monitored | None = None


class _Step(Record):
    step: PositiveCount
    loss: Number


def epochs_of(history: Sequence[EpochMetrics]) -> int:
    """Return the number of epochs up to the last measured one."""
    return history[-1].epoch if history else 0


def to_line(metrics: EpochMetrics) -> str:
    """Return the line of an epoch, without a line ending."""
    values = dataclasses.asdict(metrics)
    line = {field.name: values[field.name] for field in dataclasses.fields(EpochMetrics)}
    monitored = line.pop("monitor")
    if monitored is not None:
        line["monitor"] = {name: value for name, value in monitored.items() if value is not None}
    return json.dumps(line, allow_nan=False)


def from_line(line: str | bytes) -> EpochMetrics:
    """Return the metrics in a line.

    Raises
    ------
    ValueError
        The line is not the metrics of an epoch.
    """
    record = _Epoch.model_validate_json(line)
    if (record.val_loss is None) != (record.val_accuracy is None):
        raise ValueError("only one of the two validation metrics is present")
    health = [LayerHealth(**layer.model_dump()) for layer in record.health]
    monitor = None if record.monitor is None else Monitored(**record.monitor.model_dump())
    fields = record.model_dump(exclude={"health", "monitor"})
    return EpochMetrics(**fields, health=health, monitor=monitor)


def read_history(
    path: Path, layers: int, *, every_epoch: bool = True
) -> list[tuple[str, EpochMetrics]]:
    """Return each complete line of a metrics file with its metrics; nothing if it does not exist.

    Parameters
    ----------
    path : Path
        Path of the file.
    layers : int
        Number of layers of the network.
    every_epoch : bool
        Whether each epoch has a line; otherwise only some of them have one.

    Raises
    ------
    DamagedFileError
        A line is not the metrics of the next epoch, or of a later one, of this network.
    """
    history: list[tuple[str, EpochMetrics]] = []
    last = 0
    for number, line in enumerate(_complete_lines(path), start=1):
        try:
            metrics = from_line(line)
            is_next = metrics.epoch == last + 1 if every_epoch else metrics.epoch > last
            if not is_next or len(metrics.health) not in (0, layers):
                raise ValueError("metrics of another epoch or network")
        except ValueError:
            raise DamagedFileError(
                f"{path}:{number} is damaged: the line is not the metrics of an epoch"
            ) from None
        last = metrics.epoch
        history.append((line.decode(), metrics))
    return history


def step_lines(losses: Mapping[int, float]) -> list[str]:
    """Return the lines of the losses of some steps, without line endings."""
    return [json.dumps({"step": step, "loss": loss}) for step, loss in losses.items()]


def read_step_losses(path: Path, every: int) -> dict[int, float]:
    """Return the losses by step; nothing if the file does not exist.

    Parameters
    ----------
    path : Path
        Path of the file.
    every : int
        Number of steps from one loss to the next.

    Raises
    ------
    DamagedFileError
        A line is not the loss of the next step.
    """
    losses: dict[int, float] = {}
    for number, line in enumerate(_complete_lines(path), start=1):
        step = number * every
        try:
            record = _Step.model_validate_json(line)
            if record.step != step:
                raise ValueError("loss of another step")
        except ValueError:
            raise DamagedFileError(
                f"{path}:{number} is damaged: the line is not the loss of step {step:,}"
            ) from None
        losses[step] = record.loss
    return losses


def _complete_lines(path: Path) -> list[bytes]:
    """Return the lines of a file, none if it does not exist, without an incomplete last line."""
    try:
        return read_bytes(path).split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
