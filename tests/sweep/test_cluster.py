"""Trials on a Dask cluster: a real scheduler, real workers, and what can happen to them."""

from __future__ import annotations

import concurrent.futures
import json
import re
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any

import pytest

import nnctl
from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import DamagedFileError, NnctlError, UsageError
from nnctl.runs.directory import DirectoryLock, Run
from nnctl.sweep.cluster import assignment, cluster
from nnctl.sweep.cluster.cluster import Cluster
from nnctl.sweep.trials import Trial, run_trial
from tests.conftest import ROOT
from tests.runs.helpers import SMALL, ignore, outcome
from tests.sweep import stubs
from tests.sweep.clusters import Dask, closed_port, dask, wait_until

pytest.importorskip("distributed")

pytestmark = [
    pytest.mark.xdist_group("dask"),  # they share a cluster, and the cores
    pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals"),
]

EPOCHS = 12
"""Of a trial that takes some seconds with `stubs.train_slowly`."""
LONG = 60
"""Of a trial that is not done before something has happened to it."""
FOREVER = 100_000
SECONDS = 120.0


def make_trial(
    folder: Path, number: int = 1, dataset: Dataset | None = None, **training: Any
) -> Trial:
    """Return a small trial; its number is its seed."""
    dataset = dataset or open_dataset("mini", notify=ignore)
    config = {
        **SMALL,
        "data": {**SMALL["data"], "dataset": dataset.name, "fallback": None},
        "training": {**SMALL["training"], "seed": number, **training},
    }
    directory = folder / f"trial-{number:03d}"
    point = {"training.seed": number}
    return Trial(number, f"{number:08x}", point, number, json.dumps(config), dataset, directory)


def train_here(trial: Trial, folder: Path) -> object:
    """Return the outcome of a trial that is trained here, and left alone."""
    here = make_trial(folder, trial.number, trial.dataset, **json.loads(trial.config)["training"])
    assert run_trial(here, here.dataset, lambda: False).status == "finished"
    return outcome(here.directory)


def epochs_here(trial: Trial) -> int:
    """Return how many epochs of a trial have come here."""
    path = trial.directory / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def has_epochs(trial: Trial, count: int) -> Callable[[], bool]:
    """Tell whether so many epochs can be gone on from here."""
    run = Run(trial.directory)
    last = run.checkpoint_path("last")
    return lambda: last.exists() and run.checkpoint("last").progress.epoch >= count


def connect(dask: Dask, workers: int) -> Cluster:
    """Return a cluster as soon as so many trials can begin."""
    connected = Cluster(dask.address)
    wait_until(lambda: connected.free() >= workers)
    return connected


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dask]:
    """A cluster for all tests that leave it as it was: two workers, without any data."""
    with dask(tmp_path_factory.mktemp("dask"), "one", "two") as running:
        with connect(running, 2):
            pass
        yield running


@pytest.fixture
def workers(shared: Dask) -> Iterator[Cluster]:
    """The workers of the shared cluster."""
    with connect(shared, 2) as connected:
        yield connected


def test_trials_end_in_the_same_files_as_here(workers: Cluster, scratch: Path) -> None:
    trials = [make_trial(scratch / "there", number) for number in (1, 2)]
    futures = [workers.submit(run_trial, trial) for trial in trials]
    assert workers.free() == 0
    for trial, future in zip(trials, futures, strict=True):
        result = future.result(SECONDS)
        assert result.status == "finished"
        assert result.run_dir == str(trial.directory)
        assert train_here(trial, scratch / "here") == outcome(trial.directory)
        names = {path.name for path in trial.directory.iterdir()}
        here = {path.name for path in (scratch / "here" / trial.directory.name).iterdir()}
        assert here == names
        summary = json.loads((trial.directory / "summary.json").read_text("utf-8"))
        assert summary["run_dir"] == str(trial.directory)
    assert workers.free() == 2


def test_a_trial_grows_here_while_it_trains_there(workers: Cluster, scratch: Path) -> None:
    trial = make_trial(scratch, epochs=EPOCHS)
    future = workers.submit(stubs.train_slowly, trial)
    seen = set()
    while not future.done():
        seen.add(epochs_here(trial))
    assert len(seen) > 3
    assert future.result().epochs == EPOCHS
    assert train_here(trial, scratch / "here") == outcome(trial.directory)
    assert (trial.directory / "log.txt").read_text("utf-8").count("begun by process") == 1


