"""Sweeps on local processes: signals, crashes, output, and no orphan processes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path

import psutil
import pytest

from nnctl.errors import StorageError
from nnctl.sweeps import pool as pool_module
from nnctl.sweeps.pool import LocalPool
from nnctl.sweeps.trials import LOG, run_trial
from tests.conftest import Nnctl
from tests.processes import DEADLINE, Processes, check_done, end_of, nnctl_command
from tests.sweeps import stubs
from tests.sweeps.helpers import (
    SMALL,
    begin_sweep,
    environment,
    epochs_of,
    make_trial,
    statuses,
    table,
    train_sweep,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("scratch")
posix = pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPool]:
    """A pool of one running process, for all tests that do not kill it."""
    with LocalPool(1) as started:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("pool"))
            started.submit(run_trial, make_trial(1)).result(DEADLINE)
        wait_until(lambda: started.free() == 1)
        yield started


@pytest.fixture
def own_pool() -> Iterator[LocalPool]:
    """A pool of one process that may be killed."""
    with LocalPool(1) as started:
        yield started


def log_of(directory: Path | str) -> str:
    """Return the log of a trial, or an empty string if it has not started."""
    path = Path(directory, LOG)
    return path.read_text("utf-8") if path.exists() else ""


def pids_in_logs(folder: str = ".") -> list[int]:
    """Return the process IDs in the logs, one for each start of a trial."""
    logs = map(log_of, sorted(Path(folder).glob("trial-*")))
    return [int(pid) for log in logs for pid in re.findall(r"started by process (\d+)", log)]


# The pool ----------------------------------------------------------------------------------------


def test_a_trial_that_raises_is_a_row_with_its_traceback_and_what_it_printed(
    pool: LocalPool,
) -> None:
    sweep = begin_sweep("training.seed=0,1,2", work=stubs.print_and_raise_in_the_first)
    first, *others = train_sweep(sweep, pool)
    assert (first.status, first.reason) == ("failed", "ZeroDivisionError: division")
    for text in ("printed by Python", "printed by a library", "stubs.py"):
        assert text in first.log
    assert statuses(others) == ["finished"] * 2
    assert "printed" not in log_of("sweep/trial-002")
    pids = pids_in_logs("sweep")
    assert len(pids) == 3
    assert len(set(pids)) == 1, "one process serves one trial after the other"
    assert os.getpid() not in pids


def test_a_trial_that_crashes_its_process_twice_is_a_row_with_the_stack(
    own_pool: LocalPool,
) -> None:
    sweep = begin_sweep("training.seed=0,1", work=stubs.crash_in_the_first)
    first, second = train_sweep(sweep, own_pool)
    assert first.reason.startswith("the worker process died twice in the same epoch: killed")
    assert "in crash_in_the_first" in first.log
    assert log_of(first.run_dir).count("in crash_in_the_first") == 2
    assert (second.status, second.reason) == ("finished", "")


def test_a_storage_error_in_a_process_arrives_with_its_hint(pool: LocalPool) -> None:
    with pytest.raises(StorageError, match="No space left") as caught:
        pool.submit(stubs.find_the_disk_full, make_trial(2)).result(DEADLINE)
    assert caught.value.hint == "Make room."


@posix
def test_a_process_ignores_signals_and_stops_when_its_parent_requests_it(
    pool: LocalPool,
) -> None:
    trial = make_trial(1)
    future = pool.submit(stubs.hold_after_two_epochs, trial)
    wait_until(lambda: epochs_of(trial.directory) == 2)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(pids_in_logs()[0], number)
    pool.request_stop(make_trial(2))
    assert pool.free() == 0
    pool.request_stop(trial)
    result = future.result(DEADLINE)
    assert (result.status, result.epochs) == ("interrupted", 2)
    assert run_trial(trial, trial.dataset, lambda: False).status == "finished"


def test_a_process_that_hangs_logs_its_stack_and_can_be_killed(own_pool: LocalPool) -> None:
    trial = make_trial(1)
    future = own_pool.submit(stubs.hang, trial)
    own_pool.request_stop(trial)
    wait_until(lambda: "in hang" in log_of(trial.directory))
    own_pool.kill(make_trial(2))
    assert not future.done()
    own_pool.kill(trial)
    with pytest.raises(BrokenExecutor):
        future.result(DEADLINE)
    wait_until(lambda: own_pool.free() == 1)


def test_each_process_of_a_pool_trains_and_stops_independently() -> None:
    first, second = make_trial(1), make_trial(2)
    with LocalPool(2) as pool:
        assert pool.free() == 2
        futures = [pool.submit(stubs.hold_after_two_epochs, trial) for trial in (first, second)]
        assert pool.free() == 0
        wait_until(lambda: [epochs_of(it.directory) for it in (first, second)] == [2, 2])
        pool.request_stop(second)
        assert futures[1].result(DEADLINE).status == "interrupted"
        assert not futures[0].done()
        pool.kill_all()
        with pytest.raises(BrokenExecutor):
            futures[0].result(DEADLINE)
        assert len(set(pids_in_logs())) == 2


def test_a_process_that_cannot_start_breaks_its_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "serve", os._exit)  # with wrong arguments
    with LocalPool(1) as pool:
        with pytest.raises(BrokenExecutor):
            pool.submit(run_trial, make_trial(1)).result(DEADLINE)
        wait_until(lambda: pool.free() == 1)


# The command -------------------------------------------------------------------------------------

SWEEP = ("sweep", SMALL, "-p", "training.seed=0,1,2", "--workers", 1, "--sweep-dir", "sweep")


def start(processes: Processes, work: str) -> subprocess.Popen[str]:
    """Start a sweep with one process and another work; see `stubs`."""
    words = [sys.executable, "-m", "tests.sweeps.nnctl_with", work, *map(str, SWEEP)]
    pipe = subprocess.PIPE
    return processes.start(words, stdout=pipe, stderr=pipe, encoding="utf-8", env=environment())


def assert_resumes(nnctl: Nnctl, finished: tuple[Path, str]) -> None:
    """Resume a sweep whose first trial has two epochs; compare it with an undisturbed sweep."""
    kept = Path("sweep/trial-001/metrics.jsonl").read_bytes()
    nnctl("sweep", "--resume", "sweep")
    assert kept.count(b"\n") == 2
    assert Path("sweep/trial-001/metrics.jsonl").read_bytes().startswith(kept)
    assert table("sweep") == table(finished[0])


@posix
@pytest.mark.usefixtures("in_threads")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_after_a_signal_to_the_group_processes_save_and_the_sweep_can_resume(
    nnctl: Nnctl, processes: Processes, finished: tuple[Path, str], number: signal.Signals
) -> None:
    process = start(processes, "hold_after_two_epochs")
    wait_until(lambda: epochs_of("sweep/trial-001") == 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, number)
    stderr = check_done(SWEEP, end_of(process), 130).stderr
    assert "Interrupted: 0 of 3 trials are complete" in stderr
    assert [row["status"] for row in table("sweep")] == ["interrupted"]
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive
    command = re.search(r"Resume with: nnctl (.*)", stderr)
    assert command is not None
    assert command[1] == "sweep --resume sweep --workers 1"
    assert_resumes(nnctl, finished)


@posix
@pytest.mark.usefixtures("in_threads")
def test_a_killed_sweep_leaves_no_orphan_and_can_resume(
    nnctl: Nnctl, processes: Processes, finished: tuple[Path, str]
) -> None:
    process = start(processes, "hold_after_two_epochs")
    wait_until(lambda: epochs_of("sweep/trial-001") == 2)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive
    assert_resumes(nnctl, finished)


@posix
def test_a_second_interrupt_does_not_wait_for_trials(processes: Processes) -> None:
    process = start(processes, "hang")
    wait_until(lambda: "to hang" in log_of("sweep/trial-001"))
    workers = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    wait_until(lambda: "requested to stop" in log_of("sweep/trial-001"))
    os.kill(process.pid, signal.SIGINT)
    check_done(SWEEP, end_of(process), 130)
    _, alive = psutil.wait_procs(workers, timeout=DEADLINE)
    assert not alive


@posix
@pytest.mark.parametrize("times", [1, 2])
def test_an_interrupt_while_the_processes_start_stops_them(
    processes: Processes, times: int
) -> None:
    process = processes.start_nnctl(*SWEEP, "--epochs", 1_000_000)
    journal = Path("sweep/journal.jsonl")
    wait_until(lambda: journal.exists() and '"started"' in journal.read_text("utf-8"))
    for _ in range(times):
        os.killpg(process.pid, signal.SIGINT)
    stderr = check_done(SWEEP, end_of(process), 130).stderr
    assert "Fatal" not in stderr
    assert "KeyboardInterrupt" not in stderr


@posix
def test_trials_train_although_the_standard_streams_are_closed(processes: Processes) -> None:
    words = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *nnctl_command(*SWEEP)]
    assert processes.start(words, env=environment()).wait(DEADLINE) == 0
    assert [row["status"] for row in table("sweep")] == ["finished"] * 3
