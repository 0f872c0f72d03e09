"""Mirrors on loopback over real HTTP: good ones, and ones that fail, stall or attack."""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.server
import random
import socket
import ssl
import struct
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import nnctl.data.mirror  # noqa: F401 - slow, and must not delay a download
from nnctl.data.download import DownloadEvent, fetch
from nnctl.data.registry import KnownDataset, KnownFile
from nnctl.errors import DataError


def known_file(name: str, content: bytes) -> tuple[KnownFile, bytes]:
    """Return the description of a file, and the gzip file that a mirror should serve."""
    packed = gzip.compress(content, mtime=0)
    sha256, idx_sha256 = (hashlib.sha256(given).hexdigest() for given in (packed, content))
    return KnownFile(name, len(packed), sha256, idx_sha256), packed


A, A_PACKED = known_file("a-images", random.Random(0).randbytes(40_000))  # arrives in 5 chunks
B, B_PACKED = known_file("b-labels", b"the labels")
FILES = (A, B)
CONTENTS = {A.gzip_name: A_PACKED, B.gzip_name: B_PACKED}


KNOWN_MIRRORS: list[str] = []
"""The mirrors of the dataset that the tests download."""


def known(files: Sequence[KnownFile] = FILES) -> KnownDataset:
    """Return a dataset with these files."""
    return KnownDataset("digits", "Digits", tuple(files), tuple(KNOWN_MIRRORS))


def ask(
    cache: Path, *mirrors: str, files: Sequence[KnownFile] = FILES, force: bool = False
) -> tuple[list[DownloadEvent], str]:
    """Download files; return the events and the error message, if there is one."""
    events: list[DownloadEvent] = []
    try:
        fetch(cache, known(files), mirrors=mirrors, notify=events.append, force=force)
    except DataError as error:
        return events, error.message
    return events, ""


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, hidden ones included."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def closed_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


# The server --------------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to a mirror."""

    mirror: Mirror

    def do_GET(self) -> None:
        """Send the answer of the mirror."""
        self.mirror.requests.append(self.path)
        self.mirror.asked.set()
        name = self.path.rpartition("/")[2]
        if name in self.mirror.contents:
            self.mirror.answer(self, self.mirror.contents[name])
        else:
            self.send_error(404)

    def reply(self, content: bytes, *, length: int | None = None, **headers: str) -> None:
        """Send content with status 200."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        for header, value in headers.items():
            self.send_header(header.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the inherited name
        """Print nothing."""


Prediction = Callable[[Handler, bytes], None]


@dataclass
class Mirror:
    """A mirror: its files, its way to answer, and the requested paths."""

    contents: Mapping[str, bytes]
    answer: Prediction
    url: str = ""
    requests: list[str] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    closed: threading.Event = field(default_factory=threading.Event)


MakeMirror = Callable[..., Mirror]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore clients that disconnect."""


@contextlib.contextmanager
def mirrors() -> Iterator[MakeMirror]:
    """Start mirrors: ``start(contents)``, or ``start(contents, answer)``.

    With a TLS context as ``secure``, the mirror speaks HTTPS.
    """
    started: list[tuple[_Server, Mirror]] = []

    def start(
        contents: Mapping[str, bytes],
        answer: Prediction = Handler.reply,
        secure: ssl.SSLContext | None = None,
    ) -> Mirror:
        made = Mirror(contents, answer)
        server = _Server(("127.0.0.1", 0), type("_Handler", (Handler,), {"mirror": made}))
        if secure:
            server.socket = secure.wrap_socket(server.socket, server_side=True)
        made.url = f"http{'s' if secure else ''}://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        started.append((server, made))
        return made

    try:
        yield start
    finally:
        for _, made in started:
            made.closed.set()
        for server, _ in started:
            server.shutdown()
            server.server_close()


# Bad mirrors -------------------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


class Fault(NamedTuple):
    """The way a mirror answers, and a regular expression for the reported reason."""

    answer: Prediction
    reason: str
    slow: bool = False  # detected only by a timeout


def raw(*parts: bytes) -> Prediction:
    """Send these bytes, and close the connection."""
    return lambda to, _: send(to, parts)


def send(to: Handler, parts: Iterable[bytes], pause: float = 0) -> None:
    """Send bytes with pauses between them, until the mirror is closed or the client is gone."""
    for part in parts:
        to.wfile.write(part)
        if to.mirror.closed.wait(pause) if pause else to.mirror.closed.is_set():
            return


def endless(head: bytes, part: bytes, pause: float = 0) -> Prediction:
    """Send a beginning, and then the same bytes forever."""

    def answer(to: Handler, _: bytes) -> None:
        to.wfile.write(head)
        send(to, iter(lambda: part, None), pause)

    return answer


