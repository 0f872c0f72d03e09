"""Real processes for tests, which end with the test that started them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

import psutil

ROOT = Path(__file__).parent.parent
DEADLINE = 120.0
"""Seconds that no process of a test needs, however busy the machine is."""

_OFFLINE = {
    **dict.fromkeys(
        ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9"
    ),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "127.0.0.1,localhost"),
}
"""Environment in which only this machine can be reached: the proxy for other hosts is closed."""

ENVIRONMENT = {"PYTHONUTF8": "1", **_OFFLINE}

Done = subprocess.CompletedProcess[str]


def nnctl_command(*arguments: object) -> list[str]:
    """Return the words that start nnctl in a process of its own."""
    return [sys.executable, "-m", "nnctl", *map(str, arguments)]


class Processes:
    """Starts processes, and kills the remaining ones when its ``with`` block ends.

    Each process leads its own process group, so a signal to the group reaches its children and no
    other test.
    """

    def __init__(self) -> None:
        self._started: list[subprocess.Popen[Any]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            kill_tree(process)

    def start(self, words: list[str], **options: Any) -> subprocess.Popen[Any]:
        """Start a command; the options are those of `subprocess.Popen`."""
        process = subprocess.Popen(words, **{"start_new_session": True, **options})
        self._started.append(process)
        return process

    def start_nnctl(
        self, *arguments: object, env: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen[str]:
        """Start nnctl with its output in pipes."""
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        environment = {**os.environ, **ENVIRONMENT, **(env or {})}
        words = nnctl_command(*arguments)
        return self.start(words, env=environment, **{**streams, **options})

    def run_nnctl(
        self,
        *arguments: object,
        code: int = 0,
        env: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Done:
        """Run nnctl to its end and check its exit code."""
        process = self.start_nnctl(*arguments, env=env, **options)
        return check_done(arguments, end_of(process), code)


def end_of(process: subprocess.Popen[str], deadline: float = DEADLINE) -> Done:
    """Wait until a process ends and return its exit code and output."""
    stdout, stderr = process.communicate(timeout=deadline)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def check_done(arguments: tuple[object, ...], done: Done, code: int) -> Done:
    """Check the exit code of nnctl, and that it did not print a traceback."""
    output = (
        f"{arguments}\nexit code: {done.returncode}\nstdout: {done.stdout}\nstderr: {done.stderr}"
    )
    assert done.returncode == code, output
    assert "Traceback" not in (done.stderr or ""), output
    return done


def kill_tree(process: subprocess.Popen[Any]) -> None:
    """Kill a process, its children and its process group; close its pipes."""
    family = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    if hasattr(os, "killpg"):
        # The group may be that of pytest itself, if the test did not ask for a new session.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if process.pid != os.getpgid(0):
                os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.kill()
    process.wait()
    psutil.wait_procs(family, timeout=DEADLINE)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            close_quietly(stream)


def close_quietly(stream: IO[Any]) -> None:
    """Close a pipe whose other end may be gone."""
    with contextlib.suppress(OSError):
        stream.close()
