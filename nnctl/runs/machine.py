"""What the machine has: cores, memory, and the BLAS that multiplies matrices."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import threadpoolctl

import nnctl
from nnctl.config import Config, Problem
from nnctl.data.dataset import Facts
from nnctl.nn.network import count_parameters
from nnctl.runs.build import build_layers, build_optimizer

_FLOPS_A_THREAD = 4e7  # some tenths of a millisecond: several times what it takes to wake a thread
_EXAMPLES_A_THREAD = 32  # fewer make slow products
_WORTH_ASKING = 256e6  # bytes that every machine has


def cores() -> int:
    """Return the number of cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # neither on Windows nor on macOS
        return os.cpu_count() or 1


def threads_that_fit(config: Config, pixels: int) -> int:
    """Return how many threads should share a step of a training: one, if it is short."""
    if config.training.threads != "auto":
        return config.training.threads
    examples = config.training.batch_size
    flops_of_a_step = 6 * count_parameters(pixels, build_layers(config)) * examples
    most = min(flops_of_a_step // _FLOPS_A_THREAD, examples // _EXAMPLES_A_THREAD)
    return int(min(max(most, 1), cores()))


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


def memory_needed(config: Config, facts: Facts) -> int:
    """Return about how many bytes a training will need at its peak.

    The parameters and what the optimizer remembers are there three times: themselves, a snapshot to
    fall back to, and a checkpoint being written; then the gradient, activations and errors of a
    batch, inputs and activations of a block of the validation on each thread, and the images.
    """
    layers = build_layers(config)
    memories = build_optimizer(config).memories + (config.training.average is not None)
    vectors = 3 * (1 + memories) + 1
    parameters = count_parameters(facts.pixels, layers) * vectors
    batch = min(config.training.batch_size, facts.training)
    columns = sum(layer.maps for layer in layers)
    validated = 2000 * threads_that_fit(config, facts.pixels)
    activations = columns * (2 * batch + validated) + facts.pixels * (max(batch, 512) + validated)
    return 4 * (parameters + activations) + 2 * facts.training * facts.pixels


def check_memory(config: Config, facts: Facts) -> Iterator[Problem]:
    """Refuse a network that the machine cannot hold."""
    needed = memory_needed(config, facts)
    if needed < _WORTH_ASKING:
        return
    import psutil

    there = psutil.virtual_memory().total
    if needed > there:
        yield Problem(
            ("network", "layers"),
            f"training this network needs about {needed / 1e9:,.1f} GB of memory, and this machine "
            f"has {there / 1e9:,.1f} GB; use fewer units or a smaller batch",
            about=(("training", "batch_size"),),
        )
