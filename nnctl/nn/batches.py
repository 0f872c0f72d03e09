"""Minibatches: examples in random order, scaled, augmented, and with dropout masks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnctl.nn.augmentation import Augmentation
from nnctl.nn.dropout import Dropout
from nnctl.nn.examples import Examples, scale
from nnctl.nn.metrics import Labels, make_targets
from nnctl.nn.network import Network
from nnctl.nn.state import Progress
from nnctl.nn.streams import Purpose, stream
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array

_BLOCK = 512  # examples per block: they are gathered, and their losses computed, together
_MULTIPLE = 16  # of inputs that are skipped, so that few different steps are prepared
_FEWEST = 32  # unused inputs: to skip fewer does not pay
_BLOCK_FLOPS = 1e10  # maximum work per block, some tenths of a second: large networks get less


class Batch(NamedTuple):
    """The examples of one step, as views of the rows of a block.

    Parameters
    ----------
    number : int
        Number of the batch in the epoch, counted from 0.
    inputs : array, shape (batch, inputs)
        Pixels from 0 to 1, after augmentation and dropout.
    targets : array, shape (batch, units)
        Targets of the output layer.
    logits : array, shape (batch, units)
        Destination of the output layer's weighted inputs.
    masks : list of array or None, optional
        Dropout mask for the outputs of each layer, ``(batch, units)``.
    input_mask : array, shape (batch, inputs), optional
        Dropout mask that is already applied to the inputs.
    weights : array, shape (batch,), optional
        Factor of each example's loss; see `balanced_weights`.
    """

    number: int
    inputs: Array
    targets: Array
    logits: Array
    masks: Sequence[Array | None] | None
    input_mask: Array | None
    weights: Array | None

    def part(self, rows: slice) -> Batch:
        """Return some of the examples, as views."""
        masks = self.masks and [None if mask is None else mask[rows] for mask in self.masks]
        input_mask = None if self.input_mask is None else self.input_mask[rows]
        weights = None if self.weights is None else self.weights[rows]
        inputs, targets, logits = self.inputs[rows], self.targets[rows], self.logits[rows]
        return Batch(self.number, inputs, targets, logits, masks, input_mask, weights)


@dataclass(frozen=True, eq=False)
class UnusedInputs:
    """Inputs that are 0 in all examples of a block; see `nnctl.nn.unused_inputs`.

    Parameters
    ----------
    count : int
        Number of unused inputs that are skipped.
    used : array of int, shape (n,)
        Used inputs among the first `count`.
    unused : array of int, shape (n,)
        Unused inputs among the others, which change places with them.
    """

    count: int
    used: NDArray[np.int64]
    unused: NDArray[np.int64]

    @classmethod
    def find(cls, pixels: NDArray[np.uint8]) -> UnusedInputs | None:
        """Return the unused inputs of pixels ``(examples, inputs)``, or None for few of them."""
        is_used = np.bitwise_or.reduce(pixels, axis=0) != 0
        count = (len(is_used) - int(np.count_nonzero(is_used))) // _MULTIPLE * _MULTIPLE
        if count < _FEWEST:
            return None
        used = np.flatnonzero(is_used[:count])
        unused = count + np.flatnonzero(~is_used[count:])[: len(used)]
        return cls(count, used, unused)

    def exchange(self, rows: NDArray[Any]) -> None:
        """Let the used and the unused rows of an array ``(inputs, units)`` change places."""
        rows[self.used], rows[self.unused] = rows[self.unused], rows[self.used]


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive batches, and the arrays that contain the rows of all of them.

    The inputs of the batches leave out the unused inputs, if any are skipped.
    """

    labels: Labels
    targets: Array
    logits: Array
    weights: Array | None
    batches: list[Batch]
    unused: UnusedInputs | None = None


