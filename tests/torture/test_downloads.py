"""Downloads from random sequences of bad mirrors, with attacks, kills and interrupts."""

from __future__ import annotations

import errno
import os
import random
import re
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nnctl.data.mirror
from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.data.download import MirrorFailed
from nnctl.data.registry import DATASETS, MINI, MNIST
from tests.data import mirrors as mirrored
from tests.data.conftest import keep_to_loopback
from tests.data.mirrors import (
    CONTENTS,
    FAULTS,
    QUICK,
    SLOW,
    A,
    MakeMirror,
    ask,
    contents,
    cut_after,
    known_file,
    mirrors,
)
from tests.processes import DEADLINE, Processes, end_of
from tests.torture.conftest import Torture
from tests.torture.faults import Fault, Nursery, without_lost_interrupts
from tests.torture.hostile import PATIENCE, run_command, some_of

NAMES = [file.gzip_name for file in MINI.files]
FILES = {name: (MINI_DIRECTORY / name).read_bytes() for name in NAMES}
LARGE, LARGE_PACKED = known_file("large", random.Random(1).randbytes(2**20))

pytestmark = PATIENCE
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")


@pytest.fixture(autouse=True)
def _only_mirrors_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to_loopback(monkeypatch)
    monkeypatch.setitem(DATASETS, "mnist", replace(MNIST, mirrors=()))


@pytest.fixture
def mirror() -> Iterator[MakeMirror]:
    """Starts mirrors."""
    with mirrors() as start:
        yield start


@contextmanager
def patience(names: Sequence[str] = ()) -> Iterator[None]:
    """Wait long for each mirror, as the machine may be busy, unless one of them is slow."""
    seconds = 3 if {*names} & {*SLOW} else 60
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nnctl.data.mirror, "PATIENCE", seconds * (len(names) + 1))
        yield


# Mirrors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("kind", ["length", "chunked", "nothing"])
def test_a_connection_may_be_cut_after_any_number_of_bytes(
    tmp_path: Path, torture: Torture, kind: str, reset: bool
) -> None:
    served = {LARGE.gzip_name: LARGE_PACKED}
    powers = [0, *(2**n for n in range(len(LARGE_PACKED).bit_length()))]
    for count in powers if torture.full else (0, 2**13, 2**20):
        cache = tmp_path / str(count)
        with mirrors() as start, patience():
            bad = start(served, cut_after(count, kind=kind, reset=reset))
            events, error = ask(cache, bad.url, start(served).url, files=[LARGE])
        torture.tried("connections cut after a power of two of bytes")
        assert (contents(cache), error) == (served, "")
        [failure] = [event for event in events if isinstance(event, MirrorFailed)]
        assert failure.url == f"{bad.url}{LARGE.gzip_name}"
        assert re.fullmatch("(closed the|sent only|cannot be reached).*", failure.reason)


@pytest.mark.parametrize("rescued", [True, False])
def test_of_any_mirrors_in_any_order_the_good_one_serves_or_all_are_reported(
    tmp_path: Path, torture: Torture, rescued: bool
) -> None:
    rng = torture.random("sequences", rescued)
    for case in range(torture.cases(4, full=100)):
        names = rng.choices(QUICK, k=rng.randint(1, 6))
        if case % 20 == 19:
            names[rng.randrange(len(names))] = rng.choice(SLOW)
        cache = tmp_path / str(case)
        with mirrors() as start, patience(names):
            bad = [start(CONTENTS, FAULTS[name].answer) for name in names]
            good = [start(CONTENTS)] if rescued else []
            events, error = ask(cache, *(each.url for each in bad + good))
        torture.tried(f"sequences of faults {'and then a good mirror' if rescued else 'alone'}")
        failures = [event for event in events if isinstance(event, MirrorFailed)]
        failures = [event for event in failures if A.gzip_name in event.url]
        assert [f"{each.url}{A.gzip_name}" for each in bad] == [each.url for each in failures], (
            names
        )
        for name, failure in zip(names, failures, strict=True):
            assert re.fullmatch(FAULTS[name].reason, failure.reason), (name, failure.reason)
        if rescued:
            assert (contents(cache), error) == (CONTENTS, ""), names
        else:
            assert contents(cache) == {}, names
            lines = [f"  {each.url} {each.reason}" for each in failures]
            assert [f"no mirror served {A.gzip_name}:", *lines] == error.splitlines()


@pytest.mark.usefixtures("full_only")
def test_the_default_limits_end_a_stall_and_a_drip(
    mirror: MakeMirror, torture: Torture, tmp_path: Path
) -> None:
    names = ["stalls before the headers", "stalls in the body", "drips bytes"]
    slow = [mirror(CONTENTS, FAULTS[name].answer).url for name in names]
    events, error = ask(tmp_path / "cache", *slow, mirror(CONTENTS).url)
    assert (contents(tmp_path / "cache"), error) == (CONTENTS, "")
    failures = [event.url for event in events if isinstance(event, MirrorFailed)]
    assert failures == [f"{url}{A.gzip_name}" for url in slow]
    torture.tried("stalls and drips with the limits that ship", len(slow))


