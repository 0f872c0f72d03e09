"""A short training on the bundled digits to interrupt, resume and compare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config import from_mapping
from nnctl.data.dataset import open_dataset
from nnctl.nn.events import EpochMetrics, Finished
from nnctl.nn.types import Array
from nnctl.runs.checkpoint import Checkpoint
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun

SMALL: dict[str, Any] = {
    "data": {"dataset": "mini", "validation": 500, "subset": 2500},
    "network": {
        "layers": [{"units": 20, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    },
    "optimizer": {
        "learning_rate": 0.05,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 1e-3,
        "schedule": {"name": "exponential", "warmup": 1.0, "gamma": 0.8},
    },
    "training": {"epochs": 4, "batch_size": 30, "seed": 3, "threads": 1},
}
"""A configuration with many kinds of state: momentum, schedule, shuffling, short last batch."""

EVENTS_AN_EPOCH = 6
"""Events per epoch: five blocks of about 500 examples, and the end of the epoch."""
STEPS_AN_EPOCH = 84
"""Steps per epoch: 2,500 examples in batches of 30."""


def ignore(_: object) -> None:
    """Discard the notices of a download."""


MINI = open_dataset("mini", notify=ignore)
"""The bundled digits."""


def begin(directory: Path, config: Mapping[str, Any] = SMALL) -> TrainingRun:
    """Return a training that has not started."""
    final = from_mapping({**config, "data": {**config["data"], "fallback": None}}, "test")
    return TrainingRun.create(Run.create_at(directory), final, MINI)


def train(training: TrainingRun, stop_after: int | None = None) -> str:
    """Train until the end, or stop after a number of events; return the reason of the end."""
    events = 0

    def stop() -> bool:
        return events == stop_after

    for event in training.events(stop):
        events += 1
        if isinstance(event, Finished):
            return event.reason
    raise AssertionError("a training ends with an event")


def resume(directory: Path) -> TrainingRun:
    """Return a training that resumes the run in a directory."""
    return TrainingRun.resume(Run.open(directory), MINI)


def outcome(directory: Path) -> tuple[bytes, bytes, list[EpochMetrics], dict[int, float]]:
    """Return the last state, the best parameters and all metrics, without the times."""
    run = Run(directory)
    history = [replace(epoch, seconds=0.0) for epoch in run.history]
    last, best = run.checkpoint("last"), run.checkpoint("best")
    return (
        np.concatenate([last.parameters, last.optimizer_state, _statistics(last)]).tobytes(),
        np.concatenate([best.parameters, _statistics(best)]).tobytes(),
        history,
        run.step_losses,
    )


def _statistics(checkpoint: Checkpoint) -> Array:
    return np.empty(0) if checkpoint.statistics is None else checkpoint.statistics
