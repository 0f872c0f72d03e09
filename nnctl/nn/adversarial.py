"""Adversarial training: examples are moved in the direction in which their loss grows."""

from __future__ import annotations

import numpy as np

from nnctl.nn.backprop import Backpropagation
from nnctl.nn.batches import Batch
from nnctl.nn.losses import Loss
from nnctl.nn.optimizers import vector_norms
from nnctl.nn.types import Array

_FLAT = 1e-15  # squares of smaller norms are too small for full float32 precision


def perturb(backprop: Backpropagation, loss: Loss, batch: Batch, distance: float) -> None:
    """Move the inputs of a batch by `distance` along the gradients of their losses, in place.

    See Goodfellow et al., 2015; normalized by length instead of by sign, as in Miyato et al., 2016.
    Pixels are 0 to 1, so 1 is the distance from black to white of one pixel.
    """
    outputs = backprop.forward(batch.inputs, batch.logits, batch.masks)
    loss.gradient(batch.logits, outputs, batch.targets, out=backprop.output_deltas)
    backprop.propagate()
    fast_gradient_step(batch.inputs, backprop.input_gradient(), distance, batch.input_mask)


def fast_gradient_step(
    inputs: Array, gradient: Array, distance: float, mask: Array | None = None
) -> None:
    """Move each example by `distance` along the gradient of its loss.

    Examples whose gradient is 0 are not moved. Dropped inputs stay 0: the result is the same as if
    the examples were moved first and dropout was applied afterwards.

    Parameters
    ----------
    inputs : array, shape (n, inputs)
        Inputs of the network, after dropout; they are moved in place.
    gradient : array, shape (n, inputs)
        Gradients of the losses with respect to the inputs; they are overwritten.
    distance : float
        Euclidean distance, in units of a pixel from black to white.
    mask : array, shape (n, inputs), optional
        Dropout mask that was applied to the inputs.
    """
    if mask is not None:
        gradient *= mask
    norms = vector_norms("ij,ij->i", gradient)
    factors = np.divide(distance, norms, out=np.zeros_like(norms), where=norms > _FLAT)
    gradient *= factors[:, None]
    if mask is not None:
        gradient *= mask
    inputs += gradient
