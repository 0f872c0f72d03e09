"""The journal of a sweep: an append-only file, a line of JSON for each change of state.

The first line says what the sweep is. ``planned`` adds a trial with its whole configuration;
``complete`` follows when all that are known beforehand are planned. ``started`` and ``ended`` tell
of a trial. ``repeated`` is a suggestion that was tried before, ``impossible`` one that no
configuration can have. What a line says is on the disk before anybody is told; the results are made
of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.files import append_lines
from nnctl.runs.directory import cannot_write

FORMAT_VERSION = 1
NAME = "journal.jsonl"
_KEYS = {
    "sweep": ("plan",),
    "planned": ("trial", "id", "point", "seed", "parameters", "suggestion", "config"),
    "complete": (),
    "repeated": ("point", "trial", "suggestion"),
    "impossible": ("point", "suggestion"),
    "started": ("trial",),
    "ended": (
        *("trial", "id", "status", "reason", "val_accuracy", "val_loss", "best_epoch", "epochs"),
        *("seconds", "seed", "parameters"),
    ),
}
"""What a line of each kind tells at least."""


def is_sweep(directory: Path) -> bool:
    """Tell whether a directory is that of a sweep."""
    return (directory / NAME).is_file()


class Journal:
    """The journal in a sweep's directory.

    Parameters
    ----------
    directory : Path
        Of the sweep.
    """

    def __init__(self, directory: Path) -> None:
        self.path = directory / NAME

    def append(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Add lines; they are on the disk when this returns.

        Raises
        ------
        StorageError
            They cannot be written. The journal is then still one.
        """
        texts = [json.dumps(line, allow_nan=False) for line in lines]
        if not texts:
            return
        try:
            append_lines(self.path, texts)
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def repair(self) -> None:
        """Cut off a last line that was not written to its end."""
        try:
            with self.path.open("r+b") as file:
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):
                    file.truncate(whole)
        except FileNotFoundError:
            pass  # `read` tells
        except OSError as error:
            raise cannot_write(self.path, error) from None

    def read(self) -> Iterator[dict[str, Any]]:
        """Yield the lines; what is not written to its end is left out.

        Raises
        ------
        UsageError
            The directory is not a sweep's.
        DataError
            The journal cannot be read, or is of a later version.
        DamagedFileError
            A line is not one of a journal.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            raise UsageError(
                f"{self.path.parent} is not the directory of a sweep: it has no {NAME}"
            ) from None
        except OSError as error:
            raise DataError(f"{self.path} cannot be read: {error.strerror or error}") from None
        lines = content.split(b"\n")[:-1]
        if not lines:
            raise UsageError(f"{self.path} is empty: the sweep was ended before it began")
        for number, text in enumerate(lines, start=1):
            try:
                line = json.loads(text)
                event = line["event"]
                version = line["format_version"] if number == 1 else FORMAT_VERSION
                if version == FORMAT_VERSION:
                    _ = [line[key] for key in _KEYS[event]]
            except (ValueError, TypeError, KeyError, RecursionError):
                raise DamagedFileError(
                    f"{self.path}:{number} is damaged: it is not a line of a journal"
                ) from None
            if (event == "sweep") != (number == 1):
                raise DamagedFileError(
                    f"{self.path}:{number} is damaged: '{event}' is out of place"
                )
            if version != FORMAT_VERSION:
                raise DataError(
                    f"{self.path} has format version {version}; this nnctl reads {FORMAT_VERSION}",
                    hint="Install the version of nnctl that wrote it.",
                )
            yield line