def test_checkpoints_that_take_long_to_come_are_not_asked_for_again(
    workers: Cluster, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "_PAUSE", 1e9)
    trial = make_trial(scratch, epochs=EPOCHS)
    future = workers.submit(stubs.train_slowly, trial)
    wait_until(has_epochs(trial, 1))
    first = (trial.directory / "last.npz").read_bytes()
    wait_until(lambda: epochs_here(trial) >= 4)
    assert first == (trial.directory / "last.npz").read_bytes()
    future.result(SECONDS)
    assert train_here(trial, scratch / "here") == outcome(trial.directory)


def test_a_trial_that_is_asked_to_stop_can_be_gone_on_with_here(
    workers: Cluster, scratch: Path
) -> None:
    trial = make_trial(scratch, epochs=LONG)
    future = workers.submit(stubs.train_slowly, trial)
    wait_until(has_epochs(trial, 1))
    workers.ask_to_stop(trial)
    result = future.result(SECONDS)
    assert result.status == "interrupted"
    assert str(trial.directory) not in result.reason
    assert result.epochs < LONG
    assert run_trial(trial, trial.dataset, lambda: False).status == "finished"
    assert train_here(trial, scratch / "here") == outcome(trial.directory)


def test_a_trial_that_was_begun_here_goes_on_there(workers: Cluster, scratch: Path) -> None:
    trial = make_trial(scratch)
    stops = iter([False] * 14 + [True])
    assert run_trial(trial, trial.dataset, lambda: next(stops)).status == "interrupted"
    before = (trial.directory / "metrics.jsonl").read_bytes()
    assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    assert (trial.directory / "metrics.jsonl").read_bytes().startswith(before)
    assert train_here(trial, scratch / "here") == outcome(trial.directory)
    assert (trial.directory / "log.txt").read_text("utf-8").count("begun by process") == 2


def test_a_trial_that_was_complete_before_its_sweep_knew_is_not_trained_again(
    workers: Cluster, scratch: Path
) -> None:
    trial = make_trial(scratch)
    run_trial(trial, trial.dataset, lambda: False)
    before = (trial.directory / "summary.json").read_text("utf-8")
    result = workers.submit(run_trial, trial).result(SECONDS)
    assert (result.status, result.epochs) == ("finished", 4)
    assert before == (trial.directory / "summary.json").read_text("utf-8")


def test_a_damaged_checkpoint_lets_a_trial_begin_anew(workers: Cluster, scratch: Path) -> None:
    trial = make_trial(scratch)
    run_trial(trial, trial.dataset, lambda: False)
    (trial.directory / "summary.json").unlink()
    (trial.directory / "last.npz").write_bytes(b"not a checkpoint")
    assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    assert train_here(trial, scratch / "here") == outcome(trial.directory)


def test_a_trial_that_diverges_is_told_with_its_log(workers: Cluster, scratch: Path) -> None:
    trial = make_trial(scratch)
    config = json.loads(trial.config)
    config["optimizer"].update(learning_rate=1e30, weight_decay=0.0)
    trial = Trial(**{**vars(trial), "config": json.dumps(config)})
    result = workers.submit(run_trial, trial).result(SECONDS)
    assert result.status == "diverged"
    assert "training diverged in epoch 1" in result.reason
    assert result.reason in result.log


def test_an_unforeseen_error_of_the_work_is_the_future_s(workers: Cluster, scratch: Path) -> None:
    with pytest.raises(ArithmeticError, match="two and two are five"):
        workers.submit(stubs.raise_an_error, make_trial(scratch)).result(SECONDS)
    assert workers.free() == 2


def test_gates_are_known_everywhere(workers: Cluster, scratch: Path) -> None:
    trial = make_trial(scratch, dataset=open_dataset("xor", notify=ignore))
    config = json.loads(trial.config)
    config["data"].update(validation=0, subset=None)
    config["network"]["layers"][-1]["units"] = 2
    trial = Trial(**{**vars(trial), "config": json.dumps(config)})
    assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"


def test_a_user_s_digits_are_sent_to_each_worker_once(
    shared: Dask, workers: Cluster, scratch: Path, mini_folder: Path
) -> None:
    dataset = open_dataset(str(mini_folder), notify=ignore)
    trials = [make_trial(scratch, number, dataset) for number in (1, 2, 3, 4)]
    log = shared.folder / "one.log"
    before = log.read_text("utf-8").count("'receive'")
    for two in (trials[:2], trials[2:]):
        for future in [workers.submit(run_trial, trial) for trial in two]:
            assert future.result(SECONDS).status == "finished"
    assert train_here(trials[3], scratch / "here") == outcome(trials[3].directory)
    assert log.read_text("utf-8").count("'receive'") == before + 1


