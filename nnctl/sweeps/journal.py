"""The journal of a sweep: an append-only file with one line of JSON per event.

A line is synced to the disk before its event is shown or used. So the state of a sweep (`state`)
can always be restored from its journal alone.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, TypeAdapter

import nnctl
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.files import append_lines, read_bytes, require_own
from nnctl.runs.records import Count, Number, PositiveCount, Record, check_version, parse_json
from nnctl.runs.run import cannot_write
from nnctl.sweeps.space import Params
from nnctl.sweeps.trials import TrialResult

FORMAT_VERSION = 1
NAME = "journal.jsonl"

Suggestion = dict[str, Number]
"""Optuna's parameters for a point, by name."""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


class _Training(Record):
    epochs: Count


class _Config(Record):
    training: _Training


def _require_epochs(config: dict[str, Any]) -> dict[str, Any]:
    _Config.model_validate(config)
    return config


class SweepCreated(Record):
    """The first event: base configuration and search space."""

    event: Literal["sweep"] = "sweep"
    format_version: int = FORMAT_VERSION
    nnctl: str = nnctl.__version__
    time: str = Field(default_factory=_now)
    plan: dict[str, Any]


class TrialPlanned(Record):
    """A trial was added to the sweep, with its full configuration."""

    event: Literal["planned"] = "planned"
    trial: PositiveCount
    id: str
    point: PositiveCount
    seed: Count
    parameters: Params
    suggestion: Suggestion | None
    config: Annotated[dict[str, Any], AfterValidator(_require_epochs)]

    @property
    def epochs(self) -> int:
        """Configured number of epochs."""
        return int(self.config["training"]["epochs"])


class PlanComplete(Record):
    """All trials that are known at the start of the sweep are planned."""

    event: Literal["complete"] = "complete"
    trials: Count = 0


class SuggestionRepeated(Record):
    """The search suggested a point that was tried before."""

    event: Literal["repeated"] = "repeated"
    point: PositiveCount
    trial: PositiveCount
    suggestion: Suggestion


class SuggestionImpossible(Record):
    """The search suggested a point without a valid configuration."""

    event: Literal["impossible"] = "impossible"
    point: PositiveCount
    suggestion: Suggestion


class TrialStarted(Record):
    """A worker started to train a trial, or resumed it."""

    event: Literal["started"] = "started"
    time: str = Field(default_factory=_now)
    trial: PositiveCount


class TrialEnded(TrialResult):
    """A trial ended; with early termination, also its scores after each epoch."""

    event: Literal["ended"] = "ended"
    time: str = Field(default_factory=_now)
    run_dir: Path = Field(default=Path(), exclude=True)  # it depends on where the sweep is
    scores: list[Number] | None = None


Event = (
    TrialPlanned
    | PlanComplete
    | SuggestionRepeated
    | SuggestionImpossible
    | TrialStarted
    | TrialEnded
)
"""An event after the first one."""

_LINE: TypeAdapter[SweepCreated | Event] = TypeAdapter(
    Annotated[SweepCreated | Event, Field(discriminator="event")]
)


def is_sweep(directory: Path) -> bool:
    """Return whether a directory is a sweep directory."""
    return (directory / NAME).is_file()


class Journal:
    """The journal in a sweep's directory.

    Parameters
    ----------
    directory : Path
        Sweep directory.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME

    def append(self, events: Iterable[SweepCreated | Event]) -> None:
        """Append events; they are on the disk when this returns.

        Only the first event creates the file: if the journal was removed, it cannot be recreated.

        Raises
        ------
        StorageError
            They cannot be written. The journal itself stays valid.
        """
        events = list(events)
        if not events:
            return
        # Dumped in this order, the kind of the event is the first key of every line.
        lines = [{"event": event.event, **event.model_dump()} for event in events]
        texts = [json.dumps(line, allow_nan=False) for line in lines]
        try:
            append_lines(self.path, texts, create=isinstance(events[0], SweepCreated))
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def repair(self) -> None:
        """Remove an incomplete last line.

        Raises
        ------
        StorageError
            The journal cannot be written.
        """
        try:
            require_own(self.path)
            with self.path.open("r+b") as file:
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    file.truncate(whole)
        except FileNotFoundError:
            pass  # `read` reports it
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def read(self) -> Iterator[SweepCreated | Event]:
        """Yield the events, without an incomplete last line; the first one is `SweepCreated`.

        Raises
        ------
        UsageError
            The directory is not a sweep directory.
        DataError
            The journal cannot be read, or has a later format version.
        DamagedFileError
            A line is not a valid journal line.
        """
        try:
            content = read_bytes(self.path)
        except FileNotFoundError:
            raise UsageError(
                f"{self.path.parent} is not a sweep directory: it has no {NAME}"
            ) from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None
        lines = content.split(b"\n")[:-1]
        if not lines:
            raise UsageError(f"{self.path} is empty: the sweep was interrupted before it started")
        for number, text in enumerate(lines, start=1):
            try:
                values = parse_json(text)
                if number == 1:
                    check_version(self.path, values["format_version"], FORMAT_VERSION)
                event = _LINE.validate_python(values)
            except (ValueError, TypeError, KeyError):
                raise self.damaged(number, "not a valid journal line") from None
            if isinstance(event, SweepCreated) != (number == 1):
                raise self.damaged(number, f"'{event.event}' is out of order")
            yield event

    def damaged(self, number: int, problem: str) -> DamagedFileError:
        """Return the error for a line of the journal."""
        return DamagedFileError(f"{self.path}:{number} is damaged: {problem}")
