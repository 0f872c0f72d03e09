"""The first signal requests a stop, the second interrupts."""

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
    """Run Python code that can import nnctl's signal handling, and modules in tmp_path."""
    prelude = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(tmp_path)!r}]\n"
        "from nnctl.signals import *\n"
    )

    def run(code: str) -> Done:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "encoding": "utf-8"}
        return end_of(processes.start([sys.executable, "-c", prelude + code], **streams))

    return run


@posix
def test_a_signal_while_a_command_is_imported_ends_the_process(
    tmp_path: Path, run_code: RunCode
) -> None:
    (tmp_path / "interrupting.py").write_text(
        "import os, signal\ntry: os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException: pass\n",
        encoding="utf-8",
    )
    code = (
        "import nnctl.cli\n"
        f"nnctl.cli.__path__.append({str(tmp_path)!r})\n"
        "nnctl.cli.COMMANDS['check'] = ('interrupting', '')\n"
        "nnctl.cli.main(['check'])\n"
    )
    done = run_code(code)
    assert (done.returncode, done.stderr, done.stdout) == (130, "Interrupted\n", "")


@posix
def test_the_second_signal_is_raised_and_ignored_signals_stay_ignored(run_code: RunCode) -> None:
    code = """
signal.signal(signal.SIGHUP, signal.SIG_IGN)
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    with stop_on_signals() as stop:
        try:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)
            print(number.name, "ignored", stop())
        except KeyboardInterrupt:
            print(number.name, "raised", stop())
"""
    assert (
        run_code(code).stdout == "SIGINT raised True\nSIGTERM raised True\nSIGHUP ignored False\n"
    )


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
