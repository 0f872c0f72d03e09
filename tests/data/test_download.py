"""Downloads over real HTTP on loopback from good, bad and unreachable mirrors."""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import stat
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnctl.data import mirror as mirrors
from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.data.download import (
    BytesReceived,
    DownloadEvent,
    FileDamaged,
    FileDone,
    FileKept,
    FileStarted,
    MirrorFailed,
    import_files,
    inspect,
)
from nnctl.data.registry import MINI, KnownFile
from nnctl.errors import DataError, UsageError
from nnctl.files import remove_temporaries
from tests.data import mirrors as mirror_tests
from tests.data.conftest import PLANTS, snapshot
from tests.data.mirrors import (
    A_PACKED,
    B_PACKED,
    CONTENTS,
    FAULTS,
    FILES,
    QUICK,
    SLOW,
    A,
    B,
    Handler,
    MakeMirror,
    Prediction,
    ask,
    closed_port,
    contents,
    redirect,
)

REFUSED = os.strerror(errno.ECONNREFUSED)
KEPT = [FileKept("a-images"), FileKept("b-labels")]


@pytest.fixture(autouse=True)
def known_host(monkeypatch: pytest.MonkeyPatch) -> str:
    """The only known mirror: a closed port."""
    host = f"127.0.0.1:{closed_port()}"
    monkeypatch.setattr(mirror_tests, "KNOWN_MIRRORS", [f"http://{host}/known/"])
    monkeypatch.setattr(mirrors, "PATIENCE", 180.0)  # tolerates a busy machine
    return host


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A folder that does not exist yet."""
    return tmp_path / "cache" / "digits"


def done(url: str) -> list[DownloadEvent]:
    """Return the final events of both files if a mirror serves them."""
    return [
        FileDone(file.name, f"{url}{file.gzip_name}", len(CONTENTS[file.gzip_name]))
        for file in FILES
    ]


def results(events: list[DownloadEvent]) -> list[DownloadEvent]:
    """Return the events without progress."""
    return [event for event in events if not isinstance(event, FileStarted | BytesReceived)]


def failed(events: list[DownloadEvent]) -> list[tuple[str, str]]:
    """Return the addresses that failed, and the reasons."""
    return [(event.url, event.reason) for event in events if isinstance(event, MirrorFailed)]


# Good mirrors ------------------------------------------------------------------------------------


def test_files_come_from_the_first_mirror_that_has_them(cache: Path, mirror: MakeMirror) -> None:
    first, second = mirror(CONTENTS), mirror(CONTENTS)
    events, error = ask(cache, first.url.rstrip("/"), second.url)
    assert (results(events), error) == (done(first.url), "")
    started = [event for event in events if isinstance(event, FileStarted)]
    assert started == [FileStarted(f.name, f"{first.url}{f.gzip_name}", f.size) for f in FILES]
    received = [event.count for event in events if isinstance(event, BytesReceived)]
    assert sum(received) == len(A_PACKED) + len(B_PACKED)
    assert contents(cache) == CONTENTS
    assert (first.requests, second.requests) == (["/a-images.gz", "/b-labels.gz"], [])


def test_each_file_is_requested_from_each_mirror_until_one_has_it(
    cache: Path, mirror: MakeMirror
) -> None:
    first, second = mirror({B.gzip_name: B_PACKED}), mirror({A.gzip_name: A_PACKED})
    events, _ = ask(cache, first.url, second.url)
    assert results(events) == [
        MirrorFailed("a-images", f"{first.url}a-images.gz", "answered 404 Not Found"),
        FileDone("a-images", f"{second.url}a-images.gz", len(A_PACKED)),
        FileDone("b-labels", f"{first.url}b-labels.gz", len(B_PACKED)),
    ]
    assert contents(cache) == CONTENTS


def test_a_correct_file_is_not_downloaded_again(cache: Path, mirror: MakeMirror) -> None:
    good = mirror(CONTENTS)
    cache.mkdir(parents=True)
    (cache / A.gzip_name).write_bytes(A_PACKED)
    (cache / B.name).write_bytes(b"the labels")
    before = snapshot(cache)
    assert ask(cache, good.url) == (KEPT, "")
    assert good.requests == []
    assert before == snapshot(cache)


@pytest.mark.parametrize("content", [b"", A_PACKED[:-1], A_PACKED + b"x", b"<html>"])
def test_a_damaged_file_is_reported_and_downloaded_again(
    cache: Path, mirror: MakeMirror, content: bytes
) -> None:
    good = mirror(CONTENTS)
    cache.mkdir(parents=True)
    (cache / A.gzip_name).write_bytes(content)
    (cache / B.gzip_name).write_bytes(B_PACKED)
    assert [inspect(cache, file) for file in FILES] == ["damaged", "right"]
    damaged = FileDamaged("a-images", cache / A.gzip_name)
    events, _ = ask(cache, good.url)
    assert results(events) == [damaged, FileKept("b-labels"), done(good.url)[0]]
    assert contents(cache) == CONTENTS


def test_a_damaged_uncompressed_file_is_reported_with_its_own_path(
    cache: Path, mirror: MakeMirror
) -> None:
    cache.mkdir(parents=True)
    (cache / A.name).write_bytes(b"damaged")
    assert FileDamaged("a-images", cache / A.name) in ask(cache, mirror(CONTENTS).url)[0]


def test_force_downloads_correct_files_too_and_keeps_them_until_all_are_received(
    cache: Path, mirror: MakeMirror
) -> None:
    good = mirror(CONTENTS)
    ask(cache, good.url)
    events, error = ask(cache, good.url, force=True)
    assert (results(events), error) == (done(good.url), "")
    assert len(good.requests) == 4
    before = snapshot(cache)
    events, error = ask(cache, mirror({A.gzip_name: A_PACKED}).url, force=True)
    assert [type(event) for event in results(events)] == [FileDone, MirrorFailed, MirrorFailed]
    assert error.startswith("no mirror served b-labels.gz")
    assert before == snapshot(cache)


def test_the_declared_encoding_of_a_file_does_not_matter(cache: Path, mirror: MakeMirror) -> None:
    encoding = mirror(CONTENTS, lambda to, right: to.reply(right, Content_Encoding="gzip"))
    events, error = ask(cache, encoding.url)
    assert (results(events), error) == (done(encoding.url), "")
    assert contents(cache) == CONTENTS


def test_the_proxy_of_the_environment_is_used(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://mnist.invalid/digits/"
    reason = f"cannot be reached through the proxy: {REFUSED}"
    assert failed(ask(cache, url)[0])[0] == (f"{url}a-images.gz", reason)
    proxy = mirror(CONTENTS)
    monkeypatch.setenv("http_proxy", proxy.url)
    events, error = ask(cache, url)
    assert (results(events), error) == (done(url), "")
    assert proxy.requests == [f"{url}a-images.gz", f"{url}b-labels.gz"]
    assert contents(cache) == CONTENTS


# Bad mirrors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_the_fault_of_a_mirror_is_reported_and_the_next_one_is_tried(
    cache: Path, mirror: MakeMirror, name: str
) -> None:
    bad, good = mirror(CONTENTS, FAULTS[name].answer), mirror(CONTENTS)
    events, error = ask(cache, bad.url, good.url)
    assert (contents(cache), error) == (CONTENTS, "")
    failures = failed(events)
    assert failures[0][0] == f"{bad.url}a-images.gz"
    for url, reason in failures:
        assert url.startswith(bad.url)
        assert re.fullmatch(FAULTS[name].reason, reason), reason
        assert reason.isprintable()


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        (f"sent only 6 of {len(A_PACKED):,} bytes", lambda to, _: to.reply(b"<html>")),
        (
            f"closed the connection after {len(A_PACKED) - 9:,} bytes",
            lambda to, right: to.reply(right[:-9], length=len(right)),
        ),
        ("answered 404 Not Found", lambda to, _: to.send_error(404, "\x1b[31m")),
        ("redirects to ftp://x/" + 179 * "x", redirect(b"ftp://x/" + 300 * b"x")),
        (
            "redirects to ftp://x/?, which is not an http:// or https:// URL",
            redirect(b"ftp://x/\x9b"),
        ),
    ],
    ids=["only", "cut", "colored", "long", "control"],
)
def test_a_reason_has_the_numbers_of_bytes_and_no_more_than_200_printable_characters(
    cache: Path, mirror: MakeMirror, reason: str, answer: Prediction
) -> None:
    assert failed(ask(cache, mirror(CONTENTS, answer).url)[0])[0][1] == reason


def test_an_unreachable_mirror_is_not_tried_again(cache: Path, mirror: MakeMirror) -> None:
    dead, cutting = (
        f"http://127.0.0.1:{closed_port()}/",
        mirror(CONTENTS, FAULTS["closed at once"].answer),
    )
    events, error = ask(cache, dead, cutting.url, mirror(CONTENTS).url)
    (first, why), (second, other) = failed(events)
    assert (first, why) == (f"{dead}a-images.gz", f"cannot be reached: {REFUSED}")
    assert second == f"{cutting.url}a-images.gz"
    assert re.fullmatch(FAULTS["closed at once"].reason, other)
    assert len(cutting.requests) == 1
    assert (contents(cache), error) == (CONTENTS, "")


def test_a_bad_mirror_that_answers_is_tried_for_the_next_file_too(
    cache: Path, mirror: MakeMirror
) -> None:
    bad = mirror(CONTENTS, FAULTS["one bit flipped"].answer)
    ask(cache, bad.url, mirror(CONTENTS).url)
    assert bad.requests == ["/a-images.gz", "/b-labels.gz"]


def test_the_reasons_of_all_mirrors_are_reported_if_none_serves_a_file(
    cache: Path, mirror: MakeMirror, known_host: str
) -> None:
    bad = mirror({A.gzip_name: A_PACKED})
    _, error = ask(cache, bad.url)
    assert error.splitlines() == [
        "no mirror served b-labels.gz:",
        f"  {bad.url}b-labels.gz answered 404 Not Found",
        f"  http://{known_host}/known/b-labels.gz cannot be reached: {REFUSED}",
    ]
    assert {path.name for path in cache.iterdir()} == {A.gzip_name}


@pytest.mark.parametrize(
    "url",
    [
        "ftp://x/",
        "nonsense",
        "",
        "http://",
        "file:///tmp",
        "http:x",
        "http://x:99999/",
        "http://[::1",
    ],
)
def test_an_address_that_is_not_a_mirror_is_a_usage_error(cache: Path, url: str) -> None:
    with pytest.raises(UsageError, match=re.escape(f"not '{url}'")):
        ask(cache, url)
    assert not cache.exists()


def test_a_mirror_without_tls_is_not_tried_over_plain_http(cache: Path, mirror: MakeMirror) -> None:
    good = mirror(CONTENTS)
    [(_, reason), *_] = failed(ask(cache, good.url.replace("http:", "https:"))[0])
    assert re.match("failed the TLS check: (?i:.*wrong.version)", reason)
    assert good.requests == []


def test_a_self_signed_certificate_is_rejected_directly_and_after_a_redirect(
    cache: Path, mirror: MakeMirror
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(Path(__file__).with_name("self_signed.pem"))
    secure, plain = mirror(CONTENTS, secure=context), mirror(CONTENTS)
    elsewhere = mirror(CONTENTS, redirect(f"{secure.url}{A.gzip_name}".encode()))
    events, error = ask(cache, secure.url, elsewhere.url, plain.url)
    urls = [url for url, _ in failed(events)]
    assert urls == [f"{url}{A.gzip_name}" for url in (secure.url, elsewhere.url)]
    for _, reason in failed(events):
        assert re.match("failed the TLS check: .*self.signed", reason)
    assert (contents(cache), error) == (CONTENTS, "")


# Slow mirrors ------------------------------------------------------------------------------------


@pytest.fixture
def swallowing() -> Iterator[str]:
    """An address that never accepts a connection, because its queue is full."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        for client in waiting:
            client.close()


