"""Digits made up for a test, and mirrors that serve them, well or badly."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import http.server
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data.registry import NAMES, KnownFile


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """Return an array as the content of an IDX file."""
    header = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()


def digits_folder(folder: Path, *, compressed: bool, training: int = 30, test: int = 20) -> Path:
    """Write a folder of four IDX files with pictures of 4 x 3 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in zip(NAMES, (training, training, test, test), strict=True):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 256, (count, 4, 3), dtype=np.uint8)
        content = idx_bytes(images if "images" in name else labels)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


def known_file(name: str, content: bytes) -> tuple[KnownFile, bytes]:
    """Return what is known of a file, and the gzip file that a mirror should serve."""
    packed = gzip.compress(content, mtime=0)
    sha256, idx_sha256 = (hashlib.sha256(given).hexdigest() for given in (packed, content))
    return KnownFile(name, len(packed), sha256, len(content), idx_sha256), packed


def closed_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture(autouse=True)
def _loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to_loopback(monkeypatch)


def keep_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing out of this machine: for all other hosts there is a proxy that is not there."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return all that is in a folder: names, times of the last change, contents."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to a mirror."""

    mirror: Mirror

    def do_GET(self) -> None:
        """Answer as the mirror was told to."""
        self.mirror.requests.append(self.path)
        name = self.path.rpartition("/")[2]
        if name in self.mirror.contents:
            self.mirror.answer(self, self.mirror.contents[name])
        else:
            self.send_error(404)

    def reply(self, content: bytes, *, length: int | None = None, **headers: str) -> None:
        """Send a content with status 200."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Say nothing."""


Answer = Callable[[Handler, bytes], None]


@dataclass
class Mirror:
    """A mirror on loopback, what it is asked for, how it answers, and whether it still does."""

    contents: Mapping[str, bytes]
    answer: Answer
    url: str = ""
    requests: list[str] = field(default_factory=list)
    closed: threading.Event = field(default_factory=threading.Event)


MakeMirror = Callable[..., Mirror]


class Server(http.server.ThreadingHTTPServer):
    """A server that does not mind clients who give up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def mirrors() -> Iterator[MakeMirror]:
    """Start mirrors over real HTTP: ``start(contents)``, or ``start(contents, answer)``.

    With the context of TLS as ``secure``, it is HTTPS.
    """
    started: list[tuple[Server, Mirror]] = []

    def start(
        contents: Mapping[str, bytes],
        answer: Answer = Handler.reply,
        secure: ssl.SSLContext | None = None,
    ) -> Mirror:
        made = Mirror(contents, answer)
        server = Server(("127.0.0.1", 0), type("_Handler", (Handler,), {"mirror": made}))
        if secure:
            server.socket = secure.wrap_socket(server.socket, server_side=True)
        made.url = f"http{'s' if secure else ''}://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        started.append((server, made))
        return made

    try:
        yield start
    finally:
        for server, made in started:
            made.closed.set()
            server.shutdown()
            server.server_close()


@pytest.fixture
def mirror() -> Iterator[MakeMirror]:
    """Start mirrors; see `mirrors`."""
    with mirrors() as start:
        yield start


@pytest.fixture
def released() -> Iterator[threading.Event]:
    """What everything that hangs waits for; it is set at the end of the test."""
    event = threading.Event()
    yield event
    event.set()