def test_digits_that_have_changed_since_the_sweep_began_are_refused(
    shared: Dask, workers: Cluster, scratch: Path, mini_folder: Path
) -> None:
    labels = mini_folder / "train-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes() + b" ")  # no other test sends these
    dataset = open_dataset(str(mini_folder), notify=ignore)
    labels.write_bytes(labels.read_bytes() + b" ")
    with pytest.raises(
        DamagedFileError, match=r"worker tcp://.*: train-labels-idx1-ubyte.gz .* is"
    ):
        workers.submit(run_trial, make_trial(scratch, dataset=dataset)).result(SECONDS)
    assert workers.free() == 2
    kept = shared.folder.glob("*/cache/received/*/train-labels-idx1-ubyte.gz")
    assert labels.read_bytes() not in [path.read_bytes() for path in kept]


def test_mnist_is_sent_to_a_worker_that_does_not_have_it(
    shared: Dask, workers: Cluster, scratch: Path, mnist_cache: Path
) -> None:
    dataset = open_dataset("mnist", data_dir=mnist_cache, notify=ignore)
    trial = make_trial(scratch, dataset=dataset, epochs=1)
    assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    assert train_here(trial, scratch / "here") == outcome(trial.directory)
    sent = list(shared.folder.glob("*/cache/received/*/train-images-idx3-ubyte.gz"))
    assert any(path.stat().st_size > 9_000_000 for path in sent)


@pytest.mark.slow
def test_mnist_in_a_worker_s_own_cache_is_not_sent(scratch: Path, mnist_cache: Path) -> None:
    dataset = open_dataset("mnist", data_dir=mnist_cache, notify=ignore)
    trial = make_trial(scratch, dataset=dataset, epochs=1)
    with dask(scratch / "dask") as running:
        running.start_worker("rich", NNCTL_DATA_DIR=str(mnist_cache))
        with connect(running, 1) as workers:
            assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    assert not (mnist_cache / "received").exists()


def test_a_directory_that_another_process_trains_is_refused(
    workers: Cluster, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assignment, "_ORPHAN_SECONDS", 0.5)
    trial = make_trial(scratch)
    trial.directory.mkdir()
    lock = DirectoryLock(trial.directory)
    with pytest.raises(UsageError, match="is being trained by another process"):
        workers.submit(run_trial, trial).result(SECONDS)
    lock.unlock()
    assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"


def test_another_version_of_nnctl_is_refused(
    workers: Cluster, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = nnctl.__version__
    monkeypatch.setattr(nnctl, "__version__", "0.0.0")
    with pytest.raises(UsageError, match=f"it has nnctl {there}, and the sweep is of nnctl 0.0.0"):
        workers.submit(run_trial, make_trial(scratch)).result(SECONDS)


def test_a_second_interrupt_leaves_at_once_and_frees_the_workers(
    shared: Dask, scratch: Path
) -> None:
    with connect(shared, 2) as workers:
        trials = [make_trial(scratch, number, epochs=FOREVER) for number in (1, 2)]
        futures = [workers.submit(run_trial, trial) for trial in trials]
        wait_until(lambda: all(epochs_here(trial) for trial in trials))
        workers.kill_all()
        assert concurrent.futures.wait(futures, 1).not_done == set()
        assert all(future.cancelled() for future in futures)
        with pytest.raises(NnctlError, match="the connection to the cluster was lost"):
            workers.submit(run_trial, trials[0]).result(1)
    with connect(shared, 2) as workers:
        futures = [workers.submit(run_trial, make_trial(scratch, number)) for number in (3, 4)]
        for future in futures:
            assert future.result(10).status == "finished"


@pytest.mark.parametrize(
    "address", ["nonsense", "host:port", "ftp://127.0.0.1:21", "closed", "something else"]
)
def test_an_address_without_a_scheduler_is_a_usage_error(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_PATIENCE", 1.0)
    with socketserver.TCPServer(("127.0.0.1", 0), _Answering) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,)).start()
        address = {
            "closed": f"127.0.0.1:{closed_port()}",
            "something else": f"127.0.0.1:{server.server_address[1]}",
        }.get(address, address)
        try:
            with pytest.raises(UsageError) as caught:
                Cluster(address)
        finally:
            server.shutdown()
    assert address in caught.value.message
    assert "dask scheduler" in str(caught.value.hint)


