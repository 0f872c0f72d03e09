"""The journal of a sweep: an append-only file with one line of JSON per event.

The first line, ``sweep``, holds the base configuration and the search space. ``planned`` adds a
trial with its full configuration; ``complete`` follows after all trials that are known at the start
of the sweep. ``started`` and ``ended`` record the start and the end of a trial. ``repeated`` is a
suggestion that was tried before; ``impossible`` is one without a valid configuration. A line is
synced to the disk before its event is shown or used, and the results are rebuilt from the journal.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.files import append_lines, read_bytes, require_own
from nnctl.runs.line_checks import (
    Check,
    all_values,
    check_version,
    each,
    is_count,
    is_mapping,
    is_number,
    is_positive,
    is_share,
    is_text,
    one_of,
    optional,
    parse,
    record,
)
from nnctl.runs.run import cannot_write

FORMAT_VERSION = 1
NAME = "journal.jsonl"
_SUGGESTION = all_values(is_number)
_LINES: dict[str, Check] = {
    "sweep": record({"plan": is_mapping}),
    "planned": record(
        {
            "trial": is_positive,
            "id": is_text,
            "point": is_positive,
            "seed": is_count,
            "parameters": is_mapping,
            "suggestion": optional(_SUGGESTION),
            "config": record({"training": record({"epochs": is_count})}),
        }
    ),
    "complete": record({}),
    "repeated": record({"point": is_positive, "trial": is_positive, "suggestion": _SUGGESTION}),
    "impossible": record({"point": is_positive, "suggestion": _SUGGESTION}),
    "started": record({"trial": is_positive}),
    "ended": record(
        {
            "trial": is_positive,
            "id": is_text,
            "status": one_of(
                "finished", "stopped_early", "pruned", "diverged", "failed", "interrupted"
            ),
            "reason": is_text,
            "val_accuracy": optional(is_share),
            "val_loss": optional(is_number),
            "best_epoch": optional(is_count),
            "epochs": is_count,
            "seconds": is_number,
            "seed": is_count,
            "parameters": is_mapping,
        },
        {"log": is_text, "scores": each(is_number)},
    ),
}
"""Required fields of each kind of line."""


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

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Append lines; they are on the disk when this returns.

        Only the first line creates the file: if the journal was removed, it cannot be recreated.

        Raises
        ------
        StorageError
            They cannot be written. The journal itself stays valid.
        """
        lines = list(lines)
        if not lines:
            return
        texts = [json.dumps(line, allow_nan=False) for line in lines]
        try:
            append_lines(self.path, texts, create=lines[0]["event"] == "sweep")
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def repair(self) -> None:
        """Remove an incomplete last line."""
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

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines, without an incomplete last line.

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
        parameters: dict[int, Any] = {}  # parameters of the planned trials
        point = 0
        for number, text in enumerate(lines, start=1):
            try:
                line = parse(text)
                event = line["event"]
                version = line["format_version"] if number == 1 else FORMAT_VERSION
                is_valid = _LINES[event]
            except (ValueError, TypeError, KeyError):
                raise self._damaged(number, "not a valid journal line") from None
            if (event == "sweep") != (number == 1):
                raise self._damaged(number, f"'{event}' is out of order")
            check_version(self.path, version, FORMAT_VERSION)
            if not is_valid(line):
                raise self._damaged(number, "not a valid journal line")
            self._check_trial(number, line, parameters)
            if "point" in line:
                # The trials of a point are consecutive; other suggestions have no trials.
                if line["point"] < point + (event != "planned"):
                    raise self._damaged(number, f"point {line['point']} is out of order")
                point = line["point"] + (event != "planned")
            yield line

    def _check_trial(
        self, number: int, line: Mapping[str, Any], parameters: dict[int, Any]
    ) -> None:
        """Check a line against earlier lines: each trial is planned once, before it starts."""
        event, trial = line["event"], line.get("trial")
        if event == "planned":
            if trial != len(parameters) + 1:
                raise self._damaged(number, f"trial {trial} is out of order")
            parameters[trial] = line["parameters"]
        elif event in ("started", "ended", "repeated"):
            if trial not in parameters:
                raise self._damaged(number, f"trial {trial} was not planned")
            if event == "ended" and line["parameters"] != parameters[trial]:
                raise self._damaged(number, f"wrong parameters for trial {trial}")

    def _damaged(self, number: int, problem: str) -> DamagedFileError:
        return DamagedFileError(f"{self.path}:{number} is damaged: {problem}")
