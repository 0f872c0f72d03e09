"""Chooses the number of threads per training step."""

from __future__ import annotations

from nnctl.build import build_layers
from nnctl.config import Config
from nnctl.nn.network import count_parameters
from nnctl.system import cores

_FLOPS_PER_THREAD = 4e7  # a few tenths of a millisecond: several times the time to wake a thread
_EXAMPLES_PER_THREAD = 32  # matrix products of fewer examples are slow


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
