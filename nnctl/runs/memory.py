"""Estimates the memory that a training needs, so that a network that is too large is reported."""

from __future__ import annotations

from collections.abc import Iterator

from nnctl.build import build_layers, build_optimizer, choose_threads
from nnctl.config import Config, Problem
from nnctl.data.dataset import DatasetInfo
from nnctl.nn.network import Parameters, count_parameters
from nnctl.system import memory_there

_ALWAYS_ENOUGH = 256e6  # bytes; every machine has this much memory
_BLOCK, _PROBE, _VALIDATED = 512, 256, 2000  # examples that the training holds at a time


def memory_needed(config: Config, info: DatasetInfo, held_out: int) -> int:
    """Return an estimate of the peak memory of a training in bytes, without the program itself.

    The parameters and the optimizer state exist three times: in use, as a snapshot to return to,
    and as a checkpoint being written. In addition there are the gradient, the images, and about
    five numbers per unit for each example of a batch, of the health probe and of a validation.

    Parameters
    ----------
    config : Config
        Configuration of the training.
    info : DatasetInfo
        Sizes of the dataset.
    held_out : int
        Number of validation examples.
    """
    layers, pixels = build_layers(config), info.pixels
    units = [layer.columns for layer in layers]
    trained = config.data.subset or max(info.n_training - held_out, 1)
    batch = min(config.training.batch_size, trained)
    threads = choose_threads(config, pixels)
    measured = info.n_training if config.training.monitor else held_out
    validated = min(measured, _VALIDATED * threads)
    n_states = len(build_optimizer(config).init_state(Parameters(1, layers[-1:])))
    numbers = count_parameters(pixels, layers) * (3 * (1 + n_states) + 1)
    buffers = 5 * sum(units) + 2 * sum(layer.n_normalized for layer in layers)
    numbers += buffers * (batch + _PROBE)
    numbers += 3 * pixels * min(max(batch, _BLOCK), trained)
    numbers += (2 * pixels + 3 * max(units)) * validated
    if config.data.augment:  # each thread deforms a group of images at a time
        numbers += 400 * pixels * threads
    return 4 * numbers + 2 * info.n_training * pixels


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
            related=(("training", "batch_size"),),
        )