def stall(part: float, head: bytes = b"") -> Prediction:
    """Send part of the correct answer, or another beginning, and then nothing."""

    def answer(to: Handler, right: bytes) -> None:
        whole = OK + b"Content-Length: %d\r\n\r\n" % len(right) + right
        to.wfile.write(head or whole[: int(part * len(whole))])
        to.mirror.closed.wait(60)

    return answer


def cut_after(count: int, *, kind: str = "length", reset: bool = False) -> Prediction:
    """Announce a file in one of three ways, and close the connection after some bytes."""

    def answer(to: Handler, right: bytes) -> None:
        heads = {
            "length": OK + b"Content-Length: %d\r\n\r\n" % len(right),
            "chunked": CHUNKED + b"%x\r\n" % len(right),
            "nothing": OK + b"\r\n",
        }
        to.wfile.write(heads[kind] + right[:count])
        if reset:
            hang_up(to)

    return answer


def hang_up(to: Handler) -> None:
    """Close a connection with a reset."""
    linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    to.wfile.close()
    to.rfile.close()
    to.connection.close()
    to.close_connection = True


def drip(to: Handler, right: bytes) -> None:
    """Send one byte at a time, each in a chunk of its own."""
    to.wfile.write(CHUNKED)
    send(to, (b"1\r\n%c\r\n" % byte for byte in right), 0.05)


def redirect(target: bytes, body: bytes = b"") -> Prediction:
    """Redirect a client."""
    return raw(b"HTTP/1.1 302 Found\r\nLocation: %b\r\n\r\n" % target, body)


def redirect_without_end(to: Handler, _: bytes) -> None:
    """Redirect a client to a new address each time."""
    seen = len(to.mirror.requests)
    send(to, [b"HTTP/1.1 301 Moved\r\nLocation: /%d%b\r\n\r\n" % (seen, to.path.encode())])


@functools.cache
def bomb(times: int = 1) -> bytes:
    """Return a gigabyte of zeros, compressed with gzip once (in 64 members) or several times."""
    if times == 1:
        return gzip.compress(bytes(2**24), mtime=0) * 64
    return gzip.compress(bomb(times - 1), mtime=0)


def encoded_bomb(times: int) -> Prediction:
    """Send a bomb that a client should decompress."""

    def answer(to: Handler, _: bytes) -> None:
        encoding = b"Content-Encoding: " + b", ".join([b"gzip"] * times)
        send(to, [OK, encoding, b"\r\n\r\n", bomb(times)])

    return answer


HTML = b"<!DOCTYPE html><title>Log in to the guests' network</title>"
LINE = b"x" * 8192
FEW = r"sent only [\d,]+ of [\d,]+ bytes"
MANY = "sent more bytes than the file has"
ANOTHER = "sent wrong content: its SHA-256 is not the known one"
CUT = r"closed the connection after [\d,]+ bytes"
SILENT = r"did not answer within \d+ s"
STOPPED = r"sent almost nothing for \d+ s"
UNREACHED = "cannot be reached: .+"
TOO_SLOW = "sent fewer than 8,000 bytes per second"
NO_HTTP = "did not send a valid HTTP response"
ELSEWHERE = "redirects to {}, which is not an http:// or https:// URL"

