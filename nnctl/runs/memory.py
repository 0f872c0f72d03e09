"""Estimates the memory that a training needs, so that a network that is too large is reported."""

from __future__ import annotations

from collections.abc import Iterator

from nnctl.build import build_layers, build_optimizer
from nnctl.config import Config, Problem
from nnctl.data.dataset import DatasetInfo
from nnctl.nn.network import Layer, Parameters, count_parameters
from nnctl.runs.threads import threads_that_fit
from nnctl.system import memory_there

_ALWAYS_ENOUGH = 256e6  # bytes; every machine has this much memory
_TEMPORARY_ARRAYS = 3  # most temporary arrays of the size of z that an activation creates
_AUGMENTATION = 64 * 6  # numbers per pixel while a thread augments a group of images


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
    n_slots = len(build_optimizer(config).init_state(Parameters(1, layers[-1:])))
    numbers = count_parameters(pixels, layers) * (3 * (1 + n_slots) + 1)
    numbers += sum(map(_buffer_size, layers)) * (batch + trained % batch + probe)
    numbers += pixels * probe
    fans_in = [pixels, *(layer.units for layer in layers)]
    validated = min(held_out, 2000 * threads)
    numbers += max(
        _TEMPORARY_ARRAYS * max(layer.columns for layer in layers) * batch,
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


def _buffer_size(layer: Layer) -> int:
    """Return how many numbers per example a backward pass through a layer holds."""
    size = 2 * layer.units + layer.units * bool(layer.dropout)
    size += layer.columns * layer.activation.needs_z
    return size + layer.columns * (layer.columns > layer.units or layer.n_slopes > 0)


def _forward_size(fan_in: int, layer: Layer) -> int:
    """Return how many numbers per example a forward pass through a layer holds at once."""
    return fan_in + _TEMPORARY_ARRAYS * layer.columns


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
