"""Activation functions: one table, in which the next one is one entry.

Each is a frozen dataclass whose fields are its parameters, so that a configuration, the JSON Schema
and the arithmetic are told from the same few lines. Both passes work in place on arrays of shape
``(batch, units)`` and keep their dtype.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Activation(ABC):
    """What a layer does to its weighted input z."""

    name: ClassVar[str]
    initializer: ClassVar[str] = "glorot_uniform"
    """The weight initializer that ``auto`` stands for under this activation."""
    saturation: ClassVar[tuple[float, float] | None] = None
    """The bounds of the outputs, where the derivative dies, if there are any."""
    output_only: ClassVar[bool] = False
    """Whether it makes sense in the last layer alone."""

    @abstractmethod
    def forward(self, z: Array, out: Array) -> None:
        """Write f(z) to `out`, which may be `z` itself."""

    @abstractmethod
    def backward(self, outputs: Array, errors: Array) -> None:
        """Turn the loss's gradient by the outputs into the one by z, in place in `errors`.

        Parameters
        ----------
        outputs : array, shape (batch, units)
            What `forward` wrote; the derivative is told from it.
        errors : array, shape (batch, units)
            On entry dL/df(z), on return dL/dz.
        """


@dataclass(frozen=True)
class Linear(Activation):
    """f(z) = z; a network of linear layers is one linear map (Nielsen, chapter 6)."""

    name: ClassVar[str] = "linear"

    def forward(self, z: Array, out: Array) -> None:
        """Copy, unless `out` is `z`."""
        if out is not z:
            np.copyto(out, z)

    def backward(self, outputs: Array, errors: Array) -> None:
        """f' = 1."""


@dataclass(frozen=True)
class Sigmoid(Activation):
    """f(z) = 1 / (1 + exp(-z)), f' = f (1 - f) <= 1/4 (Nielsen, chapter 1)."""

    name: ClassVar[str] = "sigmoid"
    saturation: ClassVar[tuple[float, float] | None] = (0.0, 1.0)

    def forward(self, z: Array, out: Array) -> None:
        """Compute (1 + tanh(z/2)) / 2, the same function without an exponential to overflow."""
        np.multiply(z, 0.5, out=out)
        np.tanh(out, out=out)
        np.multiply(out, 0.5, out=out)
        np.add(out, 0.5, out=out)

    def backward(self, outputs: Array, errors: Array) -> None:
        """f' = f (1 - f)."""
        errors *= outputs
        errors *= 1 - outputs


@dataclass(frozen=True)
class Tanh(Activation):
    """f(z) = tanh(z), f' = 1 - f² (Nielsen, chapter 3)."""

    name: ClassVar[str] = "tanh"
    saturation: ClassVar[tuple[float, float] | None] = (-1.0, 1.0)

    def forward(self, z: Array, out: Array) -> None:
        """Compute tanh(z)."""
        np.tanh(z, out=out)

    def backward(self, outputs: Array, errors: Array) -> None:
        """f' = 1 - f²."""
        errors *= 1 - outputs * outputs


@dataclass(frozen=True)
class ReLU(Activation):
    """f(z) = max(z, 0), f' = 1 where z > 0, else 0 (Nair and Hinton 2010)."""

    name: ClassVar[str] = "relu"
    initializer: ClassVar[str] = "he_normal"

    def forward(self, z: Array, out: Array) -> None:
        """Compute max(z, 0)."""
        np.maximum(z, 0, out=out)

    def backward(self, outputs: Array, errors: Array) -> None:
        """f' = 1 where the output is positive, and 0 elsewhere, the kink included."""
        errors *= outputs > 0


@dataclass(frozen=True)
class Softmax(Activation):
    """f(z)_i = exp(z_i) / sum_j exp(z_j), f'_ij = f_i (d_ij - f_j) (Nielsen, chapter 3)."""

    name: ClassVar[str] = "softmax"
    output_only: ClassVar[bool] = True

    def forward(self, z: Array, out: Array) -> None:
        """Subtract each row's maximum first, which changes nothing but keeps exp finite."""
        np.subtract(z, z.max(axis=1, keepdims=True), out=out)
        np.exp(out, out=out)
        out /= out.sum(axis=1, keepdims=True)

    def backward(self, outputs: Array, errors: Array) -> None:
        """dL/dz_i = f_i (e_i - sum_j f_j e_j)."""
        errors -= (errors * outputs).sum(axis=1, keepdims=True)
        errors *= outputs


ACTIVATIONS: dict[str, type[Activation]] = {
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "relu": ReLU,
    "linear": Linear,
    "identity": Linear,
    "softmax": Softmax,
}
"""Every activation by the names it has in a configuration; the first is the one written back."""
