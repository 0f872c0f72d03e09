"""Serialization of a network for ``network.js``, the forward pass in the browser."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import SELU_ALPHA, SELU_LAMBDA, BoundPReLU
from nnctl.nn.network import Network
from nnctl.nn.types import Array

MOST_BYTES = 1_400_000
"""Maximum size of the weights; base64 adds a third."""
DTYPES = ("<f4", "<f2", "|i1")
"""Types of the weights: the first that fits is used. Little-endian, as browsers are.

Weights in int8 have a scale per column.
"""


def describe_network(network: Network) -> dict[str, Any] | None:
    """Return a network as JSON-compatible values, its weights in the widest type that fits.

    None if it does not fit into a page, or its weights are too large for the type.
    """
    count = network.parameters.decaying.size
    fitting = (dtype for dtype in DTYPES if count * np.dtype(dtype).itemsize <= MOST_BYTES)
    dtype = next(fitting, None)
    if dtype is None:
        return None
    parameters = network.parameters
    stored = [_store(weights, dtype) for weights in parameters.weights]
    if not all(np.isfinite(array).all() for pair in stored for array in pair):
        return None
    return {
        "inputs": network.sizes[0],
        "dtype": np.dtype(dtype).name,
        "layers": [
            {
                "activation": function.name,
                "parameters": _parameters(function),
                "units": layer.units,
                "weights": _text(weights),
                "scales": _text(scales),
                "biases": _text(biases.astype("<f4")),
            }
            for layer, function, (weights, scales), biases in zip(
                network.layers, network.functions, stored, parameters.biases, strict=True
            )
        ],
    }


def rounding(network: Network, dtype: str, images: Array) -> float:
    """Return the largest change in outputs if the weights are stored as `dtype`."""
    rounded = Network(network.sizes[0], network.layers)
    rounded.parameters.vector[...] = network.parameters.vector
    for weights in rounded.parameters.weights:
        stored, scales = _store(weights, dtype)
        weights[...] = stored * scales
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = [model.activations(images)[-1] for model in (network, rounded)]
        return float(np.abs(outputs[0] - outputs[1]).max(initial=0))


def _store(weights: Array, dtype: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weights ``(inputs, columns)`` as `dtype`, and the scale of each column."""
    if np.dtype(dtype).kind == "i":
        scales = np.abs(weights).max(axis=0) / 127
        scales[scales == 0] = 1
        return np.rint(weights / scales).astype(dtype), scales.astype("<f4")
    with np.errstate(over="ignore"):
        return weights.astype(dtype), np.ones(weights.shape[1], "<f4")


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(array.tobytes()).decode()


def _parameters(function: Any) -> dict[str, Any]:
    """Return the parameters of an activation in ``network.js``."""
    parameters = dataclasses.asdict(function)
    if isinstance(function, BoundPReLU):
        parameters["slopes"] = function.slopes.tolist()
    if function.name == "selu":
        parameters |= {"scale": SELU_LAMBDA, "alpha": SELU_ALPHA}
    return parameters
