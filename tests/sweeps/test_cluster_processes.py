"""Trials on a Dask cluster of real processes, some of which are killed or suspended."""

from __future__ import annotations

import concurrent.futures
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from nnctl import __version__
from nnctl.data.dataset import open_dataset
from nnctl.errors import NnctlError, UsageError
from nnctl.sweeps import dask_cluster
from nnctl.sweeps.dask_cluster import DaskPool
from nnctl.sweeps.trials import Trial, TrialResult, run_trial
from tests.conftest import Nnctl
from tests.processes import DEADLINE, ROOT, Processes, check_done, end_of
from tests.runs.helpers import ignore, outcome
from tests.sweeps import stubs
from tests.sweeps.clusters import Dask, dask
from tests.sweeps.helpers import (
    SMALL,
    environment,
    epochs_of,
    make_trial,
    table,
    wait_until,
)

pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dask"),  # the tests share a scheduler, and the cores
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
    pytest.mark.usefixtures("scratch"),
]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A scheduler for all tests that leave it running."""
    with dask(tmp_path_factory.mktemp("dask")) as running:
        yield running


@pytest.fixture
def shared(scheduler: Dask) -> Iterator[Dask]:
    """The scheduler, without workers."""
    yield scheduler
    scheduler.stop_workers()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Dask]:
    """A scheduler that may be killed, without workers."""
    with dask(tmp_path / "dask") as running:
        yield running


def begin_and_hold(workers: DaskPool, number: int = 1) -> tuple[Trial, Future[TrialResult]]:
    """Start a trial that trains two epochs and then waits; return it with its future."""
    trial = make_trial(number)
    future = workers.submit(stubs.hold_after_two_epochs, trial)
    wait_until(lambda: has_two_epochs(trial))
    return trial, future


def has_two_epochs(trial: Trial) -> bool:
    """Return whether two epochs and a checkpoint have arrived here."""
    return epochs_of(trial.directory) == 2 and (trial.directory / "last.npz").exists()


def assert_resumes(workers: DaskPool, trial: Trial) -> None:
    """Train a trial to its end, and check that its first epoch was not trained again."""
    # If the epoch were trained again, its duration would differ.
    before = (trial.directory / "metrics.jsonl").read_bytes().split(b"\n")
    assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"
    assert (trial.directory / "metrics.jsonl").read_bytes().split(b"\n")[0] == before[0]
    here = replace(trial, directory=Path("here"))
    run_trial(here, here.dataset, lambda: False)
    assert outcome(here.directory) == outcome(trial.directory)


def processes_of(trial: Trial) -> list[int]:
    """Return the processes that have trained a trial, according to its log."""
    log = trial.directory / "log.txt"
    found = re.findall(r"started by process (\d+)", log.read_text("utf-8")) if log.exists() else []
    return [int(pid) for pid in found]


@pytest.fixture
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long a nanny takes to start its worker again, a trial does not lose its place."""
    monkeypatch.setattr(dask_cluster, "_MAX_QUERIES", 10**6)


@pytest.mark.usefixtures("_patient")
def test_the_trial_of_a_killed_worker_continues_on_another_one(shared: Dask) -> None:
    shared.start_worker("one")
    shared.start_worker("two")
    with shared.connect(2) as workers:
        trial, future = begin_and_hold(workers)
        while len(set(processes_of(trial))) < 3:  # a process that a nanny has started again
            wait_until(lambda: bool(processes_of(trial)))
            psutil.Process(processes_of(trial)[-1]).kill()
            before = len(processes_of(trial))
            wait_until(lambda before=before: len(processes_of(trial)) > before)  # type: ignore[misc]
        workers.request_stop(trial)
        assert future.result(DEADLINE).status == "interrupted"
        assert_resumes(workers, trial)
    assert not list(shared.folder.rglob("nnctl-*"))


def test_a_trial_waits_if_its_only_worker_is_gone(shared: Dask) -> None:
    messages: list[str] = []
    victim = shared.start_worker("victim")
    with shared.connect(1, messages.append) as workers:
        trial, future = begin_and_hold(workers)
        victim.kill()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(DEADLINE)
        wait_until(lambda: workers.free() == 0 and bool(messages))
        assert messages == [f"the scheduler at {shared.address} has no worker; waiting for one"]
        shared.start_worker("other")
        wait_until(lambda: workers.free() == 1)
        assert_resumes(workers, trial)


