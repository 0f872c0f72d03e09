"""Pool of the workers of a Dask cluster, on machines that do not need a shared file system.

This module assigns each trial to a worker; Dask only runs it there. Whether a trial starts again,
and from which epoch, is also decided here, where its files are. `assignment` communicates with a
worker, `mirror` writes the local run directory, and `remote` runs in the worker process.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import threading
import warnings
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import BrokenExecutor, Future, InvalidStateError
from typing import Any

from nnctl.errors import NnctlError, UsageError, requiring
from nnctl.sweeps.cluster.assignment import Assignment, LostError
from nnctl.sweeps.trials import Trial, TrialResult, append_log
from nnctl.sweeps.workers import TrainTrial, WorkerPool
from nnctl.text import quoted, without_secrets

_PATIENCE = 8.0  # seconds for the first answer of the scheduler
_TICK = 0.5  # seconds between two queries for the workers
_MAX_QUERIES = 10  # queries without a worker before a message is shown
_TO_LEAVE = 2.0  # seconds for the requests to stop all trials, at the end

_Outcome = TrialResult | Exception | None  # None: the trial should start again


class Cluster(WorkerPool):
    """Pool of the workers of a Dask cluster; each trains one trial per thread at a time.

    Workers may join and leave. The files of a trial are copied to this machine about once a second,
    so that the trial can resume on another worker. A worker without contact to the sweep for half a
    minute stops its trial. A worker that hangs is restarted by its nanny, or is not used any more
    if it has none. When the scheduler exits, Dask also stops its workers; the sweep then waits
    until both are started again.

    The scheduler and the workers need the same version of nnctl. A Dask cluster runs any code that
    a client sends, so only people who may run programs on its machines should be able to reach it.

    Parameters
    ----------
    address : str
        Address of the scheduler: ``HOST:PORT``.
    notify : callable
        Function that receives messages about what the sweep waits for; `free` calls it.

    Raises
    ------
    UsageError
        Dask is not installed, or no scheduler answers.
    """

    def __init__(self, address: str, notify: Callable[[str], None] = lambda _: None) -> None:
        _import_distributed()
        self._address = address
        self._notify = notify
        self._notices: collections.deque[str] = collections.deque()
        self._lock = threading.Lock()  # protects the next three attributes
        self._assignments: dict[str, Assignment] = {}  # by key
        self._slots: Mapping[str, int] = {}  # number of threads by worker address
        self._unusable: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._background_tasks: set[asyncio.Task[None]] = set()
        self._sending: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._queries_without_worker = 0
        connected: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(connected,), name="nnctl-cluster", daemon=True
        )
        self._thread.start()
        connected.result()

    # Called by the sweep, in its thread.

    def free(self) -> int:
        """Return the number of trials that can start now; send pending messages to `notify`."""
        while self._notices:
            self._notify(self._notices.popleft())
        with self._lock:
            return sum(self._free_slots().values())

    def _free_slots(self) -> dict[str, int]:
        taken = collections.Counter(job.address for job in self._assignments.values())
        return {
            address: max(0, slots - taken[address])
            for address, slots in self._slots.items()
            if address not in self._unusable
        }

    def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
        """Start to train a trial, or resume it from its run directory."""
        with self._lock:
            free = self._free_slots()
            address = max(free, key=free.__getitem__, default="")
            job = Assignment(trial, work, address)
            self._assignments[job.key] = job
        if not free.get(address):  # the free worker has just left
            self._resolve(job, None)
            return job.future
        try:
            self._loop.call_soon_threadsafe(self._start, job)
        except RuntimeError:  # the loop has stopped
            self._resolve(job, NnctlError("lost the connection to the cluster"))
        return job.future

    def request_stop(self, trial: Trial) -> None:
        """Request that a running trial saves its state and stops; its status is ``interrupted``."""
        with self._lock:
            for job in self._assignments.values():
                job.stop = job.stop or job.trial.number == trial.number

    def kill(self, trial: Trial) -> None:
        """Kill the process that trains a trial; its future raises BrokenExecutor."""
        with contextlib.suppress(RuntimeError):  # the loop has stopped
            self._loop.call_soon_threadsafe(self._kill, trial.number)

    def kill_all(self) -> None:
        """Stop all trials without waiting for them; their futures are cancelled."""
        self._close(patience=1.0)

    def shutdown(self) -> None:
        """Disconnect from the cluster; running trials stop, and their futures are cancelled."""
        self._close(patience=10.0)

    def _close(self, patience: float) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has stopped
            self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(patience)

    # Called in the thread of the event loop.

    def _run(self, connected: Future[None]) -> None:
        """Run the event loop; at its end, no future is left pending."""
        error: Exception | None = None
        try:
            asyncio.run(self._main(connected))
        except NnctlError as known:
            error = known
        except Exception as unexpected:  # not an error of a trial
            error = NnctlError(f"lost the cluster: {type(unexpected).__name__}: {unexpected}")
        if error and not connected.done():
            connected.set_exception(error)
        for job in list(self._assignments.values()):
            self._resolve(job, error)

    async def _main(self, connected: Future[None]) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda *_: None)  # `_watch` detects lost connections
        self._client = await _connect_first(self._address)
        connected.set_result(None)
        watching = asyncio.create_task(self._watch())
        closing = asyncio.create_task(self._closed.wait())
        await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # raises an unexpected error
        watching.cancel()
        for job in list(self._assignments.values()):
            self._end(job, None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._background_tasks), _TO_LEAVE)
        await _close(self._client)

    async def _watch(self) -> None:
        """Query the workers repeatedly."""
        while True:
            if self._client.status != "running":
                await self._wait_for_scheduler()
            with contextlib.suppress(Exception):  # without an answer, try again
                self._update_workers(await asyncio.wait_for(self._client.nthreads(), 10 * _TICK))
            await asyncio.sleep(_TICK)

    async def _wait_for_scheduler(self) -> None:
        self._update_workers({}, lost=True)
        self._notices.append(f"the scheduler at {self._address} does not answer; waiting for it")
        await _close(self._client)
        while True:
            try:
                self._client = await _connect(self._address, 10 * _TICK)
                return
            except Exception:
                await asyncio.sleep(2 * _TICK)

    def _update_workers(self, slots: Mapping[str, int], *, lost: bool = False) -> None:
        """Update the workers, and end the trials of workers that are gone."""
        with self._lock:
            self._slots = slots
            self._unusable &= slots.keys()
            gone = [job for job in self._assignments.values() if job.address not in slots]
        for job in gone:
            self._end(job, None if lost else BrokenExecutor(f"worker {job.address} is gone"))
        self._queries_without_worker = 0 if slots or lost else self._queries_without_worker + 1
        if self._queries_without_worker == _MAX_QUERIES:
            self._notices.append(f"the scheduler at {self._address} has no worker; waiting for one")

    def _start(self, job: Assignment) -> None:
        if job.key in self._assignments:  # otherwise it is already lost
            self._tasks[job.key] = self._loop.create_task(self._look_after(job))

    async def _look_after(self, job: Assignment) -> None:
        outcome: _Outcome
        try:
            outcome = await job.train(self._client, self._sending[job.address])
        except LostError as error:
            outcome = None
            with contextlib.suppress(NnctlError):  # the next attempt reports a disk that is full
                append_log(job.trial, f"the trial will start again: {error}")
        except Exception as error:
            outcome = error
        self._resolve(job, outcome)

    def _end(self, job: Assignment, outcome: _Outcome) -> None:
        """Stop a trial, and set the outcome of its future."""
        if job.key in self._tasks:
            self._tasks[job.key].cancel()
        self._resolve(job, outcome)
        if job.address in self._slots:
            self._run_in_background(job.forget(self._client))

    def _resolve(self, job: Assignment, outcome: _Outcome) -> None:
        """Free the worker of a trial, then set the outcome of its future, once."""
        with self._lock:
            if self._assignments.pop(job.key, None) is None:
                return
        self._tasks.pop(job.key, None)
        with contextlib.suppress(InvalidStateError):  # the future was cancelled
            if outcome is None:
                job.future.cancel()
                job.future.set_running_or_notify_cancel()
            elif isinstance(outcome, Exception):
                job.future.set_exception(outcome)
            else:
                job.future.set_result(outcome)

    def _kill(self, number: int) -> None:
        """Kill the process that trains a trial; its other trials have to start again."""
        with self._lock:
            assignments = list(self._assignments.values())
            addresses = {job.address for job in assignments if job.trial.number == number}
            self._unusable |= addresses
        for job in assignments:
            if job.address in addresses:
                killed = BrokenExecutor(f"worker {job.address} was killed")
                self._end(job, killed if job.trial.number == number else None)
        for address in addresses:
            self._run_in_background(self._restart(address))

    async def _restart(self, address: str) -> None:
        try:
            outcomes = await self._client.restart_workers([address], timeout=30)
        except Exception:  # it has no nanny, or the nanny is gone as well
            outcomes = {}
        if outcomes.get(address) == "OK":
            with self._lock:
                self._unusable.discard(address)
        elif address in self._slots:
            self._notices.append(f"worker {address} cannot be restarted and will not be used again")

    def _run_in_background(self, coroutine: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with contextlib.suppress(Exception):
                await coroutine

        task = self._loop.create_task(run())
        self._background_tasks.add(task)  # the event loop keeps only a weak reference
        task.add_done_callback(self._background_tasks.discard)


def _import_distributed() -> None:
    """Import Dask and silence its loggers; this module reports what matters.

    Raises
    ------
    UsageError
        Dask is not installed.
    """
    with requiring("Dask", "--scheduler", extra="sweep"):
        from distributed.versions import VersionMismatchWarning
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    for name in ("distributed", "distributed.client", "distributed.gc", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


async def _connect(address: str, patience: float) -> Any:
    """Return a client that is connected to a scheduler."""
    from distributed import Client

    make: Callable[..., Any] = Client
    client = make(
        address,
        timeout=patience,
        asynchronous=True,
        set_as_default=False,
        direct_to_workers=False,  # workers may be reachable only through the scheduler
    )
    try:
        await asyncio.wait_for(client, 1.25 * patience)
    except BaseException:
        await _close(client)
        raise
    return client


async def _connect_first(address: str) -> Any:
    """Return a client, or raise an error with a hint for the user.

    Raises
    ------
    UsageError
        The address is not valid, or no scheduler answers there.
    """
    from distributed.comm.addressing import get_address_host_port

    hint = "Start one with: dask scheduler. It prints its address, e.g. tcp://192.0.2.1:8786."
    shown = without_secrets(address)
    try:
        get_address_host_port(address)
    except ValueError:  # its message repeats the address, without the scheme
        raise UsageError(f"{quoted(shown)} is not HOST:PORT", hint=hint) from None
    try:
        return await _connect(address, _PATIENCE)
    except Exception:  # Dask raises various errors if another program answers
        raise UsageError(f"no Dask scheduler answers at {shown}", hint=hint) from None


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 5)
