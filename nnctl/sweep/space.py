"""The points of a sweep: which values its keys take in each trial."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from nnctl.config.sweeps import Range, SweepConfig

Point = dict[str, Any]
"""A value for each key that varies."""


def points(sweep: SweepConfig) -> list[Point]:
    """Return the points of a sweep in order, each of them once."""
    drawn = _random(sweep) if sweep.method == "random" else _grid(sweep)
    unlike = {json.dumps(point, sort_keys=True): point for point in drawn}
    return list(unlike.values())


def _grid(sweep: SweepConfig) -> Iterator[Point]:
    """Yield every combination; the last key varies fastest."""
    values = [value for value in sweep.parameters.values() if isinstance(value, list)]
    for combination in itertools.product(*values):
        yield dict(zip(sweep.parameters, combination, strict=True))


def _random(sweep: SweepConfig) -> Iterator[Point]:
    rng = np.random.default_rng(sweep.seed)
    for _ in range(sweep.trials or 0):
        yield {key: _draw(values, rng) for key, values in sweep.parameters.items()}


def _draw(values: list[Any] | Range, rng: np.random.Generator) -> Any:
    if isinstance(values, list):
        return values[int(rng.integers(len(values)))]
    match values.distribution:
        case "uniform":
            return float(rng.uniform(values.min, values.max))
        case "log_uniform_values":
            return math.exp(rng.uniform(math.log(values.min), math.log(values.max)))
        case "int_uniform":
            return int(rng.integers(int(values.min), int(values.max), endpoint=True))
