"""The journal of a sweep: an append-only file with one line of JSON per event.

A line is synced to the disk before its event is shown or used. So the state of a sweep (`state`)
can always be restored from its journal alone.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from nnctl.errors import DamagedFileError, DataError, UsageError, storage_errors
from nnctl.files import append_lines, read_bytes, require_own
from nnctl.runs.records import check_version, parse_json
from nnctl.sweeps import events

NAME = "journal.jsonl"
_LINE: TypeAdapter[events.Event] = TypeAdapter(
    Annotated[events.Event, Field(discriminator="event")]
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

    def append(self, new: Iterable[events.Event]) -> None:
        """Append events; they are on the disk when this returns.

        Only the first event creates the file: if the journal was removed, it cannot be recreated.

        Raises
        ------
        StorageError
            They cannot be written. The journal itself stays valid.
        """
        new = list(new)
        if not new:
            return
        # In this order, the kind of the event is the first key of every line.
        lines = [{"event": event.event, **event.model_dump()} for event in new]
        texts = [json.dumps(line, allow_nan=False) for line in lines]
        with storage_errors(self.path):
            append_lines(self.path, texts, create=isinstance(new[0], events.Created))

    def repair(self) -> None:
        """Remove an incomplete last line.

        Raises
        ------
        StorageError
            The journal cannot be written.
        """
        # If the file does not exist, `read` reports it.
        with storage_errors(self.path), contextlib.suppress(FileNotFoundError):
            require_own(self.path)
            with self.path.open("r+b") as file:
                content = file.read()
                whole = content.rfind(b"\n") + 1
                if whole < len(content):  # otherwise the sweep would seem to have changed
                    file.truncate(whole)

    def read(self) -> Iterator[events.Event]:
        """Yield the events, without an incomplete last line; the first one is `Created`.

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
                    check_version(self.path, values["format_version"], events.FORMAT_VERSION)
                event = _LINE.validate_python(values)
            except (ValueError, TypeError, KeyError):
                raise self.damaged(number, "not a valid journal line") from None
            if isinstance(event, events.Created) != (number == 1):
                raise self.damaged(number, f"'{event.event}' is out of order")
            yield event

    def damaged(self, number: int, problem: str) -> DamagedFileError:
        """Return the error for a line of the journal."""
        return DamagedFileError(f"{self.path}:{number} is damaged: {problem}")
