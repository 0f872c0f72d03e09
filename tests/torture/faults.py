"""nnctl in a process to which something happens at a moment that is counted, not timed.

``python faults.py FAULT ARGUMENTS...`` carries out ``nnctl ARGUMENTS...``; ``python faults.py``
does so for every line that it reads, each time in a process that is split off when all modules are
imported, which takes a tenth of the time (see `Nursery`).

A moment is a step that changes files (opening one to write, syncing, renaming, removing, making a
folder), just before it is done; or a call of any function of Python once nnctl hears signals, the
modules that it imports included. So the same number is always the same place in the code, however
busy the machine is.
"""

from __future__ import annotations

import contextlib
import json
import os
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
from typing import IO, Any, NoReturn, Self

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
STEPS = {"open", "os.rename", "os.remove", "os.mkdir", "os.truncate", "fsync"}
"""As Python's audit calls them, and syncing, which it does not tell of."""

STREAMS = ("stdout", "stderr")
HANGS = 1200.0
"""Seconds that no command takes, however busy the machine is."""


@dataclass(frozen=True)
class Fault:
    """What happens, and when.

    Parameters
    ----------
    below : str
        The folder whose files are looked at.
    kill_at : int
        The step before which the process is killed; 0 is never.
    torn : float
        How much of what is not synced yet a crash would leave, if it is killed before it syncs.
    fail_from : int
        The step from which on all fail; 0 is none.
    fail : list of str
        The kinds of steps that fail.
    error : int
        The number of the system's error that they fail with.
    largest : int
        How many bytes a file may have; 0 is as many as it likes.
    signals : list of int
        What the process sends itself, ...
    signal_at : list of int
        ... and at which calls.
    told : str
        A file that will say how many steps and calls there were.
    """

    below: str
    kill_at: int = 0
    torn: float = 1.0
    fail_from: int = 0
    fail: list[str] = field(default_factory=lambda: sorted(STEPS))
    error: int = 0
    largest: int = 0
    signals: list[int] = field(default_factory=list)
    signal_at: list[int] = field(default_factory=list)
    told: str = ""

    def command(self, *arguments: object) -> list[str]:
        """Return the command that carries out nnctl with this fault, as a list of words."""
        return [sys.executable, __file__, json.dumps(asdict(self)), *map(str, arguments)]


class Faulty:
    """A process, and what happens to it.

    Parameters
    ----------
    fault : Fault
        What, and when.
    """

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.steps = self.calls = 0
        self._hears = False
        self._below = os.path.realpath(fault.below)
        self._synced: Counter[int] = Counter()
        """How much of a file, by its inode, is on the disk."""
        self._sync: Callable[[int], None] = os.fsync
        os.fsync = self.fsync  # type: ignore[assignment]
        sys.addaudithook(self.audit)
        if fault.largest:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (fault.largest, resource.RLIM_INFINITY))
        if fault.signals or fault.told:
            sys.setprofile(self.profile)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Take a step that Python tells of."""
        if event not in STEPS or not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        path = os.path.realpath(os.fsdecode(arguments[0]))
        if path == self._below or path.startswith(self._below + os.sep):
            self.step(event)

    def fsync(self, file: int) -> None:
        """Take the step that Python does not tell of, or be killed in the middle of writing."""
        status = os.fstat(file)
        if self.steps + 1 == self.fault.kill_at and self.fault.torn < 1:
            kept = self._synced[status.st_ino]
            os.ftruncate(file, kept + int(self.fault.torn * (status.st_size - kept)))
        self.step("fsync")
        self._synced[status.st_ino] = status.st_size
        self._sync(file)

    def step(self, kind: str) -> None:
        """Count a step, and let happen what is to."""
        self.steps += 1
        if self.steps == self.fault.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        if 0 < self.fault.fail_from <= self.steps and kind in self.fault.fail:
            raise OSError(self.fault.error, os.strerror(self.fault.error))

    def profile(self, _: FrameType, event: str, __: object) -> None:
        """Count a call, and let happen what is to."""
        self._hears = self._hears or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
        if event == "call" and self._hears:
            self.calls += 1
            for number, at in zip(self.fault.signals, self.fault.signal_at, strict=True):
                if at == self.calls:
                    os.kill(os.getpid(), number)

    def tell(self) -> None:
        """Say how many steps and calls there were."""
        if self.fault.told:
            counted = json.dumps({"steps": self.steps, "calls": self.calls})
            Path(self.fault.told).write_text(counted, encoding="utf-8")


@dataclass
class Child:
    """A process that a nursery has split off.

    Parameters
    ----------
    pid : int
        Its number.
    answers : file
        Where the nursery will tell how it ended.
    folder : Path
        Where it writes what it has to say.
    """

    pid: int
    answers: IO[str]
    folder: Path

    def is_over(self) -> bool:
        """Tell whether it has ended."""
        return bool(select.select([self.answers], [], [], 0)[0])

    def kill(self) -> None:
        """End it, unless it is over."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def end(self) -> subprocess.CompletedProcess[str]:
        """Wait until it has ended; return how."""
        in_time = bool(select.select([self.answers], [], [], HANGS)[0])
        if not in_time:
            self.kill()
        code = int(self.answers.readline())
        assert in_time, f"it hung for {HANGS} seconds"
        said = [(self.folder / name).read_text("utf-8") for name in STREAMS]
        return subprocess.CompletedProcess("nnctl", code, *said)


class Nursery:
    """A process with all modules imported, which splits off others that carry out nnctl.

    Parameters
    ----------
    folder : Path
        An empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, fault: Fault, *arguments: object) -> Child:
        """Begin to carry out nnctl; one at a time."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {
            "fault": asdict(fault),
            "arguments": [str(argument) for argument in arguments],
            "folder": str(self._folder),
            "here": str(Path.cwd()),
            "environment": dict(os.environ),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        pid = int(self._process.stdout.readline())
        return Child(pid, self._process.stdout, self._folder)

    def run(self, fault: Fault, *arguments: object) -> subprocess.CompletedProcess[str]:
        """Carry out nnctl."""
        return self.start(fault, *arguments).end()


def serve() -> None:
    """Split off a process for each line of stdin, as a nursery does."""
    for name in ("api", "cli", "views.download", "views.training"):
        import_module(f"nnctl.{name}")
    import_module("rich.progress")
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
            carry_out(Fault(**request["fault"]), request["arguments"])
        print(pid, flush=True)  # noqa: T201
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)  # noqa: T201


def carry_out(fault: Fault, arguments: list[str]) -> NoReturn:
    """Carry out nnctl, and exit.

    It hears what the shell that began the tests may have let them ignore, as nohup and ``&`` do.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    faulty = Faulty(fault)
    sys.argv = ["nnctl", *arguments]
    try:
        runpy.run_module("nnctl", run_name="__main__", alter_sys=True)
    finally:
        faulty.tell()
    raise AssertionError("a command exits")


if __name__ == "__main__":
    if sys.argv[1:]:
        carry_out(Fault(**json.loads(sys.argv[1])), sys.argv[2:])
    serve()
