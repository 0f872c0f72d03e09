"""Downloads over real HTTP on loopback: from good mirrors, bad ones, and dead ones."""

from __future__ import annotations

import errno
import gzip
import os
import random
import re
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from nnctl.data import download
from nnctl.data.download import (
    DownloadEvent,
    FileDamaged,
    FileDone,
    FileKept,
    MirrorFailed,
    check_mirror,
    fetch,
    import_files,
    inspect,
)
from nnctl.errors import DataError, UsageError
from nnctl.files import remove_temporaries
from tests.data.conftest import Answer, Handler, MakeMirror, closed_port, known_file, snapshot

# The first half cannot be compressed, so that the file comes in several pieces; the second can.
A, A_PACKED = known_file("a-images", random.Random(0).randbytes(20_000) + bytes(20_000))
B, B_PACKED = known_file("b-labels", b"the labels")
FILES = (A, B)
CONTENTS = {A.gzip_name: A_PACKED, B.gzip_name: B_PACKED}
REFUSED = os.strerror(errno.ECONNREFUSED)


@pytest.fixture
def known_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """The only known mirror: a closed port."""
    host = f"127.0.0.1:{closed_port()}"
    monkeypatch.setattr(download, "MIRRORS", (f"http://{host}/known/",))
    return host


@pytest.fixture
def cache(tmp_path: Path, known_host: str) -> Path:  # noqa: ARG001 - no test asks a real mirror
    """A folder that is not there yet."""
    return tmp_path / "cache" / "digits"


def ask(cache: Path, *mirrors: str, force: bool = False) -> tuple[list[DownloadEvent], str]:
    """Fetch both files; return what came of each, and the error if there was one."""
    events: list[DownloadEvent] = []
    error = ""
    try:
        fetch(cache, FILES, mirrors=mirrors, notify=events.append, force=force)
    except DataError as caught:
        error = caught.message
    results = FileKept | FileDamaged | FileDone | MirrorFailed
    return [event for event in events if isinstance(event, results)], error


def done(url: str) -> list[DownloadEvent]:
    """Return what is told when both files come from a mirror."""
    return [FileDone(file.name, f"{url}{file.gzip_name}", file.size) for file in FILES]


def failed(events: list[DownloadEvent]) -> list[tuple[str, str]]:
    """Return the addresses that failed, and why."""
    return [(event.url, event.reason) for event in events if isinstance(event, MirrorFailed)]


def assert_right(cache: Path) -> None:
    """Both files are there, and nothing else."""
    assert {path.name: path.read_bytes() for path in cache.iterdir()} == CONTENTS


# Good mirrors ------------------------------------------------------------------------------------


def test_files_come_from_the_first_mirror_that_has_them(cache: Path, mirror: MakeMirror) -> None:
    first, second = mirror(CONTENTS), mirror(CONTENTS)
    assert (done(first.url), "") == ask(cache, first.url.rstrip("/"), second.url)
    assert_right(cache)
    assert (first.requests, second.requests) == (["/a-images.gz", "/b-labels.gz"], [])


def test_each_file_is_sought_at_each_mirror(cache: Path, mirror: MakeMirror) -> None:
    first, second = mirror({B.gzip_name: B_PACKED}), mirror({A.gzip_name: A_PACKED})
    events, _ = ask(cache, first.url, second.url)
    assert failed(events) == [(f"{first.url}a-images.gz", "answered 404 Not Found")]
    assert [event for event in events if isinstance(event, FileDone)] == [
        FileDone("a-images", f"{second.url}a-images.gz", A.size),
        FileDone("b-labels", f"{first.url}b-labels.gz", B.size),
    ]
    assert_right(cache)


def test_a_right_file_is_not_fetched_again(cache: Path, mirror: MakeMirror) -> None:
    good = mirror(CONTENTS)
    cache.mkdir(parents=True)
    (cache / A.gzip_name).write_bytes(A_PACKED)
    (cache / B.name).write_bytes(b"the labels")
    before = snapshot(cache)
    assert ask(cache, good.url) == ([FileKept("a-images"), FileKept("b-labels")], "")
    assert good.requests == []
    assert before == snapshot(cache)