def test_a_worker_that_joins_late_is_used(shared: Dask) -> None:
    messages: list[str] = []
    with shared.connect(0, messages.append) as workers:
        wait_until(lambda: workers.free() == 0 and bool(messages))
        assert messages == [f"the scheduler at {shared.address} has no worker; waiting for one"]
        shared.start_worker("first")
        wait_until(lambda: workers.free() == 1)
        trial, _ = begin_and_hold(workers)
        assert workers.free() == 0
        shared.start_worker("second")
        wait_until(lambda: workers.free() == 1)
        other = workers.submit(run_trial, make_trial(2))
        assert other.result(DEADLINE).status == "finished"
        workers.request_stop(trial)


def test_the_pool_reconnects_to_a_restarted_scheduler(
    own: Dask, capfd: pytest.CaptureFixture[str]
) -> None:
    messages: list[str] = []
    lost = f"the scheduler at {own.address} does not answer; waiting for it"
    worker = own.start_worker("first")
    with own.connect(1, messages.append) as workers:
        trial, future = begin_and_hold(workers)
        own.scheduler.kill()
        with pytest.raises(concurrent.futures.CancelledError):
            future.result(DEADLINE)
        wait_until(lambda: worker.has_ended)
        assert workers.free() == 0
        wait_until(lambda: workers.free() == 0 and bool(messages))
        own.start_scheduler()
        own.start_worker("second")
        wait_until(lambda: workers.free() == 1)
        assert_resumes(workers, trial)
    # There may also be messages that no worker was there, before or after.
    assert messages.count(lost) == 1
    assert {message for message in messages if "has no worker" not in message} == {lost}
    assert capfd.readouterr() == ("", "")


def begin_to_hang(workers: DaskPool, dask: Dask, number: int) -> tuple[Trial, Future[TrialResult]]:
    """Start a trial that never ends; return it with its future when it runs."""
    trial = make_trial(number)
    future = workers.submit(stubs.hang, trial)
    wait_until(lambda: any("to hang" in log.read_text("utf-8") for log in logs(dask)))
    return trial, future


def logs(dask: Dask) -> list[Path]:
    """Return the logs of the trials that run on workers."""
    return [*dask.folder.rglob("nnctl-*/log.txt")]


@pytest.mark.usefixtures("_patient")
def test_a_worker_that_hangs_is_killed_and_restarted(shared: Dask) -> None:
    shared.start_worker("double", "--nthreads", "2")
    with shared.connect(2) as workers:
        innocent, future = begin_and_hold(workers, 2)
        stuck, stuck_future = begin_to_hang(workers, shared, 1)
        workers.request_stop(stuck)
        workers.kill(stuck)
        workers.kill(stuck)
        with pytest.raises(BrokenExecutor, match="was killed"):
            stuck_future.result(DEADLINE)
        wait_until(lambda: len(processes_of(innocent)) > 1)
        workers.request_stop(innocent)
        assert future.result(DEADLINE).status == "interrupted"
        wait_until(lambda: workers.free() == 2)
        assert workers.submit(run_trial, make_trial(3)).result(DEADLINE).status == "finished"


def test_a_worker_that_hangs_without_a_nanny_is_not_used_again(shared: Dask) -> None:
    messages: list[str] = []
    shared.start_worker("alone", "--no-nanny")
    with shared.connect(1, messages.append) as workers:
        trial, future = begin_to_hang(workers, shared, 1)
        workers.kill(trial)
        with pytest.raises(BrokenExecutor, match="was killed"):
            future.result(DEADLINE)
        wait_until(lambda: workers.free() == 0 and bool(messages))
        # Older versions of Dask remove the worker.
        assert re.search("cannot be restarted and will not be used|has no worker", messages[0])
        shared.start_worker("other")
        wait_until(lambda: workers.free() == 1)
        assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"


def test_a_suspended_worker_does_not_delay_the_others(shared: Dask) -> None:
    frozen = shared.start_worker("frozen")
    shared.start_worker("other")
    with shared.connect(2) as workers:
        trials = dict(begin_and_hold(workers, number)[::-1] for number in (1, 2))
        frozen.suspend()
        for trial in trials.values():
            workers.request_stop(trial)
        (done,), (stuck,) = concurrent.futures.wait(trials, DEADLINE, FIRST_COMPLETED)
        assert done.result().status == "interrupted"
        workers.kill(trials[stuck])
        with pytest.raises(BrokenExecutor):
            stuck.result(DEADLINE)


