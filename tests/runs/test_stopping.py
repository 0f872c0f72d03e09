"""Signals at moments at which what they raise would be swallowed, or taken for something else."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from nnctl.cli import main
from tests.conftest import ROOT

posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


def carried_out(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Carry out lines of Python after those with which nnctl begins, in a folder with modules."""
    begun = (
        "import os, signal, sys\n"
        f"sys.path[:0] = [{str(ROOT)!r}, {str(folder)!r}]\n"
        "from nnctl.runs.stopping import *\n"
        "end_on_what_nobody_catches()\n"
    )
    return subprocess.run(
        [sys.executable, "-c", begun + code],
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "class Left:\n def __del__(self): raise KeyboardInterrupt\nLeft()",
        "raise KeyboardInterrupt",
    ],
    ids=["where Python ignores it", "where nobody catches it"],
)
def test_an_interrupt_that_nobody_hears_ends_the_process(code: str, tmp_path: Path) -> None:
    done = carried_out(code, tmp_path)
    assert (done.returncode, done.stderr) == (130, "Error: interrupted\n")


def test_other_errors_are_told_as_ever(tmp_path: Path) -> None:
    done = carried_out("raise ValueError('of nnctl itself')", tmp_path)
    assert done.returncode == 1
    assert "ValueError: of nnctl itself" in done.stderr


@posix
def test_an_interrupt_while_a_module_is_imported_is_not_taken_for_something_else(
    tmp_path: Path,
) -> None:
    (tmp_path / "inner.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n", encoding="utf-8"
    )
    (tmp_path / "outer.py").write_text(
        "try:\n import inner\nexcept BaseException:\n inner = None\n", encoding="utf-8"
    )
    done = carried_out("hear(interrupt)\nimport outer\nprint('went on')", tmp_path)
    assert (done.returncode, done.stderr, done.stdout) == (130, "Error: interrupted\n", "")


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interrupt_elsewhere_is_raised(name: str, tmp_path: Path) -> None:
    number = int(getattr(signal, name))
    code = (
        f"hear(interrupt)\ntry: os.kill(os.getpid(), {number})\n"
        "except KeyboardInterrupt: print('undone')"
    )
    assert carried_out(code, tmp_path).stdout == "undone\n"


@posix
def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    code = (
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nhear(end_at_once)\n"
        "os.kill(os.getpid(), signal.SIGHUP)\nprint('goes on')"
    )
    assert carried_out(code, tmp_path).stdout == "goes on\n"


@posix
def test_a_library_ends_nobodys_process(tmp_path: Path) -> None:
    (tmp_path / "trains.py").write_text(
        "import os, signal\n"
        "from nnctl.runs.stopping import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert stop()\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n",
        encoding="utf-8",
    )
    code = "try: import trains\nexcept KeyboardInterrupt: print('goes on')"
    assert carried_out(code, tmp_path).stdout == "goes on\n"


def test_signals_mean_after_a_command_what_they_meant_before() -> None:
    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before = [signal.getsignal(getattr(signal, name)) for name in names]
    assert CliRunner().invoke(main, ["check", "nowhere.yaml"]).exit_code == 2
    assert before == [signal.getsignal(getattr(signal, name)) for name in names]
