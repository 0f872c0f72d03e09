"""One trial on one worker of a Dask cluster: sends its inputs and fetches its progress."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

import nnctl
from nnctl.errors import DataError, NnctlError, UsageError
from nnctl.sweeps.cluster import remote
from nnctl.sweeps.cluster.mirror import Mirror
from nnctl.sweeps.trials import Trial, TrialResult
from nnctl.sweeps.workers import TrainTrial

_TICK = 0.5  # seconds between two fetches
_PAUSE = 9.0  # after checkpoints took t seconds to fetch, fetch none for 9 t seconds
_ORPHAN_SECONDS = 15.0  # in which another process may still save the state of the trial


class LostError(Exception):
    """The trial was lost, not due to an error of its own, and should start again."""


class _UnreachableError(Exception):
    """The worker did not answer."""


class Assignment:
    """A trial that is assigned to a worker.

    Parameters
    ----------
    trial : Trial
        Trial to train.
    work : callable
        Function that trains it.
    address : str
        Address of the worker.
    """

    def __init__(self, trial: Trial, work: TrainTrial, address: str) -> None:
        self.trial = trial
        self.address = address
        self.future: Future[TrialResult] = Future()
        self.key = f"nnctl-{uuid.uuid4().hex}"
        self.stop = False
        """Whether the worker should save the state of the trial and stop."""
        self._work = work

    async def train(self, client: Any, sending: asyncio.Lock) -> TrialResult:
        """Train the trial on the worker, and copy its progress to the local run directory.

        Parameters
        ----------
        client : distributed.Client
            Client of the scheduler.
        sending : asyncio.Lock
            Lock held while a dataset is sent, so that each worker receives it only once.

        Raises
        ------
        LostError
            The scheduler is gone, or the worker has lost contact with this process.
        BrokenExecutor
            The worker process died.
        NnctlError
            The worker cannot train, or the local directory cannot be written.
        """
        self._client = client
        mirror = await _mirror(self.trial)
        try:
            await self._send_inputs(mirror, sending)
            result, files = await self._follow(mirror)
            return mirror.conclude(result, files)
        finally:
            mirror.unlock()

    async def _send_inputs(self, mirror: Mirror, sending: asyncio.Lock) -> None:
        """Send the worker what it needs to train the trial."""
        trial, dataset = self.trial, self.trial.dataset
        names = {idx_name: path.name for idx_name, path in dataset.files.items()}
        data = remote.DataReference(dataset.name, dict(dataset.hashes), names)
        fields = {key: getattr(trial, key) for key in ("number", "id", "point", "seed", "config")}
        try:
            async with sending:
                if not await self._call(remote.prepare, nnctl.__version__, data):
                    await self._call(remote.receive, data, _contents(trial))
            await self._call(remote.begin, self.key, fields, self._work, data, mirror.state())
        except _UnreachableError as error:
            raise BrokenExecutor(str(error)) from None

    async def _follow(self, mirror: Mirror) -> tuple[TrialResult, dict[str, bytes]]:
        """Fetch the progress of the trial until it ends; return its result and files."""
        task = self._client.submit(
            remote.train,
            self.key,
            key=self.key,
            workers=[self.address],
            allow_other_workers=False,
            pure=False,
            retries=0,
        )
        ending = asyncio.ensure_future(self._client.gather(task))
        resume_at = 0.0
        try:
            while True:
                await asyncio.wait({ending}, timeout=_TICK)
                if ending.done():
                    return self._outcome(ending)
                fetched_at = time.monotonic()
                if await self._fetch_news(mirror, checkpoints=fetched_at >= resume_at):
                    now = time.monotonic()
                    resume_at = now + _PAUSE * (now - fetched_at)
        finally:
            ending.cancel()
            task.release()

    async def _fetch_news(self, mirror: Mirror, *, checkpoints: bool) -> bool:
        """Fetch and write the changes of the trial; return whether checkpoints were among them."""
        try:
            news = await self._call(
                remote.fetch_news,
                self.key,
                mirror.lengths,
                mirror.versions,
                checkpoints=checkpoints,
                stop=self.stop,
            )
        except (LostError, _UnreachableError):  # `Cluster` handles this
            return False
        if news:
            mirror.write(news)
        return bool(news and news.files)

    async def forget(self, client: Any) -> None:
        """Request that the worker stops the trial, if the worker can be reached."""
        await client.run(remote.forget, self.key, workers=[self.address], on_error="ignore")

    async def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function in the worker process and return its result.

        Raises
        ------
        LostError
            The scheduler is gone.
        _UnreachableError
            The worker does not answer.
        Exception
            The error that the function raised, or the reason why the worker cannot call it.
        """
        outcome: Any
        try:
            results = await self._client.run(
                function, *args, workers=[self.address], on_error="return", **kwargs
            )
            outcome = results[self.address]
        except OSError as error:  # errors of the worker are returned, not raised
            raise LostError(f"the scheduler does not answer: {error}") from None
        except Exception as error:
            outcome = error
        if not isinstance(outcome, Exception):
            return outcome
        if self._client.status != "running":
            raise LostError("the scheduler is gone")
        if isinstance(outcome, OSError):
            raise _UnreachableError(f"worker {self.address} does not answer: {outcome}")
        raise self._explained(outcome, f"worker {self.address}")

    def _outcome(self, ending: asyncio.Future[Any]) -> tuple[TrialResult, dict[str, bytes]]:
        """Return the result and the files of the trial, or raise the error that ended it."""
        from distributed import KilledWorker

        try:
            outcome: tuple[TrialResult, dict[str, bytes]] | None = ending.result()
        except (CancelledError, asyncio.CancelledError) as error:
            raise LostError(f"Dask cancelled the trial: {error}") from None
        except KilledWorker:
            raise BrokenExecutor(f"worker {self.address} died") from None
        except (remote.UnknownTrialError, NnctlError) as error:
            raise self._explained(error, f"worker {self.address}") from None
        except RuntimeError as error:
            if "deserialization of the task graph" in str(error):
                raise self._explained(error, "the scheduler") from None
            raise
        if outcome is None:
            raise LostError("the worker lost contact with the sweep")
        return outcome

    @staticmethod
    def _explained(error: Exception, source: str) -> Exception:
        """Return an error that names the worker or scheduler, and the reason."""
        if isinstance(error, remote.UnknownTrialError):
            return BrokenExecutor(f"{source} died, and another process has its address")
        if isinstance(error, NnctlError):
            error.message = f"{source}: {error.message}"
            error.args = (error.message,)
            return error
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return NnctlError(
            f"{source} cannot train this sweep: {reason}",
            hint=f"Install nnctl {nnctl.__version__} and the same versions of Python and Dask "
            "on all machines of the cluster.",
        )


async def _mirror(trial: Trial) -> Mirror:
    """Lock the directory of a trial; wait if a worker of a killed sweep still uses it."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            return Mirror(trial)
        except UsageError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_TICK)


def _contents(trial: Trial) -> dict[str, bytes]:
    """Return the contents of the dataset files of a trial, by the name of the IDX file."""
    try:
        return {name: path.read_bytes() for name, path in trial.dataset.files.items()}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