@posix
def test_no_mirror_can_make_a_download_use_much_memory(
    mirror: MakeMirror, torture: Torture, tmp_path: Path, nursery: Nursery
) -> None:
    def peak_with(fault: mirrored.Fault | None) -> int:
        """Return the peak memory of a download in bytes."""
        good = mirror(FILES)
        urls = [mirror(FILES, fault.answer).url, good.url] if fault else [good.url]
        options = [word for url in urls for word in ("--mirror", url)]
        cache, counts = tmp_path / str(len(list(tmp_path.iterdir()))), tmp_path / "counts"
        counting = Fault(str(cache), counts=str(counts), small_mnist=True)
        done = nursery.run(counting, "download", "--quiet", "--data-dir", cache, *options)
        assert done.returncode == 0, done
        return counting.read_counts()["peak"]

    usual = peak_with(None)
    attacks = [name for name in FAULTS if re.search("endless|bomb|beyond", name)]
    for name in attacks if torture.full else ["an endless line of a chunk", "a bomb to inflate"]:
        torture.tried("attacks on memory")
        assert peak_with(FAULTS[name]) < usual + 4e7, name


# Processes that are killed and interrupted -------------------------------------------------------


def arguments(mirror: str, data_dir: Path) -> tuple[object, ...]:
    """Return the arguments of a download."""
    return ("download", "--mirror", mirror, "--data-dir", data_dir)


@pytest.fixture
def _killed_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the temporary folders of killed processes, which cannot remove them, in `tmp_path`."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