def test_a_mirror_that_stalls_is_abandoned_and_the_next_one_is_tried(
    cache: Path, mirror: MakeMirror, swallowing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "PATIENCE", 9.0)  # 3 s for each mirror, all cases at once
    monkeypatch.setattr(mirrors, "GRACE", 4.0)
    released, resolve = threading.Event(), socket.getaddrinfo

    def hang(host: str, *arguments: Any, **options: Any) -> object:
        if host == "mnist.invalid":
            released.wait(60)
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    monkeypatch.setenv("no_proxy", "*")
    silent, good = FAULTS["stalls before the headers"].reason, mirror(CONTENTS).url
    cases = {
        name: (mirror(CONTENTS, FAULTS[name].answer).url, FAULTS[name].reason) for name in SLOW
    }
    cases["is not resolved"] = ("http://mnist.invalid/", silent)
    if sys.platform == "linux":  # Linux drops packets that do not fit the queue
        cases["swallows packets"] = (swallowing, silent)
    with ThreadPoolExecutor(len(cases)) as pool:
        futures = {
            name: pool.submit(ask, cache / name, url, good) for name, (url, _) in cases.items()
        }
    released.set()
    for name, (url, expected) in cases.items():
        events, error = futures[name].result()
        [(address, reason)] = failed(events)
        assert address == f"{url}{A.gzip_name}"
        assert re.fullmatch(expected, reason), (name, reason)
        assert (contents(cache / name), error) == (CONTENTS, ""), name