@pytest.mark.parametrize("content", [b"", A_PACKED[:-1], A_PACKED + b"x", b"<html>"])
def test_a_damaged_file_is_told_and_fetched_again(
    cache: Path, mirror: MakeMirror, content: bytes
) -> None:
    good = mirror(CONTENTS)
    cache.mkdir(parents=True)
    (cache / A.gzip_name).write_bytes(content)
    (cache / B.gzip_name).write_bytes(B_PACKED)
    assert [inspect(cache, file) for file in FILES] == ["damaged", "right"]
    damaged = FileDamaged("a-images", cache / A.gzip_name)
    assert [damaged, FileKept("b-labels"), done(good.url)[0]] == ask(cache, good.url)[0]
    assert_right(cache)


def test_the_path_of_a_damaged_uncompressed_file_is_its_own(
    cache: Path, mirror: MakeMirror
) -> None:
    cache.mkdir(parents=True)
    (cache / A.name).write_bytes(b"damaged")
    assert FileDamaged("a-images", cache / A.name) in ask(cache, mirror(CONTENTS).url)[0]


def test_force_fetches_what_is_right_as_well(cache: Path, mirror: MakeMirror) -> None:
    good = mirror(CONTENTS)
    ask(cache, good.url)
    assert (done(good.url), "") == ask(cache, good.url, force=True)
    assert len(good.requests) == 4
    before = snapshot(cache)
    events, error = ask(cache, mirror({A.gzip_name: A_PACKED}).url, force=True)
    assert [type(event) for event in events] == [FileDone, MirrorFailed, MirrorFailed]
    assert error.startswith("no mirror served b-labels.gz")
    assert before == snapshot(cache)


# Bad mirrors -------------------------------------------------------------------------------------


def cut(to: Handler, _: bytes) -> None:
    """Cut the connection with a reset, before anything is answered."""
    reset = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
    to.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
    to.connection.close()
    to.close_connection = True


def redirect(to: Handler, target: str) -> None:
    """Send a client elsewhere."""
    to.send_response(302)
    to.send_header("Location", target)
    to.end_headers()


ANOTHER = "sent another file: its SHA-256 is not MNIST's"
BAD: dict[str, tuple[str, Answer]] = {
    "missing": ("answered 404 Not Found", lambda to, _: to.send_error(404)),
    "forbidden": ("answered 403 Forbidden", lambda to, _: to.send_error(403)),
    "broken": ("answered 500 Internal Server Error", lambda to, _: to.send_error(500)),
    "html": (f"sent only 6 of {A.size:,} bytes", lambda to, _: to.reply(b"<html>")),
    "short": (
        f"sent only {A.size - 9:,} of {A.size:,} bytes",
        lambda to, right: to.reply(right[:-9]),
    ),
    "cut": (
        "cut the connection after 16,384 bytes",
        lambda to, right: to.reply(right[:-9], length=len(right)),
    ),
    "altered": (ANOTHER, lambda to, right: to.reply(right[:-1] + b"?")),
    "long": ("sent more bytes than the file has", lambda to, right: to.reply(right + b"x")),
    "circle": ("redirects in a circle", lambda to, _: redirect(to, to.path)),
    "file": (
        "redirects to file:///etc/hosts, which is no http:// or https:// address",
        lambda to, _: redirect(to, "file:///etc/hosts"),
    ),
    "coloured": ("answered 404 ?[31m", lambda to, _: to.send_error(404, "\x1b[31m")),
}


@pytest.mark.parametrize(("reason", "answer"), BAD.values(), ids=BAD)
def test_a_bad_mirror_is_told_and_the_next_one_asked(
    cache: Path, mirror: MakeMirror, reason: str, answer: Answer
) -> None:
    bad, good = mirror(CONTENTS, answer), mirror(CONTENTS)
    events, error = ask(cache, bad.url, good.url)
    assert failed(events)[0] == (f"{bad.url}a-images.gz", reason)
    assert failed(events)[1][0] == f"{bad.url}b-labels.gz"
    assert error == ""
    assert_right(cache)


def test_what_a_mirror_says_of_the_encoding_of_a_file_does_not_matter(
    cache: Path, mirror: MakeMirror
) -> None:
    encoding = mirror(CONTENTS, lambda to, right: to.reply(right, Content_Encoding="gzip"))
    assert (done(encoding.url), "") == ask(cache, encoding.url)
    assert_right(cache)


def test_a_mirror_that_does_not_speak_tls_is_not_asked_without(
    cache: Path, mirror: MakeMirror
) -> None:
    good = mirror(CONTENTS)
    [(_, reason), *_] = failed(ask(cache, good.url.replace("http:", "https:"))[0])
    assert re.match("is not who it should be, or not safe: (?i:.*wrong.version)", reason)
    assert good.requests == []