@posix
@pytest.mark.usefixtures("_killed_elsewhere")
def test_concurrent_downloads_with_killed_processes_leave_four_correct_files(
    processes: Processes, mirror: MakeMirror, tmp_path: Path, torture: Torture
) -> None:
    for case in range(torture.cases(1, full=3)):
        rng, cache = torture.random("killed", case), tmp_path / str(case)
        good = mirror(FILES)
        command = Fault(str(cache), small_mnist=True).command(*arguments(good.url, cache))
        started = [
            processes.start(command, stdout=PIPE, stderr=PIPE, encoding="utf-8")
            for _ in range(torture.cases(3, full=16))
        ]
        killed = rng.sample(started, len(started) // 2)
        assert good.asked.wait(DEADLINE)
        for process in killed:
            time.sleep(rng.uniform(0, 0.3) if torture.full else 0)
            process.kill()
        for process in started:
            done = end_of(process)
            assert done.returncode == 0 or process in killed, done
            assert "Traceback" not in done.stderr
        torture.tried("processes at one cache, half of them killed", len(started))
        right = {name: (cache / "mnist" / name).read_bytes() for name in NAMES}
        assert right == FILES
        modes = {(cache / "mnist" / name).stat().st_mode & 0o777 for name in NAMES}
        assert modes == {0o666 & ~current_umask()}


def current_umask() -> int:
    """Return the permission bits that new files do not get."""
    umask = os.umask(0)
    os.umask(umask)
    return umask


@posix
@pytest.mark.usefixtures("_killed_elsewhere")
def test_a_download_killed_before_any_write_is_completed_by_the_next_one(
    nursery: Nursery, mirror: MakeMirror, tmp_path: Path, torture: Torture
) -> None:
    rng, left = torture.random("steps"), 0
    for step in some_of(torture, range(1, 17), 2):
        cache = tmp_path / str(step) / "mnist"
        good = mirror(FILES)
        fault = Fault(str(cache), kill_at=step, torn=rng.random(), small_mnist=True)
        done = nursery.run(fault, *arguments(good.url, cache.parent))
        assert done.returncode in (0, -signal.SIGKILL), done
        before = [name for name in NAMES if (cache / name).exists()]
        assert all(FILES[name] == (cache / name).read_bytes() for name in before)
        left += any(path.name.startswith(".") for path in cache.glob(".*"))
        good.requests.clear()
        words = arguments(good.url, cache.parent)
        done = nursery.run(Fault(str(cache), small_mnist=True), *words)
        assert done.returncode == 0, done
        assert contents(cache) == FILES
        assert len(good.requests) == len(NAMES) - len(before)
        torture.tried("downloads killed before a step of writing")
    torture.tried("temporary files that they left behind", left)


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_download_that_is_interrupted_at_any_call_leaves_no_temporary_file(
    nursery: Nursery, mirror: MakeMirror, tmp_path: Path, torture: Torture, name: str
) -> None:
    rng, good = torture.random("interrupted", name), mirror(FILES)
    counting = Fault(str(tmp_path), counts=str(tmp_path / "counts"), small_mnist=True)
    assert nursery.run(counting, *arguments(good.url, tmp_path / "first")).returncode == 0
    calls = counting.read_counts()["calls"]
    for case in range(torture.cases(2, full=25)):
        cache = tmp_path / str(case)
        at, number = rng.randrange(1, calls), getattr(signal, name)
        fault = Fault(str(cache), signals=[number], signal_at=[at], small_mnist=True)
        done = nursery.run(fault, *arguments(good.url, cache))
        torture.tried(f"downloads interrupted by {name}")
        assert "Traceback" not in without_lost_interrupts(done.stderr), done.stderr
        if done.returncode == 0:
            assert done.stdout.startswith("MNIST is in")
        else:
            assert done.returncode == 130, done
            assert done.stderr.endswith("Interrupted\n")
            torture.tried("of these, not complete")
        for path in (cache / "mnist").glob("*"):
            assert FILES[path.name] == path.read_bytes()


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_download_that_waits_for_a_mirror_can_be_interrupted(
    nursery: Nursery, mirror: MakeMirror, tmp_path: Path, torture: Torture, name: str
) -> None:
    stalling = mirror(FILES, FAULTS["stalls in the body"].answer)
    fault = Fault(str(tmp_path), small_mnist=True)
    nursery.start(fault, *arguments(stalling.url, tmp_path / "cache"))
    assert stalling.asked.wait(DEADLINE)
    nursery.send(getattr(signal, name))
    done = nursery.end()
    assert done.returncode == 130, done
    assert done.stderr.endswith("Interrupted\n")
    assert contents(tmp_path / "cache" / "mnist") == {}
    torture.tried(f"downloads interrupted by {name}")


@posix
def test_a_full_cache_keeps_complete_files_and_no_partial_ones(
    nursery: Nursery, mirror: MakeMirror, tmp_path: Path, torture: Torture
) -> None:
    good, rng = mirror(FILES), torture.random("full")
    for case in range(torture.cases(2, full=12)):
        cache, limit = tmp_path / str(case), int(2 ** rng.uniform(10, 19))
        fault = Fault(str(cache), largest=limit, small_mnist=True)
        done = nursery.run(fault, *arguments(good.url, cache))
        torture.tried("caches that become full")
        assert done.returncode == 3, done
        assert f"{cache / 'mnist'} cannot be written: {os.strerror(errno.EFBIG)}" in done.stderr
        assert "Traceback" not in done.stderr
        fitting = {}
        for name in NAMES:
            if len(FILES[name]) > limit:
                break
            fitting[name] = FILES[name]
        assert contents(cache / "mnist") == fitting


# Garbage in the environment ----------------------------------------------------------------------


@given(
    st.one_of(st.text(), st.from_regex(r"https?:/?/?\S*", fullmatch=True)).filter(
        lambda text: "\0" not in text and text.isprintable()
    )
)
def test_any_text_in_the_environment_is_a_list_of_mirrors_or_a_usage_error(
    torture: Torture, text: str
) -> None:
    with pytest.MonkeyPatch.context() as patch, patience():
        patch.setitem(DATASETS, "mnist", replace(MNIST, mirrors=("http://127.0.0.1:9/",)))
        done = run_command("download", codes=(2, 3), env={"NNCTL_MIRROR": text})
    torture.tried("texts as NNCTL_MIRROR")
    expected = {
        2: "Error: a mirror must be an http:// or https:// URL, not ",
        3: f"Error: no mirror served {NAMES[0]}:",
    }
    assert expected[done.exit_code] in done.output


GARBAGE = (
    *("http://", "://", "http:/127.0.0.1", "[", "http://[::1", "http://]/", "?", "%", "*"),
    *(",,", "0", "\x1b[31m", f"http://{'a' * 300}.invalid", "127.0.0.1:9" * 500),
    *("127.0.0.1:99999", "http://127.0.0.1:-1", "http://127.0.0.1:x", "http://127.0.0.1:0/"),
    *("file:///etc/hosts", "ftp://127.0.0.1:9", "socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"),
    *("http://user:pa@ss@127.0.0.1:9", "http://:@127.0.0.1:9", "https://127.0.0.1:9"),
    *("ü.invalid", "http://xn--.invalid"),
)


@pytest.mark.parametrize("variable", ["http_proxy", "all_proxy", "no_proxy"])
def test_garbage_in_the_variables_of_proxies_is_reported_with_the_address(
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
    for number, text in enumerate(some_of(torture, GARBAGE, 7)):
        cache = tmp_path / str(number)
        monkeypatch.setenv(variable, text)
        with patience():
            events, error = ask(cache, url)
        torture.tried("garbage in the variables of proxies")
        failures = [event for event in events if isinstance(event, MirrorFailed)]
        if error:
            assert [f"{url}{A.gzip_name}"] == [failure.url for failure in failures], text
            assert failures[0].reason.isprintable()
            assert contents(cache) == {}
        else:
            assert contents(cache) == CONTENTS
