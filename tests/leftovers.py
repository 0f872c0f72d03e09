"""Fails a test that leaves a thread or a temporary file, and a session that leaves a process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

_MARK = "PYTEST_SESSION_MARK"
_LEFT = pytest.StashKey[list[str]]()


def restore_signals() -> None:
    """Handle the signals that the shell made this process ignore, so that children do not.

    ``nohup make test &`` starts pytest with SIGHUP and SIGINT ignored, and every process it starts
    would inherit that. A handler, even one that does nothing, becomes the default in a new process.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for name in ("SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, lambda *_: None)


def mark_session() -> None:
    """Put a mark into the environment that all processes of this session inherit."""
    os.environ.setdefault(_MARK, uuid.uuid4().hex)


def leftovers() -> list[psutil.Process]:
    """Return the processes of this session that still run, but for this one."""
    mark = os.environ[_MARK]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.pid == os.getpid() or process.environ().get(_MARK) != mark:
                continue
            # multiprocessing keeps one helper for as long as this process lives.
            if "resource_tracker" not in " ".join(process.cmdline()):
                found.append(process)
    _, alive = psutil.wait_procs(found, timeout=10)
    return alive


def pytest_configure() -> None:
    """Start the session: signals as in a terminal, and a mark on every process."""
    restore_signals()
    mark_session()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail if a process of this session is left, and kill it."""
    if hasattr(session.config, "workerinput"):
        return  # the process that controls the workers looks when they have ended
    alive = leftovers()
    session.config.stash[_LEFT] = [describe(process) for process in alive]
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    if alive:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Name the processes that were left."""
    left = config.stash.get(_LEFT, [])
    if left:
        terminalreporter.section("processes left behind by tests, now killed", red=True)
        for line in left:
            terminalreporter.write_line(line)


def describe(process: psutil.Process) -> str:
    """Return the number and the command of a process."""
    with contextlib.suppress(psutil.Error):
        return f"{process.pid}: {' '.join(process.cmdline())}"
    return str(process.pid)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Fail a test whose threads do not end with it."""
    before = set(threading.enumerate())
    yield
    # Dask keeps one pool of threads for as long as the process lives.
    started = {thread for thread in threading.enumerate() if "Dask-Offload" not in thread.name}
    started -= before
    # A thread that another one is just starting cannot be joined yet.
    end = time.monotonic() + 10 * len(started)
    while (left := started & {*threading.enumerate()}) and time.monotonic() < end:
        time.sleep(0.01)
    assert not left, "threads are left"


@pytest.fixture(scope="session")
def temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of temporary files of this session."""
    folder = tmp_path_factory.mktemp("temporary")
    # matplotlib would make a folder for its cache, and keep it, where it cannot write elsewhere.
    os.environ["MPLCONFIGDIR"] = str(tmp_path_factory.mktemp("matplotlib"))
    return folder


@pytest.fixture(autouse=True)
def _no_temporary_file_is_left(
    temporary_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """Fail a test that leaves a temporary file, be it of a process that it started."""
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.setenv(name, str(temporary_folder))
    monkeypatch.setattr(tempfile, "tempdir", None)
    yield
    left = list(temporary_folder.iterdir())
    for path in left:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert not left, "temporary files are left"
