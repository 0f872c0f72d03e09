"""Signals at moments when Python or a library would swallow their exception."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Nnctl
from tests.processes import ROOT, Done, Processes, end_of

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")

RunCode = Callable[[str], Done]


@pytest.fixture
def run_code(processes: Processes, tmp_path: Path) -> RunCode:
    """Run Python code with the signal handling of nnctl; modules in tmp_path can be imported."""
    prelude = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
        "from nnctl.signals import *\n"
        "exit_on_uncaught_interrupt()\n"
    )

    def run(code: str) -> Done:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        return end_of(processes.start([sys.executable, "-c", prelude + code], **streams))

    return run


@pytest.mark.parametrize(
    "code",
    [
        "class Deleted:\n def __del__(self): raise KeyboardInterrupt\nDeleted()",
        "raise KeyboardInterrupt",
    ],
    ids=["ignored by Python", "not caught"],
)
def test_an_interrupt_that_nothing_catches_ends_the_process(run_code: RunCode, code: str) -> None:
    done = run_code(code)
    assert (done.returncode, done.stderr) == (130, "Error: interrupted\n")


def test_other_errors_keep_their_traceback(run_code: RunCode) -> None:
    done = run_code("raise ValueError('of nnctl itself')")
    assert done.returncode == 1
    assert "ValueError: of nnctl itself" in done.stderr


@posix
def test_an_interrupt_during_an_import_ends_the_process(tmp_path: Path, run_code: RunCode) -> None:
    (tmp_path / "inner.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8"
    )
    (tmp_path / "outer.py").write_text(
        "try:\n import inner\nexcept BaseException:\n inner = None\n", encoding="utf-8"
    )
    done = run_code("install_handlers(interrupt)\nimport outer\nprint('continued')")
    assert (done.returncode, done.stderr, done.stdout) == (130, "Error: interrupted\n", "")


@posix
def test_signals_outside_an_import_are_raised_except_ignored_ones(run_code: RunCode) -> None:
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
install_handlers(interrupt)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    try:
        os.kill(os.getpid(), number)
        print(number.name, "ignored")
    except KeyboardInterrupt:
        print(number.name, "raised")
"""
    assert run_code(code).stdout == "SIGINT raised\nSIGTERM raised\nSIGHUP ignored\n"


@posix
def test_a_library_does_not_end_the_process(tmp_path: Path, run_code: RunCode) -> None:
    (tmp_path / "trains.py").write_text(
        "import os, signal\n"
        "from nnctl.signals import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n",
        encoding="utf-8",
    )
    code = "try: import trains\nexcept KeyboardInterrupt: print('continues')"
    assert run_code(code).stdout == "continues\n"


def test_a_command_restores_the_signal_handlers(nnctl: Nnctl) -> None:
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.getsignal(getattr(signal, name)) for name in names]
    nnctl("check", "nowhere.yaml", code=2)
    assert before == [signal.getsignal(getattr(signal, name)) for name in names]
