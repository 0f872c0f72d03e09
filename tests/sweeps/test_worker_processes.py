"""Worker processes that cannot start, are suspended, or lack system resources."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from nnctl.cli.sweep import _start_workers
from nnctl.data.dataset import Dataset
from nnctl.errors import NnctlError, cannot_write
from nnctl.sweeps import pool, process, scheduler
from nnctl.sweeps.pool import LocalPool
from nnctl.sweeps.scheduler import Limits, Sweep
from nnctl.sweeps.trials import Trial, TrialResult
from nnctl.sweeps.workers import TrainTrial, WorkerPool
from tests.conftest import CONFIGS, Nnctl
from tests.processes import DEADLINE, ROOT, Processes, end_of
from tests.sweeps.helpers import begin_sweep, train_sweep, wait_until

pytestmark = pytest.mark.usefixtures("scratch")
posix = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such thing")
SMOKE = CONFIGS / "smoke.yaml"
Stop = Callable[[], bool]


def describe_worker(trial: Trial, *_: object) -> TrialResult:
    """Return a result that describes the worker process, without training."""
    seen = [
        f"safe path {sys.flags.safe_path}",
        f"BLAS threads {os.environ.get('OPENBLAS_NUM_THREADS')}",
        f"process {os.getpid()}",
    ]
    return TrialResult.failure(trial, ", ".join(seen))


def wait_for_stop(trial: Trial, _: Dataset, stop: Stop) -> TrialResult:
    """Wait until the trial should stop."""
    wait_until(stop)
    return TrialResult.failure(trial, "stopped")


def serve_without_threads(tasks: Connection, results: Connection, log: Path) -> None:
    """Serve in a process that cannot start threads."""
    threading.stack_size(2**46)
    process.serve(tasks, results, log)


def serve_never(*_: object) -> None:
    """Hang instead of starting."""
    while True:
        time.sleep(1)


@contextlib.contextmanager
def no_threads() -> Iterator[None]:
    """Prevent the start of threads: there is not enough memory for their stacks."""
    try:
        before = threading.stack_size(2**46)
    except ValueError:
        pytest.skip("this system bounds the size of a stack")
    try:
        yield
    finally:
        threading.stack_size(before)


def new_sweep(*varied: str, work: TrainTrial = describe_worker) -> Sweep:
    """Return a sweep in the folder ``sweep``."""
    return begin_sweep(*varied, work=work)


def results_of(sweep: Sweep, workers: WorkerPool) -> list[TrialResult]:
    """Return the results of a sweep."""
    with workers:
        return train_sweep(sweep, workers)


def trial_of(sweep: Sweep) -> Trial:
    """Return the first trial of a sweep."""
    trial = sweep._next_trial()
    assert trial is not None
    return trial


def outcome_of(workers: WorkerPool, future: Future[TrialResult]) -> TrialResult:
    """Wait for a trial, and until its worker is free; return the result."""
    result = future.result(DEADLINE)
    wait_until(lambda: workers.free() > 0)
    return result


class TestStart:
    """A worker that cannot start ends the sweep with an error message."""

    def test_a_worker_has_its_environment_and_the_parent_keeps_its_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENBLAS_NUM_THREADS", "7")
        monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
        (row,) = results_of(new_sweep(), LocalPool(1))
        assert row.reason.startswith("safe path True, BLAS threads 1, ")
        assert os.environ["OPENBLAS_NUM_THREADS"] == "7"
        assert "PYTHONSAFEPATH" not in os.environ

    def test_a_worker_without_a_console_writes_to_the_log(self, processes: Processes) -> None:
        # Windows has processes without standard streams, and streams that only write to consoles.
        code = (
            "import sys\n"
            "from pathlib import Path\n"
            "from nnctl.sweeps import process\n"
            "sys.stdout = sys.stderr = None\n"
            "for name in ('first', 'second'):\n"
            "    process._redirect_output(Path('logs', name))\n"
            "    print('out of', name)\n"
            "    print('\\ud800 \\u2713', file=sys.stderr)\n"
        )
        env = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "0", "LC_ALL": "C"}
        done = end_of(processes.start([sys.executable, "-c", code], env=env, encoding="utf-8"))
        assert done.returncode == 0
        for name in ("first", "second"):
            assert Path("logs", name).read_text("utf-8") == f"out of {name}\n\\ud800 \u2713\n"

    @pytest.mark.parametrize(
        ("number", "hint"),
        [(errno.EAGAIN, "ulimit -u"), (errno.ENOMEM, "ulimit -v"), (errno.EMFILE, "ulimit -n")],
    )
    def test_the_error_has_a_hint_if_the_system_refuses_a_process(
        self, nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, number: int, hint: str
    ) -> None:
        def refuse(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("multiprocessing.context.SpawnProcess.start", refuse)
        done = nnctl("sweep", SMOKE, "-p", "training.seed=0,1", "--sweep-dir", "sweep", code=1)
        assert f"cannot start a worker process: {os.strerror(number)}" in done.stderr
        assert hint in done.stderr
        assert "nnctl sweep --resume sweep" in done.stderr

    def test_a_worker_that_cannot_start_a_thread_reports_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with no_threads():  # else it is skipped here
            pass
        monkeypatch.setattr(pool, "serve", serve_without_threads)
        with pytest.raises(NnctlError, match="process: RuntimeError: can't start new thread"):
            results_of(new_sweep(), LocalPool(1))

    def test_a_pool_that_cannot_start_a_thread_reports_an_error_and_leaves_no_process(self) -> None:
        with new_sweep() as sweep, LocalPool(1) as workers, no_threads():
            future = workers.submit(describe_worker, trial_of(sweep))
            error = future.exception(0)
            assert isinstance(error, NnctlError)
            assert "cannot start a worker process: can't start new thread" in error.message
            wait_until(lambda: not multiprocessing.active_children())

    def test_a_worker_that_hangs_while_it_starts_is_killed(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(pool, "serve", serve_never)
        monkeypatch.setattr(pool, "_START", 0.01)
        (row,) = results_of(new_sweep(), LocalPool(1))
        assert row.reason.startswith("the worker process died twice")

    def test_a_trial_stops_if_it_is_requested_while_its_worker_starts(self) -> None:
        with new_sweep() as sweep, LocalPool(1) as workers:
            trial = trial_of(sweep)
            future = workers.submit(wait_for_stop, trial)
            workers.request_stop(trial)
            assert outcome_of(workers, future).reason == "stopped"

    @posix
    def test_a_removed_working_directory_is_an_error_and_no_files_remain(
        self, nnctl: Nnctl, scratch: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gone = scratch / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        home = scratch / "sweep"
        done = nnctl("sweep", SMOKE, "-p", "training.seed=0", "--sweep-dir", home, code=2)
        assert "the current directory does not exist any more" in done.stderr
        assert not home.exists()


class TestSystem:
    """Which system resources a sweep needs."""

    def test_workers_use_neither_shared_memory_nor_semaphores(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr("multiprocessing.synchronize.SemLock.__init__", refuse)
        monkeypatch.setattr("multiprocessing.heap.Arena.__init__", refuse)
        (row,) = results_of(new_sweep(), LocalPool(1))
        assert "process" in row.reason

    @posix
    def test_the_death_of_the_resource_tracker_has_no_effect(
        self, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with new_sweep("training.seed=0,1") as sweep:
            with LocalPool(1) as workers:
                outcome_of(workers, workers.submit(describe_worker, trial_of(sweep)))
                for child in psutil.Process().children():
                    if "resource_tracker" in " ".join(child.cmdline()):
                        child.kill()
            with LocalPool(1) as workers:
                outcome_of(workers, workers.submit(describe_worker, trial_of(sweep)))
        assert capfd.readouterr().err == ""

    def test_a_worker_without_a_parent_ends_although_its_trial_goes_on(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        codes: list[int] = []
        monkeypatch.setattr(process, "GRACE", 0.01)
        monkeypatch.setattr(os, "_exit", codes.append)
        stop, (orders, parent) = threading.Event(), multiprocessing.Pipe(duplex=False)
        parent.close()
        process._receive(orders, queue.SimpleQueue(), stop)
        assert (stop.is_set(), codes) == (True, [1])

    @posix
    def test_a_worker_that_dies_while_it_is_idle_is_replaced(self) -> None:
        with new_sweep("training.seed=0,1") as sweep, LocalPool(1) as workers:
            before = outcome_of(workers, workers.submit(describe_worker, trial_of(sweep))).reason
            (idle,) = multiprocessing.active_children()
            idle.kill()
            wait_until(lambda: not multiprocessing.active_children())
            assert (
                outcome_of(workers, workers.submit(describe_worker, trial_of(sweep))).reason
                != before
            )

    @pytest.mark.parametrize(
        "words",
        [
            ("train", SMOKE, "--epochs", 1, "--threads", 4, "--run-dir", "run"),
            ("download", "--mirror", "http://127.0.0.1:9/"),
        ],
        ids=["train", "download"],
    )
    def test_a_command_that_cannot_start_a_thread_reports_an_error(
        self, nnctl: Nnctl, words: tuple[object, ...]
    ) -> None:
        with no_threads():
            done = nnctl(*words, code=1)
        assert "Error: cannot start another thread" in done.stderr
        assert "ulimit -u" in done.stderr

    @pytest.mark.parametrize("name", ["OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"])
    @pytest.mark.parametrize("used", ["1", "7"])
    def test_the_command_starts_no_blas_threads_unless_the_user_requests_them(
        self, processes: Processes, name: str, used: str
    ) -> None:
        # OpenBLAS sends itself a SIGINT if it cannot start them.
        code = (
            "import os, nnctl.cli, nnctl.__main__\n"
            f"nnctl.cli.main = lambda **_: print(os.environ['{name}'])\n"
            "nnctl.__main__.run()\n"
        )
        given = {} if used == "1" else {name: used}
        plain = {other: os.environ[other] for other in os.environ if other != name}
        started = processes.start(
            [sys.executable, "-c", code], env=plain | given, stdout=-1, encoding="utf-8"
        )
        assert end_of(started).stdout == f"{used}\n"

    def test_an_error_due_to_too_many_open_files_has_a_hint(self) -> None:
        error = OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        assert "ulimit -n" in str(cannot_write(Path("run"), error).hint)

    def test_an_unexpected_error_due_to_too_many_open_files_has_a_hint(
        self, nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(path: object, *_: object) -> None:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

        monkeypatch.setattr("nnctl.config.reader.Path.read_bytes", refuse)
        monkeypatch.setattr("nnctl.config.reader.Path.open", refuse)
        done = nnctl("check", SMOKE, code=2)
        assert "ulimit -n" in done.stderr


class _Stuck(WorkerPool):
    """Pool whose trial never ends; it records the calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._future: Future[TrialResult] | None = None

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        self._future = Future()
        return self._future

    def free(self) -> int:
        return int(self._future is None)

    def request_stop(self, trial: Trial) -> None:
        self.calls.append("stop")

    def kill(self, trial: Trial) -> None:
        self.calls.append("kill")

    def kill_all(self) -> None:
        pass

    def shutdown(self) -> None:
        pass


