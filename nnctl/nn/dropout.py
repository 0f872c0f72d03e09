"""Dropout: units that are left out at random, others for each example (Srivastava et al., 2014)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import DTypeLike

from nnctl.nn.activations import Array
from nnctl.nn.network import Layer

_SIDES = 2**16  # of the die that is thrown for each unit


class Dropout:
    """Factors on what layers take: 0 for what is dropped.

    What is kept is divided by the share that is kept, so that sums stay what they are and nothing
    is to be scaled when the network is used.

    Parameters
    ----------
    inputs : int
        The number of values of an example.
    input_share : float
        The share of them that is dropped.
    layers : sequence of Layer
        With the shares of their outputs.
    examples : int
        How many there are factors for.
    dtype : data-type
        Of the factors.

    Attributes
    ----------
    of_inputs : array, shape (examples, inputs), or None
        On the network's inputs; None if none is dropped.
    of_layers : list of array, shape (examples, units), or None
        On the outputs of each layer.
    """

    def __init__(
        self,
        inputs: int,
        input_share: float,
        layers: Sequence[Layer],
        examples: int,
        dtype: DTypeLike,
    ) -> None:
        def factors(units: int, share: float) -> Array | None:
            return np.empty((examples, units), dtype) if share else None

        self._shares = [input_share, *(layer.dropout for layer in layers)]
        self.of_inputs = factors(inputs, input_share)
        self.of_layers = [factors(layer.units, layer.dropout) for layer in layers]

    @property
    def is_used(self) -> bool:
        """Whether anything is dropped."""
        return any(self._shares)

    def draw(self, rows: slice, rng: np.random.Generator) -> None:
        """Draw the factors of some examples anew."""
        for share, factors in zip(self._shares, [self.of_inputs, *self.of_layers], strict=True):
            if factors is None:
                continue
            drawn = factors[rows]
            dropped = round(share * _SIDES)
            # Bytes are the fastest random numbers there are: two throw a die of 65,536 sides.
            throws = np.frombuffer(rng.bytes(2 * drawn.size), "<u2").reshape(drawn.shape)
            np.multiply(throws >= dropped, drawn.dtype.type(_SIDES / (_SIDES - dropped)), out=drawn)

    def kept_inputs(self, rows: slice) -> Array | None:
        """Return the factors of some examples on their inputs."""
        return None if self.of_inputs is None else self.of_inputs[rows]

    def kept(self, rows: slice) -> list[Array | None]:
        """Return the factors of some examples on the outputs of each layer."""
        return [None if factors is None else factors[rows] for factors in self.of_layers]