def test_a_name_that_cannot_be_resolved_is_reported(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo

    def fail(host: str, *arguments: Any, **options: Any) -> object:
        if host == "mnist.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setenv("no_proxy", "*")
    events, error = ask(cache, "http://mnist.invalid/", mirror(CONTENTS).url)
    unknown = "has a host name that cannot be resolved; are you online?"
    assert [why for _, why in failed(events)] == [unknown]
    assert (contents(cache), error) == (CONTENTS, "")


class Ticks(threading.Event):
    """A fake end of a download: bytes arrive at each tick of 0.1 s, until it ends."""

    def __init__(self, started: mirrors.Download, counts: list[int]) -> None:
        super().__init__()
        self._started, self._counts = started, counts

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout == 0.1
        if not self._counts:
            return True
        self._started.received += self._counts.pop(0)
        return False


def wait(counts: list[int], patience: float = 1e6) -> int:
    """Wait for a download with these numbers of bytes per tick; return the reported sum."""
    reported: list[int] = []
    started = mirrors.Download(10**10, patience, reported.append)
    started.ended = Ticks(started, counts)
    started.wait()
    return sum(reported)


TICKS = round(10 * mirrors.GRACE) + 2  # the floating-point sum of tenths is not exact
FAST, SLOWER = round(mirrors.SLOWEST / 10), round(mirrors.SLOWEST / 20)


@pytest.mark.parametrize(
    ("is_too_slow", "counts"),
    [
        (False, 3 * TICKS * [FAST]),
        (False, [FAST * TICKS, *(2 * TICKS - 9) * [0]]),
        (False, (TICKS - 4) * [1]),
        (True, 2 * TICKS * [1]),
        (True, [*TICKS * [FAST], *3 * TICKS * [SLOWER]]),
    ],
    ids=["just fast enough", "pauses", "not for long", "too slow", "too slow later"],
)
def test_a_mirror_is_abandoned_if_its_average_rate_is_below_the_limit(
    is_too_slow: bool, counts: list[int]
) -> None:
    if is_too_slow:
        with pytest.raises(
            mirrors.UnreachableError, match="sent fewer than 8,000 bytes per second"
        ):
            wait(counts)
    else:
        assert wait(list(counts)) == sum(counts)


def test_a_mirror_that_sends_nothing_is_abandoned_after_its_patience() -> None:
    assert wait([1, *19 * [0]], patience=2.0) == 1
    with pytest.raises(mirrors.UnreachableError, match="did not answer within 2 s"):
        wait([1, *21 * [0]], patience=2.0)


def test_mirrors_share_the_patience(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[float] = []

    def retrieve(_: str, __: KnownFile, folder: Path, patience: float, ___: object) -> Path:
        seen.append(patience)
        (folder / "file").write_bytes(A_PACKED)
        return folder / "file"

    monkeypatch.setattr(mirrors, "PATIENCE", 6.0)
    monkeypatch.setattr(mirrors, "retrieve", retrieve)
    ask(cache, "http://x/", "http://y/", "http://x/", files=[A])
    assert seen == [2.0]


def test_a_mirror_that_is_too_slow_is_abandoned_for_all_files(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrors, "GRACE", 0.0)

    def stop(to: Handler, right: bytes) -> None:
        to.reply(right[:1000], length=len(right))
        to.mirror.closed.wait(60)

    slow = mirror(CONTENTS, stop)
    events, error = ask(cache, slow.url)
    reason = "sent fewer than 8,000 bytes per second"
    assert failed(events)[0] == (f"{slow.url}{A.gzip_name}", reason)
    assert slow.url.split("/")[2] in error
    assert slow.requests == [f"/{A.gzip_name}"]


# Caches ------------------------------------------------------------------------------------------


def test_a_read_only_folder_is_reported_before_anything_is_downloaded(
    cache: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda _, mode: mode != os.W_OK)  # root may write anywhere
    good = mirror(CONTENTS)
    expected = f"{cache} cannot be written: {os.strerror(errno.EACCES)}"
    for force in (False, True):
        assert expected == ask(cache, good.url, force=force)[1]
    assert good.requests == []
    with pytest.raises(DataError, match=re.escape(expected)):
        import_files(cache, MINI_DIRECTORY, MINI)
    assert contents(cache) == {}


def test_a_folder_that_cannot_be_created_is_a_data_error(
    tmp_path: Path, mirror: MakeMirror
) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "digits"
    assert f"{folder} cannot be written: " in ask(folder, mirror(CONTENTS).url)[1]
    with pytest.raises(DataError, match="cannot be written"):
        import_files(folder, MINI_DIRECTORY, MINI)


def test_a_name_that_is_too_long_is_a_data_error(tmp_path: Path) -> None:
    error = ask(tmp_path / ("x" * 5000))[1]
    assert re.search(r"x/a-images\.gz cannot be (read|written): ", error)


def test_temporary_files_of_a_killed_process_are_removed_and_no_others(
    cache: Path, mirror: MakeMirror
) -> None:
    good = mirror(CONTENTS)
    ours, other = cache / f".{A.gzip_name}.0123abcd.nnctl-tmp", cache / ".nnctl-tmp.0123abcd"
    cache.mkdir(parents=True)
    for expected in ([FileDone, FileDone], [FileKept, FileKept]):
        ours.touch()
        other.touch()
        assert [type(event) for event in results(ask(cache, good.url)[0])] == expected
        assert contents(cache) == {**CONTENTS, other.name: b""}


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
    events, error = ask(cache, url)
    assert (results(events), error) == (done(url), "")
    assert len(removed) == 1
    assert contents(cache) == CONTENTS


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other links and no such pipes")
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("force", [False, True])
def test_no_write_follows_a_link_planted_in_a_cache(
    tmp_path: Path,
    cache: Path,
    mirror: MakeMirror,
    plant: Callable[[Path, Path], object],
    force: bool,
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"precious")
    before = snapshot(victim)
    cache.mkdir(parents=True)
    for file in FILES:
        plant(cache / file.gzip_name, victim)
    assert ask(cache, mirror(CONTENTS).url, force=force)[1] == ""
    assert before == snapshot(victim)
    assert contents(cache) == CONTENTS
    assert all(stat.S_ISREG((cache / name).lstat().st_mode) for name in CONTENTS)


def test_a_folder_with_the_name_of_a_file_is_reported_and_kept(
    cache: Path, mirror: MakeMirror
) -> None:
    kept = cache / A.gzip_name / "precious"
    kept.parent.mkdir(parents=True)
    kept.touch()
    assert ask(cache, mirror(CONTENTS).url)[1].startswith(f"{cache} cannot be written: ")
    assert [kept.parent] == [*cache.iterdir()]
    assert [kept] == [*kept.parent.iterdir()]
