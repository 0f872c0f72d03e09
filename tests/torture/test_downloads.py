"""Downloads from hostile mirrors, into hostile caches, killed and interrupted at any moment."""

from __future__ import annotations

import contextlib
import gzip
import os
import random
import re
import secrets
import shutil
import signal
import ssl
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from nnctl.cli import main
from nnctl.data import decoded, download, idx
from nnctl.data.download import DownloadEvent, MirrorFailed, fetch
from nnctl.data.registry import MNIST, KnownFile
from nnctl.errors import DataError
from tests.conftest import Nnctl, nnctl_command
from tests.data.conftest import (
    Handler,
    MakeMirror,
    keep_to_loopback,
    known_file,
    mirrors,
    snapshot,
)
from tests.torture.conftest import Torture
from tests.torture.hostile_mirrors import FAULTS, SLOW, Fault, bomb, cut_after, redirect, send

A, A_PACKED = known_file("a-images", random.Random(0).randbytes(40_000))
B, B_PACKED = known_file("b-labels", b"the labels")
FILES = (A, B)
CONTENTS = {A.gzip_name: A_PACKED, B.gzip_name: B_PACKED}
NAMES = [file.gzip_name for file in MNIST.values()]
QUICK = [name for name, fault in FAULTS.items() if not fault.slow]
SLOW_ONES = [name for name in FAULTS if name not in QUICK]

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals, pipes and modes")


@pytest.fixture(scope="module", autouse=True)
def _bombs() -> None:
    """Make them before anybody waits for them."""
    bomb(3)


@pytest.fixture(autouse=True)
def _only_good_mirrors_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to_loopback(monkeypatch)
    monkeypatch.setattr(download, "MIRRORS", ())


@pytest.fixture
def mnist(mnist_folder: Path) -> dict[str, bytes]:
    """MNIST's four files, as a mirror serves them."""
    return {name: (mnist_folder / name).read_bytes() for name in NAMES}


@pytest.fixture
def mirror() -> Iterator[MakeMirror]:
    """Start mirrors."""
    with mirrors() as start:
        yield start


@contextlib.contextmanager
def patience(names: Sequence[str]) -> Iterator[None]:
    """Wait long for each mirror, on a busy machine, unless one of these faults is a long wait."""
    seconds = 3 if any(FAULTS[name].slow for name in names) else 60
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(download, "PATIENCE", seconds * (len(names) + 1))
        yield


def ask(
    cache: Path, *urls: str, files: Sequence[KnownFile] = FILES
) -> tuple[list[MirrorFailed], str]:
    """Fetch files; return what failed, and the error if there was one."""
    events: list[DownloadEvent] = []
    error = ""
    try:
        fetch(cache, files, mirrors=urls, notify=events.append)
    except DataError as caught:
        error = caught.message
    return [event for event in events if isinstance(event, MirrorFailed)], error


