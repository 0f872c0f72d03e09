"""Downloading MNIST into the cache: each file comes from the first mirror with the right content.

A mirror may be silent, slow or hostile. Its data is limited to the size of the file, and only
verified content is written to the cache. A mirror is abandoned if it sends nothing for its share of
`PATIENCE`, or after `GRACE` on average fewer than `SLOWEST` bytes per second. So MNIST's largest
file takes at most 22 minutes from one mirror.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nnctl.data.registry import MIRRORS, KnownFile
from nnctl.errors import DataError, UsageError
from nnctl.files import remove_temporaries, write_atomically
from nnctl.text import quoted, without_secrets

PATIENCE = 18.0
"""Total seconds to wait for mirrors that do not answer, divided equally among all mirrors."""

SLOWEST = 8_000
"""Bytes per second on average."""

GRACE = 60.0
"""Seconds at the beginning during which a mirror may be slower."""

_SCHEMES = ("http", "https")


@dataclass(frozen=True)
class FileKept:
    """A cached file is correct and is not downloaded."""

    name: str


@dataclass(frozen=True)
class FileDamaged:
    """A cached file is damaged and will be downloaded again."""

    name: str
    path: Path


@dataclass(frozen=True)
class FileStarted:
    """The download of a file of `size` bytes from a mirror begins."""

    name: str
    url: str
    size: int


@dataclass(frozen=True)
class BytesReceived:
    """`count` more bytes of a file were received."""

    name: str
    count: int


@dataclass(frozen=True)
class MirrorFailed:
    """A mirror did not serve a file, or served wrong content."""

    name: str
    url: str
    reason: str


@dataclass(frozen=True)
class FileDone:
    """A file was received and verified."""

    name: str
    url: str
    size: int


DownloadEvent = FileKept | FileDamaged | FileStarted | BytesReceived | MirrorFailed | FileDone
Notify = Callable[[DownloadEvent], None]
State = Literal["right", "missing", "damaged"]


def find(directory: Path, file: KnownFile) -> Path | None:
    """Return the path of a verified file in a folder, compressed or not; None if there is none."""
    for path, size, sha256 in (
        (directory / file.gzip_name, file.size, file.sha256),
        (directory / file.name, file.idx_size, file.idx_sha256),
    ):
        if _size_of(path) == size and sha256_of(path) == sha256:
            return path
    return None


def inspect(directory: Path, file: KnownFile) -> State:
    """Check whether a known file is in a folder and has the right content."""
    if find(directory, file):
        return "right"
    present = (directory / file.gzip_name).exists() or (directory / file.name).exists()
    return "damaged" if present else "missing"


def _size_of(path: Path) -> int | None:
    """Return the size of a regular file, else None: reading a pipe or device may never end."""
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
    """Download the files that are missing or damaged in a folder.

    Parameters
    ----------
    directory : Path
        Cache folder; it is created when a file has to be written.
    files : sequence of KnownFile
        Files that the folder must contain afterwards.
    mirrors : sequence of str
        Base URLs to try first.
    notify : callable
        Function that is called with each `DownloadEvent`.
    force : bool
        Whether to download correct files again. The old files stay until all new ones are received.

    Raises
    ------
    UsageError
        A mirror is not an HTTP URL.
    DataError
        No mirror served a file, or it cannot be written. Files that were downloaded before it are
        saved, except with `force`.
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
    """Copy all files from a local folder, compressed or not, into the cache, and verify them.

    Raises
    ------
    DataError
        Files are missing or have wrong content (the message lists all of them), or the cache cannot
        be written. In these cases no file is copied.
    """
    if not source.is_dir():
        raise DataError(f"{source} is not a folder")
    paths = {file.name: find(source, file) for file in files}
    wrong = [name for name, path in paths.items() if path is None]
    if wrong:
        raise DataError(
            f"missing or damaged files in {source}: {', '.join(wrong)}",
            hint="Each file may be compressed, as published (.gz), or uncompressed.",
        )
    with _writing(directory):
        remove_temporaries(directory)
        for path in paths.values():
            assert path is not None
            write_atomically(directory / path.name, path.read_bytes())


@contextlib.contextmanager
def _writing(directory: Path) -> Iterator[None]:
    """Create a folder, and raise an error if it is read-only, before anything is downloaded."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        yield
    except OSError as error:
        raise DataError(
            f"{directory} cannot be written: {error.strerror or error}",
            hint="Choose another folder with --data-dir or NNCTL_DATA_DIR.",
        ) from None


def check_mirror(mirror: str) -> str:
    """Return the base URL of a mirror: with a slash at the end of its path, without a fragment."""
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"a mirror must be an http:// or https:// URL, not {quoted(without_secrets(mirror))}",
            hint="Percent-encode special characters in a password, for example / as %2F. To copy "
            "local files, use: nnctl download --from DIR",
        )
    return parts._replace(path=parts.path.rstrip("/") + "/", fragment="").geturl()


class _Downloader:
    """Tries all mirrors in turn for each file."""

    def __init__(self, mirrors: Sequence[str], notify: Notify) -> None:
        self._mirrors = list(dict.fromkeys(mirrors))
        self._notify = notify
        self._patience = PATIENCE / len(self._mirrors)

    def receive(self, file: KnownFile) -> bytes:
        """Return the verified content of a file, or raise an error that lists all failures."""
        from nnctl.data import mirror  # imports pooch, which is slow

        failures = []
        for base in tuple(self._mirrors):
            parts = urlsplit(base)
            address = parts._replace(path=parts.path + file.gzip_name).geturl()
            shown = without_secrets(address)
            self._notify(FileStarted(file.name, shown, file.size))
            limits = mirror.Limits(file.size, self._patience, SLOWEST, GRACE)
            report = partial(self._report_bytes, file)
            try:
                content = mirror.retrieve(address, f"sha256:{file.sha256}", limits, report)
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
            hint="Choose another mirror with --mirror URL or NNCTL_MIRROR, or copy local files "
            "with: nnctl download --from DIR",
        )

    def _report_bytes(self, file: KnownFile, count: int) -> None:
        self._notify(BytesReceived(file.name, count))
