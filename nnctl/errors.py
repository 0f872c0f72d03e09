"""Every error that a user may meet, with the exit code it ends in.

    NnctlError                  1   anything unforeseen
    ├── UsageError              2   a command that cannot be carried out as typed
    │   └── ConfigError         2   mistakes in a configuration, all of them at once
    ├── DataError               3   digits that cannot be had
    │   └── DamagedFileError    3   a file whose content is not what it should be
    ├── StorageError            1   a directory or a disk that cannot be written
    ├── DivergenceError         4   training left the finite numbers
    ├── BelowThresholdError     5   the accuracy asked for by --fail-under was not reached
    └── InterruptedRunError   130   stopped by the user; the state is saved

The rest of the program raises these and never prints them; ``nnctl.cli`` catches them in one place.
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
"""Nobody reads more mistakes of one file, and a file can have as many as it has bytes."""
_LONGEST = 2000  # characters of a mistake
_QUOTED = 80  # characters of a word
_NAMED = 3  # letters of it

_UNPRINTABLE = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""What moves a cursor, talks to a terminal or turns the order of letters; lines may break."""


class NnctlError(Exception):
    """A failure that is explained to the user by what happened and what to do about it.

    Parameters
    ----------
    message : str
        What is wrong, and where.
    hint : str, optional
        What to do about it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(NnctlError):
    """A command or a call that cannot be carried out as given."""

    exit_code = 2


class ConfigError(UsageError):
    """All the mistakes of one configuration.

    Parameters
    ----------
    source : str
        The configuration as the user named it, for instance its path.
    mistakes : sequence of str
        Lines, one per mistake, each beginning with its position (``configs/x.yaml:7:9``).
    """

    def __init__(self, source: str, mistakes: Sequence[str], *, hint: str | None = None) -> None:
        lines = [_shortened(mistake, _LONGEST) for mistake in mistakes[:MOST_TOLD]]
        if more := len(mistakes) - len(lines):
            lines.append(f"... and {more:,} more")
        if len(mistakes) > 1:
            lines.insert(0, f"{_shortened(source, _LONGEST)} has {len(mistakes)} mistakes:")
        super().__init__("\n  ".join(lines), hint=hint)
        self.mistakes = tuple(mistakes)


class DataError(NnctlError):
    """Digits that cannot be had or cannot be used."""

    exit_code = 3


class DamagedFileError(DataError):
    """A file that is there but does not hold what it should."""


class StorageError(NnctlError):
    """A directory that cannot be written, or a disk that is full; what was saved is intact."""


class DivergenceError(NnctlError):
    """A loss or a parameter that is no longer a finite number."""

    exit_code = 4


class BelowThresholdError(NnctlError):
    """An accuracy below what ``--fail-under`` asks for."""

    exit_code = 5


class InterruptedRunError(NnctlError):
    """A training that the user stopped; its state is on disk."""

    exit_code = 130


def limit_hint(error: BaseException | None) -> str | None:
    """Return what to do about a limit of the system that caused an error, or None."""
    if not isinstance(error, OSError):
        return None
    if error.errno == errno.EMFILE:
        return "Raise the limit on open files (ulimit -n), or use fewer --workers in a sweep."
    if error.errno == errno.ENFILE:
        return "The programs of this machine have too many files open: end some of them."
    return None


def printable(text: str) -> str:
    """Return a text whose control characters are spelled out: a terminal would obey them."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


_CREDENTIALS = re.compile(r"(?!https?://[^/:@?#]+/)((?:\w+:)?/+|).*@", re.IGNORECASE | re.DOTALL)
_LONG_WORD = re.compile(r"\S{10000,}")  # no path of any system is as long
_ADDRESS = re.compile(r"\b\w{2,}:/+\S*[^\s'\".,;:)]")


def without_secrets(address: str) -> str:
    """Return an address with ``***`` for user, password and values of the query.

    The address may be mistyped, and a password may hold any character. So everything before the
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
    """Return a message for a terminal: no control characters, secrets or endless words."""
    text = _ADDRESS.sub(lambda found: without_secrets(found[0]), text)
    return printable(_LONG_WORD.sub(lambda found: _shortened(found[0], _LONGEST), text))


def quoted(text: str) -> str:
    """Return a word in quotes, with the names of letters that pass for those of ASCII."""
    foreign = list(dict.fromkeys(letter for letter in text if not letter.isascii()))[:_NAMED]
    names = [f"U+{ord(letter):04X} {unicodedata.name(letter, '')}".strip() for letter in foreign]
    told = f" (with {', '.join(names)})" if names else ""
    return f"'{_shortened(text, _QUOTED)}'{told}"


def _shortened(text: str, longest: int) -> str:
    """Return a text without its middle, if it is too long to be read."""
    half = longest // 2
    return text if len(text) <= longest else f"{text[:half]} ... {text[-half:]}"


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a wrong one was probably meant for."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the nearest known name, or nothing."""
    meant = nearest(name, known)
    return f"; did you mean '{meant}'?" if meant else ""


def shell_command(*words: object) -> str:
    """Return a command as one would type it in the shell of this machine, quoted where needed."""
    texts = [str(word) for word in words]
    return subprocess.list2cmdline(texts) if sys.platform == "win32" else shlex.join(texts)