def contents(folder: Path) -> dict[str, bytes]:
    """Return all that is in a folder, hidden or not."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# Mirrors that fail, lie, dawdle and attack --------------------------------------------------------


def test_whatever_a_mirror_does_is_told_and_the_next_one_serves(
    tmp_path: Path, torture: Torture
) -> None:
    names = list(FAULTS) if torture.full else QUICK
    for name in names:
        with mirrors() as start, patience([name]):
            bad, good = start(CONTENTS, FAULTS[name].answer), start(CONTENTS)
            failed, error = ask(tmp_path / name, bad.url, good.url)
        torture.tried("faults of one mirror before a good one")
        assert error == "", name
        assert contents(tmp_path / name) == CONTENTS
        assert failed, name
        for failure in failed:
            assert failure.url.startswith(bad.url)
            assert re.fullmatch(FAULTS[name].told, failure.reason), (name, failure.reason)
            assert failure.reason.isprintable()


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", ["length", "chunked", "nothing"])
def test_a_connection_may_be_cut_after_any_number_of_bytes(
    tmp_path: Path, mnist: dict[str, bytes], torture: Torture, kind: str, reset: bool
) -> None:
    [file] = [file for file in MNIST.values() if file.gzip_name == NAMES[torture.full - 1]]
    right = mnist[file.gzip_name]
    powers = [2**n for n in range(len(right).bit_length())]
    for count in powers if torture.full else powers[::4]:
        with mirrors() as start, patience([]):
            bad = start(mnist, cut_after(count, kind=kind, reset=reset))
            failed, error = ask(tmp_path / str(count), bad.url, start(mnist).url, files=[file])
        torture.tried("connections cut after a power of two of bytes")
        assert (error, {file.gzip_name: right}) == ("", contents(tmp_path / str(count)))
        assert [failure.url for failure in failed] == [f"{bad.url}{file.gzip_name}"]
        assert re.fullmatch("(cut the|sent only|cannot be reached).*", failed[0].reason)
        shutil.rmtree(tmp_path / str(count))


@pytest.mark.parametrize("rescued", [True, False])
def test_of_any_mirrors_in_any_order_the_good_one_serves_or_all_are_told(
    tmp_path: Path, torture: Torture, rescued: bool
) -> None:
    rng = torture.random("sequences", rescued)
    for case in range(torture.cases(6, full=160)):
        names = rng.choices(QUICK, k=rng.randint(1, 6))
        if case % 20 == 19:
            names[rng.randrange(len(names))] = rng.choice(SLOW_ONES)
        cache = tmp_path / str(case)
        with mirrors() as start, patience(names):
            bad = [start(CONTENTS, FAULTS[name].answer) for name in names]
            good = [start(CONTENTS)] if rescued else []
            failed, error = ask(cache, *(each.url for each in bad + good))
        torture.tried(f"sequences of faults {'and then a good mirror' if rescued else 'alone'}")
        told = [failure for failure in failed if A.gzip_name in failure.url]
        assert [f"{each.url}{A.gzip_name}" for each in bad] == [each.url for each in told], names
        for name, failure in zip(names, told, strict=True):
            assert re.fullmatch(FAULTS[name].told, failure.reason), (name, failure.reason)
        if rescued:
            assert (error, CONTENTS) == ("", contents(cache)), names
        else:
            assert contents(cache) == {}, names
            lines = [f"  {each.url.split('/')[2]} {each.reason}" for each in told]
            assert [f"no mirror served {A.gzip_name}:", *lines] == error.splitlines()


def test_a_mirror_that_is_too_slow_is_given_up_and_an_honest_slow_line_is_not(
    tmp_path: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, torture: Torture
) -> None:
    monkeypatch.setattr(download, "WINDOW", 1.0)

    def at(rate: float, pause: float) -> Callable[[Handler, bytes], None]:
        def answer(to: Handler, right: bytes) -> None:
            to.reply(b"", length=len(right))
            size = int(rate * pause)
            send(to, (right[at : at + size] for at in range(0, len(right), size)), pause)

        return answer

    for pause in (0.05, 0.5) if torture.full else (0.5,):
        torture.tried("lines of 20 kB/s, and of 4 kB/s")
        honest = mirror(CONTENTS, at(20_000, pause))
        assert ask(tmp_path / f"honest {pause}", honest.url) == ([], "")
        slow = mirror(CONTENTS, at(download.SLOWEST / 2, pause))
        failed, error = ask(tmp_path / f"slow {pause}", slow.url, mirror(CONTENTS).url)
        assert re.fullmatch(SLOW, failed[0].reason), failed
        assert error == ""


def test_the_limits_that_ship_end_a_stall_and_a_drip(
    nnctl: Nnctl, mirror: MakeMirror, mnist: dict[str, bytes], torture: Torture
) -> None:
    if not torture.full:
        pytest.skip("waits as long as a user would; make torture does")
    names = ["stalls before the headers", "stalls in the body", "drips bytes"]
    slow = [mirror(mnist, FAULTS[name].answer).url for name in names]
    options = [word for url in [*slow, mirror(mnist).url] for word in ("--mirror", url)]
    told = nnctl("download", *options).stderr
    torture.tried("stalls and drips with the limits that ship", len(slow))
    assert slow == [line.split(NAMES[0])[0] for line in told.splitlines()[: len(slow)]]


@posix
def test_no_mirror_makes_a_download_need_memory(
    tmp_path: Path, mnist: dict[str, bytes], torture: Torture
) -> None:
    def megabytes(fault: Fault | None) -> float:
        with mirrors() as start:
            bad = [start(mnist, fault.answer)] if fault else []
            urls = [each.url for each in [*bad, start(mnist)]]
            cache = tmp_path / "cache" / secrets.token_hex(4)
            process = subprocess.Popen(
                nnctl_command("download", "--quiet", "--data-dir", cache),
                env={**os.environ, "NNCTL_MIRROR": " ".join(urls)},
                stdout=subprocess.DEVNULL,
            )
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        return usage.ru_maxrss / 2 ** (20 if sys.platform == "darwin" else 10)

    usual = megabytes(None)
    attacks = [name for name in FAULTS if re.search("endless|bomb|beyond", name)]
    for name in attacks if torture.full else ["an endless line of a chunk"]:
        torture.tried("attacks on memory")
        assert megabytes(FAULTS[name]) < usual + 40, name


@pytest.fixture(scope="session")
def self_signed(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """The TLS of a server whose certificate nobody but itself has signed."""
    if not (openssl := shutil.which("openssl")):
        pytest.skip("needs openssl to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        [openssl, *f"req -x509 -newkey rsa:2048 -nodes -keyout {key} -out {certificate}".split()],
        input="\n" * 20,
        text=True,
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def test_tls_that_does_not_verify_is_no_mirror(
    tmp_path: Path, mirror: MakeMirror, self_signed: ssl.SSLContext, torture: Torture
) -> None:
    plain = mirror(CONTENTS)
    secure = mirror(CONTENTS, secure=self_signed)
    elsewhere = mirror(CONTENTS, redirect(f"{secure.url}{A.gzip_name}".encode()))
    urls = [secure.url, elsewhere.url, plain.url.replace("http:", "https:")]
    failed, error = ask(tmp_path / "cache", *urls, plain.url)
    torture.tried("mirrors without TLS that verifies", len(urls))
    assert [f"{url}{A.gzip_name}" for url in urls] == [failure.url for failure in failed]
    causes = ("self.signed", "self.signed", "(?i:wrong.version)")
    for failure, cause in zip(failed, causes, strict=True):
        assert re.match(f"is not who it should be, or not safe: .*{cause}", failure.reason)
    assert (error, CONTENTS) == ("", contents(tmp_path / "cache"))


# Many processes, killed and interrupted -----------------------------------------------------------


def start_download(url: str, data_dir: Path) -> subprocess.Popen[str]:
    """Start the real command, alone in its group."""
    return subprocess.Popen(
        nnctl_command("download", "--mirror", url, "--data-dir", data_dir),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def slowly(to: Handler, right: bytes) -> None:
    """Send a file in eight pieces, within a quarter of a second."""
    to.reply(b"", length=len(right))
    size = len(right) // 8 + 1
    send(to, (right[at : at + size] for at in range(0, len(right), size)), 0.03)


def test_processes_at_once_of_which_some_are_killed_leave_four_right_files(
    nnctl: Nnctl, mnist: dict[str, bytes], tmp_path: Path, torture: Torture
) -> None:
    for case in range(torture.cases(1, full=3)):
        rng = torture.random("killed", case)
        cache = tmp_path / str(case)
        with mirrors() as start:
            good = start(mnist, slowly)
            processes = [start_download(good.url, cache) for _ in range(torture.cases(4, full=16))]
            killed = rng.sample(processes, len(processes) // 2)
            while not good.requests:
                time.sleep(0.01)
            for process in killed:
                time.sleep(rng.uniform(0, 0.3))
                process.kill()
            for process in processes:
                _, stderr = process.communicate(timeout=120)
                assert process.returncode == 0 or process in killed, stderr
                assert "Traceback" not in stderr
            torture.tried("processes at one cache, half of them killed", len(processes))
            assert mnist == {name: (cache / "mnist" / name).read_bytes() for name in NAMES}
            nnctl("download", "--mirror", good.url, "--data-dir", cache)
        assert mnist == contents(cache / "mnist")
        shutil.rmtree(cache)


def test_what_was_being_written_by_a_process_that_was_killed_is_removed(
    nnctl: Nnctl, mnist: dict[str, bytes], tmp_path: Path, torture: Torture
) -> None:
    left = 0
    for case in range(torture.cases(1, full=12)):
        cache = tmp_path / str(case) / "mnist"
        with mirrors() as start:
            good = start(mnist)
            process = start_download(good.url, cache.parent)
            while process.poll() is None and not [*cache.glob(".*")]:
                pass
            process.kill()
            process.communicate()
            left += bool([*cache.glob(".*")])
            before = {name for name in NAMES if (cache / name).exists()}
            asked = len(good.requests)
            torture.tried("processes killed while they write")
            assert all(mnist[name] == (cache / name).read_bytes() for name in before)
            nnctl("download", "--mirror", good.url, "--data-dir", cache.parent)
        assert mnist == contents(cache)
        assert len(NAMES) - len(before) == len(good.requests) - asked
        shutil.rmtree(cache)
    torture.tried("temporary files that they left", left)


@posix
@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_a_download_that_is_interrupted_ends_in_130_and_leaves_no_temporary_file(
    mnist: dict[str, bytes], tmp_path: Path, torture: Torture, number: str
) -> None:
    rng = torture.random("interrupted", number)
    for case in range(torture.cases(1, full=25)):
        cache = tmp_path / str(case)
        with mirrors() as start:
            good = start(mnist, slowly)
            process = start_download(good.url, cache)
            while not good.requests:
                assert process.poll() is None
                time.sleep(0.005)
            time.sleep(rng.uniform(0, 1.2))
            process.send_signal(getattr(signal, number))
            stdout, stderr = process.communicate(timeout=30)
        torture.tried(f"downloads interrupted by {number}")
        assert "Traceback" not in stderr, stderr
        if process.returncode == 0:
            assert stdout.startswith("MNIST is in")
        else:
            assert process.returncode == 130, (process.returncode, stderr)
            assert stderr.endswith("Error: interrupted\n")
            torture.tried("of which were not done yet")
        for name, content in contents(cache / "mnist").items():
            assert mnist[name] == content
        shutil.rmtree(cache)


# Caches -------------------------------------------------------------------------------------------


def without_rights(command: list[str]) -> list[str]:
    """Return a command that may write only where the modes of files let it, even for root."""
    if sys.platform == "win32" or os.geteuid():
        return command
    if not (setpriv := shutil.which("setpriv")):
        pytest.skip("root may write everywhere, and there is no setpriv")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--", *command]


@posix
def test_a_read_only_cache_is_told_before_anything_is_fetched(
    mirror: MakeMirror, mnist_folder: Path, tmp_path: Path, torture: Torture
) -> None:
    good = mirror({})
    ways: list[list[object]] = [
        ["--mirror", good.url],
        ["--force", "--mirror", good.url],
        ["--from", mnist_folder],
    ]
    for number, options in enumerate(ways if torture.full else ways[:1]):
        for made in ("data", "data/mnist"):
            locked = tmp_path / str(number) / made
            locked.mkdir(parents=True, exist_ok=True)
            locked.chmod(0o555)
            cache = tmp_path / str(number) / "data"
            done = subprocess.run(
                without_rights(nnctl_command("download", "--data-dir", cache, *options)),
                capture_output=True,
                encoding="utf-8",
                check=False,
            )
            locked.chmod(0o755)
            torture.tried("read-only caches")
            assert done.returncode == 3, done.stderr
            assert f"{cache / 'mnist'} cannot be written: Permission denied" in done.stderr
            assert "--data-dir" in done.stderr
            assert good.requests == []


@posix
def test_a_cache_that_gets_full_keeps_what_is_right_and_no_part_of_the_rest(
    mirror: MakeMirror, mnist: dict[str, bytes], tmp_path: Path, torture: Torture
) -> None:
    import resource

    good = mirror(mnist)
    rng = torture.random("full")
    for case in range(torture.cases(1, full=12)):
        limit = int(2 ** rng.uniform(0, 23))
        cache = tmp_path / str(case)
        done = subprocess.run(
            nnctl_command("download", "--mirror", good.url, "--data-dir", cache, "--quiet"),
            preexec_fn=lambda limit=limit: resource.setrlimit(  # type: ignore[misc]
                resource.RLIMIT_FSIZE, (limit, limit)
            ),
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        torture.tried("caches that get full")
        assert done.returncode == 3, done.stderr
        assert f"{cache / 'mnist'} cannot be written: File too large" in done.stderr
        assert "Traceback" not in done.stderr
        fitting = {}
        for name in NAMES:
            if len(mnist[name]) > limit:
                break
            fitting[name] = mnist[name]
        assert fitting == contents(cache / "mnist")


PLANTS = {
    "a link to a file": lambda path, victim: path.symlink_to(victim / "file"),
    "a link to a folder": lambda path, victim: path.symlink_to(victim),
    "a link to nothing": lambda path, victim: path.symlink_to(victim / "new"),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a second name of a file": lambda path, victim: path.hardlink_to(victim / "file"),
    "a pipe": lambda path, _: os.mkfifo(path),
}


@posix
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_written_through_what_was_planted_in_a_cache(
    tmp_path: Path,
    mirror: MakeMirror,
    torture: Torture,
    plant: Callable[[Path, Path], object],
    force: bool,
) -> None:
    victim, cache = tmp_path / "victim", tmp_path / "cache"
    victim.mkdir()
    cache.mkdir()
    (victim / "file").write_bytes(b"precious")
    before = snapshot(victim)
    for file in FILES:
        plant(cache / file.gzip_name, victim)
    fetch(cache, FILES, mirrors=[mirror(CONTENTS).url], notify=lambda _: None, force=force)
    torture.tried("links and pipes planted in a cache", len(FILES))
    assert before == snapshot(victim)
    assert contents(cache) == CONTENTS
    assert all(stat.S_ISREG((cache / name).lstat().st_mode) for name in CONTENTS)


@posix
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_nothing_is_written_through_what_was_planted_for_uncompressed_copies(
    tmp_path: Path, torture: Torture, plant: Callable[[Path, Path], object]
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5400, 28, 28), np.uint8)
    source, victim = tmp_path / "images.gz", tmp_path / "victim"
    source.write_bytes(gzip.compress(idx.header(images.shape) + images.tobytes(), 1))
    victim.mkdir()
    (victim / "file").write_bytes(b"precious")
    before = snapshot(victim)
    copy = tmp_path / "uncompressed" / "x.idx"
    copy.parent.mkdir()
    plant(copy, victim)
    np.testing.assert_array_equal(images, decoded.read(source, copy, 3))
    torture.tried("links and pipes planted for uncompressed copies")
    assert before == snapshot(victim)
    assert [copy.name] == [path.name for path in copy.parent.iterdir()]
    assert stat.S_ISREG(copy.lstat().st_mode)


def test_a_folder_in_the_place_of_a_file_is_told_and_kept(
    tmp_path: Path, mirror: MakeMirror, torture: Torture
) -> None:
    kept = tmp_path / "cache" / A.gzip_name / "precious"
    kept.parent.mkdir(parents=True)
    kept.touch()
    _, error = ask(tmp_path / "cache", mirror(CONTENTS).url)
    torture.tried("folders in the place of a file")
    assert error.startswith(f"{tmp_path / 'cache'} cannot be written: ")
    assert [kept.parent] == [*(tmp_path / "cache").iterdir()]
    assert [kept] == [*kept.parent.iterdir()]


@posix
def test_a_temporary_file_is_new_has_a_name_of_its_own_and_is_nobody_else_s_to_write(
    tmp_path: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, torture: Torture
) -> None:
    seen: list[tuple[str, int]] = []
    sync = os.fsync

    def look(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            [path] = tmp_path.glob("*/.*")
            seen.append((path.name, stat.S_IMODE(path.stat().st_mode)))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    good = mirror(CONTENTS)
    for case in range(torture.cases(5, full=100)):
        assert ask(tmp_path / str(case), good.url) == ([], "")
        torture.tried("temporary files looked at", 2)
    assert len(seen) == len({name for name, _ in seen}) == 2 * (case + 1)
    assert [oct(mode) for _, mode in seen if mode & 0o022] == []


@posix
def test_a_link_where_a_temporary_file_will_be_is_not_followed(
    tmp_path: Path, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, torture: Torture
) -> None:
    monkeypatch.setattr(secrets, "token_hex", lambda _: "known")
    (tmp_path / "victim").write_bytes(b"precious")
    cache = tmp_path / "cache"

    def plant(to: Handler, right: bytes) -> None:
        name = f".{A.gzip_name}.known.nnctl-tmp"
        (cache / name).symlink_to(tmp_path / "victim")
        to.reply(right)

    _, error = ask(cache, mirror(CONTENTS, plant).url)
    torture.tried("links in the place of a temporary file")
    assert error == f"{cache} cannot be written: File exists"
    assert (tmp_path / "victim").read_bytes() == b"precious"


# Garbage in the environment -----------------------------------------------------------------------


@given(
    st.one_of(st.text(), st.from_regex(r"https?:/?/?\S*", fullmatch=True)).filter(
        lambda text: "\0" not in text and text.isprintable()
    )
)
def test_any_text_in_the_environment_is_mirrors_or_a_usage_error(
    torture: Torture, text: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, patience([]):
        patch.setattr(download, "MIRRORS", ("http://127.0.0.1:9/",))
        done = CliRunner().invoke(main, ["download"], env={"NNCTL_MIRROR": text})
    torture.tried("texts as NNCTL_MIRROR")
    told = {
        2: "Error: a mirror must be an http:// or https:// address, not ",
        3: f"Error: no mirror served {NAMES[0]}:",
    }
    assert done.exit_code in told, (done.exit_code, done.output)
    assert told[done.exit_code] in done.output


GARBAGE = [
    *(
        "http://",
        "://",
        "http:/127.0.0.1",
        "[",
        "http://[::1",
        "http://]/",
        "?",
        "%",
        "*",
        ",,",
        "0",
    ),
    *("127.0.0.1:99999", "http://127.0.0.1:-1", "http://127.0.0.1:x", "http://127.0.0.1:0/"),
    *("file:///etc/hosts", "ftp://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"),
    *("http://user:pa@ss@127.0.0.1:9", "http://:@127.0.0.1:9", "https://127.0.0.1:9", "\x1b[31m"),
    *("ü.invalid", "http://xn--.invalid", f"http://{'a' * 300}.invalid", "127.0.0.1:9" * 500),
]


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "no_proxy"])
def test_garbage_in_the_variables_of_proxies_is_told_with_the_address(
    tmp_path: Path,
    mirror: MakeMirror,
    monkeypatch: pytest.MonkeyPatch,
    torture: Torture,
    variable: str,
) -> None:
    url = mirror(CONTENTS).url
    if variable != "no_proxy":
        monkeypatch.delenv("no_proxy")
    if variable == "all_proxy":
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name)
    for number, text in enumerate(GARBAGE[:: 1 if torture.full else 4]):
        cache = tmp_path / str(number)
        monkeypatch.setenv(variable, text)
        with patience([]):
            failed, error = ask(cache, url)
        torture.tried("garbage in the variables of proxies")
        if error:
            assert [f"{url}{A.gzip_name}"] == [failure.url for failure in failed], text
            assert failed[0].reason.isprintable()
            assert contents(cache) == {}
        else:
            assert contents(cache) == CONTENTS
