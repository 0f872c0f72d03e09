"""Fetching MNIST into the cache: every file verified, from the first mirror that has it right.

A mirror may be silent, slow or hostile. What it sends stays in memory, limited to the size of the
file, and only verified content is written. A mirror is given up if it sends nothing for its share
of `PATIENCE`, or fewer than `SLOWEST` bytes a second in the mean of a `WINDOW`. So the largest file
takes 21 minutes from one mirror at most.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nnctl.data.registry import MIRRORS, KnownFile
from nnctl.errors import DataError, UsageError, quoted, without_secrets
from nnctl.files import remove_temporaries, write_atomically

PATIENCE = 18.0
"""Seconds in all that mirrors which do not answer may cost, shared between them."""

SLOWEST = 8_000
"""Bytes a second. A line of 20,000 may pause for more than half of the time."""

WINDOW = 60.0
"""Seconds over which the mean rate is taken, again and again."""

_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class FileKept:
    """A file is there and right."""

    name: str


@dataclass(frozen=True)
class FileDamaged:
    """A file is there and wrong; it is going to be fetched again."""

    name: str
    path: Path


@dataclass(frozen=True)
class FileStarted:
    """A mirror is asked for a file of `size` bytes."""

    name: str
    url: str
    size: int


@dataclass(frozen=True)
class BytesReceived:
    """So many more bytes of a file have come."""

    name: str
    count: int


@dataclass(frozen=True)
class MirrorFailed:
    """A mirror did not serve a file, or not the right one."""

    name: str
    url: str
    reason: str


@dataclass(frozen=True)
class FileDone:
    """A file has come, and is right."""

    name: str
    url: str
    size: int


DownloadEvent = FileKept | FileDamaged | FileStarted | BytesReceived | MirrorFailed | FileDone
Notify = Callable[[DownloadEvent], None]
State = Literal["right", "missing", "damaged"]


def find(directory: Path, file: KnownFile) -> Path | None:
    """Return the path of a known file in a folder, compressed or not, if it is there and right."""
    for path, size, sha256 in (
        (directory / file.gzip_name, file.size, file.sha256),
        (directory / file.name, file.idx_size, file.idx_sha256),
    ):
        if _size_of(path) == size and sha256_of(path) == sha256:
            return path
    return None


def inspect(directory: Path, file: KnownFile) -> State:
    """Tell whether a known file is in a folder, and right."""
    if find(directory, file):
        return "right"
    present = (directory / file.gzip_name).exists() or (directory / file.name).exists()
    return "damaged" if present else "missing"


def _size_of(path: Path) -> int | None:
    """Return the size of what is a file: a pipe or a device would be read for ever."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise _unreadable(path, error) from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path} cannot be read: {error.strerror}")


def fetch(
    directory: Path,
    files: Sequence[KnownFile],
    *,
    mirrors: Sequence[str] = (),
    notify: Notify,
    force: bool = False,
) -> None:
    """Bring all files into a folder, and fetch only those that are not there and right.

    Parameters
    ----------
    directory : Path
        The cache; it is made when something has to be written.
    files : sequence of KnownFile
        What has to be there afterwards.
    mirrors : sequence of str
        Base URLs that are tried first.
    notify : callable
        Takes each `DownloadEvent`.
    force : bool
        Fetch what is right as well. The old files stay until the new ones have come.

    Raises
    ------
    UsageError
        A mirror is not an HTTP address.
    DataError
        No mirror served a file, or it cannot be written. Those that came before it stay, unless
        what is right was to be fetched as well.
    """
    tried = [*map(check_mirror, mirrors), *MIRRORS]
    remove_temporaries(directory)
    wanted = []
    for file in files:
        state = inspect(directory, file)
        if state == "right" and not force:
            notify(FileKept(file.name))
            continue
        if state == "damaged":
            plain = directory / file.name
            notify(FileDamaged(file.name, plain if plain.exists() else directory / file.gzip_name))
        wanted.append(file)
    if not wanted:
        return
    downloader = _Downloader(tried, notify)
    received = ((file, downloader.receive(file)) for file in wanted)
    with _writing(directory):
        for file, content in list(received) if force else received:
            write_atomically(directory / file.gzip_name, content)


def import_files(directory: Path, source: Path, files: Sequence[KnownFile]) -> None:
    """Copy all files from a local folder, compressed or not, into the cache; each is verified.

    Raises
    ------
    DataError
        A file is missing there or is not the known one (all of them are named), or the cache cannot
        be written. Nothing is copied then.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder")
    found = {file.name: find(source, file) for file in files}
    wrong = [name for name, path in found.items() if path is None]
    if wrong:
        raise DataError(
            f"{source} lacks, or has wrong: {', '.join(wrong)}",
            hint="Each may be there as it is published (.gz) or uncompressed.",
        )
    with _writing(directory):
        remove_temporaries(directory)
        for path in found.values():
            assert path is not None
            write_atomically(directory / path.name, path.read_bytes())


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Make a folder, and tell if it cannot be written: before anything is fetched in vain."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        yield
    except OSError as error:
        raise DataError(
            f"{directory} cannot be written: {error.strerror or error}",
            hint="Name another folder with --data-dir or NNCTL_DATA_DIR.",
        ) from None


def check_mirror(mirror: str) -> str:
    """Return the base URL of a mirror: its path ends with a slash, a fragment is left out."""
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            "a mirror must be an http:// or https:// address, not "
            f"{quoted(without_secrets(mirror))}",
            hint="Percent-encode special characters of a password, such as / as %2F. To import "
            "files of this machine, use: nnctl download --from DIR",
        )
    return parts._replace(path=parts.path.rstrip("/") + "/", fragment="").geturl()


class _Downloader:
    """It tries each mirror in turn, for each file."""

    def __init__(self, mirrors: Sequence[str], notify: Notify) -> None:
        self._mirrors = list(dict.fromkeys(mirrors))
        self._notify = notify
        self._patience = PATIENCE / len(self._mirrors)

    def receive(self, file: KnownFile) -> bytes:
        """Return the right content of a file, or raise what was wrong with all mirrors."""
        from nnctl.data import mirror  # imports pooch, which only a download has to wait for

        failures = []
        for base in tuple(self._mirrors):
            parts = urlsplit(base)
            address = parts._replace(path=parts.path + file.gzip_name).geturl()
            shown = without_secrets(address)
            self._notify(FileStarted(file.name, shown, file.size))
            limits = mirror.Limits(file.size, self._patience, SLOWEST, WINDOW)
            try:
                content = mirror.receive(address, limits, functools.partial(self._tell, file))
                if hashlib.sha256(content).hexdigest() != file.sha256:
                    raise mirror.MirrorError("sent another file: its SHA-256 is not MNIST's")
            except mirror.MirrorError as error:
                self._notify(MirrorFailed(file.name, shown, str(error)))
                failures.append(f"{urlsplit(shown).netloc.rpartition('@')[2]} {error}")
                if isinstance(error, mirror.UnreachableError):
                    self._mirrors.remove(base)
            else:
                self._notify(FileDone(file.name, shown, file.size))
                return content
        raise DataError(
            "\n  ".join([f"no mirror served {file.gzip_name}:", *failures]),
            hint="Name another mirror with --mirror URL or NNCTL_MIRROR, or import files that you "
            "have with: nnctl download --from DIR",
        )

    def _tell(self, file: KnownFile, count: int) -> None:
        self._notify(BytesReceived(file.name, count))
