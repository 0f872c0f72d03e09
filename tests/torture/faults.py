"""nnctl in a process with a fault that is injected at a counted event, not at a time.

``python faults.py FAULT ARGUMENTS...`` runs ``nnctl ARGUMENTS...``. ``python faults.py`` does so
for every line that it reads, each time in a forked process. The modules are imported before the
fork, which makes this ten times as fast (see `Nursery`).

An event is the moment before a step that changes files (opening one to write, syncing, renaming,
removing, creating a folder); or a call of any Python function once nnctl handles signals, imports
included. So the same number is always the same place in the code, however busy the machine is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import runpy
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, Any, NoReturn, Self

if TYPE_CHECKING:
    from tests.processes import Processes

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "fsync"}
"""Audit events of Python, and syncing, which has no audit event."""

STREAMS = ("stdout", "stderr")
HANGS = 600.0
"""Timeout in seconds, which no command reaches, however busy the machine is."""


@dataclass(frozen=True)
class Fault:
    """A fault of a process, and when it happens."""

    below: str
    """Folder whose files are watched."""
    kill_at: int = 0
    """Step before which the process is killed; 0 means never."""
    torn: float = 1.0
    """Fraction of the unsynced bytes that remain, if it is killed before it syncs."""
    fail_from: int = 0
    """First step that fails, with all later ones; 0 means none."""
    fail: list[str] = field(default_factory=lambda: sorted(STEPS))
    """Kinds of steps that fail."""
    error: int = 0
    """Error number (errno) of the failures."""
    largest: int = 0
    """Maximum size of a file in bytes; 0 is unlimited."""
    memory: int = 0
    """Maximum additional memory in bytes (on Linux); 0 is unlimited."""
    signals: list[int] = field(default_factory=list)
    """Signals that the process sends itself, ..."""
    signal_at: list[int] = field(default_factory=list)
    """... and at which calls."""
    counts: str = ""
    """File to which the numbers of steps, calls and bytes of memory are written."""
    small_mnist: bool = False
    """Whether the bundled digits replace MNIST."""

    def command(self, *arguments: object) -> list[str]:
        """Return the command that runs nnctl with this fault."""
        return [sys.executable, __file__, json.dumps(asdict(self)), *map(str, arguments)]

    def read_counts(self) -> dict[str, int]:
        """Return the numbers of steps, calls and bytes of memory of a process that has ended."""
        counted: dict[str, int] = json.loads(Path(self.counts).read_text("utf-8"))
        return counted


class Faulty:
    """Injects a fault into the current process."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.steps = self.calls = 0
        self._handles_signals = False
        self._below = os.path.realpath(fault.below)
        self._synced: Counter[int] = Counter()
        """Bytes of a file that are on the disk, by its inode."""
        self._sync: Callable[[int], None] = os.fsync
        os.fsync = self.fsync  # type: ignore[assignment]
        sys.addaudithook(self.audit)
        if fault.largest:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, resource.RLIM_INFINITY))
        if fault.memory and sys.platform == "linux":
            import resource

            import psutil

            most = psutil.Process().memory_info().vms + fault.memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        if fault.signals or fault.counts:
            sys.setprofile(self.profile)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Count a step that Python reports to its audit hooks."""
        if event not in STEPS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path == self._below or path.startswith(self._below + os.sep):
            self.step(event)

    def fsync(self, file: int) -> None:
        """Sync a file, or be killed in the middle of writing it."""
        status = os.fstat(file)
        if self.steps + 1 == self.fault.kill_at and self.fault.torn < 1:
            kept = self._synced[status.st_ino]
            os.ftruncate(file, kept + int(self.fault.torn * (status.st_size - kept)))
        self.step("fsync")
        self._synced[status.st_ino] = status.st_size
        self._sync(file)

    def step(self, kind: str) -> None:
        """Count a step; kill the process or fail at the chosen step."""
        self.steps += 1
        if self.steps == self.fault.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < self.fault.fail_from <= self.steps and kind in self.fault.fail:
            raise OSError(self.fault.error, os.strerror(self.fault.error))

    def profile(self, _: FrameType, event: str, __: object) -> None:
        """Count a call; send the signals at the chosen calls."""
        if not self._handles_signals:
            self._handles_signals = signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        if event == "call" and self._handles_signals:
            self.calls += 1
            for number, at in zip(self.fault.signals, self.fault.signal_at, strict=True):
                if at == self.calls:
                    os.kill(os.getpid(), number)

    def write_counts(self) -> None:
        """Write the numbers of steps and calls, and the peak memory in bytes."""
        if self.fault.counts:
            import resource

            unit = 1 if sys.platform == "darwin" else 1024
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
            counted = json.dumps({"steps": self.steps, "calls": self.calls, "peak": peak})
            Path(self.fault.counts).write_text(counted, encoding="utf-8")


def without_lost_interrupts(stderr: str) -> str:
    """Remove the interrupts that no code can catch from what a process printed.

    If one is raised while an object is deleted, for example a generator, Python prints it and
    continues.
    """
    return re.sub("Exception ignored in: .*?KeyboardInterrupt: ?\n", "", stderr, flags=re.S)


class Nursery:
    """A process with all modules imported, which forks children that run nnctl, one at a time.

    A ``with`` block kills a child that still runs at its end.
    """

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._folder = folder
        pipe = subprocess.PIPE
        self._process: subprocess.Popen[str] = processes.start(
            [sys.executable, __file__], stdin=pipe, stdout=pipe, encoding="utf-8"
        )
        self._pid = 0
        """Process number of the child; 0 if there is none."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pid:
            self.kill()
            self.end()

    @property
    def _requests(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    @property
    def _answers(self) -> IO[str]:
        assert self._process.stdout is not None
        return self._process.stdout

    def start(self, fault: Fault, *arguments: object) -> None:
        """Begin to run nnctl in a child."""
        assert not self._pid, "one at a time"
        request = {
            "fault": asdict(fault),
            "arguments": [str(argument) for argument in arguments],
            "folder": str(self._folder),
            "here": str(Path.cwd()),
            "environment": dict(os.environ),
        }
        self._requests.write(json.dumps(request) + "\n")
        self._requests.flush()
        self._pid = int(self._answers.readline())

    def is_over(self) -> bool:
        """Check whether the child has ended."""
        return bool(select.select([self._answers], [], [], 0)[0])

    def send(self, number: int) -> None:
        """Send the child a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, number)

    def kill(self) -> None:
        """Kill the child, unless it has ended."""
        self.send(signal.SIGKILL)

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait until the child has ended; return its exit code and output."""
        in_time = bool(select.select([self._answers], [], [], HANGS)[0])
        if not in_time:
            self.kill()
        code = int(self._answers.readline())
        self._pid = 0
        assert in_time, f"nnctl did not end within {HANGS} seconds"
        printed = [(self._folder / name).read_text("utf-8") for name in STREAMS]
        return subprocess.CompletedProcess("nnctl", code, *printed)

    def run(self, fault: Fault, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Run nnctl in a child."""
        self.start(fault, *arguments)
        return self.end()


def serve() -> None:
    """Fork a process for each line of stdin, as a nursery does."""
    for name in ("api", "cli", "sweeps.plan", "views.download", "views.training"):
        import_module(f"nnctl.{name}")
    for name in ("rich.progress", "nnctl.data.mirror"):
        import_module(name)
    for line in iter(sys.stdin.readline, ""):
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            os.chdir(request["here"])
            os.environ.clear()
            os.environ.update(request["environment"])
            for number, name in enumerate(STREAMS, start=1):
                file = os.open(Path(request["folder"], name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                os.dup2(file, number)
                os.close(file)
            run(Fault(**request["fault"]), request["arguments"])
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def run(fault: Fault, arguments: list[str]) -> NoReturn:
    """Run nnctl, and exit.

    Signals are reset, because the shell may have made the tests ignore them (``nohup``, ``&``).
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    if fault.small_mnist:
        registry = import_module("nnctl.data.registry")
        registry.DATASETS["mnist"] = dataclasses.replace(registry.MINI, title="MNIST")
    faulty = Faulty(fault)
    sys.argv = ["nnctl", *arguments]
    try:
        runpy.run_module("nnctl", run_name="__main__", alter_sys=True)
    finally:
        faulty.write_counts()
    raise AssertionError("a command must exit")


if __name__ == "__main__":
    if sys.argv[1:]:
        run(Fault(**json.loads(sys.argv[1])), sys.argv[2:])
    serve()
