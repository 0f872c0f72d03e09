"""One file from one mirror: pooch retrieves it with a downloader that has limits.

A mirror is abandoned if it sends nothing for its share of `PATIENCE`, or after `GRACE` on average
fewer than `SLOWEST` bytes per second. So MNIST's largest file takes at most 22 minutes from one
mirror.

A mirror's URL may contain a password or token, and so may the messages of a mirror or a library. So
error messages are written here; they quote only URLs without secrets.
"""

from __future__ import annotations

import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from http.client import responses
from pathlib import Path
from typing import IO
from urllib.parse import urljoin, urlsplit

import pooch
import requests
from requests import exceptions as failures

from nnctl.data.registry import SCHEMES, KnownFile
from nnctl.text import without_secrets

PATIENCE = 18.0
"""Total seconds to wait for mirrors that do not answer, divided equally among all mirrors."""

SLOWEST = 8_000
"""Bytes per second on average."""

GRACE = 60.0
"""Seconds at the beginning during which a mirror may be slower."""

MAX_BYTES = 100_000_000
"""Limit for a file of unknown size."""

_CHUNK = 8192  # bytes; a mirror that sends less within the timeout counts as silent
_TICK = 0.1  # seconds
_REASON_WIDTH = 200
_OWN_CERTIFICATES = (
    "; if your network has its own certificates, set REQUESTS_CA_BUNDLE to their file"
)


class MirrorError(Exception):
    """The reason, in one line, why a mirror did not serve a file."""

    def __init__(self, reason: str) -> None:
        shown = "".join(character if character.isprintable() else "?" for character in reason)
        super().__init__(shown[:_REASON_WIDTH])


class UnreachableError(MirrorError):
    """A mirror did not answer, or was too slow; it is not tried for the other files."""


def retrieve(
    url: str, file: KnownFile, folder: Path, patience: float, progress: Callable[[int], None]
) -> Path:
    """Download a file into a folder, and return its path if it has the right content.

    Parameters
    ----------
    url : str
        URL of the file.
    file : KnownFile
        Size and hash of the file.
    folder : Path
        Temporary folder.
    patience : float
        Seconds without a connection or without new bytes.
    progress : callable
        Function that is called with the number of bytes received since its last call.

    Raises
    ------
    MirrorError
        The request failed, or the content is not that of the file.
    """
    pooch.get_logger().setLevel(logging.CRITICAL)  # it logs addresses
    downloader = Download(file.size, patience, progress)
    try:
        return Path(pooch.retrieve(url, file.hash, file.name, folder, downloader=downloader))
    except ValueError:
        algorithm = "MD5" if str(file.hash).startswith("md5:") else "SHA-256"
        raise MirrorError(f"sent wrong content: its {algorithm} is not the known one") from None


