"""All errors that a user can see, with their exit codes.

    NnctlError                  1   any other failure
    ├── UsageError              2   an invalid command or call
    │   └── ConfigError         2   all mistakes in a configuration, reported at once
    ├── DataError               3   data that is not available or not usable
    │   └── DamagedFileError    3   a file with damaged content
    ├── StorageError            1   a directory or disk that cannot be written
    ├── DivergenceError         4   a loss or parameter that is infinite or NaN
    ├── BelowThresholdError     5   an accuracy below --fail-under
    └── InterruptedRunError   130   stopped by the user; the state is saved

The library raises these errors and never prints them; ``nnctl.cli`` catches all of them in one
place.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Sequence
from pathlib import Path

from nnctl.text import MAX_WORD, shortened

MAX_LISTED = 100
"""Maximum number of mistakes that are listed; one file can have as many as it has bytes."""


class NnctlError(Exception):
    """Base class of all errors that are shown to the user.

    Parameters
    ----------
    message : str
        What is wrong, and where.
    hint : str, optional
        How to fix it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NnctlError):
    """An invalid command or call."""

    exit_code = 2


class ConfigError(UsageError):
    """All mistakes in one configuration.

    Parameters
    ----------
    source : str
        Name of the configuration, usually its path.
    mistakes : sequence of str
        One line per mistake, which starts with its position (``configs/x.yaml:7:9``).
    """

    def __init__(self, source: str, mistakes: Sequence[str], *, hint: str | None = None) -> None:
        lines = [shortened(mistake, MAX_WORD) for mistake in mistakes[:MAX_LISTED]]
        if more := len(mistakes) - len(lines):
            lines.append(f"... and {more:,} more")
        if len(mistakes) > 1:
            lines.insert(0, f"{shortened(source, MAX_WORD)} has {len(mistakes)} mistakes:")
        super().__init__("\n  ".join(lines), hint=hint)
        self.mistakes = tuple(mistakes)


class DataError(NnctlError):
    """Data that is not available or not usable."""

    exit_code = 3


class DamagedFileError(DataError):
    """A file that exists but whose content is damaged."""


class StorageError(NnctlError):
    """A directory that cannot be written, or a full disk; files saved earlier are intact."""


class DivergenceError(NnctlError):
    """A loss or parameter that is infinite or NaN."""

    exit_code = 4


class BelowThresholdError(NnctlError):
    """An accuracy below the threshold of ``--fail-under``."""

    exit_code = 5


class InterruptedRunError(NnctlError):
    """A command that the user interrupted; a training saves its state first."""

    exit_code = 130


@contextlib.contextmanager
def requiring(library: str, purpose: str, *, extra: str) -> Iterator[None]:
    """Raise a `UsageError` if an import in a ``with`` block fails.

    Parameters
    ----------
    library : str
        Name of the library in the message.
    purpose : str
        What needs it: ``"--format onnx"``.
    extra : str
        Optional dependencies of nnctl that contain it.
    """
    try:
        yield
    except ImportError:
        from nnctl.installation import install_command  # its imports would slow down every start

        raise UsageError(
            f"{purpose} requires {library}", hint=f"Install it with: {install_command(extra)}"
        ) from None


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a `UsageError` if a value is not one of the choices."""
    if value not in choices:
        raise UsageError(f"unknown {name} '{value}'; choose from {', '.join(choices)}")


def limit_hint(error: BaseException | None) -> str | None:
    """Return a hint for an error that a system limit caused, or None."""
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EMFILE:
        return "Raise the limit on open files (ulimit -n), or use fewer --workers in a sweep."
    if error.errno == errno.ENFILE:
        return "Too many files are open on this machine: close some programs."
    return None


def cannot_write(path: Path, error: OSError, advice: str = "Use another directory.") -> NnctlError:
    """Return the error to raise for a path that cannot be written.

    The advice is its hint, unless the disk is full or a limit of the system was reached.
    """
    if error.errno == errno.ENAMETOOLONG:
        return UsageError(
            f"{path} cannot be written: {error.strerror}", hint="Choose a shorter name."
        )
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    hint = "Free some space; all saved files are intact." if full else advice
    return StorageError(
        f"{path} cannot be written: {error.strerror or error}", hint=limit_hint(error) or hint
    )


@contextlib.contextmanager
def storage_errors(path: Path, advice: str = "Use another directory.") -> Iterator[None]:
    """Convert the OSError of a ``with`` block that writes to a path; see `cannot_write`."""
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error, advice) from None
