"""Small networks and training runs, and a textbook implementation of training as a reference."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from scipy import special

from nnctl.nn.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    Activation,
    Exponential,
    HardSigmoid,
    LeakyReLU,
    Linear,
    Maxout,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Softsign,
    Step,
    Swish,
    Tanh,
)
from nnctl.nn.batches import BatchLoader
from nnctl.nn.events import EpochDone, Event
from nnctl.nn.examples import Examples
from nnctl.nn.loop import TrainingLoop
from nnctl.nn.losses import make_loss
from nnctl.nn.network import BatchNorm, Layer, Network
from nnctl.nn.optimizers import (
    SGD,
    ClipNorm,
    Descent,
    MaxNorm,
    MovingAverage,
    Optimizer,
    UpdateRule,
    WeightDecay,
)
from nnctl.nn.threads import ThreadTeam
from nnctl.nn.types import Array

DEFAULTS: list[Activation] = [kind() for kind in dict.fromkeys(ACTIVATIONS.values())]
VARIANTS: list[Activation] = [
    Step(at_zero=1),
    Step(surrogate="sigmoid"),
    Sigmoid(gain=3),
    LeakyReLU(negative_slope=0.3),
    PReLU(initial_slope=-0.5),
    ELU(alpha=0.5),
    GELU(approximate="tanh"),
    Swish(beta=2),
    Maxout(pieces=3),
]
"""Each activation with parameters, with values other than the defaults."""
FUNCTIONS = DEFAULTS + VARIANTS
DIFFERENTIABLE = [f for f in FUNCTIONS if f.differentiable() == f]
"""Activations whose backward pass is the derivative of their forward pass."""
HIDDEN = [f for f in FUNCTIONS if f.place != "output"]
PAIRS: list[tuple[str, Activation]] = [
    ("cross_entropy", Softmax()),
    ("cross_entropy", Sigmoid()),
    ("cross_entropy", Sigmoid(gain=2)),
    *(("quadratic", f) for f in DIFFERENTIABLE if f.place != "hidden"),
]
"""Each loss with every output activation that it supports."""


def forward(f: Activation, z: Array) -> Array:
    outputs = np.full((len(z), z.shape[1] // f.pieces), np.nan, z.dtype)
    f.forward(z, outputs)
    return outputs


def backward(f: Activation, z: Array, errors: Array) -> Array:
    """Return dL/dz from `errors`, dL/df(z)."""
    gradient = np.full_like(z, np.nan)
    f.backward(z, forward(f, z), errors, gradient)
    return gradient


def weighted_inputs(f: Activation, examples: int, units: int) -> Array:
    """Return different positive and negative z for a layer, none of them near a kink."""
    shape = examples, units * f.pieces
    grid = np.linspace(-6, 6, math.prod(shape))
    for kink in f.kinks:
        grid[abs(grid - kink) < 1e-3] += 2e-3
    return np.random.default_rng(0).permutation(grid).reshape(shape)


def textbook(f: Activation) -> Callable[[Array], Array]:
    """Return an activation as a textbook formula or a SciPy function."""
    formulas: dict[Activation, Callable[[Array], Array]] = {
        Step(): lambda z: np.heaviside(z, 0),
        Step(at_zero=1): lambda z: np.heaviside(z, 1),
        Step(surrogate="sigmoid"): lambda z: np.heaviside(z, 0),
        Sigmoid(): special.expit,
        Sigmoid(gain=2): lambda z: special.expit(2 * z),
        Sigmoid(gain=3): lambda z: special.expit(3 * z),
        HardSigmoid(): lambda z: np.clip(z / 6 + 0.5, 0, 1),
        Tanh(): np.tanh,
        Softsign(): lambda z: z / (1 + abs(z)),
        ReLU(): lambda z: np.where(z > 0, z, 0),
        LeakyReLU(): lambda z: np.where(z > 0, z, 0.01 * z),
        LeakyReLU(negative_slope=0.3): lambda z: np.where(z > 0, z, 0.3 * z),
        PReLU(): lambda z: np.where(z > 0, z, 0.25 * z),
        PReLU(initial_slope=-0.5): lambda z: np.where(z > 0, z, -0.5 * z),
        ELU(): lambda z: np.where(z > 0, z, np.exp(z) - 1),
        ELU(alpha=0.5): lambda z: np.where(z > 0, z, 0.5 * (np.exp(z) - 1)),
        SELU(): lambda z: (
            1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * (np.exp(z) - 1))
        ),
        GELU(): lambda z: z * special.ndtr(z),
        GELU(approximate="tanh"): lambda z: (
            z * special.expit(math.sqrt(8 / math.pi) * (z + 0.044715 * z**3))
        ),
        Swish(): lambda z: z * special.expit(z),
        Swish(beta=2): lambda z: z * special.expit(2 * z),
        Softplus(): lambda z: np.log(1 + np.exp(z)),
        Exponential(): np.exp,
        Linear(): np.copy,
        Softmax(): lambda z: special.softmax(z, axis=1),
        Maxout(): lambda z: np.maximum(*np.split(z, 2, axis=1)),
        Maxout(pieces=3): lambda z: np.maximum.reduce(np.split(z, 3, axis=1)),
    }
    return formulas[f]


def normal(*shape: int, seed: int = 0, dtype: DTypeLike = np.float64) -> Array:
    return np.random.default_rng(seed).normal(0, 2, shape).astype(dtype)


def labels_of(count: int, classes: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, classes, count)


def make_network(
    sizes: Sequence[int],
    activations: Sequence[str | Activation],
    dtype: DTypeLike = np.float64,
    batch_norm: BatchNorm | None = None,
) -> Network:
    """Return a network with random parameters; `sizes` begins with the number of inputs.

    All hidden layers have the batch normalization.
    """
    layers = [
        Layer(units, ACTIVATIONS[kind]() if isinstance(kind, str) else kind)
        for units, kind in zip(sizes[1:], activations, strict=True)
    ]
    layers[:-1] = [dataclasses.replace(layer, batch_norm=batch_norm) for layer in layers[:-1]]
    network = Network(sizes[0], layers, dtype)
    network.initialize(np.random.default_rng(0))
    for biases in network.parameters.biases:
        biases[...] = normal(*biases.shape, seed=1) / 10
    for learned in network.parameters.slopes:
        learned[...] = normal(*learned.shape, seed=2) / 4
    for learned in (*network.parameters.gains, *network.parameters.shifts):
        learned += normal(*learned.shape, seed=3) / 4
    return network


def small_network(layers: Sequence[str | Activation], units: int = 4) -> Network:
    """Return a network with 6 inputs, 5 units in each hidden layer, and `units` outputs."""
    network = make_network([6, *[5] * (len(layers) - 1), units], layers)
    if len(layers) < 9:
        network.parameters.vector /= 2  # so that exponentials of exponentials stay small
    return network


def clouds(count: int, *, noise: int = 120, seed: int = 0) -> Examples:
    """Return examples with 12 inputs and 3 classes: a center point per class, plus noise."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    centers = np.random.default_rng(99).integers(0, 256, (3, 12))[labels]
    pixels = (centers + rng.integers(-noise, noise + 1, centers.shape)).clip(0, 255)
    return Examples(pixels.astype(np.uint8), labels)


