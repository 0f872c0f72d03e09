"""Pool of the workers of a Dask cluster; only this module imports Dask.

A trial is a chain of short tasks. Each task receives the files of the run directory, trains for
some seconds, and returns the files. Training is deterministic and resumes exactly, so a task can
run on any worker: if a worker dies, Dask runs the task again on another one. Machines need no
shared file system.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import nnctl
from nnctl.data.dataset import Dataset, data_directory, dataset_directory, find_cached
from nnctl.data.registry import DATASETS
from nnctl.errors import (
    DamagedFileError,
    DataError,
    NnctlError,
    UsageError,
    requiring,
    storage_errors,
)
from nnctl.files import remove_temporaries, require_own, write_atomically
from nnctl.runs.lock import DirectoryLock
from nnctl.runs.run import Run
from nnctl.sweeps.trials import LOG, ORPHAN_SECONDS, Trial, TrialResult, append_log, log_tail
from nnctl.sweeps.workers import TrainTrial, WorkerPool
from nnctl.system import keep_blas_on_one_thread
from nnctl.text import quoted, without_secrets

_LONGEST = 30.0  # seconds of training per task, however slow the transfers are
_TRAINING_PER_OVERHEAD = 19.0  # so a task spends 5 % of its time on transfers and preparation
_TICK = 0.5  # seconds between two queries
_MAX_QUERIES = 10  # queries with too few workers before trials have to wait
_PATIENCE = 8.0  # seconds for the first answer of the scheduler
_STAMP = len("2000-01-01 00:00:00 ")  # length of the time in a line of a log

# On a worker -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Segment:
    """A task: a part of the training of a trial.

    Parameters
    ----------
    work : callable
        Function that trains the trial.
    trial : dict
        Fields of the `Trial` that are valid on any machine.
    directory : str
        Run directory on the client.
    files : mapping
        Contents of the files in its run directory, by file name.
    dataset, hashes : str, mapping
        Name and hashes of its dataset; see `Dataset`.
    seconds : float
        Training time after which the task saves the state and ends.
    stop_event : str
        Name of the Dask event that ends the task earlier.
    contents : mapping
        Contents of the files of the dataset, by file name; empty if the worker may have them.
    """

    work: TrainTrial
    trial: Mapping[str, Any]
    directory: str
    files: Mapping[str, bytes]
    dataset: str
    hashes: Mapping[str, str]
    seconds: float
    stop_event: str
    contents: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class SegmentResult:
    """What a task returns.

    Parameters
    ----------
    ended : bool
        Whether the trial has ended, or was stopped by the event; otherwise it has to be continued.
    result : dict
        Fields of the `TrialResult`.
    files : dict
        Contents of the files in its run directory, by file name.
    log : list of str
        New lines of its log.
    seconds : float
        Training time, without preparation.
    """

    ended: bool
    result: dict[str, Any]
    files: dict[str, bytes]
    log: list[str]
    seconds: float


def train_segment(segment: Segment) -> SegmentResult | None:
    """Train a trial for some seconds; return None if this worker needs the dataset.

    Raises
    ------
    NnctlError
        This worker cannot write, or the dataset has changed since the sweep started.
    """
    keep_blas_on_one_thread()
    worker = _dask().get_worker()
    try:
        with storage_errors(Path(worker.local_directory)):
            dataset = _open_dataset(segment)
            # Dask removes the folder of a worker even if the worker was killed.
            with tempfile.TemporaryDirectory(
                dir=worker.local_directory, prefix="nnctl-", ignore_cleanup_errors=True
            ) as folder:
                return _train_in(Path(folder), segment, dataset) if dataset else None
    except NnctlError as error:
        error.message = f"worker {worker.address}: {error.message}"
        error.args = (error.message,)
        raise


def _train_in(directory: Path, segment: Segment, dataset: Dataset) -> SegmentResult:
    event = _dask().Event(segment.stop_event)
    began = checked = 0.0
    stopped = False

    def should_stop() -> bool:
        nonlocal began, checked, stopped
        now = time.monotonic()
        began = began or now
        if now - checked >= _TICK:
            checked = now
            with contextlib.suppress(Exception):  # the task ends in any case after its time
                stopped = event.is_set()
        return stopped or now - began >= segment.seconds

    for name, content in segment.files.items():
        (directory / name).write_bytes(content)
    trial = Trial(**segment.trial, dataset=dataset, directory=directory)
    result = segment.work(trial, dataset, should_stop).to_json()
    seconds = time.monotonic() - began if began else 0.0
    ended = stopped or result["status"] != "interrupted"
    run, log = Run(directory), directory / LOG
    if not ended:
        run.remove_summary()
    elif summary := run.summary:
        run.write_summary(summary.model_copy(update={"run_dir": segment.directory}))
    return SegmentResult(
        ended,
        result | {"reason": result["reason"].replace(str(directory), segment.directory)},
        _read_files(run),
        log.read_text("utf-8", errors="replace").splitlines(keepends=True) if log.exists() else [],
        seconds,
    )


_datasets: dict[str, Dataset] = {}  # each object caches its images


def _open_dataset(segment: Segment) -> Dataset | None:
    """Return the dataset, from this machine or as received; None if it has to be sent."""
    name, hashes = segment.dataset, dict(segment.hashes)
    key = hashlib.sha256(json.dumps([name, sorted(hashes.items())]).encode()).hexdigest()[:16]
    if key in _datasets:
        return _datasets[key]
    known = name in DATASETS
    folder = dataset_directory(name) if known else data_directory() / "received" / key
    for file_name, content in segment.contents.items():
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / file_name, content)
    for place in (name, str(folder)):
        dataset = find_cached(place)
        if dataset and dict(dataset.hashes) == hashes:
            return _datasets.setdefault(key, replace(dataset, name=name))
    if segment.contents:
        raise DamagedFileError(f"the dataset {name} has changed since the sweep started")
    return None


# On both -----------------------------------------------------------------------------------------


def _dask() -> Any:
    """Return the module of Dask, which has no complete types.

    Raises
    ------
    UsageError
        Dask is not installed.
    """
    with requiring("Dask", "--scheduler", extra="sweep"):
        import distributed
    return distributed


def _paths(run: Run) -> list[Path]:
    """Return the files of a run in the order in which `TrainingRun` writes them."""
    checkpoints = run.checkpoint_path("best"), run.checkpoint_path("last")
    return [run.config_path, run.metrics_path, run.steps_path, *checkpoints, run.summary_path]


def _read_files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _paths(run) if path.exists()}


def _version() -> str:
    return nnctl.__version__


# On the client -----------------------------------------------------------------------------------


@dataclass
class _Job:
    """A trial that is being trained."""

    trial: Trial
    work: TrainTrial
    key: str = field(default_factory=lambda: f"nnctl-{uuid.uuid4().hex}")
    source: str = ""  # line of the log that names the process of the last task
    killed: bool = False
    chain: asyncio.Task[Any] | None = None
    task: Any = None  # future of Dask

    def save(self, segment: SegmentResult, before: Mapping[str, bytes]) -> None:
        """Write the files of a task in an order from which the run can resume at any moment."""
        for path in _paths(Run(self.trial.directory)):
            content = segment.files.get(path.name)
            if content is None:
                path.unlink(missing_ok=True)
            elif content != before.get(path.name):
                write_atomically(path, content)
        # Each task logs its process; and its end, which is only a pause if the trial continues.
        first, rest = segment.log[:1], segment.log[1 : None if segment.ended else -1]
        if first and first[0][_STAMP:] != self.source:
            self.source = first[0][_STAMP:]
            rest = first + rest
        path = self.trial.directory / LOG
        require_own(path)
        with path.open("a", encoding="utf-8") as log:
            log.writelines(rest)


class DaskPool(WorkerPool):
    """Pool of the workers of a Dask cluster; each trains one trial per thread at a time.

    Workers may join and leave. The run directory of a trial is updated after each of its tasks,
    every 5 to 30 seconds. When the scheduler exits, Dask also stops its workers; the sweep then
    waits until both are started again.

    The scheduler and the workers need the same version of nnctl. A Dask cluster runs any code that
    a client sends, so only people who may run programs on its machines should be able to reach it.

    Parameters
    ----------
    address : str
        Address of the scheduler: ``HOST:PORT``.
    notify : callable
        Function that receives messages about what the sweep waits for, in another thread.
    seconds : float
        Training time per task, if the transfers are fast.

    Raises
    ------
    UsageError
        Dask is not installed, or no scheduler answers.
    """

    def __init__(
        self,
        address: str,
        notify: Callable[[str], None] = lambda _: None,
        seconds: float = 5.0,
    ) -> None:
        _dask()  # before the next lines: when it is imported, it sets the levels of its loggers
        # This module reports what matters.
        for name in ("distributed", "distributed.client", "distributed.gc", "tornado.application"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
        warnings.filterwarnings("ignore", module=r"distributed\.")
        self._address, self._shown = address, without_secrets(address)
        self._notify = notify  # called in the thread of the event loop
        self._seconds = seconds
        self._jobs: dict[int, _Job] = {}  # by trial number
        self._threads = 0  # of all workers
        self._checked: set[str] = set()  # addresses of workers with the same version
        connected: Future[None] = Future()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._main(connected)), name="nnctl-dask", daemon=True
        )
        self._thread.start()
        connected.result()

    # Called by the sweep, in its thread.

    def free(self) -> int:
        """Return the number of trials that can start now."""
        return max(0, self._threads - len(self._jobs))

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start to train a trial, or resume it from its run directory."""
        self._jobs[trial.number] = _Job(trial, work)
        return asyncio.run_coroutine_threadsafe(self._train(self._jobs[trial.number]), self._loop)

    def request_stop(self, trial: Trial) -> None:
        """Request that a running trial saves its state and stops; its status is ``interrupted``."""
        if job := self._jobs.get(trial.number):
            asyncio.run_coroutine_threadsafe(self._request_stop(job), self._loop)

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial; its future raises BrokenExecutor."""
        if job := self._jobs.get(trial.number):
            asyncio.run_coroutine_threadsafe(self._kill(job), self._loop)

    def kill_all(self) -> None:
        """Stop all trials without waiting for them; their futures are cancelled."""
        self._close(patience=1.0)

    def shutdown(self) -> None:
        """Disconnect from the cluster; running trials stop, and their futures are cancelled."""
        self._close(patience=10.0)

    def _close(self, patience: float) -> None:
        with contextlib.suppress(RuntimeError):  # it is closed already
            self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(patience)

    # Called in the thread of the event loop.

    async def _main(self, connected: Future[None]) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda *_: None)  # `_watch` detects lost connections
        try:
            self._client = await _connect(self._address, _PATIENCE)
        except BaseException as error:
            connected.set_exception(error)
            return
        connected.set_result(None)
        watching = asyncio.create_task(self._watch())
        await self._closed.wait()
        watching.cancel()
        await self._abandon(self._jobs.values())
        await _close(self._client)

    async def _watch(self) -> None:
        """Count the workers repeatedly, and connect again when the scheduler is gone."""
        queries = 0
        while True:
            if self._client.status != "running":
                await self._reconnect()
            with contextlib.suppress(Exception):  # without an answer, try again
                workers = await asyncio.wait_for(self._client.nthreads(), 10 * _TICK)
                self._threads = sum(workers.values())
                queries = queries + 1 if self._threads < max(1, len(self._jobs)) else 0
                if queries == _MAX_QUERIES:
                    if not workers:
                        self._notify(
                            f"the scheduler at {self._shown} has no worker; waiting for one"
                        )
                    await self._abandon(list(self._jobs.values())[self._threads :])
            await asyncio.sleep(_TICK)

    async def _reconnect(self) -> None:
        self._threads = 0
        self._notify(f"the scheduler at {self._shown} does not answer; waiting for it")
        await self._abandon(self._jobs.values())
        await _close(self._client)
        while True:
            with contextlib.suppress(Exception):
                self._client = await _connect(self._address, 10 * _TICK)
                self._checked.clear()
                return
            await asyncio.sleep(2 * _TICK)

    async def _train(self, job: _Job) -> TrialResult:
        """Train a trial, and copy its progress to the local run directory."""
        job.chain = asyncio.current_task()
        run = Run(job.trial.directory)
        try:
            with storage_errors(run.directory):
                run.directory.mkdir(parents=True, exist_ok=True)
                with await _lock(run):
                    remove_temporaries(run.directory)
                    return await self._run_tasks(job)
        except asyncio.CancelledError:
            if job.killed:
                raise BrokenExecutor("the worker was killed") from None
            raise
        finally:
            del self._jobs[job.trial.number]
            if job.task:
                job.task.release()

    async def _run_tasks(self, job: _Job) -> TrialResult:
        """Run one task after another until the trial ends or should stop."""
        trial, dataset, run = job.trial, job.trial.dataset, Run(job.trial.directory)
        local = ("dataset", "directory")
        # First: `save` writes only what differs from the files that were sent.
        run.remove_summary()
        segment = Segment(
            work=job.work,
            trial={name: value for name, value in vars(trial).items() if name not in local},
            directory=str(trial.directory),
            files=_read_files(run),
            dataset=dataset.name,
            hashes=dict(dataset.hashes),
            seconds=self._seconds,
            stop_event=job.key,
        )
        while True:
            began = time.monotonic()
            done = await self._run_task(job, segment)
            if done is None:
                segment = replace(segment, contents=_contents(dataset))
                continue
            job.save(done, segment.files)
            if done.ended:
                log = log_tail(trial) if done.result["log"] else ""
                return TrialResult(**done.result | {"run_dir": trial.directory, "log": log})
            overhead = time.monotonic() - began - done.seconds
            seconds = min(max(self._seconds, _TRAINING_PER_OVERHEAD * overhead), _LONGEST)
            segment = replace(segment, files=done.files, seconds=seconds, contents={})

    async def _run_task(self, job: _Job, segment: Segment) -> SegmentResult | None:
        """Run a task; the trial is cancelled, and can start again, if the task is lost."""
        try:
            await self._check_versions()
            job.task = self._client.submit(train_segment, segment, pure=False)
            result: SegmentResult | None = await job.task
        except _dask().KilledWorker as error:
            raise BrokenExecutor(str(error)) from None
        except NnctlError:
            raise
        except Exception as error:
            lost = isinstance(error, CancelledError | OSError)
            if not lost and self._client.status == "running":
                raise _cannot_train("a worker", error) from None
            self._threads = 0  # until they are counted again
            append_log(job.trial, f"the trial will start again: {_first_line(error)}")
            raise asyncio.CancelledError from None
        return result

    async def _check_versions(self) -> None:
        """Raise an error if the scheduler or a new worker has another version of nnctl, or none.

        A worker that cannot unpickle a task would only close its connection.
        """
        new = (await self._client.nthreads()).keys() - self._checked
        if not new:
            return
        answers = await self._client.run(_version, workers=list(new), on_error="return")
        versions = {f"worker {address}": version for address, version in answers.items()}
        try:
            versions["the scheduler"] = await self._client.run_on_scheduler(_version)
        except Exception as error:
            versions["the scheduler"] = error
        for name, version in versions.items():
            if isinstance(version, OSError):  # it has just exited
                return
            if isinstance(version, Exception):
                raise _cannot_train(name, version)
            if version != nnctl.__version__:
                raise UsageError(
                    f"{name} has nnctl {version}, but the sweep needs nnctl {nnctl.__version__}",
                    hint="Install the same version on all machines.",
                )
        self._checked |= new

    async def _request_stop(self, job: _Job) -> None:
        await _dask().Event(job.key, client=self._client).set()

    async def _abandon(self, jobs: Iterable[_Job]) -> None:
        """End trials without waiting for their tasks; they can start again."""
        jobs = list(jobs)
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.gather(*map(self._request_stop, jobs)), 4 * _TICK)
        for job in jobs:
            if job.chain:
                job.chain.cancel()

    async def _kill(self, job: _Job) -> None:
        """Restart the worker that trains a trial; Dask runs its other tasks again."""
        if job.killed or not job.chain:
            return
        job.killed = True
        try:
            tasks = await asyncio.wait_for(self._client.processing(), 10 * _TICK)
        finally:
            job.chain.cancel()
        for address in [address for address, keys in tasks.items() if job.task.key in keys]:
            try:
                await self._client.restart_workers([address], timeout=30, raise_for_error=False)
            except ValueError:  # it has no nanny
                self._notify(f"worker {address} cannot be restarted and will not be used again")
                await self._client.retire_workers([address])


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _cannot_train(name: str, error: Exception) -> NnctlError:
    return NnctlError(
        f"{name} cannot train this sweep: {_first_line(error)}",
        hint=f"Install nnctl {nnctl.__version__} and the same versions of Python and Dask on all "
        "machines of the cluster.",
    )


def _contents(dataset: Dataset) -> dict[str, bytes]:
    """Return the contents of the files of a dataset, by file name."""
    try:
        return {path.name: path.read_bytes() for path in dataset.files.values()}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None


async def _lock(run: Run) -> DirectoryLock:
    """Lock a run; wait for a process of a killed sweep that still saves its state."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        try:
            return run.lock()
        except UsageError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_TICK)


async def _connect(address: str, patience: float) -> Any:
    """Return a client that is connected to a scheduler.

    Raises
    ------
    UsageError
        The address is not valid, or no scheduler answers there.
    """
    hint = "Start one with: dask scheduler. It prints its address, e.g. tcp://192.0.2.1:8786."
    shown = without_secrets(address)
    try:
        _dask().comm.addressing.get_address_host_port(address)
    except ValueError:  # its message repeats the address, without the scheme
        raise UsageError(f"{quoted(shown)} is not HOST:PORT", hint=hint) from None
    client = _dask().Client(
        address,
        timeout=patience,
        asynchronous=True,
        set_as_default=False,
        direct_to_workers=False,  # workers may be reachable only through the scheduler
    )
    try:
        await asyncio.wait_for(client, 1.25 * patience)
    except BaseException as error:
        await _close(client)  # also if it is cancelled
        if not isinstance(error, Exception):
            raise
        # Dask raises various errors if another program answers.
        raise UsageError(f"no Dask scheduler answers at {shown}", hint=hint) from None
    return client


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 5)