class BatchLoader:
    """Prepares the batches of an epoch, some hundred examples at a time.

    Parameters
    ----------
    examples : Examples
        Training examples.
    network : Network
        Network that is trained, for its layers' sizes and dropout rates.
    batch_size : int
        Examples per batch, at most all of them. The last batch of an epoch may be smaller.
    rng : numpy.random.Generator
        Generator that shuffles the examples in each epoch.
    seed : int
        Seed of dropout and augmentation.
    with_replacement : bool
        Whether to sample the examples of an epoch with replacement instead of using each one once.
    augmentation : Augmentation, optional
        Random deformations of the images, different ones in each epoch.
    input_dropout : float
        Dropout rate of the inputs.
    label_smoothing : float
        Fraction of each target that is spread evenly over all classes (Szegedy et al., 2016).
    class_weights : array, shape (classes,), optional
        Factor of the loss of the examples of each class.
    skip_unused : bool
        Whether to leave out inputs that are 0 in a whole block; not with augmentation, nor with
        dropout of inputs.
    team : ThreadTeam, optional
        Threads that prepare the examples; default: the calling thread alone.
    """

    def __init__(
        self,
        examples: Examples,
        network: Network,
        *,
        batch_size: int,
        rng: np.random.Generator,
        seed: int = 0,
        with_replacement: bool = False,
        augmentation: Augmentation | None = None,
        input_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        class_weights: Array | None = None,
        skip_unused: bool = False,
        team: ThreadTeam | None = None,
    ) -> None:
        self.examples = examples
        self.batch_size = min(batch_size, len(examples))
        self.team = team or ThreadTeam(1)
        self.rng = rng
        self._seed = seed
        self._skip_unused = skip_unused
        self._with_replacement = with_replacement
        self.augmentation = augmentation
        self.label_smoothing = label_smoothing
        self.class_weights = class_weights
        inputs, self._units, self._dtype = network.sizes[0], network.sizes[-1], network.dtype
        # A step with few examples is limited by reading and writing the weights.
        flops_per_step = 6 * max(self.batch_size, 64) * network.parameters.vector.size
        batches = min(_BLOCK // self.batch_size, int(_BLOCK_FLOPS / flops_per_step))
        self.block_size = self.batch_size * max(1, batches)
        self._pixels = np.empty((self.block_size, inputs), np.uint8)
        self._inputs: Array = np.empty(self._pixels.shape, self._dtype)
        self._logits: Array = np.empty((self.block_size, self._units), self._dtype)
        self.dropout = Dropout(inputs, input_dropout, network.layers, self.block_size, self._dtype)

    def __len__(self) -> int:
        return math.ceil(len(self.examples) / self.batch_size)

    def order(self, progress: Progress) -> NDArray[np.int64]:
        """Return the order of examples in the current epoch; a resumed run gets the same order."""
        self.rng.bit_generator.state = progress.rng_state
        count = len(self.examples)
        if self._with_replacement:
            return self.rng.integers(count, size=count)
        return self.rng.permutation(count)

    def blocks(self, order: NDArray[np.int64], epoch: int, batch: int) -> Iterator[Block]:
        """Yield the blocks of an epoch from a batch on, both counted from 0."""
        for start in range(batch * self.batch_size, len(order), self.block_size):
            yield self._block(order[start : start + self.block_size], epoch, start)

    def _block(self, indices: NDArray[np.int64], epoch: int, start: int) -> Block:
        """Gather the examples with these indices, which start at this position in the epoch."""
        number = start // self.batch_size
        deformations = self.augmentation and self.augmentation.draw(
            len(indices),
            math.isqrt(self._pixels.shape[1]),
            self._stream("augmentation", epoch, number),
        )
        parts, pixels = self.team.split(len(indices)), self._pixels[: len(indices)]

        def gather(thread: int) -> None:
            rows = parts[thread]
            # All indices are valid; but without mode="clip" NumPy writes to a temporary copy.
            np.take(self.examples.inputs, indices[rows], 0, out=pixels[rows], mode="clip")

        self.team.run(gather)
        unused = UnusedInputs.find(pixels) if self._skip_unused else None
        first = unused.count if unused else 0
        shape = (len(indices), pixels.shape[1] - first)
        inputs = self._inputs.reshape(-1)[: math.prod(shape)].reshape(shape)

        def transform(thread: int) -> None:
            rows = parts[thread]
            if deformations:
                deformations.apply(pixels[rows], rows.start, out=inputs[rows])
                return
            if unused:
                pixels[rows, unused.unused] = pixels[rows, unused.used]
            scale(pixels[rows, first:], out=inputs[rows])

        self.team.run(transform)
        labels = self.examples.labels[indices]
        targets = smooth(make_targets(labels, self._units, self._dtype), self.label_smoothing)
        weights = None if self.class_weights is None else self.class_weights[labels]
        logits = self._logits[: len(indices)]
        rows_of = [
            slice(first, min(first + self.batch_size, len(indices)))
            for first in range(0, len(indices), self.batch_size)
        ]
        batches = [
            Batch(
                i,
                inputs[rows],
                targets[rows],
                logits[rows],
                self.dropout.masks(rows) if self.dropout.is_used else None,
                self.dropout.input_mask(rows),
                None if weights is None else weights[rows],
            )
            for i, rows in enumerate(rows_of, number)
        ]

        def apply_dropout(thread: int) -> None:
            for i in range(thread, len(batches), self.team.size):
                self.dropout.draw(rows_of[i], self._stream("dropout", epoch, number + i))
                inputs, mask = batches[i].inputs, batches[i].input_mask
                if mask is not None:
                    np.multiply(inputs, mask, out=inputs)

        if self.dropout.is_used:
            self.team.run(apply_dropout)
        return Block(labels, targets, logits, weights, batches, unused)

    def _stream(self, purpose: Purpose, epoch: int, batch: int) -> np.random.Generator:
        """Return the random generator for a batch, so that no generator state has to be saved."""
        return stream(self._seed, purpose, epoch, batch)


def smooth(targets: Array, share: float) -> Array:
    """Return smoothed targets ``(n, units)``; a single unit counts as two classes."""
    if not share:
        return targets
    alpha = targets.dtype.type(share)
    smoothed: Array = (1 - alpha) * targets + alpha / max(2, targets.shape[1])
    return smoothed


def balanced_weights(labels: Labels, classes: int, dtype: DTypeLike = np.float32) -> Array:
    """Return weights ``(classes,)`` with which all classes add the same share to the loss.

    The weight of a class is n / (k count), if k classes have examples, as "balanced" in
    scikit-learn; 0 without examples. The mean weight of the examples is 1.
    """
    counts = np.bincount(labels, minlength=classes)
    present = int(np.count_nonzero(counts))
    weights: Array = np.zeros(len(counts), dtype)
    np.divide(len(labels), present * counts, out=weights, where=counts > 0, casting="same_kind")
    return weights
