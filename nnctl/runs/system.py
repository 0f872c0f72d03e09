"""The machine's cores, memory and BLAS, and how many threads and bytes a training needs."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import threadpoolctl

import nnctl
from nnctl.config import Config, Problem
from nnctl.data.dataset import DatasetInfo
from nnctl.nn.network import Backpropagation, Layer, count_parameters
from nnctl.runs.build import build_layers, build_optimizer

_FLOPS_PER_THREAD = 4e7  # a few tenths of a millisecond: several times the time to wake a thread
_EXAMPLES_PER_THREAD = 32  # matrix products of fewer examples are slow
_ALWAYS_ENOUGH = 256e6  # bytes; every machine has this much memory
_TEMPORARY_ARRAYS = 3  # most temporary arrays of the size of z that an activation creates
_AUGMENTATION = 64 * 6  # numbers per pixel while a thread augments a group of images
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # neither on Windows nor on macOS
        return os.cpu_count() or 1


def threads_that_fit(config: Config, pixels: int) -> int:
    """Return the number of threads for each training step; 1 if the steps are short."""
    if config.training.threads != "auto":
        return min(config.training.threads, most_threads(config))
    examples = config.training.batch_size
    flops_of_a_step = 6 * count_parameters(pixels, build_layers(config)) * examples
    most = min(flops_of_a_step // _FLOPS_PER_THREAD, examples // _EXAMPLES_PER_THREAD)
    return int(min(max(most, 1), cores()))


def most_threads(config: Config) -> int:
    """Return the largest number of threads for a step: one for each example of a batch."""
    batch_size = config.training.batch_size
    return min(batch_size, config.data.subset or batch_size)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Limit the BLAS to one thread during a ``with`` block.

    The threads of a BLAS wait for each other in a busy loop. While other programs used the cores, a
    matrix product of 0.05 ms was seen to take 20 ms. The threads of nnctl sleep instead.
    """
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield


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


def memory_needed(config: Config, info: DatasetInfo, held_out: int) -> int:
    """Return an estimate of the peak memory of a training in bytes, without the program itself.

    The parameters and the optimizer state exist three times: in use, as a snapshot to return to,
    and as a checkpoint being written. In addition there are: the gradient; the arrays of
    backpropagation for a batch, for a shorter last batch and for the health probe; temporary arrays
    for a batch or for the validation; a block of inputs; and the images.

    Parameters
    ----------
    config : Config
        Configuration of the training.
    facts : DatasetInfo
        Sizes of the dataset.
    held_out : int
        Number of validation examples.
    """
    layers, pixels = build_layers(config), info.pixels
    threads = threads_that_fit(config, pixels)
    trained = max(config.data.subset or info.n_training - held_out, 1)
    batch = min(config.training.batch_size, trained)
    block, probe = min(max(batch, 512), trained), min(256, info.n_training)
    n_slots = build_optimizer(config).n_slots + (config.training.average is not None)
    numbers = count_parameters(pixels, layers) * (3 * (1 + n_slots) + 1)
    numbers += Backpropagation.width(layers) * (batch + trained % batch + probe)
    numbers += pixels * probe
    fans_in = [pixels, *(layer.units for layer in layers)]
    validated = min(held_out, 2000 * threads)
    numbers += max(
        _TEMPORARY_ARRAYS * max(layer.maps for layer in layers) * batch,
        validated * (pixels + max(map(_forward_size, fans_in, layers))),
    )
    numbers += block * (2 * pixels + sum(layer.units for layer in layers if layer.dropout))
    if config.network.input_dropout:
        numbers += block * pixels
    if config.training.adversarial:
        numbers += batch * pixels
    if config.data.augment:
        numbers += pixels * (2 * block + _AUGMENTATION * threads)
    return 4 * numbers + 2 * info.n_training * pixels


def _forward_size(fan_in: int, layer: Layer) -> int:
    """Return how many numbers per example a forward pass through a layer holds at once."""
    return fan_in + _TEMPORARY_ARRAYS * layer.maps


def memory_there() -> int:
    """Return the memory in bytes that this process may use: the machine's or a container's limit.

    On Linux, the limits of containers and batch jobs are in the files of the process's control
    group and of the groups above it. Without a limit, such a file has a word or a very large
    number.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in _control_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):  # version 2, version 1
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text("utf-8")))
    return min(limits)


def _control_groups() -> Iterator[Path]:
    """Yield the folders of the control groups of this process; none outside Linux."""
    try:
        lines = _OWN_GROUPS.read_text("utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, kinds, group = line.split(":", 2)
        if kinds in ("", "memory"):
            path = PurePosixPath(group)
            for above in (path, *path.parents):
                yield _GROUPS / kinds / above.relative_to("/")


def check_memory(config: Config, info: DatasetInfo, held_out: int) -> Iterator[Problem]:
    """Report a training that needs more memory than the machine has; see `memory_needed`."""
    needed = memory_needed(config, info, held_out)
    if needed < _ALWAYS_ENOUGH:
        return
    available = memory_there()
    if needed > available:
        yield Problem(
            ("network", "layers"),
            f"training this network needs about {needed / 1e9:,.1f} GB of memory, and this machine "
            f"has {available / 1e9:,.1f} GB; use fewer units or a smaller batch",
            about=(("training", "batch_size"),),
        )