def test_the_timeout_does_not_count_time_in_which_a_sweep_is_suspended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps = [0.2, 1000.0, *[0.5] * 60]  # seconds between two ticks; the second is a suspension
    now = 0.0

    clock = SimpleNamespace(monotonic=lambda: now, strftime=time.strftime)
    monkeypatch.setattr(scheduler, "time", clock)
    monkeypatch.setattr(scheduler, "_TICK", 0.0)
    workers = _Stuck()
    call_times: dict[str, float] = {}
    with new_sweep() as sweep:
        ticks: Any = sweep.train(workers, lambda: False, Limits(trial_timeout=15))
        for step in steps:
            next(ticks)
            now += step
            for call in workers.calls:
                call_times.setdefault(call, now)
    assert call_times["stop"] == pytest.approx(1000.2 + 14, abs=1.1)
    assert call_times["kill"] == pytest.approx(1000.2 + 14 + 10, abs=1.1)


def test_a_quiet_sweep_reports_what_it_waits_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def connect(address: str, notify: Callable[[str], None]) -> None:
        notify(f"the scheduler at {address} does not describe_worker; waiting for it")

    monkeypatch.setattr("nnctl.cli.sweep.DaskPool", connect)
    _start_workers("tcp://192.0.2.1:1", None)
    assert "does not describe_worker; waiting for it" in capsys.readouterr().err
