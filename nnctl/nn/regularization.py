"""What keeps a network from learning its examples by heart, and its steps within bounds."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nnctl.nn.activations import Array
from nnctl.nn.augmentation import Augmentation

STRIDE = 8
"""The steps between looks at the parameters for their mean."""
_FLAT = 1e-15  # far from where the square of a gradient is no normal number of float32 any more


@dataclass(frozen=True)
class Regularization:
    """All of it is off by default; the dropout of a layer's outputs is `Layer.dropout`.

    Parameters
    ----------
    augmentation : Augmentation, optional
        How the images that are trained on are deformed, each time anew.
    input_dropout : float
        The share of the inputs that is dropped.
    label_smoothing : float
        The share of each target that is spread over all classes (Szegedy et al., 2016).
    adversarial : float, optional
        How far each example is moved before a step, to where its loss grows the most (Goodfellow
        et al., 2015; of this length, and not of this sign, in Miyato et al., 2016). Pixels are 0 to
        1, so 1 is as far as one of them is from black to white.
    clip_norm : float, optional
        The length that a gradient has at most: a longer one is scaled down (Pascanu et al., 2013).
    max_norm : float, optional
        The length that a unit's incoming weights have at most: after a step, longer ones are scaled
        down (Srebro and Shraibman, 2005; Srivastava et al., 2014).
    average : float, optional
        After each step, mean parameters go the share 1 - `average` of the way to the new ones. They
        are then what is validated, and kept as the best (Polyak and Juditsky, 1992).
    """

    augmentation: Augmentation | None = None
    input_dropout: float = 0.0
    label_smoothing: float = 0.0
    adversarial: float | None = None
    clip_norm: float | None = None
    max_norm: float | None = None
    average: float | None = None

    def smooth(self, targets: Array) -> Array:
        """Return targets ``(n, units)`` that are less certain; a single unit answers no or yes."""
        if not self.label_smoothing:
            return targets
        share = targets.dtype.type(self.label_smoothing)
        smooth: Array = (1 - share) * targets + share / max(2, targets.shape[1])
        return smooth


def move_uphill(inputs: Array, errors: Array, distance: float, kept: Array | None = None) -> None:
    """Move examples along the gradient of their losses by them.

    All go the same distance, but those that have no gradient stay. It is the examples that move,
    and then their inputs are dropped: so nothing comes back that was left out.

    Parameters
    ----------
    inputs : array, shape (n, inputs)
        What the network was given; moved in place.
    errors : array, shape (n, inputs)
        The gradients of the losses by that; overwritten.
    distance : float
        How far they go.
    kept : array, shape (n, inputs), optional
        The factors of dropout that are in the inputs already.
    """
    if kept is not None:
        errors *= kept
    lengths = _lengths("ij,ij->i", errors)
    factors = np.divide(distance, lengths, out=np.zeros_like(lengths), where=lengths > _FLAT)
    errors *= factors[:, None]
    if kept is not None:
        errors *= kept
    inputs += errors


def square(vector: Array) -> float:
    """Return the square of a vector's length, also where float32 has no room for it."""
    with np.errstate(over="ignore"):
        found = float(np.dot(vector, vector))
    if math.isfinite(found):
        return found
    wide = vector.astype(np.float64)
    return float(np.dot(wide, wide))


def shorten(weights: Array, max_norm: float) -> None:
    """Scale columns of weights ``(inputs, maps)`` that are longer than `max_norm` down to it."""
    norms = _lengths("ij,ij->j", weights)
    long = norms > max_norm
    if long.any():
        weights *= np.where(long, max_norm / np.where(long, norms, 1), 1).astype(weights.dtype)


def _lengths(subscripts: str, vectors: Array) -> Array:
    """Return the lengths of rows or columns, also where float32 has no room for their squares."""
    with np.errstate(over="ignore"):
        squares = np.einsum(subscripts, vectors, vectors)
    if not np.isfinite(squares).all():
        wide = vectors.astype(np.float64)
        squares = np.einsum(subscripts, wide, wide)
    lengths: Array = np.sqrt(squares)
    return lengths


def follow(average: Array, parameters: Array, decay: float, count: int) -> None:
    """Move an exponential moving average on, in place, after the step of this count from 1.

    It looks at every `STRIDE`-th step and goes as far as for so many, which costs less, and differs
    by no more than these steps do. The first steps count more, so that it soon forgets where it
    began.
    """
    if count % STRIDE == 0:
        kept = min(decay, count / (count + 10)) ** STRIDE
        average *= kept
        average += parameters * parameters.dtype.type(1 - kept)
