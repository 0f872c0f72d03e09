"""Fetching MNIST into the cache: every file verified, from the first mirror that has it right.

A mirror may be silent, slow or hostile. So pooch, which asks it, does so on a thread that can be
given up; what comes is received into memory, never more than the file has, and only what is right
is written. A mirror is given up if there is nothing to receive from it for its share of `PATIENCE`,
or if it sends fewer than `SLOWEST` bytes a second in the mean of a `WINDOW`. So the largest file
takes 21 minutes from one mirror at most.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import os
import queue
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from http.client import IncompleteRead
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import urljoin, urlsplit

from nnctl.data.registry import MIRRORS, KnownFile
from nnctl.errors import DataError, UsageError
from nnctl.files import remove_temporaries, write_atomically

PATIENCE = 18.0
"""Seconds in all that mirrors which do not answer may cost, shared between them."""

SLOWEST = 8_000
"""Bytes a second. A line of 20,000 may pause for more than half of the time."""

WINDOW = 60.0
"""Seconds over which the mean rate is taken, again and again."""

_SCHEMES = ("http", "https")
_CHUNK = 8192  # bytes that are received at once
_REASON_WIDTH = 200


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
    """Return the base URL of a mirror with a slash at its end, if it is one."""
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in _SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"a mirror must be an http:// or https:// address, not '{mirror}'",
            hint="To import files of this machine, use: nnctl download --from DIR",
        )
    return mirror.rstrip("/") + "/"


def _without_credentials(url: str) -> str:
    """Return a URL that can be shown: without ``user:password@``."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


class _MirrorError(Exception):
    """What was wrong with one answer of one mirror: a line, whatever the mirror had put into it."""

    def __init__(self, reason: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in reason)
        super().__init__(shown[:_REASON_WIDTH])


class _UnreachableError(_MirrorError):
    """The mirror did not answer at all, or too slowly; it is not asked for the other files."""


class _Downloader:
    """It tries each mirror in turn, for each file."""

    def __init__(self, mirrors: Sequence[str], notify: Notify) -> None:
        self._mirrors = list(dict.fromkeys(mirrors))
        self._notify = notify
        self._patience = PATIENCE / len(self._mirrors)

    def receive(self, file: KnownFile) -> bytes:
        """Return the right content of a file, or raise what was wrong with all mirrors."""
        failures = []
        for mirror in tuple(self._mirrors):
            address = mirror + file.gzip_name
            shown = _without_credentials(address)
            self._notify(FileStarted(file.name, shown, file.size))
            try:
                content = self._receive(address, file)
            except _MirrorError as error:
                self._notify(MirrorFailed(file.name, shown, str(error)))
                failures.append(f"{urlsplit(shown).netloc} {error}")
                if isinstance(error, _UnreachableError):
                    self._mirrors.remove(mirror)
            else:
                self._notify(FileDone(file.name, shown, file.size))
                return content
        raise DataError(
            "\n  ".join([f"no mirror served {file.gzip_name}:", *failures]),
            hint="Name another mirror with --mirror URL or NNCTL_MIRROR, or import files that you "
            "have with: nnctl download --from DIR",
        )

    def _receive(self, url: str, file: KnownFile) -> bytes:
        """Return the right content of a file, or raise what is wrong with the mirror's.

        The request runs on a thread of its own: no timeout of requests bounds the resolution of a
        name, or a host with many addresses that are all dead. A thread that is given up is told so
        by its sink at the next bytes, if there ever are any.
        """
        sink = _Sink(file.size)
        outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        threading.Thread(
            target=_request, args=(url, sink, self._patience, outcome), daemon=True
        ).start()
        error = self._wait(sink, outcome, file)
        if error is not None:
            _explain(error, sink, self._patience)
        content = sink.content()
        if len(content) < file.size:
            raise _MirrorError(f"sent only {len(content):,} of {file.size:,} bytes")
        if hashlib.sha256(content).hexdigest() != file.sha256:
            raise _MirrorError("sent another file: its SHA-256 is not MNIST's")
        return content

    def _wait(
        self, sink: _Sink, outcome: queue.SimpleQueue[Exception | None], file: KnownFile
    ) -> Exception | None:
        """Wait for the end of a request, as long as enough bytes come; return its error."""
        tick = 0.1
        received, silent = 0, 0.0
        before, elapsed = 0, 0.0
        while True:
            try:
                error = outcome.get(timeout=tick)
            except queue.Empty:
                error = TimeoutError()
                silent += tick
                elapsed += tick
            if sink.received > received:
                self._notify(BytesReceived(file.name, sink.received - received))
                received, silent = sink.received, 0.0
            if not isinstance(error, TimeoutError):
                return error
            if silent >= self._patience:
                sink.close()
                return error
            if elapsed >= WINDOW:
                if received - before < SLOWEST * elapsed:
                    sink.close()
                    raise _UnreachableError(
                        f"sent fewer than {SLOWEST:,} bytes a second for {WINDOW:.0f} s"
                    )
                before, elapsed = received, 0.0


