"""Serialization of a network for ``network.js``, the forward pass in the browser."""

from __future__ import annotations

import base64
import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.activations import SELU_ALPHA, SELU_LAMBDA, BoundPReLU
from nnctl.nn.network import Network

MAX_WEIGHTS = 700_000
"""Maximum number of weights on a page; each takes two bytes, and base64 adds a third."""


def describe_network(network: Network) -> dict[str, Any] | None:
    """Return a network without batch normalization as JSON-compatible values.

    Its weights are in half precision. None if it is too large for a page, or a weight is too large
    for half precision.
    """
    parameters = network.parameters
    if parameters.decaying.size > MAX_WEIGHTS:
        return None
    with np.errstate(over="ignore"):
        half = [weights.astype("<f2") for weights in parameters.weights]
    if not all(np.isfinite(weights).all() for weights in half):
        return None
    return {
        "inputs": network.sizes[0],
        "layers": [
            {
                "activation": function.name,
                "parameters": _parameters(function),
                "weights": _text(weights),
                "biases": _text(biases.astype("<f4")),
            }
            for function, weights, biases in zip(
                network.functions, half, parameters.biases, strict=True
            )
        ],
    }


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