def make_training(
    network: Network, examples: Examples, rate: float, **settings: Any
) -> TrainingLoop:
    """Return a training; default: SGD with cross-entropy, one epoch, batches of 10."""

    def take(*keys: str) -> dict[str, Any]:
        return {key: settings.pop(key) for key in keys if key in settings}

    loss = settings.pop("loss", "cross_entropy")
    if isinstance(loss, str):
        loss = make_loss(loss, network.layers[-1].activation)
    descent = settings.pop("optimizer", None) or SGD(**take("momentum", "nesterov"))
    optimizer = make_optimizer(descent, **take("weight_decay", "clip_norm", "max_norm", "average"))
    batches = BatchLoader(
        examples,
        network,
        batch_size=settings.pop("batch_size", 10),
        rng=settings.pop("shuffle", np.random.default_rng(5)),
        team=ThreadTeam(settings.pop("threads", 1)),
        **take(
            "seed",
            "with_replacement",
            "augmentation",
            "input_dropout",
            "label_smoothing",
            "class_weights",
            "skip_unused",
        ),
    )
    return TrainingLoop(network, loss, optimizer, batches, rate, **settings)


def make_optimizer(
    descent: Descent,
    *,
    weight_decay: float = 0.0,
    clip_norm: float | None = None,
    max_norm: float | None = None,
    average: float | None = None,
) -> Optimizer:
    """Return an optimizer with these rules."""
    before: list[UpdateRule] = [WeightDecay(weight_decay)] if weight_decay else []
    if clip_norm:
        before.insert(0, ClipNorm(clip_norm, is_scaled=isinstance(descent, SGD)))
    after: list[UpdateRule] = [MaxNorm(max_norm)] if max_norm else []
    if average:
        after.append(MovingAverage(average))
    return Optimizer(descent, tuple(before), tuple(after))


