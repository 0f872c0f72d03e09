"""The machine: its cores, its memory, the BLAS, and the versions of the software."""

from __future__ import annotations

import functools
import math
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import threadpoolctl

import nnctl

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use: the machine's, or a container's."""
    try:
        available = len(os.sched_getaffinity(0))
    except AttributeError:  # neither on Windows nor on macOS
        available = os.cpu_count() or 1
    return max(1, min([available, *_core_limits()]))


def _core_limits() -> Iterator[int]:
    """Yield the limits of containers, such as that of ``docker --cpus=1.5``, rounded up."""
    for folder in _control_groups("cpu"):
        with suppress(OSError, ValueError):  # version 2: "150000 100000", or "max 100000"
            quota, period = (folder / "cpu.max").read_text("utf-8").split()
            yield math.ceil(int(quota) / int(period))
        with suppress(OSError, ValueError):  # version 1: -1: unlimited
            limit = int((folder / "cpu.cfs_quota_us").read_text("utf-8"))
            if limit > 0:
                yield math.ceil(limit / int((folder / "cpu.cfs_period_us").read_text("utf-8")))


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit the BLAS to one thread during a ``with`` block.

    The threads of a BLAS wait for each other in a busy loop. While other programs used the cores, a
    matrix product of 0.05 ms was seen to take 20 ms. The threads of nnctl sleep instead.
    """
    with _thread_pools().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _thread_pools() -> threadpoolctl.ThreadpoolController:
    """Return the controller of the loaded libraries; it takes milliseconds to find them."""
    return threadpoolctl.ThreadpoolController()


@functools.cache
def keep_blas_on_one_thread() -> None:
    """Limit the BLAS to one thread until the process exits, for trainings that overlap in it."""
    _thread_pools().limit(limits=1, user_api="blas")


def describe_blas() -> dict[str, Any]:
    """Return the name, the version and the number of threads of the BLAS that NumPy uses."""
    for library in threadpoolctl.threadpool_info():
        if library["user_api"] == "blas":
            return {
                "name": library["internal_api"],
                "version": library["version"],
                "threads": library["num_threads"],
            }
    built_with = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {"name": built_with["name"], "version": built_with["version"], "threads": None}


def versions() -> dict[str, str]:
    """Return the versions of the software on which the exact bits of a result depend."""
    return {
        "nnctl": nnctl.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def memory_there() -> int:
    """Return the memory in bytes that this process may use: the machine's or a container's limit.

    On Linux, the limits of containers and batch jobs are in the files of the process's control
    group and of the groups above it. Without a limit, such a file has a word or a very large
    number.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in _control_groups("memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text("utf-8")))
    return min(limits)


def _control_groups(controller: str) -> Iterator[Path]:
    """Yield the folders of the control groups of this process; none outside Linux."""
    try:
        lines = _OWN_GROUPS.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if controllers == "" or controller in controllers.split(","):
            path = PurePosixPath(group)
            for above in (path, *path.parents):
                yield _GROUPS / controllers / above.relative_to("/")
