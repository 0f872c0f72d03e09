"""Unusual file names and environments."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import struct
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from subprocess import PIPE, CompletedProcess, Popen

import click
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nnctl.runs.run import Run
from nnctl.text import printable
from tests.conftest import CONFIGS, nnctl_command
from tests.helpers import load_commands
from tests.processes import DEADLINE, Processes
from tests.terminal import in_terminal
from tests.torture.conftest import Torture
from tests.torture.hostile import PATIENCE, REFUSED, run_command, some_of

SMOKE = CONFIGS / "smoke.yaml"
TINY = ("--dataset", "mini", "--subset", 30, "--epochs", 1)
pytestmark = PATIENCE
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell or terminal")

NAMES = (
    *("a b", "'a'", '"a"', "$(touch hacked)", "`touch hacked`", "a;b", "a&b", "*", "?", "%s", "{}"),
    *("-a", "--json", "-", ".", "..", ".a", "a.", "a ", " a", "~", "~root", "[red]a[b]", ":smile:"),
    *("👩‍👩‍👧", "é", "e\u0301", "日本語", "\u202etxt", "a\u200bb", "𝔷" * 60, "x" * 250, "ß" * 120),
    *("CON", "nul", "COM1", "aux.b", "a:b", "a\\b", "..\\..\\b", "C:"),
    *("a\nb", "a\tb", "a\x1b[2Jb", "a\x1b]0;title\x07b", "a\rb", "a\x08b", "a\x7fb", "a\x9b2Jb"),
    *("\udcff", "a\udce9b"),
)
"""File names that are valid on Linux; some are not valid on any other system."""
RESERVED = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)", re.IGNORECASE)


# Names -------------------------------------------------------------------------------------------


@given(name=st.text() | st.sampled_from((*NAMES, "a/../../b", "\0")))
@example(name="../../x")
@example(name="/etc/x")
@example(name="..")
@example(name="")
@example(name="-rf")
@example(name="a\\b")
@example(name="con")
@example(name="x" * 999)
def test_a_run_name_cannot_escape_the_folder_of_runs(name: str, torture: Torture) -> None:
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder, "runs")
        made = Run.create(name, runs).directory
        assert [made] == list(runs.iterdir())
        assert [runs] == [*Path(folder).iterdir()]
    assert len(made.name.encode()) <= 143  # the limit of an encrypted file system on Linux
    assert re.fullmatch(r"[\w][\w.-]*-\d{8}-\d{6}", made.name)
    assert not RESERVED.fullmatch(made.name)
    torture.tried("names of runs of any text")


def possible_names(torture: Torture, few: int) -> list[str]:
    """Return some or all of the names that are valid on this system."""
    names = list(NAMES)
    if sys.platform == "win32":
        names = [name for name in names if re.fullmatch(r"[\w -]*\w", name)]
    if sys.platform == "darwin":
        names = [name for name in names if name.isprintable() and len(name) < 120]
    return some_of(torture, names, few)


def test_a_configuration_of_any_name_is_trained(scratch: Path, torture: Torture) -> None:
    for name in possible_names(torture, 3):
        config = scratch / f"{name}.yaml"
        config.write_bytes(SMOKE.read_bytes())
        done = run_command("train", config, *TINY, codes=[0])
        run = Path(done.stdout.splitlines()[-1])
        assert run.parent == Path("runs")
        assert (run / "summary.json").is_file()
        config.write_text('"\\e[31m": 1', encoding="utf-8")
        run_command("train", config, *TINY, codes=[2])
        config.unlink()
        run_command("train", config, *TINY, codes=[2])
        torture.tried("names of configuration files, trained and refused")
    assert not (scratch / "hacked").exists()


def test_a_run_directory_of_any_name_is_trained_evaluated_and_resumed(
    scratch: Path, torture: Torture
) -> None:
    for name in possible_names(torture, 3):
        folder = scratch / "named" / name / "run"
        done = run_command("train", SMOKE, *TINY, "--run-dir", folder, "--json", codes=[0])
        assert Path(json.loads(done.stdout)["run_dir"]) == folder
        run_command("eval", folder, "--json", codes=[0])
        run_command("train", "--resume", folder, "--epochs", 2, "--json", codes=[0])
        run_command("check", folder, "--json", codes=[0])
        torture.tried("names of run directories, trained, evaluated, resumed, checked")


# The environment ---------------------------------------------------------------------------------

GARBAGE = (
    *("abc", "-1", "0", "1", "1e400", "nan", "9" * 50, "9" * 5000, "true", "yes", "{", "a=b", "="),
    *("/", os.devnull, "x" * 300, "é", "\x1b[2J", "~", "..", "a b c", " ", "1,inf", "["),
    "training",
)


def _cases(run: Path) -> dict[str, tuple[object, ...]]:
    """Return quick arguments for each command."""
    return {
        "train": (SMOKE, "--dry-run"),
        "check": (SMOKE,),
        "sweep": (SMOKE, "-p", "training.batch_size=8,9", "--dry-run"),
        "download": ("--verify",),
        "eval": (run,),
        "export": (run, "--format", "safetensors"),
        "predict": (run, "no-such-picture"),
        "report": ("no-such-run",),
        "runs": (run.parent,),
        "presets": (),
        "completion": ("bash",),
        "compare": (run, run),
        "explain": (run, "--image", 1),
        "lr-find": (SMOKE, "--steps", 10, "--subset", 100),
    }


def test_an_option_in_the_environment_is_used_or_reported(
    scratch: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(click, "launch", lambda *_: 0)
    run = scratch / "run"
    run_command("train", SMOKE, *TINY, "--run-dir", run, codes=[0])
    usual = {name: run_command(name, *given).output for name, given in _cases(run).items()}
    options = [
        (name, option)
        for name, command in load_commands().items()
        for option in command.params
        if isinstance(option, click.Option)
    ]
    cases = list(itertools.product(options, GARBAGE))
    count = torture.cases(30, full=len(cases) // 2)
    for (name, option), value in torture.random("options").sample(cases, count):
        variable = str(option.envvar)
        env = {variable: value}
        ended = run_command(name, *_cases(run)[name], env=env, codes=(0, 1, 5, *REFUSED))
        shown = f"{variable}={value!r}: {ended.output}"
        is_named = variable in ended.output or ended.output == usual[name]
        is_named |= option.show_envvar and printable(value) in ended.output
        assert ended.exit_code != 2 or is_named, shown
        assert ended.exit_code != 1 or "written" in ended.output, shown
        torture.tried("options in the environment, with values of any kind")


SURROUNDINGS: dict[str, tuple[str | None, ...]] = {
    "HOME": (None, "", "/no/such/home", os.devnull),
    "XDG_CACHE_HOME": ("", "relative", os.devnull, "/proc/x", "\x1b[2J"),
    "NNCTL_DATA_DIR": ("", " ", "new", "/proc/x", "\x1b[2J", "é\udcff"),
    "TERM": (None, "", "garbage", "dumb", "\x1b[2J"),
    "COLUMNS": ("", "0", "-1", "abc", "1", "20", "²", "1000000000", "9" * 5000),
    "LINES": ("0", "-1", "abc", "1", "²"),
    "NO_COLOR": ("", "1"),
    "FORCE_COLOR": ("1", "abc"),
    "CLICOLOR_FORCE": ("1",),
    "COLORTERM": ("truecolor", "x"),
    "CI": ("true", "x"),
    "LANG": ("C", "garbage", "de_DE.UTF-8", "ja_JP.SJIS"),
    "LC_ALL": (None, "C", "POSIX", "garbage", "tr_TR.UTF-8"),
    "PYTHONUTF8": ("0", "1"),
    "PYTHONIOENCODING": ("ascii", "latin-1", "utf-16", "utf-8:strict"),
    "TZ": ("garbage", "", "UTC+99", "Pacific/Kiritimati", "\x1b[2J"),
    "OMP_NUM_THREADS": ("0", "abc", "100000"),
    "OPENBLAS_NUM_THREADS": ("0", "abc"),
    "TMPDIR": ("/no/such/folder", os.devnull),
    "PAGER": ("false",),
    "BROWSER": ("false",),
}


def test_a_training_does_not_depend_on_its_surroundings(
    scratch: Path, torture: Torture, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = scratch / "zahlen-é-日.yaml"
    config.write_bytes(SMOKE.read_bytes())
    rng = torture.random("surroundings")
    for number in range(torture.cases(1, full=15)):
        chosen = {name: rng.choice(SURROUNDINGS[name]) for name in rng.sample([*SURROUNDINGS], 6)}
        with monkeypatch.context() as patch:
            for name, value in chosen.items():
                patch.delenv(name, raising=False) if value is None else patch.setenv(name, value)
            words = nnctl_command("train", config, *TINY, "--run-dir", f"run{number}")
            trained = end_of_bytes(processes, words)
        output = f"{chosen}\n{trained.stderr!r}"
        assert "Traceback" not in output
        assert trained.returncode == 0 or (trained.returncode == 2 and "DATA_DIR" in output), output
        torture.tried("trainings in an environment of six variables with any values")


def end_of_bytes(processes: Processes, words: list[str]) -> CompletedProcess[bytes]:
    """Run a command to its end; its output may have any encoding."""
    process = processes.start(words, stdout=PIPE, stderr=PIPE)
    stdout, stderr = process.communicate(timeout=DEADLINE)
    return CompletedProcess(words, process.returncode, stdout, stderr)


# Streams and windows -----------------------------------------------------------------------------


@posix
def test_a_training_survives_closed_streams(
    scratch: Path, torture: Torture, processes: Processes
) -> None:
    redirections = (
        *(">&- 2>&-", "<&- >&- 2>&-", "| head -n 1", "| true", ">&-", "2>&-", "<&-"),
        *("2>&1 | true", "> /dev/full", "2> /dev/full", "> /dev/full 2>&1", "< /dev/zero"),
    )
    for number, redirected in enumerate(redirections if torture.full else redirections[:1]):
        if "/dev/full" in redirected and not Path("/dev/full").exists():
            continue
        command = nnctl_command("train", SMOKE, *TINY, "--run-dir", f"run{number}")
        done = end_of_bytes(processes, ["sh", "-c", f'"$@" {redirected}', "sh", *command])
        output = f"{redirected}\n{done.stdout!r}\n{done.stderr!r}"
        assert b"Traceback" not in done.stderr + done.stdout, output
        summary = json.loads((scratch / f"run{number}" / "summary.json").read_text("utf-8"))
        assert summary["status"] == "finished", output
        assert done.returncode in (0, 1), output
        torture.tried("trainings whose streams are closed, full or left")


@pytest.mark.usefixtures("full_only")
@posix
def test_a_window_may_change_its_size_during_training(scratch: Path, torture: Torture) -> None:
    import fcntl
    import termios

    rng = torture.random("windows")
    resized = 0

    def resize(window: int, process: Popen[bytes]) -> None:
        nonlocal resized
        size = struct.pack("HHHH", rng.choice((0, 1, 24, 999)), rng.choice((0, 1, 20, 999)), 0, 0)
        fcntl.ioctl(window, termios.TIOCSWINSZ, size)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGWINCH)
        resized += 1

    for number in range(3):
        printed = in_terminal(
            *("train", SMOKE, "--epochs", 20, "--run-dir", f"run{number}"), meanwhile=resize
        )
        assert "Traceback" not in printed
        summary = json.loads((scratch / f"run{number}" / "summary.json").read_text("utf-8"))
        assert summary["status"] == "finished"
    torture.tried("changes of a window's size while something is trained", resized)


# Clocks ------------------------------------------------------------------------------------------

CLOCK = """
import datetime, itertools, runpy, sys, time

