"""One trial at one worker of a Dask cluster: what is sent there, and what comes back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, CancelledError, Future
from typing import Any

import nnctl
from nnctl.errors import DataError, NnctlError, UsageError
from nnctl.sweep.cluster import remote
from nnctl.sweep.cluster.mirror import Mirror
from nnctl.sweep.trials import Trial, TrialResult
from nnctl.sweep.workers import Work

_TICK = 0.5  # seconds between two questions for news
_PAUSE = 9.0  # times as long as checkpoints took to come, none are asked for
_ORPHAN_SECONDS = 15.0  # that another process may still need to save the state of the trial


class LostError(Exception):
    """A trial was lost through no fault of its own, and should be begun again."""


class _UnreachableError(Exception):
    """The worker did not answer."""


class Assignment:
    """A trial that a worker is to train, from the time when it is given to it.

    Parameters
    ----------
    trial : Trial
        What to train.
    work : callable
        Trains it.
    address : str
        Of the worker.
    """

    def __init__(self, trial: Trial, work: Work, address: str) -> None:
        self.trial = trial
        self.address = address
        self.future: Future[TrialResult] = Future()
        self.key = f"nnctl-{uuid.uuid4().hex}"
        self.stop = False
        """Whether the worker is to save the state of the trial, and end it."""
        self._work = work

    async def train(self, client: Any, sending: asyncio.Lock) -> TrialResult:
        """Let the worker train the trial, and write down here what it does.

        Parameters
        ----------
        client : distributed.Client
            Of the scheduler.
        sending : asyncio.Lock
            Held while a dataset is sent to the worker, which needs it once for all its trials.

        Raises
        ------
        LostError
            The scheduler is gone, or the worker has heard nothing of it for too long.
        BrokenExecutor
            The process of the worker has died.
        NnctlError
            The worker cannot train, or the directory here cannot be written.
        """
        self._client = client
        mirror = await _mirror(self.trial)
        try:
            await self._bring(mirror, sending)
            result, files = await self._follow(mirror)
            return mirror.conclude(result, files)
        finally:
            mirror.unlock()

    async def _bring(self, mirror: Mirror, sending: asyncio.Lock) -> None:
        """Bring the worker what it lacks to train the trial."""
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
        """Wait for the end of the trial, and fetch its news until then."""
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
                asked_at = time.monotonic()
                if await self._fetch_news(mirror, checkpoints=asked_at >= resume_at):
                    now = time.monotonic()
                    resume_at = now + _PAUSE * (now - asked_at)
        finally:
            ending.cancel()
            task.release()

    async def _fetch_news(self, mirror: Mirror, *, checkpoints: bool) -> bool:
        """Write down what is new of the trial; tell whether checkpoints have come."""
        try:
            news = await self._call(
                remote.fetch_news,
                self.key,
                mirror.lengths,
                mirror.versions,
                checkpoints=checkpoints,
                stop=self.stop,
            )
        except (LostError, _UnreachableError):  # if who is asked is gone, the cluster will notice
            return False
        if news:
            mirror.write(news)
        return bool(news and news.files)

    async def forget(self, client: Any) -> None:
        """Let the worker end the trial, if it can be reached."""
        await client.run(remote.forget, self.key, workers=[self.address], on_error="ignore")

    async def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what a function returns in the process of the worker.

        Raises
        ------
        LostError
            The scheduler is gone.
        _UnreachableError
            The worker does not answer.
        Exception
            What the function has raised, or what keeps the worker from calling it.
        """
        answer: Any
        try:
            answers = await self._client.run(
                function, *args, workers=[self.address], on_error="return", **kwargs
            )
            answer = answers[self.address]
        except OSError as error:  # what concerns the worker is returned
            raise LostError(f"the scheduler does not answer: {error}") from None
        except Exception as error:
            answer = error
        if not isinstance(answer, Exception):
            return answer
        if self._client.status != "running":
            raise LostError("the scheduler is gone")
        if isinstance(answer, OSError):
            raise _UnreachableError(f"worker {self.address} does not answer: {answer}")
        raise self._explained(answer, f"worker {self.address}")

    def _outcome(self, ending: asyncio.Future[Any]) -> tuple[TrialResult, dict[str, bytes]]:
        """Return what the worker has made of the trial, or raise what has become of it."""
        from distributed import KilledWorker

        try:
            outcome: tuple[TrialResult, dict[str, bytes]] | None = ending.result()
        except (CancelledError, asyncio.CancelledError) as error:
            raise LostError(f"Dask has cancelled it: {error}") from None
        except KilledWorker:
            raise BrokenExecutor(f"worker {self.address} died") from None
        except (remote.UnknownTrialError, NnctlError) as error:
            raise self._explained(error, f"worker {self.address}") from None
        except RuntimeError as error:
            if "deserialization of the task graph" in str(error):
                raise self._explained(error, "the scheduler") from None
            raise
        if outcome is None:
            raise LostError("its worker had heard nothing of the sweep for too long")
        return outcome

    @staticmethod
    def _explained(error: Exception, who: str) -> Exception:
        """Return an error that tells who cannot train, and why."""
        if isinstance(error, remote.UnknownTrialError):
            return BrokenExecutor(f"{who} died, and another process has its address")
        if isinstance(error, NnctlError):
            error.message = f"{who}: {error.message}"
            error.args = (error.message,)
            return error
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        return NnctlError(
            f"{who} cannot work for this sweep: {why}",
            hint=f"Install nnctl {nnctl.__version__}, and the same versions of Python and Dask, "
            "on all machines of the cluster.",
        )


async def _mirror(trial: Trial) -> Mirror:
    """Lock the directory of a trial, as soon as the worker of a killed sweep has left it."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while True:
        try:
            return Mirror(trial)
        except UsageError:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(_TICK)


def _contents(trial: Trial) -> dict[str, bytes]:
    """Return the files of a trial's dataset, by the name of the IDX file."""
    try:
        return {name: path.read_bytes() for name, path in trial.dataset.files.items()}
    except OSError as error:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
