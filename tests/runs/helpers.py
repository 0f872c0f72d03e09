"""A small training on the bundled digits, to interrupt, resume and compare."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nnctl.config import from_mapping
from nnctl.data.dataset import open_dataset
from nnctl.nn.training import Finished
from nnctl.runs.directory import Run
from nnctl.runs.training import TrainingRun

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
"""All kinds of state: momentum, a schedule, shuffling, a subset, a short last batch."""

EVENTS_AN_EPOCH = 6
"""Five blocks of about five hundred examples, and the end of the epoch."""
STEPS_AN_EPOCH = 84
"""2,500 examples in batches of 30."""


def ignore(_: object) -> None:
    """Discard the notices of a download."""


def begin(directory: Path, config: Mapping[str, Any] = SMALL) -> TrainingRun:
    """Return a training at its beginning."""
    dataset = open_dataset("mini", notify=ignore)
    settled = from_mapping({**config, "data": {**config["data"], "fallback": None}}, "test")
    return TrainingRun.begin(Run.create_at(directory), settled, dataset)


def train(training: TrainingRun, stop_after: int | None = None) -> str:
    """Train to the end, or to an event counted from 1; return why the training ended."""
    seen = 0

    def stop() -> bool:
        return seen == stop_after

    for event in training.events(stop):
        seen += 1
        if isinstance(event, Finished):
            return event.reason
    raise AssertionError("a training ends with an event")


def resume(directory: Path) -> TrainingRun:
    """Return the resumed training of a directory."""
    return TrainingRun.resume(Run.open(directory), notify=ignore)


def outcome(directory: Path) -> tuple[bytes, bytes, list[dict[str, Any]]]:
    """Return what interruptions must not change: last and best parameters, and the metrics."""
    run = Run(directory)
    rows = [{key: row[key] for key in row if key != "seconds"} for row in run.metrics]
    last, best = run.checkpoint("last"), run.checkpoint("best")
    return (
        np.concatenate([last.parameters, last.velocity]).tobytes(),
        best.parameters.tobytes(),
        rows,
    )