class Download:
    """A downloader for `pooch.retrieve` that ends at given limits.

    The request runs in its own thread, so that it can be abandoned: the timeouts of requests do
    not cover name resolution, a host with many addresses that do not answer, or slow headers.
    """

    def __init__(self, size: int | None, patience: float, progress: Callable[[int], None]) -> None:
        self.received = 0
        self.ended = threading.Event()
        self._size = size
        self._patience = patience
        self._progress = progress
        self._error: Exception | None = None
        self._is_redirected = self._is_answered = self._is_abandoned = False

    def __call__(self, url: str, output_file: str, _: object) -> None:
        """Write the content of a URL to a file.

        Raises
        ------
        MirrorError
            The request failed, or the number of received bytes is not the file's size.
        OSError
            The file cannot be written.
        """
        with Path(output_file).open("wb") as file:
            threading.Thread(target=self._receive, args=(url, file), daemon=True).start()
            try:
                self.wait()
            finally:
                self._is_abandoned = True  # the thread ends when it receives the next bytes
        if self._error:
            raise self._error
        if self._size is not None and self.received < self._size:
            raise MirrorError(f"sent only {self.received:,} of {self._size:,} bytes")

    def wait(self) -> None:
        """Wait until the request ends; raise an error if too few bytes arrive."""
        reported, silent, elapsed = 0, 0.0, 0.0
        while not self.ended.wait(_TICK):
            # Ticks are counted, because a clock also counts time while the process is suspended.
            silent += _TICK
            elapsed += _TICK
            received = self.received
            if received > reported:
                self._progress(received - reported)
                reported, silent = received, 0.0
            if silent >= self._patience:
                raise self._timed_out()
            if received < SLOWEST * (elapsed - GRACE):
                raise UnreachableError(f"sent fewer than {SLOWEST:,} bytes per second")
        self._progress(self.received - reported)

    def _receive(self, url: str, file: IO[bytes]) -> None:
        """Receive the file, and store the error if it fails."""
        logging.getLogger("urllib3").setLevel(logging.CRITICAL)  # it logs addresses and headers
        headers = {"Accept-Encoding": "identity", "User-Agent": "nnctl"}
        hooks = {"response": self._check_redirect}
        try:
            with requests.get(
                url,
                stream=True,
                timeout=self._patience,
                headers=headers,
                hooks=hooks,
                verify=_certificates(),
            ) as response:
                status = response.status_code
                if status not in range(200, 300):
                    raise MirrorError(f"answered {status} {responses.get(status, '')}".rstrip())
                self._is_answered = True
                # Some servers declare .gz files as an encoding, which must not be undone.
                for chunk in response.raw.stream(_CHUNK, decode_content=False):
                    self._write(chunk, file)
        except MirrorError as error:
            self._error = self._error or error
        except Exception as error:
            self._error = self._explained(error)
        finally:
            self.ended.set()

    def _check_redirect(self, response: requests.Response, **_: object) -> None:
        """Reject a redirect to another scheme, and never read its body, which may be endless."""
        if not (response.is_redirect and response.headers["Location"]):
            return
        self._is_redirected = True
        response.close()
        target = urljoin(response.url, response.headers["Location"])
        if urlsplit(target).scheme not in SCHEMES:
            shown = without_secrets(target)
            raise MirrorError(f"redirects to {shown}, which is not an http:// or https:// URL")

    def _write(self, chunk: bytes, file: IO[bytes]) -> None:
        limit = MAX_BYTES if self._size is None else self._size
        if self._is_abandoned or self.received + len(chunk) > limit:
            raise MirrorError("sent more bytes than the file has")
        try:
            file.write(chunk)
        except OSError as error:  # not the fault of the mirror
            self._error = error
            raise MirrorError("could not be saved") from None
        self.received += len(chunk)

    def _timed_out(self) -> MirrorError:
        failure = "sent almost nothing for" if self._is_answered else "did not answer within"
        return UnreachableError(f"{failure} {self._patience:.0f} s")

    def _explained(self, error: Exception) -> MirrorError:
        """Convert the error of a failed request to a short reason without secrets."""
        cause = _cause(error)
        match error:
            case failures.Timeout():
                return self._timed_out()
            case _ if self._is_answered and isinstance(cause, TimeoutError):
                return self._timed_out()
            case _ if self._is_answered:
                return MirrorError(f"closed the connection after {self.received:,} bytes")
            case failures.TooManyRedirects():
                return MirrorError("redirects too many times")
            case failures.ProxyError():
                return UnreachableError(f"cannot be reached through the proxy: {_describe(cause)}")
            case failures.SSLError():
                advice = _OWN_CERTIFICATES if isinstance(cause, ssl.CertificateError) else ""
                return UnreachableError(f"failed the TLS check: {_describe(cause)}{advice}")
            case failures.InvalidSchema() if "SOCKS" in str(error):
                return UnreachableError(
                    "cannot be reached: a SOCKS proxy needs PySocks; install it with: "
                    'pip install "requests[socks]"'
                )
            case failures.ConnectionError() if isinstance(cause, socket.gaierror):
                return UnreachableError("has a host name that cannot be resolved; are you online?")
            case failures.ConnectionError() if isinstance(cause, OSError):
                return UnreachableError(f"cannot be reached: {_describe(cause)}")
            case failures.ConnectionError():
                return UnreachableError("did not send a valid HTTP response")
            case _ if self._is_redirected:
                return MirrorError("redirects to an invalid URL")
        return UnreachableError(
            "cannot be reached: check its URL, and http_proxy, https_proxy, all_proxy, "
            f"no_proxy and REQUESTS_CA_BUNDLE in the environment ({type(error).__name__})"
        )


def _certificates() -> bool | str:
    """Return the file in SSL_CERT_FILE, which requests does not read; True for its own choice."""
    file = os.environ.get("SSL_CERT_FILE", "")
    chosen = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    # Like OpenSSL, ignore a file that does not exist.
    return file if os.path.isfile(file) and not chosen else True  # noqa: PTH113


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