def test_a_worker_with_another_version_of_nnctl_is_refused(own: Dask, scratch: Path) -> None:
    (scratch / "sitecustomize.py").write_text("import nnctl\nnnctl.__version__ = '8.0'\n")
    own.start_worker("old", PYTHONPATH=str(scratch))
    with own.connect(1) as workers:
        needed = re.escape(__version__)
        message = f"worker tcp://.* has nnctl 8.0, but the sweep needs nnctl {needed}"
        with pytest.raises(UsageError, match=message):
            workers.submit(run_trial, make_trial(1)).result(DEADLINE)
        assert workers.free() == 1


@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_the_error_names_the_process_that_lacks_nnctl(own: Dask, scratch: Path, who: str) -> None:
    (scratch / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'nnctl':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
    )
    if who == "scheduler":
        own.scheduler.kill()
        own.start_scheduler(PYTHONPATH=str(scratch))
        own.start_worker("one")
    else:
        own.start_worker("one", PYTHONPATH=str(scratch))
    with own.connect(1) as workers:
        with pytest.raises(NnctlError, match=f"{who}.* cannot train this sweep") as caught:
            workers.submit(run_trial, make_trial(1)).result(DEADLINE)
        assert f"Install nnctl {__version__}" in str(caught.value.hint)
        assert workers.free() == 1


@pytest.mark.parametrize("in_time", [True, False], ids=["at once", "later"])
def test_the_trial_of_a_killed_client_stops_and_can_resume(
    shared: Dask, processes: Processes, *, in_time: bool
) -> None:
    shared.start_worker("one")
    trial = make_trial(1)
    client = processes.start(
        [sys.executable, "-m", "tests.sweeps.lonely_client", shared.address], env=environment()
    )
    wait_until(lambda: has_two_epochs(trial))
    client.send_signal(signal.SIGKILL)
    client.wait(DEADLINE)
    with shared.connect(1) as workers:
        if in_time:
            other = workers.submit(run_trial, make_trial(2))
            assert other.result(DEADLINE).status == "finished"
        else:
            wait_until(lambda: not list((shared.folder / "one").rglob("nnctl-*")))
        assert_resumes(workers, trial)


def test_mnist_is_sent_to_a_worker_that_does_not_have_it(shared: Dask, with_mnist: Path) -> None:
    shared.start_worker("poor")
    shared.start_worker("rich", NNCTL_DATA_DIR=str(with_mnist))
    dataset = open_dataset("mnist", notify=ignore)
    trials = [make_trial(number) for number in (1, 2)]
    trials = [
        replace(it, dataset=dataset, config=it.config.replace('"mini"', '"mnist"')) for it in trials
    ]
    with shared.connect(2) as workers:
        for future in [workers.submit(run_trial, trial) for trial in trials]:
            assert future.result(DEADLINE).status == "finished"
    (sent,) = (shared.folder / "poor").rglob("train-images-idx3-ubyte.gz")
    assert sent.stat().st_size > 9_000_000
    assert not (with_mnist / "received").exists()


# The command -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("in_threads")
def test_a_sweep_survives_a_worker_and_the_scheduler_and_can_resume_anywhere(
    nnctl: Nnctl, processes: Processes, own: Dask
) -> None:
    words = (
        "sweep", SMALL, "-p", "training.seed=0,1", "-p", "optimizer.learning_rate=0.05,1e30",
        "--epochs", 3000, "--sweep-dir",
    )  # fmt: skip
    victim = own.start_worker("one")
    sweep = processes.start_nnctl(*words, "sweep", "--scheduler", own.address)

    def wait_for_progress() -> None:
        before = sum(map(epochs_of, Path("sweep").glob("trial-*")))
        wait_until(lambda: sum(map(epochs_of, Path("sweep").glob("trial-*"))) > before)

    wait_for_progress()
    victim.kill()
    own.start_worker("two")
    wait_for_progress()
    own.scheduler.kill()
    own.start_scheduler()
    own.start_worker("three")
    wait_for_progress()
    os.killpg(sweep.pid, signal.SIGINT)
    stderr = check_done(words, end_of(sweep), 130).stderr
    assert "does not answer; waiting for it" in stderr
    assert "nnctl sweep --resume sweep" in stderr
    nnctl("sweep", "--resume", "sweep")
    nnctl(*words, "alone")
    assert table("sweep") == table("alone")


def test_the_demo_runs_a_sweep(processes: Processes) -> None:
    pipe = subprocess.PIPE
    words = [sys.executable, "-m", "tests.sweeps.cluster_demo"]
    demo = processes.start(
        words, cwd=ROOT, env=environment(), stdout=pipe, stderr=pipe, encoding="utf-8"
    )
    done = check_done(("cluster_demo",), end_of(demo), 0)
    assert "4 of 4 done" in done.stderr
    assert "Best by validation accuracy" in done.stdout