FAULTS = {
    # Ordinary failures of servers and networks
    "an HTML page": Fault(lambda to, _: to.reply(HTML), f"{FEW}|{MANY}"),
    "an HTML page as long as the file": Fault(
        lambda to, right: to.reply(HTML.ljust(len(right))[: len(right)]), f"{ANOTHER}|{FEW}"
    ),
    "403": Fault(lambda to, _: to.send_error(403), "answered 403 Forbidden"),
    "404": Fault(lambda to, _: to.send_error(404), "answered 404 Not Found"),
    "429 with Retry-After": Fault(
        raw(b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 86400\r\n\r\n"),
        "answered 429 Too Many Requests",
    ),
    "500": Fault(lambda to, _: to.send_error(500), "answered 500 Internal Server Error"),
    "503 with Retry-After": Fault(
        raw(b"HTTP/1.1 503 Busy\r\nRetry-After: 86400\r\n\r\n"), "answered 503 Service Unavailable"
    ),
    "204": Fault(raw(b"HTTP/1.1 204 No Content\r\n\r\n"), FEW),
    "nothing in it": Fault(lambda to, _: to.reply(b""), FEW),
    "a byte less": Fault(lambda to, right: to.reply(right[:-1]), FEW),
    "a byte more": Fault(lambda to, right: to.reply(right + b"x"), MANY),
    "one bit flipped": Fault(
        lambda to, right: to.reply(right[:-1] + bytes([right[-1] ^ 1])), ANOTHER
    ),
    "the other file": Fault(
        lambda to, right: to.reply(next(c for c in to.mirror.contents.values() if c != right)),
        f"{FEW}|{MANY}",
    ),
    "closed at once": Fault(raw(), UNREACHED),
    "a reset at once": Fault(lambda to, _: hang_up(to), UNREACHED),
    "cut in the headers": Fault(raw(OK[:9]), NO_HTTP),
    "cut in the middle": Fault(lambda to, right: cut_after(len(right) // 2)(to, right), CUT),
    "a reset in the middle": Fault(
        lambda to, right: cut_after(len(right) // 2, reset=True)(to, right), CUT
    ),
    "a circle": Fault(lambda to, _: redirect(to.path.encode())(to, _), "redirects too many times"),
    "redirects without end": Fault(redirect_without_end, "redirects too many times"),
    "a redirect to nowhere": Fault(redirect(b""), "answered 302 Found"),
    # Slow mirrors
    "stalls before the headers": Fault(stall(0), SILENT, slow=True),
    "stalls in the headers": Fault(stall(0, b"HTTP/1.1 200"), SILENT, slow=True),
    "stalls in the body": Fault(stall(0.9), STOPPED, slow=True),
    "drips bytes": Fault(drip, TOO_SLOW, slow=True),
    "drips headers": Fault(endless(OK, b"X: x\r\n", 0.05), SILENT, slow=True),
    # Attacks
    "a redirect to a file": Fault(
        redirect(b"file:///etc/hosts"), ELSEWHERE.format("file:///etc/hosts")
    ),
    "a redirect to FTP": Fault(redirect(b"ftp://x/y"), ELSEWHERE.format("ftp://x/y")),
    "a redirect to data": Fault(redirect(b"data:,x"), ELSEWHERE.format("data:,x")),
    "a redirect to no address": Fault(redirect(b"http://["), "redirects to an invalid URL"),
    "a redirect to no text": Fault(redirect(b"\xff\xfe"), "redirects to an invalid URL"),
    "a redirect with an endless body": Fault(
        endless(b"HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", LINE), "answered 404 Not Found"
    ),
    "a redirect with a bomb": Fault(
        lambda to, _: redirect(b"/x\r\nContent-Encoding: gzip", bomb())(to, _),
        "answered 404 Not Found",
    ),
    "endless content": Fault(endless(OK + b"\r\n", LINE), MANY),
    "endless content of a 404": Fault(
        endless(b"HTTP/1.1 404 Not Found\r\n\r\n", LINE), "answered 404 Not Found"
    ),
    "endless headers": Fault(endless(OK, b"X: x\r\n"), NO_HTTP),
    "an endless header": Fault(endless(OK + b"X: ", LINE), NO_HTTP),
    "an endless status": Fault(endless(b"HTTP/1.1 200 ", LINE), NO_HTTP),
    "a hint before a 404": Fault(
        raw(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 404 Not Found\r\n\r\n"),
        "answered 103 Early Hints",
    ),
    "endless informational answers": Fault(
        # Few of them, as newer patch releases of Python stop reading after 100.
        endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.05),
        SILENT,
        slow=True,
    ),
    "an endless line of a chunk": Fault(endless(CHUNKED, LINE), CUT),
    "an endless trailer": Fault(
        lambda to, right: endless(
            CHUNKED + b"%x\r\n%b\r\n0\r\n" % (len(right), right), b"X: x\r\n", 0.01
        )(to, right),
        STOPPED,
        slow=True,
    ),
    "a bomb": Fault(lambda to, _: to.reply(bomb()), f"{FEW}|{MANY}"),
    "a bomb to inflate": Fault(encoded_bomb(1), f"{FEW}|{MANY}"),
    "a bomb in a bomb in a bomb to inflate": Fault(encoded_bomb(3), f"{FEW}|{MANY}"),
    "commands for the terminal": Fault(
        raw(b"HTTP/1.1 404 \x1b[2J\x1b]0;owned\x07\x9b31m\r\n\r\n"), "answered 404 Not Found"
    ),
    "a page as a reason": Fault(
        raw(b"HTTP/1.1 404 " + LINE + b"\r\n\r\n"), "answered 404 Not Found"
    ),
    "another protocol": Fault(raw(b"SSH-2.0-OpenSSH_9.6\r\n"), NO_HTTP),
    "a length that is not a number": Fault(raw(OK + b"Content-Length: x\r\n\r\n"), FEW),
    "a length below zero": Fault(raw(OK + b"Content-Length: -1\r\n\r\n"), FEW),
    "a length beyond all": Fault(raw(OK + b"Content-Length: %d\r\n\r\n" % 10**40, b"x"), CUT),
    "a chunk that is none": Fault(raw(CHUNKED, b"zz\r\nx\r\n0\r\n\r\n"), CUT),
}
QUICK = [name for name, fault in FAULTS.items() if not fault.slow]
SLOW = [name for name, fault in FAULTS.items() if fault.slow]
