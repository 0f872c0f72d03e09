"""One request to a mirror, through pooch.

A mirror's URL may contain a password or token, and so may the messages of a mirror or a library. So
error messages are written here; they quote only URLs without secrets.
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

from nnctl.text import without_secrets

SCHEMES = ("http", "https")
_CHUNK = 8192  # bytes; a mirror that sends less within the timeout counts as silent
_TICK = 0.1  # seconds
_REASON_WIDTH = 200


class MirrorError(Exception):
    """The reason, in one line, why a mirror did not serve a file."""

    def __init__(self, reason: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in reason)
        super().__init__(shown[:_REASON_WIDTH])


class UnreachableError(MirrorError):
    """A mirror did not answer, or was too slow; it is not tried for the other files."""


class Limits(NamedTuple):
    """Limits at which a mirror is abandoned.

    Parameters
    ----------
    size : int
        Size of the file in bytes.
    patience : float
        Seconds without a connection or without new bytes.
    rate : float
        Minimum average bytes per second in each window.
    window : float
        Length of a window in seconds.
    """

    size: int
    patience: float
    rate: float
    window: float


def receive(url: str, limits: Limits, progress: Callable[[int], None]) -> bytes:
    """Return the content of a file with a known size.

    Parameters
    ----------
    url : str
        URL of the file.
    limits : Limits
        Size of the file, and when to abandon the mirror.
    progress : callable
        Function that is called with the number of bytes received since its last call.

    Raises
    ------
    MirrorError
        The request failed, or the number of received bytes is not the file's size.
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
    """A request that runs in its own thread, so that it can be abandoned.

    Timeouts do not cover name resolution, or a host with many addresses that do not answer.
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
        """Wait until the request ends; raise an error if too few bytes arrive."""
        reported, silent = 0, 0.0
        before, elapsed = 0, 0.0
        while not self._ended.wait(_TICK):
            # Ticks are counted, because a clock also counts time while the process is suspended.
            silent += _TICK
            elapsed += _TICK
            received = self.received
            if received > reported:
                progress(received - reported)
                reported, silent = received, 0.0
            if silent >= self._limits.patience:
                raise self._timed_out()
            if elapsed >= self._limits.window:
                if received - before < self._limits.rate * elapsed:
                    raise UnreachableError(
                        f"sent fewer than {self._limits.rate:,} bytes per second for "
                        f"{self._limits.window:.0f} s"
                    )
                before, elapsed = received, 0.0
        progress(self.received - reported)

    def abandon(self) -> None:
        """Accept no more bytes; the thread ends when it receives the next ones."""
        self._is_abandoned = True

    def run(self) -> None:
        """Receive the file, and store the error if it fails."""
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
        """Reject a response without the file before its body, which may be endless, is read."""
        self._response = response
        if response.is_redirect and response.headers["Location"]:
            target = urljoin(response.url, response.headers["Location"])
            if urlsplit(target).scheme not in SCHEMES:
                shown = without_secrets(target)
                raise MirrorError(f"redirects to {shown}, which is not an http:// or https:// URL")
            response.close()
        elif response.status_code not in range(200, 300):
            status = response.status_code
            raise MirrorError(f"answered {status} {responses.get(status, '')}".rstrip())
        else:  # Some servers declare .gz files as an encoding, which requests would undo.
            raw = response.raw
            read = functools.partial(raw.read, decode_content=False)
            response.raw = SimpleNamespace(read=read, close=raw.close)

    def write(self, chunk: bytes) -> None:
        """Store a chunk; pooch calls this method."""
        if self._is_abandoned or self.received + len(chunk) > self._limits.size:
            raise MirrorError("sent more bytes than the file has")
        self.chunks.append(chunk)
        self.received += len(chunk)

    def flush(self) -> None:
        """Do nothing; pooch requires this method."""

    @property
    def _is_answered(self) -> bool:
        return self._response is not None and not self._response.is_redirect

    def _timed_out(self) -> MirrorError:
        failure = "sent almost nothing for" if self._is_answered else "did not answer within"
        return UnreachableError(f"{failure} {self._limits.patience:.0f} s")

    def _explained(self, error: Exception) -> MirrorError:
        """Convert the error of a failed request to a short reason without secrets."""
        cause = _cause(error)
        match error:
            case failures.Timeout():
                return self._timed_out()
            case _ if self._is_answered and isinstance(cause, TimeoutError):
                return self._timed_out()
            case ValueError() if self._is_answered:  # the Content-Length is not a number
                return UnreachableError("did not send a valid HTTP response")
            case _ if self._is_answered:
                return MirrorError(f"closed the connection after {self.received:,} bytes")
            case failures.TooManyRedirects():
                return MirrorError("redirects too many times")
            case failures.ProxyError():
                return UnreachableError(f"cannot be reached through the proxy: {_describe(cause)}")
            case failures.SSLError():
                return UnreachableError(f"failed the TLS check: {_describe(cause)}")
            case failures.ConnectionError() if isinstance(cause, socket.gaierror):
                return UnreachableError("has a host name that cannot be resolved; are you online?")
            case failures.ConnectionError() if isinstance(cause, OSError):
                return UnreachableError(f"cannot be reached: {_describe(cause)}")
            case failures.ConnectionError():
                return UnreachableError("did not send a valid HTTP response")
            case _ if self._response is not None:
                return MirrorError("redirects to an invalid URL")
        return UnreachableError(
            "cannot be reached: check its URL, and http_proxy, https_proxy, all_proxy, "
            f"no_proxy and REQUESTS_CA_BUNDLE in the environment ({type(error).__name__})"
        )


def _cause(error: BaseException) -> BaseException:
    """Return the first error of a chain."""
    within = error.__cause__ or error.__context__
    return _cause(within) if within else error


def _describe(error: BaseException) -> str:
    """Return the operating system's or OpenSSL's text for an error, which contains no secrets."""
    if isinstance(error, ssl.SSLError):  # its number is not an errno of the system
        return str(getattr(error, "verify_message", "") or error.reason or "TLS failed")
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)
    return "the request was refused"
