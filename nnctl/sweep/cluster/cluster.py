"""The workers of a Dask cluster, on any number of machines that share nothing but the network.

Dask is told which worker trains which trial, and only runs it: who begins a trial again, and from
which epoch, is decided here, where its files are. See also `assignment` for what passes between
here and a worker, `mirror` for what it leaves here, and `remote` for what happens there.
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

from nnctl.errors import NnctlError, UsageError
from nnctl.sweep.cluster.assignment import Assignment, LostError
from nnctl.sweep.trials import Trial, TrialResult, note
from nnctl.sweep.workers import Work, Workers

_PATIENCE = 8.0  # seconds for the scheduler to answer at the beginning
_TICK = 0.5  # seconds between two looks at who is there
_LOOKS = 10  # without a worker, before somebody is told
_TO_LEAVE = 2.0  # seconds in which the workers can be told to forget all

_Outcome = TrialResult | Exception | None  # None is a trial that should be begun again


class Cluster(Workers):
    """The workers of a Dask cluster; each trains as many trials at a time as it has threads.

    Workers may come and go. What a trial has done is copied here about once a second, so that it
    goes on elsewhere when its worker dies. A worker that hears nothing of the sweep for half a
    minute ends its trial; one that hangs is restarted by its nanny, or not used any more if it has
    none. When the scheduler ends, so do its workers, as Dask wants it: both have to be started
    again, and the sweep waits for them.

    The processes of the scheduler and of the workers need the same version of nnctl. A Dask cluster
    runs whatever its clients send; let nobody reach it who may not run programs there.

    Parameters
    ----------
    address : str
        Of the scheduler: ``HOST:PORT``.
    notify : callable
        Is told what the sweep waits for. It is called by `free`.

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
        self._lock = threading.Lock()  # for what both threads change: the next three
        self._assignments: dict[str, Assignment] = {}  # by their keys
        self._slots: Mapping[str, int] = {}  # threads of each worker, by its address
        self._written_off: set[str] = set()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._errands: set[asyncio.Task[None]] = set()
        self._sending: dict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._looks_in_vain = 0
        connected: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(connected,), name="nnctl-cluster", daemon=True
        )
        self._thread.start()
        connected.result()

    # What the sweep calls, in its own thread.

    def free(self) -> int:
        """Return how many more trials could begin now, and tell what has to be waited for."""
        while self._notices:
            self._notify(self._notices.popleft())
        with self._lock:
            return sum(self._free_slots().values())

    def _free_slots(self) -> dict[str, int]:
        taken = collections.Counter(given.address for given in self._assignments.values())
        return {
            address: max(0, slots - taken[address])
            for address, slots in self._slots.items()
            if address not in self._written_off
        }

    def submit(self, work: Work, /, trial: Trial) -> Future[TrialResult]:  # type: ignore[override]
        """Begin to train a trial, or go on with it where its run directory stands."""
        with self._lock:
            free = self._free_slots()
            address = max(free, key=free.__getitem__, default="")
            given = Assignment(trial, work, address)
            self._assignments[given.key] = given
        if not free.get(address):  # the worker that was free has just gone
            self._settle(given, None)
            return given.future
        try:
            self._loop.call_soon_threadsafe(self._start, given)
        except RuntimeError:  # the loop has ended
            self._settle(given, NnctlError("the connection to the cluster was lost"))
        return given.future

    def ask_to_stop(self, trial: Trial) -> None:
        """Let a trial that is trained save its state and end: its result is ``interrupted``."""
        with self._lock:
            for given in self._assignments.values():
                given.stop = given.stop or given.trial.number == trial.number

    def kill(self, trial: Trial) -> None:
        """End the process that trains a trial at once: its future ends in BrokenExecutor."""
        with contextlib.suppress(RuntimeError):  # it is shut down
            self._loop.call_soon_threadsafe(self._kill, trial.number)

    def kill_all(self) -> None:
        """End all trials, without waiting for them; their futures are cancelled."""
        self._close(patience=1.0)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster. Trials that are still trained are ended, and their futures cancelled.

        Parameters
        ----------
        wait : bool
            Wait until the workers have been told.
        cancel_futures : bool
            They are in any case.
        """
        self._close(patience=10.0 if wait else 0.0)

    def _close(self, patience: float) -> None:
        with contextlib.suppress(RuntimeError):  # it is shut down
            self._loop.call_soon_threadsafe(self._closed.set)
        self._thread.join(patience)

    # What follows happens in the thread of the event loop.

    def _run(self, connected: Future[None]) -> None:
        """Run the event loop; no future is left pending at its end."""
        error: Exception | None = None
        try:
            asyncio.run(self._main(connected))
        except NnctlError as known:
            error = known
        except Exception as unforeseen:  # no trial is to blame
            error = NnctlError(f"the cluster is lost: {type(unforeseen).__name__}: {unforeseen}")
        if error and not connected.done():
            connected.set_exception(error)
        for given in list(self._assignments.values()):
            self._settle(given, error)

    async def _main(self, connected: Future[None]) -> None:
        self._loop, self._closed = asyncio.get_running_loop(), asyncio.Event()
        self._loop.set_exception_handler(lambda *_: None)  # connections that break are no news
        self._client = await _connect_first(self._address)
        connected.set_result(None)
        watching = asyncio.create_task(self._watch())
        closing = asyncio.create_task(self._closed.wait())
        await asyncio.wait({watching, closing}, return_when=asyncio.FIRST_COMPLETED)
        if watching.done():
            watching.result()  # something unforeseen
        watching.cancel()
        for given in list(self._assignments.values()):
            self._end(given, None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*self._errands), _TO_LEAVE)
        await _close(self._client)

    async def _watch(self) -> None:
        """Look again and again at who is there."""
        while True:
            if self._client.status != "running":
                await self._wait_for_scheduler()
            with contextlib.suppress(Exception):  # without an answer there is nothing new
                self._look_at(await asyncio.wait_for(self._client.nthreads(), 10 * _TICK))
            await asyncio.sleep(_TICK)

    async def _wait_for_scheduler(self) -> None:
        self._look_at({}, lost=True)
        self._notices.append(f"the scheduler at {self._address} does not answer; waiting for it")
        await _close(self._client)
        while True:
            try:
                self._client = await _connect(self._address, 10 * _TICK)
                return
            except Exception:
                await asyncio.sleep(2 * _TICK)

    def _look_at(self, slots: Mapping[str, int], *, lost: bool = False) -> None:
        """Take notice of the workers that are there, and end the trials of those that are not."""
        with self._lock:
            self._slots = slots
            self._written_off &= slots.keys()
            gone = [it for it in self._assignments.values() if it.address not in slots]
        for given in gone:
            self._end(given, None if lost else BrokenExecutor(f"worker {given.address} is gone"))
        self._looks_in_vain = 0 if slots or lost else self._looks_in_vain + 1
        if self._looks_in_vain == _LOOKS:
            self._notices.append(f"the scheduler at {self._address} has no worker; waiting for one")

    def _start(self, given: Assignment) -> None:
        if given.key in self._assignments:  # else it is lost already
            self._tasks[given.key] = self._loop.create_task(self._look_after(given))

    async def _look_after(self, given: Assignment) -> None:
        outcome: _Outcome
        try:
            outcome = await given.train(self._client, self._sending[given.address])
        except LostError as error:
            outcome = None
            with contextlib.suppress(NnctlError):  # who goes on with it will find the disk full
                note(given.trial, f"to be begun again: {error}")
        except Exception as error:
            outcome = error
        self._settle(given, outcome)

    def _end(self, given: Assignment, outcome: _Outcome) -> None:
        """End a trial from here."""
        if given.key in self._tasks:
            self._tasks[given.key].cancel()
        self._settle(given, outcome)
        if given.address in self._slots:
            self._send_off(given.forget(self._client))

    def _settle(self, given: Assignment, outcome: _Outcome) -> None:
        """Free the worker of a trial, then tell the outcome; only the first one counts."""
        with self._lock:
            if self._assignments.pop(given.key, None) is None:
                return
        self._tasks.pop(given.key, None)
        with contextlib.suppress(InvalidStateError):  # somebody has cancelled the future
            if outcome is None:
                given.future.cancel()
                given.future.set_running_or_notify_cancel()
            elif isinstance(outcome, Exception):
                given.future.set_exception(outcome)
            else:
                given.future.set_result(outcome)

    def _kill(self, number: int) -> None:
        """End the process that trains a trial; what else it trains has to be begun again."""
        with self._lock:
            everything = list(self._assignments.values())
            addresses = {given.address for given in everything if given.trial.number == number}
            self._written_off |= addresses
        for given in everything:
            if given.address in addresses:
                killed = BrokenExecutor(f"worker {given.address} was killed")
                self._end(given, killed if given.trial.number == number else None)
        for address in addresses:
            self._send_off(self._restart(address))

    async def _restart(self, address: str) -> None:
        try:
            outcomes = await self._client.restart_workers([address], timeout=30)
        except Exception:  # it has no nanny, or that is gone as well
            outcomes = {}
        if outcomes.get(address) == "OK":
            with self._lock:
                self._written_off.discard(address)
        elif address in self._slots:
            self._notices.append(f"worker {address} cannot be restarted; it is not used any more")

    def _send_off(self, errand: Coroutine[Any, Any, None]) -> None:
        async def run() -> None:
            with contextlib.suppress(Exception):
                await errand

        task = self._loop.create_task(run())
        self._errands.add(task)  # the loop alone does not keep it
        task.add_done_callback(self._errands.discard)


def _import_distributed() -> None:
    """Import Dask, and let it say nothing: what matters is told here.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        from distributed.versions import VersionMismatchWarning
    except ImportError:
        raise UsageError(
            "--scheduler needs Dask", hint="Install it with: pip install 'nnctl[sweep]'"
        ) from None
    warnings.filterwarnings("ignore", category=VersionMismatchWarning)
    for name in ("distributed", "distributed.client", "distributed.gc", "tornado.application"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)


async def _connect(address: str, patience: float) -> Any:
    """Return a client of a scheduler."""
    from distributed import Client

    make: Callable[..., Any] = Client
    client = make(
        address,
        timeout=patience,
        asynchronous=True,
        set_as_default=False,
        direct_to_workers=False,  # perhaps only the scheduler can reach them
    )
    try:
        await asyncio.wait_for(client, 1.25 * patience)
    except BaseException:
        await _close(client)
        raise
    return client


async def _connect_first(address: str) -> Any:
    """Return a client, or raise what a user should know.

    Raises
    ------
    UsageError
        It is no address, or no scheduler answers there.
    """
    from distributed.comm.addressing import get_address_host_port

    hint = "Start one with: dask scheduler. It prints its address, such as tcp://192.0.2.1:8786."
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise UsageError(f"'{address}' is not HOST:PORT: {error}", hint=hint) from None
    try:
        return await _connect(address, _PATIENCE)
    except Exception:  # Dask raises almost anything when something else answers
        raise UsageError(f"no Dask scheduler answers at {address}", hint=hint) from None


async def _close(client: Any) -> None:
    with contextlib.suppress(Exception):
        await asyncio.wait_for(client.close(), 5)