def bits(training: TrainingLoop) -> tuple[bytes, ...]:
    """Return the bytes of the network and of the optimizer state."""
    network = training.network
    arrays = [network.parameters.vector, network.statistics, *training.state.values()]
    return tuple(array.tobytes() for array in arrays)


def rows_of(events: Sequence[Event]) -> list[EpochDone]:
    """Return the completed epochs, with `seconds` set to 0 so that they can be compared."""
    rows = [event for event in events if isinstance(event, EpochDone)]
    return [dataclasses.replace(row, seconds=0) for row in rows]


def check_resuming(create: Callable[[], TrainingLoop]) -> None:
    """Check that training gives the same bits if it is stopped after any event and resumed."""
    whole = create()
    events = list(whole)
    for stop in range(len(events)):
        stopped, resumed = create(), create()
        first_part = list(itertools.islice(stopped, stop))
        resumed.progress = copy.deepcopy(stopped.progress)
        resumed.network.parameters.vector[...] = stopped.network.parameters.vector
        resumed.network.statistics[...] = stopped.network.statistics
        for name, values in stopped.state.items():
            resumed.state[name][...] = values
        rest = list(resumed)
        assert len(events) == len(first_part) + len(rest)
        assert events[-1] == rest[-1]
        assert rows_of(events) == rows_of([*first_part, *rest])
        assert bits(whole) == bits(resumed)
        assert whole.progress.best == resumed.progress.best


def textbook_training(
    weights: Sequence[Array],
    biases: Sequence[Array],
    examples: Examples,
    rate: Callable[[float], float],
    *,
    hidden: str,
    epochs: int,
    batch_size: int,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Iterator[tuple[Array, int]]:
    """Train in place with softmax and cross-entropy; yield losses and hits of each batch."""
    f: Callable[[Array], Array]
    slope: Callable[[Array], Array]
    f, slope = {
        "sigmoid": (lambda z: 1 / (1 + np.exp(-z)), lambda a: a * (1 - a)),
        "relu": (lambda z: z * (z > 0), lambda a: (a > 0).astype(a.dtype)),
    }[hidden]
    inputs = (examples.inputs / 255).astype(weights[0].dtype)
    shuffle = np.random.default_rng(5)
    velocity = [np.zeros_like(array) for array in (*weights, *biases)]
    batches = math.ceil(len(inputs) / batch_size)
    for epoch in range(epochs):
        order = shuffle.permutation(len(inputs))
        for batch in range(batches):
            chosen = order[batch * batch_size : (batch + 1) * batch_size]
            a = [inputs[chosen]]
            for w, b in zip(weights[:-1], biases[:-1], strict=True):
                a.append(f(a[-1] @ w + b))
            z = a[-1] @ weights[-1] + biases[-1]
            z -= z.max(axis=1, keepdims=True)
            softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
            one_hot = np.eye(z.shape[1], dtype=z.dtype)[examples.labels[chosen]]
            losses = np.log(np.exp(z).sum(axis=1)) - (z * one_hot).sum(axis=1)
            delta = (softmax - one_hot) / len(chosen)
            gradient_w: list[Array] = []
            gradient_b: list[Array] = []
            for i in reversed(range(len(weights))):
                gradient_w.insert(0, a[i].T @ delta)
                gradient_b.insert(0, delta.sum(axis=0))
                delta = delta @ weights[i].T * slope(a[i])
            eta = rate(epoch + (batch + 0.5) / batches)
            for i, gradient in enumerate(gradient_w + gradient_b):
                parameters = (*weights, *biases)[i]
                if i < len(weights):
                    parameters *= 1 - eta * weight_decay
                velocity[i] = momentum * velocity[i] - eta * gradient
                parameters += momentum * velocity[i] - eta * gradient if nesterov else velocity[i]
            yield losses, int((z.argmax(axis=1) == examples.labels[chosen]).sum())


def differences(f: Callable[[], Any], values: Array, step: float = 1e-5) -> Array:
    """Return the derivatives of f with respect to `values`, by central differences."""
    derivatives = np.empty_like(values)
    for index, value in np.ndenumerate(values.copy()):
        values[index] = value + step
        above = f()
        values[index] = value - step
        derivatives[index] = (above - f()) / (2 * step)
        values[index] = value
    return derivatives


def relative_error(gradient: Array, reference: Array) -> float:
    """Return |g - r| / max(|g|, |r|) in the Euclidean norm, 0 where both are 0."""
    scale = max(float(np.linalg.norm(gradient)), float(np.linalg.norm(reference)))
    return float(np.linalg.norm(gradient - reference)) / scale if scale else 0.0
