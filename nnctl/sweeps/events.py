"""The events of a sweep; each is a line of its journal."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

import nnctl
from nnctl.runs.records import Count, Number, PositiveCount, Record
from nnctl.sweeps.space import Params
from nnctl.sweeps.trials import TrialResult

FORMAT_VERSION = 1
"""Format version of the journal."""

Suggestion = dict[str, Count | Number]
"""Optuna's parameters for a point, by name: the index of a value, or a quantile of a range."""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class _Training(Record):
    epochs: Count


class _Config(Record):
    training: _Training


def _require_epochs(config: dict[str, Any]) -> dict[str, Any]:
    _Config.model_validate(config)
    return config


class Created(Record):
    """The first event: base configuration and search space."""

    event: Literal["sweep"] = "sweep"
    format_version: int = FORMAT_VERSION
    nnctl: str = nnctl.__version__
    time: str = Field(default_factory=_now)
    plan: dict[str, Any]


class Extended(Record):
    """The sweep was extended: its plan has more points or more seeds than before."""

    event: Literal["extended"] = "extended"
    nnctl: str = nnctl.__version__
    time: str = Field(default_factory=_now)
    plan: dict[str, Any]


class Planned(Record):
    """A trial was added to the sweep, with its full configuration."""

    event: Literal["planned"] = "planned"
    trial: PositiveCount
    id: str
    point: PositiveCount
    seed: Count
    fold: PositiveCount | None = None
    parameters: Params
    suggestion: Suggestion | None
    config: Annotated[dict[str, Any], AfterValidator(_require_epochs)]

    @property
    def epochs(self) -> int:
        """Configured number of epochs."""
        return int(self.config["training"]["epochs"])


class PlanComplete(Record):
    """All trials that are known at the start of the sweep, or of its extension, are planned."""

    event: Literal["complete"] = "complete"
    trials: Count = 0


class Repeated(Record):
    """The search suggested a point that was tried before."""

    event: Literal["repeated"] = "repeated"
    point: PositiveCount
    trial: PositiveCount
    suggestion: Suggestion


class Impossible(Record):
    """The search suggested a point without a valid configuration."""

    event: Literal["impossible"] = "impossible"
    point: PositiveCount
    suggestion: Suggestion


class Started(Record):
    """A worker started to train a trial, or resumed it."""

    event: Literal["started"] = "started"
    time: str = Field(default_factory=_now)
    trial: PositiveCount


class Ended(TrialResult):
    """A trial ended; with early termination, also its scores after each validated epoch."""

    event: Literal["ended"] = "ended"
    time: str = Field(default_factory=_now)
    run_dir: Path = Field(default=Path(), exclude=True)  # it depends on where the sweep is
    scores: list[Number] | None = None
    scored_epochs: list[PositiveCount] | None = None  # if some epochs were not validated

    @property
    def scores_by_epoch(self) -> dict[int, float] | None:
        """The scores by epoch."""
        if self.scores is None:
            return None
        epochs = self.scored_epochs or range(1, len(self.scores) + 1)
        return dict(zip(epochs, self.scores, strict=False))


Event = Created | Extended | Planned | PlanComplete | Repeated | Impossible | Started | Ended