class _TooMuchError(Exception):
    """More bytes came than the file has."""


class _Sink:
    """The file-like object that pooch writes an answer to; it takes no more than it should."""

    def __init__(self, limit: int) -> None:
        self.answers: list[Any] = []
        self.received = 0
        self._limit = limit
        self._chunks: list[bytes] = []
        self._closed = False

    def write(self, chunk: bytes) -> None:
        if self._closed or self.received + len(chunk) > self._limit:
            raise _TooMuchError
        self._chunks.append(chunk)
        self.received += len(chunk)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        """Refuse whatever a thread that was given up may still receive, and keep nothing of it."""
        self._closed = True
        self._chunks = []

    def content(self) -> bytes:
        return b"".join(self._chunks)


def _request(
    url: str, sink: _Sink, patience: float, outcome: queue.SimpleQueue[Exception | None]
) -> None:
    """Write what a URL answers to the sink, and put None or the error to `outcome`."""
    try:
        import pooch  # imports requests: a tenth of a second that only a download has to wait for

        pooch.HTTPDownloader(
            chunk_size=_CHUNK,
            timeout=(patience, patience),
            headers={"Accept-Encoding": "identity", "User-Agent": "nnctl"},
            hooks={"response": functools.partial(_tame, sink)},
        )(url, sink, None)
    except Exception as error:
        outcome.put(error)
    else:
        outcome.put(None)
    finally:
        for answer in sink.answers:
            answer.close()


def _tame(sink: _Sink, response: Any, **_: object) -> None:
    """Let an answer cost no more memory than is read of it."""
    sink.answers.append(response)
    if response.is_redirect:
        target = urljoin(response.url, response.headers["Location"])
        if urlsplit(target).scheme not in _SCHEMES:
            raise _MirrorError(f"redirects to {target}, which is no http:// or https:// address")
        response.raw.close()
        response.raw = io.BytesIO()  # requests reads it all, however much there is
    else:
        # Some servers declare .gz files as an encoding, asked or not; requests would undo it.
        response.raw.headers.discard("Content-Encoding")
        response.raw.chunked = False  # left to http.client: urllib3 bounds no line between chunks


def _explain(error: Exception, sink: _Sink, patience: float) -> NoReturn:
    """Raise what a failed request means, in a few words."""
    import requests.exceptions as http

    cause = _cause(error)
    # While a body is read, only the message says so.
    late = isinstance(error, TimeoutError | http.Timeout) or "timed out" in repr(error)
    match error:
        case _MirrorError():
            raise error
        case _TooMuchError():
            raise _MirrorError("sent more bytes than the file has")
        case http.HTTPError():
            raise _MirrorError(f"answered {error.response.status_code} {error.response.reason}")
        case http.TooManyRedirects():
            raise _MirrorError("redirects in a circle")
        case http.ProxyError():
            raise _UnreachableError(f"the proxy does not lead there: {_words(cause)}")
        case http.SSLError():
            raise _UnreachableError(f"is not who it should be, or not safe: {_words(cause)}")
        case _ if late and sink.answers:
            raise _UnreachableError(f"sent next to nothing for {patience:.0f} s")
        case _ if late:
            raise _UnreachableError(f"did not answer within {patience:.0f} s")
        case http.ChunkedEncodingError() if isinstance(cause, OSError | IncompleteRead):
            raise _MirrorError(f"cut the connection after {sink.received:,} bytes")
        case http.ConnectionError() if "NameResolutionError" in repr(error):
            raise _UnreachableError("has a name that cannot be resolved; is there a network?")
        case http.ConnectionError() if isinstance(cause, OSError):
            raise _UnreachableError(f"cannot be reached: {_words(cause)}")
        case http.ConnectionError() | http.ChunkedEncodingError():
            raise _UnreachableError(f"does not speak HTTP: {_words(cause)}")
    raise _MirrorError(f"failed: {_words(cause)}")


def _cause(error: BaseException) -> BaseException:
    """Return the innermost of a chain of errors, as a traceback would show it."""
    within = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return _cause(within) if within else error


def _words(error: BaseException) -> str:
    """Return the message of an error, in the words of the operating system if it has some."""
    if isinstance(error, ssl.SSLError):  # its number is of another list
        return str(getattr(error, "verify_message", "") or error.reason or error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return str(error) or type(error).__name__