moments = itertools.cycle({moments})


class Clock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls.fromtimestamp(time.time(), tz)


time.time = lambda: float(next(moments))
time.time_ns = lambda: next(moments) * 10**9
datetime.datetime = Clock
sys.argv = sys.argv[1:]
runpy.run_module("nnctl", run_name="__main__", alter_sys=True)
"""


@pytest.mark.usefixtures("scratch")
def test_a_clock_that_is_set_back_breaks_nothing(torture: Torture, processes: Processes) -> None:
    rng = torture.random("clocks")
    for number in range(torture.cases(1, full=3)):
        moments = [rng.randrange(86_400, 4 * 10**9) for _ in range(50)]
        Path("clock.py").write_text(CLOCK.format(moments=moments), encoding="utf-8")
        commands: tuple[tuple[object, ...], ...] = (
            ("train", SMOKE, *TINY, "--run-dir", f"run{number}"),
            ("train", "--resume", f"run{number}", "--epochs", 2),
            ("train", SMOKE, *TINY),
            ("eval", f"run{number}"),
            ("sweep", SMOKE, *TINY, "-p", "training.seed=1,2", "--workers", 1),
        )
        for arguments in commands[: torture.cases(1, full=len(commands))]:
            command = [sys.executable, "clock.py", "nnctl", *map(str, arguments)]
            done = end_of_bytes(processes, command)
            assert done.returncode == 0, done.stderr
            assert b"Traceback" not in done.stderr, done.stderr
            torture.tried("commands while the clock is set back and forth by years")
        run = Run.open(Path(f"run{number}"))
        assert all(epoch.seconds >= 0 for epoch in run.history)
        assert [epoch.epoch for epoch in run.history] == [1, 2][: torture.cases(1, full=2)]
        assert run.summary
        assert run.summary.seconds >= 0


def test_runs_within_one_second_have_different_directories(
    scratch: Path, torture: Torture, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = [
        datetime(2026, 12, 31, 23, 59, 59),
        datetime(2027, 1, 1),
        datetime(2026, 10, 25, 2, 30),
    ]
    rng = torture.random("seconds")

    class Clock(datetime):
        @classmethod
        def now(cls, _: object = None) -> datetime:  # type: ignore[override]
            return rng.choice(times)

    monkeypatch.setattr("nnctl.runs.run.datetime", Clock)
    count = torture.cases(30, full=1000)
    made = {Run.create("run", scratch).directory for _ in range(count)}
    assert len(made) == count
    assert made == set(scratch.iterdir())
    torture.tried("runs begun in three seconds that come repeatedly", count)
