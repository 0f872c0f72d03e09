"""What the machine has: cores, memory, and the BLAS that multiplies matrices."""

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
from nnctl.data.dataset import Facts
from nnctl.nn.network import Backpropagation, Layer, count_parameters
from nnctl.runs.build import build_layers, build_optimizer

_FLOPS_A_THREAD = 4e7  # some tenths of a millisecond: several times what it takes to wake a thread
_EXAMPLES_A_THREAD = 32  # fewer make slow products
_WORTH_ASKING = 256e6  # bytes that every machine has
_MOMENTARY = 3  # arrays as large as its z, at most, that an activation makes for a moment
_DEFORMED = 64 * 6  # numbers a pixel, of the images that a thread deforms at a time
_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # neither on Windows nor on macOS
        return os.cpu_count() or 1


def threads_that_fit(config: Config, pixels: int) -> int:
    """Return how many threads should share a step of a training: one, if it is short."""
    if config.training.threads != "auto":
        return min(config.training.threads, most_threads(config))
    examples = config.training.batch_size
    flops_of_a_step = 6 * count_parameters(pixels, build_layers(config)) * examples
    most = min(flops_of_a_step // _FLOPS_A_THREAD, examples // _EXAMPLES_A_THREAD)
    return int(min(max(most, 1), cores()))


def most_threads(config: Config) -> int:
    """Return how many threads can share a step, if each takes an example of the batch."""
    batch_size = config.training.batch_size
    return min(batch_size, config.data.subset or batch_size)


@contextmanager
def single_threaded_blas() -> Iterator[None]:
    """Let each product of matrices stay on the thread that asks for it.

    The threads of a BLAS wait for each other in a loop. Where other programs keep the cores busy,
    a product of a twentieth of a millisecond was seen to take twenty. Our own threads sleep.
    """
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        yield


def describe_blas() -> dict[str, Any]:
    """Return name, version and threads of the BLAS that NumPy uses."""
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
    """Return the versions that the bits of a result depend on."""
    return {
        "nnctl": nnctl.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "platform": platform.platform(),
    }


def memory_needed(config: Config, facts: Facts, held_out: int) -> int:
    """Return about how many bytes a training will need at its peak, beside the program itself.

    The parameters and what the optimizer remembers are there three times: themselves, a snapshot to
    fall back to, and a checkpoint being written; then the gradient. There is what backpropagation
    keeps of a batch, of a shorter last one and of the probe; what is made for a moment, of a batch
    or of the validation; a block of inputs; and the images.

    Parameters
    ----------
    config : Config
        Of the training.
    facts : Facts
        Of the dataset.
    held_out : int
        How many examples are for the validation.
    """
    layers, pixels = build_layers(config), facts.pixels
    threads = threads_that_fit(config, pixels)
    trained = max(config.data.subset or facts.training - held_out, 1)
    batch = min(config.training.batch_size, trained)
    block, probe = min(max(batch, 512), trained), min(256, facts.training)
    memories = build_optimizer(config).memories + (config.training.average is not None)
    numbers = count_parameters(pixels, layers) * (3 * (1 + memories) + 1)
    numbers += Backpropagation.width(layers) * (batch + trained % batch + probe)
    numbers += pixels * probe
    fans_in = [pixels, *(layer.units for layer in layers)]
    validated = min(held_out, 2000 * threads)
    numbers += max(
        _MOMENTARY * max(layer.maps for layer in layers) * batch,
        validated * (pixels + max(map(_passing, fans_in, layers))),
    )
    numbers += block * (2 * pixels + sum(layer.units for layer in layers if layer.dropout))
    if config.network.input_dropout:
        numbers += block * pixels
    if config.training.adversarial:
        numbers += batch * pixels
    if config.data.augment:
        numbers += pixels * (2 * block + _DEFORMED * threads)
    return 4 * numbers + 2 * facts.training * pixels


def _passing(fan_in: int, layer: Layer) -> int:
    """Return how many numbers of an example there are while it goes forward through a layer."""
    return fan_in + _MOMENTARY * layer.maps


def memory_there() -> int:
    """Return how many bytes of memory there are: the machine's, or what a container leaves of them.

    Linux tells a container's limit, and that of a batch system's job, in the files of the control
    group that a process is in, and of those above; where it has no limit it is a word, or a very
    large number.
    """
    import psutil

    limits = [int(psutil.virtual_memory().total)]
    for folder in _control_groups():
        for name in ("memory.max", "memory.limit_in_bytes"):  # of version 2, and 1
            with suppress(OSError, ValueError):
                limits.append(int((folder / name).read_text("utf-8")))
    return min(limits)


def _control_groups() -> Iterator[Path]:
    """Yield the folders of the control groups that this process is in, where there are any."""
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


def check_memory(config: Config, facts: Facts, held_out: int) -> Iterator[Problem]:
    """Refuse a network that the machine cannot hold; see `memory_needed`."""
    needed = memory_needed(config, facts, held_out)
    if needed < _WORTH_ASKING:
        return
    there = memory_there()
    if needed > there:
        yield Problem(
            ("network", "layers"),
            f"training this network needs about {needed / 1e9:,.1f} GB of memory, and this machine "
            f"has {there / 1e9:,.1f} GB; use fewer units or a smaller batch",
            about=(("training", "batch_size"),),
        )
