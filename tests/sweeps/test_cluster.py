"""Trials on a Dask cluster whose scheduler and workers run in threads of this process.

See test_cluster_processes.py for tests with real processes.
"""

from __future__ import annotations

import concurrent.futures
import json
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import DamagedFileError, UsageError
from nnctl.runs.lock import DirectoryLock
from nnctl.runs.run import Run, Which
from nnctl.runs.training_run import TrainingRun
from nnctl.sweeps import dask_cluster
from nnctl.sweeps.dask_cluster import DaskPool
from nnctl.sweeps.trials import Trial, run_trial
from tests.conftest import Nnctl
from tests.processes import DEADLINE, Processes, end_of
from tests.runs.helpers import ignore, outcome
from tests.sweeps import stubs
from tests.sweeps.clusters import closed_port
from tests.sweeps.helpers import SMALL, epochs_of, make_trial, table, wait_until

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.xdist_group("dask")  # the tests share a cluster


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a scheduler with two workers."""
    folder = tmp_path_factory.mktemp("dask")
    with (
        pytest.MonkeyPatch.context() as patch,
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=False,
            protocol="tcp",
            host="127.0.0.1",
            dashboard_address=":0",
            local_directory=str(folder),
        ) as running,
    ):
        # It is meant for worker processes, and would last until the end of this process.
        patch.setattr(dask_cluster, "keep_blas_on_one_thread", lambda: None)
        with distributed.Client(running, set_as_default=False) as client:
            # The first task of a worker starts its thread, which lasts as long as the cluster.
            for name in client.nthreads():
                client.submit(time.sleep, 0, workers=[name], pure=False).result(DEADLINE)
        yield running.scheduler_address


@pytest.fixture(scope="module")
def workers(address: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaskPool]:
    """A pool of the workers, which have trained before."""
    with connect(address) as connected:
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(tmp_path_factory.mktemp("warm"))
            for future in [connected.submit(run_trial, make_trial(n)) for n in (1, 2)]:
                assert future.result(DEADLINE).status == "finished"
        yield connected


@pytest.fixture(autouse=True)
def _in_an_empty_folder(scratch: Path) -> None:
    assert not [*scratch.iterdir()]


def connect(address: str) -> DaskPool:
    """Return a connection as soon as both workers are free."""
    connected = DaskPool(address, seconds=0.1)
    wait_until(lambda: connected.free() == 2)
    return connected


def with_changes(trial: Trial, **sections: Mapping[str, object]) -> Trial:
    """Return a trial with another configuration."""
    config = json.loads(trial.config)
    for name, values in sections.items():
        config[name].update(values)
    return replace(trial, config=json.dumps(config))


def train_here(trial: Trial) -> object:
    """Train a trial locally, without interruption, and return its outcome."""
    here = replace(trial, directory=Path("here", trial.directory.name))
    assert run_trial(here, here.dataset, lambda: False).status == "finished"
    return outcome(here.directory)


def log_of(trial: Trial) -> str:
    """Return the log of a trial."""
    return (trial.directory / "log.txt").read_text("utf-8")


# Trials ------------------------------------------------------------------------------------------


def test_a_remote_trial_has_the_same_files_as_a_local_one(workers: DaskPool) -> None:
    trials = [make_trial(1), replace(make_trial(2), fold=1)]
    futures = [workers.submit(run_trial, trial) for trial in trials]
    assert workers.free() == 0
    for trial, future in zip(trials, futures, strict=True):
        result = future.result(DEADLINE)
        assert (result.status, result.run_dir) == ("finished", trial.directory)
        assert result.fold == trial.fold
        assert train_here(trial) == outcome(trial.directory)
        here = Path("here", trial.directory.name)
        assert {path.name for path in trial.directory.iterdir()} == {
            path.name for path in here.iterdir()
        }
        summary = json.loads((trial.directory / "summary.json").read_text("utf-8"))
        assert summary["run_dir"] == str(trial.directory)
    assert workers.free() == 2


def test_a_trial_that_ended_before_its_sweep_recorded_it_keeps_its_summary(
    workers: DaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingRun, "_seconds", lambda _: 1.0)  # so the summary is the same again
    trial = make_trial(1)
    for _ in range(2):
        assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"
        assert train_here(trial) == outcome(trial.directory)
        assert Run(trial.directory).summary


def test_the_local_files_of_a_remote_trial_grow_while_it_trains(workers: DaskPool) -> None:
    trial = make_trial(1)
    allow(0)
    future = workers.submit(stubs.train_as_far_as_allowed, trial)
    for epochs in (1, 2):
        allow(epochs)
        wait_until(lambda epochs=epochs: epochs_of(trial.directory) == epochs)  # type: ignore[misc]
        wait_until(has_checkpoint(trial, epochs))
    allow(99)
    assert future.result(DEADLINE).epochs == 3
    assert train_here(trial) == outcome(trial.directory)
    assert log_of(trial).count("started by process") == 1


WHICH: tuple[Which, ...] = ("last", "best")


def allow(epochs: int) -> None:
    """Let `stubs.train_as_far_as_allowed` train the given number of epochs."""
    stubs.allowed_epochs = epochs


def has_checkpoint(trial: Trial, epoch: int) -> Callable[[], bool]:
    """Return a condition: the local checkpoint ``last`` is from the given epoch."""
    run = Run(trial.directory)
    last = run.checkpoint_path("last")
    return lambda: last.exists() and run.checkpoint("last").progress.epoch == epoch


def test_a_trial_that_stopped_on_a_worker_can_resume_locally(workers: DaskPool) -> None:
    trial = make_trial(1)
    future = workers.submit(stubs.hold_after_two_epochs, trial)
    wait_until(lambda: epochs_of(trial.directory) == 2)
    workers.request_stop(make_trial(2))
    assert not future.done()
    workers.request_stop(trial)
    result = future.result(DEADLINE)
    assert (result.status, result.epochs) == ("interrupted", 2)
    assert str(trial.directory) not in result.reason
    assert run_trial(trial, trial.dataset, lambda: False).status == "finished"
    assert train_here(trial) == outcome(trial.directory)


def test_a_trial_that_started_locally_resumes_on_a_worker(workers: DaskPool) -> None:
    trial = make_trial(1)
    stops = iter([False, True])
    assert run_trial(trial, trial.dataset, lambda: next(stops)).status == "interrupted"
    before = (trial.directory / "metrics.jsonl").read_bytes()
    assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"
    assert (trial.directory / "metrics.jsonl").read_bytes().startswith(before)
    assert train_here(trial) == outcome(trial.directory)
    assert log_of(trial).count("started by process") == 2


def test_a_complete_trial_that_is_not_recorded_yet_is_not_trained_again(
    workers: DaskPool,
) -> None:
    trial = make_trial(1)
    run_trial(trial, trial.dataset, lambda: False)
    before = outcome(trial.directory)
    result = workers.submit(run_trial, trial).result(DEADLINE)
    assert (result.status, result.epochs) == ("finished", 3)
    assert before == outcome(trial.directory)


def test_a_trial_that_diverges_is_reported_with_its_log(workers: DaskPool) -> None:
    trial = with_changes(make_trial(1), optimizer={"learning_rate": 1e30})
    result = workers.submit(run_trial, trial).result(DEADLINE)
    assert result.status == "diverged"
    assert "training diverged in epoch 1" in result.reason
    assert result.reason in result.log


def test_a_directory_that_another_process_trains_is_refused(
    workers: DaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "ORPHAN_SECONDS", 0.1)
    trial = make_trial(1)
    trial.directory.mkdir()
    lock = DirectoryLock(trial.directory)
    with pytest.raises(UsageError, match="is being trained by another process"):
        workers.submit(run_trial, trial).result(DEADLINE)
    lock.unlock()
    assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"


def test_a_second_interrupt_disconnects_at_once_and_frees_the_workers(
    address: str, workers: DaskPool
) -> None:
    with connect(address) as leaving:
        trials = [make_trial(number) for number in (1, 2)]
        futures = [leaving.submit(stubs.hold_after_two_epochs, trial) for trial in trials]
        wait_until(lambda: all(epochs_of(trial.directory) == 2 for trial in trials))
        leaving.kill_all()
        assert concurrent.futures.wait(futures, DEADLINE).not_done == set()
        assert all(future.cancelled() for future in futures)
    for future in [workers.submit(run_trial, make_trial(number)) for number in (3, 4)]:
        assert future.result(DEADLINE).status == "finished"


# Datasets ----------------------------------------------------------------------------------------


def trial_of(dataset: Dataset, number: int = 1) -> Trial:
    """Return a trial of another dataset."""
    data = {"dataset": dataset.name}
    return replace(with_changes(make_trial(number), data=data), dataset=dataset)


def received() -> dict[Path, int]:
    """Return the files that workers have received, with their modification times."""
    files = Path("../cache/received").rglob("*.gz")
    return {path: path.stat().st_mtime_ns for path in files}


def test_datasets_of_gates_are_not_sent(workers: DaskPool) -> None:
    trial = trial_of(open_dataset("xor", notify=ignore))
    layers = [{"units": 2, "activation": "softmax"}]
    trial = with_changes(trial, data={"validation": 0, "subset": None}, network={"layers": layers})
    assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"


def test_a_dataset_folder_that_a_worker_has_is_not_sent(
    workers: DaskPool, mini_folder: Path
) -> None:
    trial = trial_of(open_dataset(str(mini_folder), notify=ignore))
    assert workers.submit(run_trial, trial).result(DEADLINE).status == "finished"
    assert not received()
    assert train_here(trial) == outcome(trial.directory)


def test_a_dataset_folder_that_no_worker_has_is_sent_once(
    workers: DaskPool, mini_folder: Path
) -> None:
    # Workers are on this machine, and so would find the folder by its own name.
    dataset = replace(open_dataset(str(mini_folder), notify=ignore), name="/only/on/the/client")
    first, second = (trial_of(dataset, number) for number in (1, 2))
    assert workers.submit(run_trial, first).result(DEADLINE).status == "finished"
    sent = received()
    assert len(sent) == 4
    assert workers.submit(run_trial, second).result(DEADLINE).status == "finished"
    assert received() == sent
    assert train_here(second) == outcome(second.directory)


def test_a_dataset_that_has_changed_since_the_sweep_started_is_refused(
    workers: DaskPool, mini_folder: Path
) -> None:
    labels = mini_folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes() + b" ")  # no other test sends these
    dataset = open_dataset(str(mini_folder), notify=ignore)
    labels.write_bytes(labels.read_bytes() + b" ")
    with pytest.raises(DamagedFileError, match=r"worker tcp://.*: the dataset .* has changed"):
        workers.submit(run_trial, trial_of(dataset)).result(DEADLINE)
    assert workers.free() == 2


# Addresses ---------------------------------------------------------------------------------------


class _Answering(socketserver.BaseRequestHandler):
    """A server that is not a Dask scheduler."""

    def handle(self) -> None:
        """Answer."""
        self.request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 10)


@pytest.mark.parametrize(
    "address", ["nonsense", "host:port", "ftp://127.0.0.1:21", "closed", "something else"]
)
def test_an_address_without_a_scheduler_is_a_usage_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "_PATIENCE", 0.2)
    with socketserver.TCPServer(("127.0.0.1", 0), _Answering) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        address = {
            "closed": f"127.0.0.1:{closed_port()}",
            "something else": f"127.0.0.1:{server.server_address[1]}",
        }.get(address, address)
        try:
            with pytest.raises(UsageError) as caught:
                DaskPool(address)
        finally:
            server.shutdown()
            thread.join()
    assert address in caught.value.message
    assert "dask scheduler" in str(caught.value.hint)


def test_a_sweep_without_a_scheduler_does_not_start(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_cluster, "_PATIENCE", 0.2)
    where = f"127.0.0.1:{closed_port()}"
    words = ("sweep", SMALL, "-p", "training.seed=0,1", "--sweep-dir", "sweep")
    stderr = nnctl(*words, "--scheduler", where, code=2).stderr
    assert f"no Dask scheduler answers at {where}" in stderr
    assert not Path("sweep").exists()


@pytest.mark.parametrize(
    "mistyped",
    [
        "tcp://user:secret@127.0.0.1:1",
        "tcp://secret@127.0.0.1:{port}",
        "secret@127.0.0.1:{port}",
        "user:secret@127.0.0.1:1",
        "foo:secret@127.0.0.1",
        "127.0.0.1:1?token=secret",
        "tls://127.0.0.1:1/?token=secret#secret",
    ],
)
def test_no_password_in_the_address_of_a_scheduler_is_printed(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, mistyped: str
) -> None:
    monkeypatch.setattr(dask_cluster, "_PATIENCE", 0.2)
    words = ("sweep", SMALL, "-p", "training.seed=0,1", "--sweep-dir", "sweep")
    run = nnctl(*words, "--scheduler", mistyped.format(port=closed_port()), code=2)
    assert "127.0.0.1" in run.stderr
    assert "secret" not in run.stdout + run.stderr


def test_a_sweep_on_a_cluster_has_the_same_results_as_a_local_one(
    nnctl: Nnctl, address: str, finished: tuple[Path, str]
) -> None:
    words = ("sweep", SMALL, "-p", "training.seed=0,1,2", "--sweep-dir", "sweep")
    assert "3 of 3 done" in nnctl(*words, "--scheduler", address).stderr
    assert table("sweep") == table(finished[0])
    nnctl("eval", "sweep/trial-001")


def test_a_trial_on_a_cluster_that_takes_too_long_stops_and_fails(
    nnctl: Nnctl, address: str
) -> None:
    words = ("sweep", SMALL, "-p", "training.seed=0", "--epochs", 10**6, "--sweep-dir", "sweep")
    nnctl(*words, "--scheduler", address, "--trial-timeout", 0.5, code=1)
    (row,) = table("sweep")
    assert (row["status"], row["reason"]) == ("failed", "timeout: it took longer than 0.5 s")


def test_the_error_without_dask_has_an_install_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(UsageError, match="--scheduler requires Dask") as caught:
        DaskPool("127.0.0.1:1")
    assert '[sweep]"' in str(caught.value.hint)


def test_dask_is_not_imported_before_a_cluster_is_used(processes: Processes) -> None:
    module = "nnctl.sweeps.dask_cluster"
    code = f"import sys, {module}; print({{'dask', 'distributed'}} & set(sys.modules))"
    process = processes.start([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert end_of(process).stdout.strip() == "set()"
