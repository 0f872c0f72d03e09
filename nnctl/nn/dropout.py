"""Dropout: random units are set to 0, different ones per example (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from nnctl.nn.network import Layer
from nnctl.nn.types import Array

_LEVELS = 2**16  # number of values that a random 16-bit integer can have


class Dropout:
    """Dropout masks: factors on the inputs and on the outputs of layers, 0 for dropped units.

    This is inverted dropout: the factor of a unit that stays is 1 / (1 - rate), so that expected
    values do not change, and the network needs no scaling at evaluation.

    Parameters
    ----------
    inputs : int
        Number of inputs of the network.
    input_share : float
        Dropout rate of the inputs.
    layers : sequence of Layer
        Layers, with the dropout rates of their outputs.
    examples : int
        Number of examples that the masks cover.
    dtype : data-type
        Data type of the masks.

    Attributes
    ----------
    of_inputs : array, shape (examples, inputs), or None
        Mask of the network's inputs; None if their dropout rate is 0.
    of_layers : list of array, shape (examples, units), or None
        Mask of each layer's outputs; None if its dropout rate is 0.
    """

    def __init__(
        self,
        inputs: int,
        input_share: float,
        layers: Sequence[Layer],
        examples: int,
        dtype: DTypeLike,
    ) -> None:
        def empty_mask(units: int, rate: float) -> Array | None:
            return np.empty((examples, units), dtype) if rate else None

        self._rates = [input_share, *(layer.dropout for layer in layers)]
        self.of_inputs = empty_mask(inputs, input_share)
        self.of_layers = [empty_mask(layer.units, layer.dropout) for layer in layers]

    @property
    def is_used(self) -> bool:
        """Whether any dropout rate is above 0."""
        return any(self._rates)

    def draw(self, rows: slice, rng: np.random.Generator) -> None:
        """Draw new masks for some of the examples."""
        for rate, mask in zip(self._rates, [self.of_inputs, *self.of_layers], strict=True):
            if mask is None:
                continue
            out = mask[rows]
            dropped = round(rate * _LEVELS)
            # Random bytes are the cheapest random numbers; two make an integer below 65,536.
            levels = np.frombuffer(rng.bytes(2 * out.size), "<u2").reshape(out.shape)
            np.multiply(levels >= dropped, out.dtype.type(_LEVELS / (_LEVELS - dropped)), out=out)

    def input_mask(self, rows: slice) -> Array | None:
        """Return the input mask of some of the examples."""
        return None if self.of_inputs is None else self.of_inputs[rows]

    def masks(self, rows: slice) -> list[Array | None]:
        """Return the masks of each layer's outputs for some of the examples."""
        return [None if mask is None else mask[rows] for mask in self.of_layers]
