"""Real Dask schedulers and workers on loopback."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from nnctl.sweeps.dask_cluster import DaskPool
from tests.processes import Processes, kill_tree
from tests.sweeps.helpers import environment, wait_until


def closed_port() -> int:
    """Return a port without a listening process."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Process:
    """A running Dask command, with its output in a file."""

    def __init__(self, popen: subprocess.Popen[Any], log: Path) -> None:
        self._popen = popen
        self._log = log

    @property
    def log(self) -> str:
        """Output of the process so far."""
        return self._log.read_text("utf-8", errors="replace")

    @property
    def has_ended(self) -> bool:
        """Whether the process has exited."""
        return self._popen.poll() is not None

    def suspend(self) -> None:
        """Suspend the process and its children."""
        parent = psutil.Process(self._popen.pid)
        for process in [parent, *parent.children(recursive=True)]:
            process.suspend()

    def kill(self) -> None:
        """Kill the process and its children."""
        kill_tree(self._popen)


class Dask:
    """A Dask scheduler and its workers, with their files in a folder."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.folder = folder
        self._processes = processes
        self._port = closed_port()
        self._starts = 0
        self._workers: list[Process] = []
        self.address = f"tcp://127.0.0.1:{self._port}"

    def start_scheduler(self, **env: str) -> None:
        """Start the scheduler, always on the same port, and wait until it listens."""
        address = ("--host", "127.0.0.1", "--port", str(self._port))
        self._starts += 1
        self.scheduler = self._start("scheduler", "scheduler", *address, "--no-dashboard", **env)
        wait_until(lambda: self.scheduler.log.count("Scheduler at") == self._starts)

    def start_worker(self, name: str, *arguments: str, **env: str) -> Process:
        """Start a worker with one thread and its own cache, without MNIST."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        worker = self._start(
            name,
            *("worker", self.address, "--name", name, "--nthreads", "1", "--no-dashboard"),
            *("--local-directory", str(folder), *arguments),
            **{"NNCTL_DATA_DIR": str(folder / "cache"), **env},
        )
        self._workers.append(worker)
        return worker

    def stop_workers(self) -> None:
        """Kill all workers, and wait until the scheduler has noticed."""
        while self._workers:
            self._workers.pop().kill()
        with DaskPool(self.address) as cluster:
            wait_until(lambda: cluster.free() == 0)

    def _start(self, name: str, *arguments: str, **env: str) -> Process:
        path = os.pathsep.join(filter(None, [env.get("PYTHONPATH"), environment()["PYTHONPATH"]]))
        plain = {key: text for key, text in environment().items() if not key.startswith("NNCTL_")}
        fixed = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
        log = self.folder / f"{name}.log"
        with log.open("ab") as file:
            popen = self._processes.start(
                [sys.executable, "-m", "dask", *arguments],
                env={**plain, "TMPDIR": str(self.folder), **env, **fixed},
                cwd=self.folder,
                stdout=file,
                stderr=file,
            )
        return Process(popen, log)

    def connect(self, workers: int, notify: Callable[[str], None] = lambda _: None) -> DaskPool:
        """Return a pool as soon as it has the given number of free workers."""
        connected = DaskPool(self.address, notify, seconds=0.2)
        wait_until(lambda: connected.free() >= workers)
        return connected


@contextlib.contextmanager
def dask(folder: Path, *workers: str) -> Iterator[Dask]:
    """Run a scheduler, and workers with the given names."""
    folder.mkdir(parents=True, exist_ok=True)
    with Processes() as processes:
        cluster = Dask(folder, processes)
        cluster.start_scheduler()
        for name in workers:
            cluster.start_worker(name)
        yield cluster
