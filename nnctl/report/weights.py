"""A network for the page's own forward pass, ``network.js``."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np

from nnctl.nn.activations import SELU_ALPHA, SELU_LAMBDA, Array, BoundPReLU
from nnctl.nn.network import Network

MOST_BYTES = 1_400_000
"""What weights may take; written in base64 a third more."""
DTYPES = (np.dtype("<f4"), np.dtype("<f2"))
"""Of weights, in the order in which they are tried; browsers are little-endian."""


def describe_network(network: Network) -> dict[str, Any] | None:
    """Return a network as plain values, in 32 bits a weight, or 16 if it is large.

    None if it is larger than fits into a page, or has weights too large for 16 bits.
    """
    dtype = next((dtype for dtype in DTYPES if _bytes(network, dtype) <= MOST_BYTES), None)
    if dtype is None:
        return None
    parameters = network.parameters
    with np.errstate(over="ignore"):
        arrays = [
            array.astype(dtype)
            for pair in zip(parameters.weights, parameters.biases, strict=True)
            for array in pair
        ]
    if not all(np.isfinite(array).all() for array in arrays):
        return None
    return {
        "inputs": network.sizes[0],
        "layers": [
            {
                "activation": function.name,
                "parameters": _parameters(function),
                "maps": layer.maps,
                "units": layer.units,
            }
            for layer, function in zip(network.layers, network.functions, strict=True)
        ],
        "dtype": dtype.name,
        "weights": base64.b64encode(b"".join(array.tobytes() for array in arrays)).decode(),
    }


def rounding(network: Network, dtype: str, images: Array) -> float:
    """Return by how much outputs differ at most if weights are rounded to a type."""
    rounded = Network(network.sizes[0], network.layers)
    rounded.parameters.vector[...] = network.parameters.vector
    rounded.parameters.affine[...] = network.parameters.affine.astype(dtype)
    outputs = [one.activations(images)[-1] for one in (network, rounded)]
    return float(np.abs(outputs[0] - outputs[1]).max(initial=0))


def _bytes(network: Network, dtype: np.dtype[Any]) -> int:
    return network.parameters.affine.size * dtype.itemsize


def _parameters(function: Any) -> dict[str, Any]:
    """Return what an activation of ``network.js`` takes beside z."""
    parameters = dataclasses.asdict(function)
    if isinstance(function, BoundPReLU):
        parameters["slopes"] = function.slopes.tolist()
    if function.name == "selu":
        parameters |= {"scale": SELU_LAMBDA, "alpha": SELU_ALPHA}
    return parameters
