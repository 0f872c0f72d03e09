"""One request to a mirror, by pooch.

A mirror's address may hold a password or a token, and so may what a mirror or a library says about
an address. So reasons of failure are our own words; only addresses, without secrets, are repeated.
"""

from __future__ import annotations

import functools
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from http.client import responses
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from requests import exceptions as failures

from nnctl.errors import without_secrets

SCHEMES = ("http", "https")
_CHUNK = 8192  # bytes; a mirror that sends fewer at a time is taken for silent
_TICK = 0.1  # seconds
_REASON_WIDTH = 200


class MirrorError(Exception):
    """What was wrong with one answer of one mirror, in one line."""

    def __init__(self, reason: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in reason)
        super().__init__(shown[:_REASON_WIDTH])


class UnreachableError(MirrorError):
    """The mirror did not answer at all, or too slowly; it is not asked for the other files."""


class Limits(NamedTuple):
    """When to give up a mirror.

    Parameters
    ----------
    size : int
        Size of the file in bytes.
    patience : float
        Seconds without a connection or without new bytes.
    rate : float
        Bytes a second in the mean of each window.
    window : float
        Seconds over which the mean is taken.
    """

    size: int
    patience: float
    rate: float
    window: float


def receive(url: str, limits: Limits, progress: Callable[[int], None]) -> bytes:
    """Return as many bytes as a file has.

    Parameters
    ----------
    url : str
        Address of the file.
    limits : Limits
        When to give up.
    progress : callable
        Takes the number of bytes that were received since the last call.

    Raises
    ------
    MirrorError
        Another number of bytes was received, or none.
    """
    request = _Request(url, limits)
    threading.Thread(target=request.run, daemon=True).start()
    try:
        request.wait(progress)
    finally:
        request.abandon()
    if request.error:
        raise request.error
    if request.received < limits.size:
        raise MirrorError(f"sent only {request.received:,} of {limits.size:,} bytes")
    return b"".join(request.chunks)


class _Request:
    """A request that runs on a thread of its own and can be abandoned.

    No timeout bounds the resolution of a name, or a host with many addresses that are all dead.
    """

    def __init__(self, url: str, limits: Limits) -> None:
        self.received = 0
        self.chunks: list[bytes] = []
        self.error: MirrorError | None = None
        self._url = url
        self._limits = limits
        self._ended = threading.Event()
        self._response: requests.Response | None = None
        self._is_abandoned = False

    def wait(self, progress: Callable[[int], None]) -> None:
        """Wait until the request has ended, as long as enough bytes come."""
        told, silent = 0, 0.0
        before, elapsed = 0, 0.0
        while not self._ended.wait(_TICK):
            # Ticks are counted, as a clock also counts the time in which this process is suspended.
            silent += _TICK
            elapsed += _TICK
            received = self.received
            if received > told:
                progress(received - told)
                told, silent = received, 0.0
            if silent >= self._limits.patience:
                raise self._timed_out()
            if elapsed >= self._limits.window:
                if received - before < self._limits.rate * elapsed:
                    raise UnreachableError(
                        f"sent fewer than {self._limits.rate:,} bytes a second for "
                        f"{self._limits.window:.0f} s"
                    )
                before, elapsed = received, 0.0
        progress(self.received - told)

    def abandon(self) -> None:
        """Take no more bytes, which ends the thread when the next ones come."""
        self._is_abandoned = True

    def run(self) -> None:
        """Receive the file; keep the error if there is one."""
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # it logs addresses and headers
        download = pooch.HTTPDownloader(
            chunk_size=_CHUNK,
            timeout=self._limits.patience,
            headers={"Accept-Encoding": "identity", "User-Agent": "nnctl"},
            hooks={"response": self._check},
        )
        try:
            download(self._url, self, None)
        except MirrorError as error:
            self.error = error
        except Exception as error:
            self.error = self._explained(error)
        finally:
            if self._response is not None:
                self._response.close()
            self._ended.set()

    def _check(self, response: requests.Response, **_: object) -> None:
        """Give up an answer without the file before its body, which may be endless, is read."""
        self._response = response
        if response.is_redirect and response.headers["Location"]:
            target = urljoin(response.url, response.headers["Location"])
            if urlsplit(target).scheme not in SCHEMES:
                shown = without_secrets(target)
                raise MirrorError(f"redirects to {shown}, which is no http:// or https:// address")
            response.close()
        elif response.status_code not in range(200, 300):
            status = response.status_code
            raise MirrorError(f"answered {status} {responses.get(status, '')}".rstrip())
        else:  # Some servers declare .gz files as an encoding, which requests would undo.
            raw = response.raw
            read = functools.partial(raw.read, decode_content=False)
            response.raw = SimpleNamespace(read=read, close=raw.close)

    def write(self, chunk: bytes) -> None:
        """Take what pooch has received."""
        if self._is_abandoned or self.received + len(chunk) > self._limits.size:
            raise MirrorError("sent more bytes than the file has")
        self.chunks.append(chunk)
        self.received += len(chunk)

    def flush(self) -> None:
        """Do nothing; pooch asks for it."""

    @property
    def _is_answered(self) -> bool:
        return self._response is not None and not self._response.is_redirect

    def _timed_out(self) -> MirrorError:
        what = "sent next to nothing for" if self._is_answered else "did not answer within"
        return UnreachableError(f"{what} {self._limits.patience:.0f} s")

    def _explained(self, error: Exception) -> MirrorError:
        """Return what a failed request means, in a few words."""
        cause = _cause(error)
        match error:
            case failures.Timeout():
                return self._timed_out()
            case _ if self._is_answered and isinstance(cause, TimeoutError):
                return self._timed_out()
            case ValueError() if self._is_answered:  # of a length that is no number
                return UnreachableError("did not send a valid HTTP response")
            case _ if self._is_answered:
                return MirrorError(f"cut the connection after {self.received:,} bytes")
            case failures.TooManyRedirects():
                return MirrorError("redirects in a circle")
            case failures.ProxyError():
                return UnreachableError(f"the proxy does not lead there: {_words(cause)}")
            case failures.SSLError():
                return UnreachableError(f"is not who it should be, or not safe: {_words(cause)}")
            case failures.ConnectionError() if isinstance(cause, socket.gaierror):
                return UnreachableError("has a name that cannot be resolved; is there a network?")
            case failures.ConnectionError() if isinstance(cause, OSError):
                return UnreachableError(f"cannot be reached: {_words(cause)}")
            case failures.ConnectionError():
                return UnreachableError("did not send a valid HTTP response")
            case _ if self._response is not None:
                return MirrorError("redirects to an address that is not valid")
        return UnreachableError(
            "cannot be reached: check its address, and http_proxy, https_proxy, all_proxy, "
            f"no_proxy and REQUESTS_CA_BUNDLE in the environment ({type(error).__name__})"
        )


def _cause(error: BaseException) -> BaseException:
    """Return the first error of a chain."""
    within = error.__cause__ or error.__context__
    return _cause(within) if within else error


def _words(error: BaseException) -> str:
    """Return what the operating system says about an error."""
    if isinstance(error, ssl.SSLError):  # its number is of another list
        return str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return "the request was refused"
