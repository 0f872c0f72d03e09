"""Helpers for tests of configuration files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import Config, Override, read_file, resolve
from nnctl.config.sweeps import SweepConfig, load_sweep
from nnctl.errors import ConfigError

SMALL = """\
network:
  layers:
    - {units: 5, activation: relu}
    - {units: 10, activation: softmax}
optimizer:
  learning_rate: 0.1
"""


def load(path: Path, overrides: Sequence[Override] = ()) -> Config:
    """Read and check a training configuration."""
    return resolve(read_file(path), overrides)


def written(text: str) -> Path:
    """Write c.yaml to the current directory, so that positions begin with its name alone."""
    path = Path("c.yaml")
    path.write_text(text, encoding="utf-8", newline="\n")
    return path


def mistakes(text: str, *settings: str, read: Callable[..., Any] = load) -> list[str]:
    """Return the mistakes reported for a configuration with ``--set`` options."""
    with pytest.raises(ConfigError) as caught:
        read(written(text), *([[*map(Override.parse, settings)]] if settings else []))
    return list(caught.value.mistakes)


def mistake(text: str, *settings: str, read: Callable[..., Any] = load) -> str:
    """Return the only mistake reported for a configuration."""
    (only,) = mistakes(text, *settings, read=read)
    return only


def sweep_of(path: Path) -> SweepConfig:
    """Read a sweep file."""
    return load_sweep(read_file(path))


def positions(mistakes: list[str]) -> list[str]:
    """Return the positions of mistakes: line and column, or the option."""
    return [line.split(": ")[0].removeprefix("c.yaml:") for line in mistakes]
