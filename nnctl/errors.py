"""All errors that a user can see, with their exit codes.

    NnctlError                  1   any other failure
    ├── UsageError              2   an invalid command or call
    │   └── ConfigError         2   all mistakes in a configuration, reported at once
    ├── DataError               3   data that is not available or not usable
    │   └── DamagedFileError    3   a file with damaged content
    ├── StorageError            1   a directory or disk that cannot be written
    ├── DivergenceError         4   a loss or parameter that is no longer finite
    ├── BelowThresholdError     5   an accuracy below --fail-under
    └── InterruptedRunError   130   stopped by the user; the state is saved

The library raises these errors and never prints them; ``nnctl.cli`` catches all of them in one
place.
"""

from __future__ import annotations

import difflib
import errno
import re
import shlex
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence

MOST_TOLD = 100
"""Maximum number of mistakes that are listed; one file can have as many as it has bytes."""
_MAX_MISTAKE = 2000  # characters
_MAX_QUOTED = 80  # characters
_MAX_NAMED = 3  # characters whose Unicode names are shown

_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control characters and marks that change the text direction, but not tabs and newlines."""


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
        lines = [_shortened(mistake, _MAX_MISTAKE) for mistake in mistakes[:MOST_TOLD]]
        if more := len(mistakes) - len(lines):
            lines.append(f"... and {more:,} more")
        if len(mistakes) > 1:
            lines.insert(0, f"{_shortened(source, _MAX_MISTAKE)} has {len(mistakes)} mistakes:")
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


def limit_hint(error: BaseException | None) -> str | None:
    """Return a hint for an error that a system limit caused, or None."""
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EMFILE:
        return "Raise the limit on open files (ulimit -n), or use fewer --workers in a sweep."
    if error.errno == errno.ENFILE:
        return "Too many files are open on this machine: close some programs."
    return None


def printable(text: str) -> str:
    """Return a text with control characters escaped, so that a terminal does not obey them."""
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


_CREDENTIALS = re.compile(r"(?!https?://[^/:@?#]+/)((?:\w+:)?/+|).*@", re.IGNORECASE | re.DOTALL)
_LONG_WORD = re.compile(r"\S{10000,}")  # longer than a path can be on any system
_ADDRESS = re.compile(r"\b\w{2,}:/+\S*[^\s'\".,;:)]")


def without_secrets(address: str) -> str:
    """Return a URL with ``***`` in place of the user, the password and the query's values.

    The URL may be mistyped, and a password may contain any character. So everything before the
    last @ is hidden, unless a host without a port comes first: ``http://host/package@1/``.
    """
    hidden = _CREDENTIALS.match(address)
    shown = f"{hidden[1]}***@{address[hidden.end() :]}" if hidden else address
    begin, mark, query = shown.partition("#")[0].partition("?")
    names = [part.partition("=")[:2] for part in query.split("&")]
    return (
        begin
        + mark
        + "&".join(f"{name}=***" if equals else mark and "***" for name, equals in names)
    )


def presentable(text: str) -> str:
    """Return a message that is safe to print: no control characters, secrets or huge words."""
    text = _ADDRESS.sub(lambda match: without_secrets(match[0]), text)
    return printable(_LONG_WORD.sub(lambda match: _shortened(match[0], _MAX_MISTAKE), text))


def quoted(text: str) -> str:
    """Return a word in quotes, with the Unicode names of letters that may look like ASCII."""
    foreign = list(dict.fromkeys(letter for letter in text if not letter.isascii()))[:_MAX_NAMED]
    names = [f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".strip() for letter in foreign]
    suffix = f" (with {', '.join(names)})" if names else ""
    return f"'{_shortened(text, _MAX_QUOTED)}'{suffix}"


def _shortened(text: str, limit: int) -> str:
    """Return a text with its middle replaced by "..." if it is longer than the limit."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} ... {text[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that is most similar to a misspelled one, or None."""
    matches = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return matches[0] if matches else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the most similar known name, or ``""``."""
    meant = nearest(name, known)
    return f"; did you mean '{meant}'?" if meant else ""


def shell_command(*words: object) -> str:
    """Return a command quoted for the shell of this system."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)