def test_a_mirror_that_answers_nothing_is_not_asked_again(cache: Path, mirror: MakeMirror) -> None:
    dead, cutting = f"http://127.0.0.1:{closed_port()}/", mirror(CONTENTS, cut)
    events, error = ask(cache, dead, cutting.url, mirror(CONTENTS).url)
    (first, why), (second, other) = failed(events)
    assert (first, why) == (f"{dead}a-images.gz", f"cannot be reached: {REFUSED}")
    assert second == f"{cutting.url}a-images.gz"
    assert other.startswith("cannot be reached: ")
    assert len(cutting.requests) == 1
    assert error == ""
    assert_right(cache)


def test_the_reasons_of_all_mirrors_are_told_if_none_serves_a_file(
    cache: Path, mirror: MakeMirror, known_host: str
) -> None:
    bad = mirror({A.gzip_name: A_PACKED})
    _, error = ask(cache, bad.url)
    assert error.splitlines() == [
        "no mirror served b-labels.gz:",
        f"  {bad.url.split('/')[2]} answered 404 Not Found",
        f"  {known_host} cannot be reached: {REFUSED}",
    ]
    assert {path.name for path in cache.iterdir()} == {A.gzip_name}


@pytest.mark.parametrize(
    "url", ["ftp://x/", "nonsense", "", "http://", "file:///tmp", "http:x", "http://x:99999/"]
)
def test_an_address_that_is_no_mirrors_is_a_usage_error(cache: Path, url: str) -> None:
    with pytest.raises(UsageError, match=f"not '{url}'"):
        ask(cache, url)
    assert not cache.exists()


def test_a_broken_ipv6_address_is_a_usage_error() -> None:
    with pytest.raises(UsageError):
        check_mirror("http://[::1")