class _Answering(socketserver.BaseRequestHandler):
    """Anything but a Dask scheduler."""

    def handle(self) -> None:
        """Answer."""
        self.request.sendall(b"HTTP/1.0 400 Bad Request\r\n\r\n" * 10)


def test_dask_is_asked_for_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed.versions", None)
    with pytest.raises(UsageError, match="--scheduler needs Dask") as caught:
        Cluster("127.0.0.1:1")
    assert "nnctl[sweep]" in str(caught.value.hint)
    code = (
        "import sys, nnctl.sweep.cluster.cluster; print({'dask', 'distributed'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.slow
@pytest.mark.parametrize("with_nanny", [False, True], ids=["worker alone", "with its nanny"])
def test_a_killed_worker_s_trial_goes_on_from_the_last_epoch_that_was_sent(
    scratch: Path, *, with_nanny: bool
) -> None:
    trial = make_trial(scratch, epochs=LONG)
    with dask(scratch / "dask") as running:
        victim = running.start_worker("victim")
        with connect(running, 1) as workers:
            future = workers.submit(stubs.train_slowly, trial)
            wait_until(has_epochs(trial, 3))
            if with_nanny:
                victim.kill()
            else:
                victim.kill_worker_alone()
            with pytest.raises(BrokenExecutor, match="is gone"):
                future.result(SECONDS)
            before = (trial.directory / "metrics.jsonl").read_bytes()
            if with_nanny:
                assert workers.free() == 0
                running.start_worker("victim")
            wait_until(lambda: workers.free() == 1)
            assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    # An epoch that is trained again takes other seconds.
    kept = before.split(b"\n")[:2]
    assert (trial.directory / "metrics.jsonl").read_bytes().split(b"\n")[:2] == kept
    assert train_here(trial, scratch / "here") == outcome(trial.directory)
    assert not list((scratch / "dask").rglob("nnctl-*"))


@pytest.mark.slow
def test_a_worker_that_joins_late_is_used(scratch: Path) -> None:
    told: list[str] = []
    with dask(scratch / "dask") as running, Cluster(running.address, told.append) as workers:
        assert workers.free() == 0
        wait_until(lambda: workers.free() == 0 and bool(told))
        assert told == [f"the scheduler at {running.address} has no worker; waiting for one"]
        running.start_worker("first")
        wait_until(lambda: workers.free() == 1)
        trial = make_trial(scratch, epochs=FOREVER)
        workers.submit(run_trial, trial)
        assert workers.free() == 0
        running.start_worker("second")
        wait_until(lambda: workers.free() == 1)
        other = workers.submit(run_trial, make_trial(scratch, 2))
        assert other.result(SECONDS).status == "finished"
        workers.ask_to_stop(trial)


@pytest.mark.slow
def test_a_scheduler_that_is_started_again_is_found_again(
    scratch: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told: list[str] = []
    trial = make_trial(scratch, epochs=LONG)
    with dask(scratch / "dask") as running:
        worker = running.start_worker("first")
        with Cluster(running.address, told.append) as workers:
            wait_until(lambda: workers.free() == 1)
            future = workers.submit(stubs.train_slowly, trial)
            wait_until(has_epochs(trial, 2))
            running.scheduler.kill()
            with pytest.raises(concurrent.futures.CancelledError):
                future.result(SECONDS)
            wait_until(lambda: worker.has_ended)
            assert workers.free() == 0
            wait_until(lambda: workers.free() == 0 and bool(told))
            assert told == [f"the scheduler at {running.address} does not answer; waiting for it"]
            running.start_scheduler()
            running.start_worker("second")
            wait_until(lambda: workers.free() == 1)
            assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"
    assert len(told) == 1
    assert train_here(trial, scratch / "here") == outcome(trial.directory)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_started_again(scratch: Path) -> None:
    with dask(scratch / "dask") as running:
        running.start_worker("double", "--nthreads", "2")
        with connect(running, 2) as workers:
            stuck, innocent = make_trial(scratch, 1), make_trial(scratch, 2, epochs=FOREVER)
            futures = [workers.submit(stubs.hang, stuck), workers.submit(run_trial, innocent)]
            wait_until(lambda: epochs_here(innocent) > 0)
            workers.ask_to_stop(stuck)
            log = stuck.directory / "log.txt"
            wait_until(lambda: log.exists() and "it does not stop" in log.read_text("utf-8"))
            assert "stubs.py" in log.read_text("utf-8")
            workers.kill(stuck)
            workers.kill(stuck)
            with pytest.raises(BrokenExecutor, match="was killed"):
                futures[0].result(5)
            with pytest.raises(concurrent.futures.CancelledError):
                futures[1].result(5)
            assert workers.free() == 0
            wait_until(lambda: workers.free() == 2)
            assert workers.submit(run_trial, make_trial(scratch, 3)).result(SECONDS).epochs == 4


@pytest.mark.slow
def test_a_worker_that_hangs_without_a_nanny_is_not_used_any_more(scratch: Path) -> None:
    told: list[str] = []
    with dask(scratch / "dask") as running:
        running.start_worker("alone", "--no-nanny")
        with Cluster(running.address, told.append) as workers:
            wait_until(lambda: workers.free() == 1)
            trial = make_trial(scratch)
            future = workers.submit(stubs.hang, trial)
            wait_until((trial.directory / "log.txt").exists)
            workers.kill(trial)
            with pytest.raises(BrokenExecutor, match="was killed"):
                future.result(5)
            assert workers.free() == 0
            wait_until(lambda: workers.free() == 0 and bool(told))
            # Older versions of Dask let it go.
            assert re.search("cannot be restarted; it is not used|has no worker", told[0])
            running.start_worker("other")
            wait_until(lambda: workers.free() == 1)
            assert workers.submit(run_trial, trial).result(SECONDS).status == "finished"


@pytest.mark.slow
def test_a_worker_that_stands_still_does_not_hold_up_the_others(scratch: Path) -> None:
    with dask(scratch / "dask") as running:
        frozen = running.start_worker("frozen")
        with connect(running, 1) as workers:
            trials = [make_trial(scratch, number, epochs=FOREVER) for number in (1, 2)]
            futures = [workers.submit(stubs.train_slowly, trials[0])]
            wait_until(lambda: epochs_here(trials[0]) > 0)
            running.start_worker("other")
            wait_until(lambda: workers.free() == 1)
            futures.append(workers.submit(stubs.train_slowly, trials[1]))
            frozen.suspend()
            wait_until(lambda: epochs_here(trials[1]) > 20)
            workers.kill(trials[0])
            with pytest.raises(BrokenExecutor):
                futures[0].result(5)
            workers.ask_to_stop(trials[1])
            assert futures[1].result(SECONDS).status == "interrupted"


@pytest.mark.slow
@pytest.mark.parametrize("who", ["worker", "scheduler"])
def test_who_lacks_nnctl_is_told_so(scratch: Path, who: str) -> None:
    (scratch / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'nnctl':\n"
        "            raise ModuleNotFoundError(f'No module named {name!r}', name=name)\n"
        "sys.meta_path.insert(0, Without())\n"
    )
    with dask(scratch / "dask") as running:
        if who == "scheduler":
            running.scheduler.kill()
            running.start_scheduler(PYTHONPATH=str(scratch))
            running.start_worker("one")
        else:
            running.start_worker("one", PYTHONPATH=str(scratch))
        with connect(running, 1) as workers:
            with pytest.raises(NnctlError, match=f"{who}.* cannot work for this sweep") as caught:
                workers.submit(run_trial, make_trial(scratch)).result(SECONDS)
            assert f"Install nnctl {nnctl.__version__}" in str(caught.value.hint)
            assert workers.free() == 1


@pytest.mark.slow
@pytest.mark.parametrize("in_time", [True, False], ids=["at once", "later"])
def test_a_killed_client_s_trial_ends_and_can_be_gone_on_with(
    scratch: Path, *, in_time: bool
) -> None:
    trial = make_trial(scratch, epochs=FOREVER)
    with dask(scratch / "dask") as running:
        running.start_worker("one")
        client = subprocess.Popen(
            [sys.executable, "-m", "tests.sweep.lonely_client", running.address, str(scratch)],
            cwd=ROOT,
        )
        wait_until(has_epochs(trial, 3))
        client.send_signal(signal.SIGKILL)
        client.wait()
        before = (trial.directory / "metrics.jsonl").read_bytes()
        with connect(running, 1) as workers:
            if in_time:
                other = workers.submit(run_trial, make_trial(scratch, 2))
                assert other.result(60).status == "finished"
            else:
                log = scratch / "dask" / "one"
                wait_until(lambda: not list(log.rglob("nnctl-*")))
            future = workers.submit(stubs.train_slowly, trial)
            wait_until(has_epochs(trial, before.count(b"\n") + 2))
            workers.ask_to_stop(trial)
            assert future.result(SECONDS).status == "interrupted"
    after = (trial.directory / "metrics.jsonl").read_bytes()
    assert after.split(b"\n")[:2] == before.split(b"\n")[:2]  # not trained again
