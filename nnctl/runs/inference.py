"""Outputs of a trained network, computed on all cores."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnctl.nn.metrics import logits_of
from nnctl.nn.network import Network
from nnctl.nn.types import Array
from nnctl.system import cores, single_threaded_blas


class Inference(NamedTuple):
    """Results of a forward pass.

    Parameters
    ----------
    logits, outputs : array, shape (n, units)
        Weighted inputs of the last layer, and its outputs.
    classes : array of int, shape (n,)
        Predicted classes.
    """

    logits: Array
    outputs: Array
    classes: NDArray[np.int64]


def infer(network: Network, images: NDArray[Any]) -> Inference:
    """Run the forward pass on images ``(n, pixels)``, without warnings of overflows.

    Images of type uint8 are scaled from 0..255 to 0..1; floats are used unchanged.
    """
    with np.errstate(over="ignore", invalid="ignore"), single_threaded_blas():
        logits = logits_of(network, images, threads=cores())
        return Inference(logits, network.outputs(logits), network.predict_classes(logits))
