"""Real Dask schedulers and workers on loopback, which end with the test."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil

from tests.conftest import ROOT

_SECONDS = 60.0  # to wait for what takes two on an idle machine


def wait_until(what: Callable[[], bool], seconds: float = _SECONDS) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come to be so"
        time.sleep(0.02)


def _lives(process: psutil.Process) -> bool:
    """Tell whether a process has not ended; nobody may collect a child of a dead parent."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Process:
    """A process of the cluster, with all its children.

    Parameters
    ----------
    log : Path
        What it prints.
    arguments : str
        Of ``dask``.
    env : mapping
        Added to the environment.
    """

    def __init__(self, log: Path, *arguments: str, env: Mapping[str, str]) -> None:
        self._log = log
        path = os.pathsep.join([*filter(None, [env.get("PYTHONPATH")]), str(ROOT)])
        plain = {name: os.environ[name] for name in os.environ if not name.startswith("NNCTL_")}
        with log.open("ab") as file:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "dask", *arguments],
                env={**plain, "PYTHONUNBUFFERED": "1", **env, "PYTHONPATH": path},
                cwd=log.parent,
                stdout=file,
                stderr=file,
                start_new_session=True,  # an interrupt in the terminal is for others
            )
        self._family = [psutil.Process(self._popen.pid)]

    @property
    def log(self) -> str:
        """What it has printed so far."""
        return self._log.read_text("utf-8", errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether the process itself has."""
        return self._popen.poll() is not None

    def children(self) -> list[psutil.Process]:
        """Return its children that live, and theirs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._family += self._family[0].children(recursive=True)
        return [process for process in self._family[1:] if _lives(process)]

    def suspend(self) -> None:
        """Let it and its children do nothing more, without ending them."""
        for process in [*self._family[:1], *self.children()]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()

    def kill(self) -> None:
        """End it and its children at once."""
        self.children()
        for process in self._family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait()
        wait_until(lambda: not any(map(_lives, self._family)))


class DaskWorker(Process):
    """A ``dask worker`` with its nanny."""

    def kill_worker_alone(self) -> None:
        """Kill the process that trains; its nanny starts another."""
        pids = re.findall(r"nnctl test: worker process (\d+)", self.log)
        psutil.Process(int(pids[-1])).kill()


def closed_port() -> int:
    """Return a port at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Dask:
    """A scheduler, and the workers that it has been given.

    Parameters
    ----------
    folder : Path
        For what they write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._port = closed_port()
        self._processes: list[Process] = []
        self.address = f"tcp://127.0.0.1:{self._port}"
        self.start_scheduler()

    def start_scheduler(self, **env: str) -> None:
        """Start the scheduler, always at the same port."""
        self.scheduler = Process(
            self.folder / "scheduler.log",
            "scheduler",
            *("--host", "127.0.0.1", "--port", str(self._port), "--no-dashboard"),
            env=env,
        )
        self._processes.append(self.scheduler)

    def start_worker(self, name: str, *arguments: str, **env: str) -> DaskWorker:
        """Start a worker with one thread, and an own cache without MNIST."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        preload = folder / "tell_pid.py"
        preload.write_text(
            "import os\ndef dask_setup(worker):\n"
            "    print(f'nnctl test: worker process {os.getpid()}', flush=True)\n"
        )
        worker = DaskWorker(
            self.folder / f"{name}.log",
            *("worker", self.address, "--name", name, "--nthreads", "1", "--no-dashboard"),
            *("--local-directory", str(folder), "--preload", str(preload), *arguments),
            env={"NNCTL_DATA_DIR": str(folder / "cache"), **env},
        )
        self._processes.append(worker)
        return worker

    def stop(self) -> None:
        """End all processes."""
        for process in reversed(self._processes):
            process.kill()


@contextlib.contextmanager
def dask(folder: Path, *workers: str) -> Iterator[Dask]:
    """Run a scheduler and some workers, by their names."""
    folder.mkdir(parents=True, exist_ok=True)
    cluster = Dask(folder)
    try:
        # Who connects has less patience than the imports of a scheduler take on a busy machine.
        wait_until(lambda: "Scheduler at" in cluster.scheduler.log)
        for name in workers:
            cluster.start_worker(name)
        yield cluster
    finally:
        cluster.stop()
