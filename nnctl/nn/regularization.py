"""Regularization against overfitting, and bounds on gradients and weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.augmentation import Augmentation
from nnctl.nn.types import Array

EMA_EVERY = 8
"""Steps between updates of the averaged weights."""
_FLAT = 1e-15  # squares of smaller norms are too small for full float32 precision


@dataclass(frozen=True)
class Regularization:
    """Regularization settings, all off by default; `Layer.dropout` has the dropout rate of a layer.

    Parameters
    ----------
    augmentation : Augmentation, optional
        Random deformations of the training images, different ones in each epoch.
    input_dropout : float
        Dropout rate of the inputs.
    label_smoothing : float
        Fraction of each target that is spread evenly over all classes (Szegedy et al., 2016).
    adversarial : float, optional
        Distance by which each example is moved along the gradient of its loss before it is used
        for training (Goodfellow et al., 2015; normalized by length instead of by sign, as in Miyato
        et al., 2016). Pixels are 0 to 1, so 1 is the distance from black to white of one pixel.
    clip_norm : float, optional
        Maximum norm of the gradient; a longer one is scaled down (Pascanu et al., 2013).
    max_norm : float, optional
        Maximum norm of a unit's incoming weights; after a step, longer ones are scaled down (Srebro
        and Shraibman, 2005; Srivastava et al., 2014).
    average : float, optional
        Decay of an exponential moving average of the parameters. The averaged network is validated
        and saved as the best one (Polyak and Juditsky, 1992).
    """

    augmentation: Augmentation | None = None
    input_dropout: float = 0.0
    label_smoothing: float = 0.0
    adversarial: float | None = None
    clip_norm: float | None = None
    max_norm: float | None = None
    average: float | None = None

    def smooth(self, targets: Array) -> Array:
        """Return smoothed targets ``(n, units)``; a single unit counts as two classes."""
        if not self.label_smoothing:
            return targets
        alpha = targets.dtype.type(self.label_smoothing)
        smooth: Array = (1 - alpha) * targets + alpha / max(2, targets.shape[1])
        return smooth


def fast_gradient_step(
    inputs: Array, gradient: Array, distance: float, mask: Array | None = None
) -> None:
    """Move each example by `distance` along the gradient of its loss (adversarial training).

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
    norms = _norms("ij,ij->i", gradient)
    factors = np.divide(distance, norms, out=np.zeros_like(norms), where=norms > _FLAT)
    gradient *= factors[:, None]
    if mask is not None:
        gradient *= mask
    inputs += gradient


def squared_norm(vector: Array) -> float:
    """Return the squared norm of a vector, even if it overflows float32."""
    with np.errstate(over="ignore"):
        result = float(np.dot(vector, vector))
    if math.isfinite(result):
        return result
    wide = vector.astype(np.float64)
    return float(np.dot(wide, wide))


def project_max_norm(weights: Array, max_norm: float) -> None:
    """Scale down the columns of weights ``(inputs, columns)`` whose norm is above `max_norm`."""
    norms = _norms("ij,ij->j", weights)
    too_long = norms > max_norm
    if too_long.any():
        weights *= np.where(too_long, max_norm / np.where(too_long, norms, 1), 1).astype(
            weights.dtype
        )


def _norms(subscripts: str, vectors: Array) -> Array:
    """Return the norms of rows or columns, even if their squares overflow float32."""
    with np.errstate(over="ignore"):
        squares = np.einsum(subscripts, vectors, vectors)
    if not np.isfinite(squares).all():
        wide = vectors.astype(np.float64)
        squares = np.einsum(subscripts, wide, wide)
    norms: Array = np.sqrt(squares)
    return norms


def update_ema(average: Array, parameters: Array, decay: float, count: int) -> None:
    """Update an exponential moving average of the parameters, in place, after step `count`.

    Steps are counted from 1. To save time the average is updated only at every `EMA_EVERY`-th step,
    with the decay of that many steps. The decay is smaller in the first steps, so that the initial
    parameters soon lose their weight.
    """
    if count % EMA_EVERY == 0:
        step_decay = min(decay, count / (count + 10)) ** EMA_EVERY
        average *= step_decay
        average += parameters * parameters.dtype.type(1 - step_decay)