def test_a_folder_that_cannot_be_written_is_told_before_anything_is_fetched(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    good = mirror(CONTENTS)
    assert f"{cache} cannot be written: {os.strerror(errno.EACCES)}" == ask(cache, good.url)[1]
    assert good.requests == []


def test_what_a_killed_process_left_is_removed(cache: Path, mirror: MakeMirror) -> None:
    good = mirror(CONTENTS)
    for left in (cache / f".{A.gzip_name}.0123abcd.nnctl-tmp", cache / ".nnctl-tmp.0123abcd"):
        cache.mkdir(parents=True, exist_ok=True)
        left.touch()
        ask(cache, good.url)
    assert left.exists()
    left.unlink()
    assert_right(cache)
    (cache / f".{A.gzip_name}.0123abcd.nnctl-tmp").touch()
    assert ask(cache, good.url) == ([FileKept("a-images"), FileKept("b-labels")], "")
    assert_right(cache)


def test_a_temporary_file_that_another_download_removes_is_written_again(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync
    removed: list[Path] = []

    def remove_first(descriptor: int) -> None:
        sync(descriptor)
        if not removed:
            removed.extend(cache.glob(".*"))
            remove_temporaries(cache)

    monkeypatch.setattr(os, "fsync", remove_first)
    url = mirror(CONTENTS).url
    assert (done(url), "") == ask(cache, url)
    assert len(removed) == 1
    assert_right(cache)


def test_a_link_to_a_folder_in_the_place_of_a_file_is_replaced(
    cache: Path, mirror: MakeMirror, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    cache.mkdir(parents=True)
    try:
        (cache / A.gzip_name).symlink_to(elsewhere)
    except OSError:
        pytest.skip("this user may make no links")
    assert ask(cache, mirror(CONTENTS).url)[1] == ""
    assert [*elsewhere.iterdir()] == []
    assert_right(cache)


def test_a_name_that_is_too_long_is_an_error_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x/a-images\.gz cannot be (read|written): "):
        fetch(tmp_path / ("x" * 5000), FILES, notify=lambda _: None)


def test_a_folder_that_cannot_be_made_is_an_error_of_the_data(
    tmp_path: Path, mirror: MakeMirror
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "digits"
    assert f"{folder} cannot be written: " in ask(folder, mirror(CONTENTS).url)[1]
    for file, content in zip(FILES, CONTENTS.values(), strict=True):
        (tmp_path / file.name).write_bytes(gzip.decompress(content))
    with pytest.raises(DataError, match="cannot be written"):
        import_files(folder, tmp_path, FILES)


# A network that swallows packets -----------------------------------------------------------------


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> float:
    """Two seconds for all mirrors together."""
    monkeypatch.setattr(download, "PATIENCE", 2.0)
    return 2.0


@pytest.fixture
def silent() -> Iterator[str]:
    """A mirror that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=16) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"


@pytest.fixture
def stopping(mirror: MakeMirror, released: threading.Event) -> str:
    """A mirror that sends all of a file but its end."""

    def stop(to: Handler, right: bytes) -> None:
        to.reply(right[:-9], length=len(right))
        released.wait(30)

    return mirror(CONTENTS, stop).url


@pytest.fixture
def dripping(mirror: MakeMirror, released: threading.Event) -> str:
    """A mirror that sends a byte now and then."""

    def drip(to: Handler, right: bytes) -> None:
        to.reply(b"", length=len(right))
        for byte in right:
            to.wfile.write(bytes([byte]))
            if released.wait(0.1):
                return

    return mirror(CONTENTS, drip).url


@pytest.fixture
def swallowing() -> Iterator[str]:
    """An address to which no connection is ever made, as its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        for client in waiting:
            client.close()


@pytest.mark.parametrize(
    "names",
    [
        ["silent", "dripping", "stopping"],
        pytest.param(
            ["swallowing", "silent"],
            marks=pytest.mark.skipif(sys.platform != "linux", reason="Linux drops what it queues"),
        ),
    ],
)
def test_mirrors_that_do_not_answer_are_given_up_in_time(
    cache: Path,
    mirror: MakeMirror,
    patience: float,
    names: list[str],
    request: pytest.FixtureRequest,
) -> None:
    slow = [request.getfixturevalue(name) for name in names]
    began = time.monotonic()
    events, error = ask(cache, *slow, mirror(CONTENTS).url)
    assert time.monotonic() - began < patience + 2
    assert [url for url, _ in failed(events)] == [f"{url}{A.gzip_name}" for url in slow]
    answers = {"dripping": "sent next to nothing for 0 s"}
    told = [answers.get(name, "did not answer within 0 s") for name in names[:2]]
    assert told == [why for _, why in failed(events)[:2]]
    assert error == ""
    assert_right(cache)


@pytest.mark.usefixtures("patience")
def test_a_mirror_that_stops_in_the_middle_is_told_to_have_stopped(
    cache: Path, stopping: str
) -> None:
    assert failed(ask(cache, stopping)[0])[0][1] == "sent next to nothing for 1 s"


def test_a_mirror_that_is_too_slow_is_given_up(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WINDOW", 0.5)
    monkeypatch.setattr(download, "SLOWEST", 100_000)

    def dawdle(to: Handler, right: bytes) -> None:
        to.reply(b"", length=len(right))
        for at in range(0, len(right), 2_000):
            to.wfile.write(right[at : at + 2_000])
            if to.mirror.closed.wait(0.1):
                return

    slow = mirror(CONTENTS, dawdle)
    events, error = ask(cache, slow.url, mirror(CONTENTS).url)
    reason = "sent fewer than 100,000 bytes a second for 0 s"
    assert failed(events) == [(f"{slow.url}{A.gzip_name}", reason)]
    assert error == ""
    assert_right(cache)


@pytest.mark.parametrize("hangs", [True, False])
def test_a_name_that_is_not_resolved_is_given_up_in_time(
    cache: Path,
    mirror: MakeMirror,
    patience: float,
    released: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    hangs: bool,
) -> None:
    resolve = socket.getaddrinfo

    def stub(host: str, *arguments: object, **options: object) -> object:
        if host != "mnist.invalid":
            return resolve(host, *arguments, **options)  # type: ignore[arg-type]
        released.wait(30 if hangs else 0)
        raise socket.gaierror(socket.EAI_NONAME, "not known")

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    monkeypatch.setenv("no_proxy", "*")
    began = time.monotonic()
    events, error = ask(cache, "http://mnist.invalid/", mirror(CONTENTS).url)
    assert time.monotonic() - began < patience + 2
    unknown = "has a name that cannot be resolved; is there a network?"
    assert [why for _, why in failed(events)] == ["did not answer within 1 s" if hangs else unknown]
    assert error == ""
    assert_right(cache)


def test_a_proxy_of_the_environment_is_used(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://mnist.invalid/digits/"
    reason = f"the proxy does not lead there: {REFUSED}"
    assert failed(ask(cache, url)[0])[0] == (f"{url}a-images.gz", reason)
    proxy = mirror(CONTENTS)
    monkeypatch.setenv("http_proxy", proxy.url)
    assert (done(url), "") == ask(cache, url)
    assert proxy.requests == [f"{url}a-images.gz", f"{url}b-labels.gz"]
    assert_right(cache)
