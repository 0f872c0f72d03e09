"""Small networks and trainings, and a textbook's training loop to compare them with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import DTypeLike

from nnctl.nn.activations import (
    ACTIVATIONS,
    ELU,
    GELU,
    SELU,
    Activation,
    Array,
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
from nnctl.nn.examples import Examples
from nnctl.nn.losses import Loss, make_loss
from nnctl.nn.network import Layer, Network, Parameters
from nnctl.nn.optimizer import SGD
from nnctl.nn.schedules import ConstantSchedule
from nnctl.nn.training import Training

PLAIN: list[Activation] = [kind() for kind in dict.fromkeys(ACTIVATIONS.values())]
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
"""Every activation with parameters, with others than the defaults."""
FUNCTIONS = PLAIN + VARIANTS
TRUE = [f for f in FUNCTIONS if f.differentiable() == f]
"""Those whose backward pass is the derivative of their forward pass."""
HIDDEN = [f for f in FUNCTIONS if f.place != "output"]
PAIRS: list[tuple[str, Activation]] = [
    ("cross_entropy", Softmax()),
    ("cross_entropy", Sigmoid()),
    ("cross_entropy", Sigmoid(gain=2)),
    *(("quadratic", f) for f in TRUE if f.place != "hidden"),
]
"""Every loss with every activation of the output layer that it is defined over."""


def forward(f: Activation, z: Array) -> Array:
    """Return f(z), and leave z as it is."""
    outputs = np.full((len(z), z.shape[1] // f.maps), np.nan, z.dtype)
    f.forward(z, outputs)
    return outputs


def backward(f: Activation, z: Array, errors: Array) -> Array:
    """Return dL/dz for errors dL/df(z), and leave both as they are."""
    gradient = np.full_like(z, np.nan)
    f.backward(z, forward(f, z), errors, gradient)
    return gradient


def weighted_inputs(f: Activation, examples: int, units: int) -> Array:
    """Return z of both signs for a layer, no two of them alike, and none near a kink."""
    shape = examples, units * f.maps
    grid = np.linspace(-6, 6, math.prod(shape))
    for kink in f.kinks:
        grid[abs(grid - kink) < 1e-3] += 2e-3
    return np.random.default_rng(0).permutation(grid).reshape(shape)


def pytorch(f: Activation) -> Callable[[Any], Any]:
    """Return PyTorch's function, which maps a tensor z to f(z); skip the test without PyTorch."""
    torch: Any = pytest.importorskip("torch")
    functions = torch.nn.functional

    def step(at_zero: float) -> Callable[[Any], Any]:
        return lambda z: torch.heaviside(z.detach(), torch.full_like(z, at_zero)) + 0 * z

    def straight_through(z: Any) -> Any:
        return (step(0)(z) - torch.sigmoid(z)).detach() + torch.sigmoid(z)

    def prelu(slope: float) -> Callable[[Any], Any]:
        return lambda z: functions.prelu(z, torch.tensor([slope], dtype=z.dtype))

    def maxout(pieces: int) -> Callable[[Any], Any]:
        return lambda z: torch.max(z.reshape(len(z), pieces, -1), dim=1).values

    oracles: dict[Activation, Callable[[Any], Any]] = {
        Step(): step(0.0),
        Step(at_zero=1): step(1.0),
        Step(surrogate="sigmoid"): straight_through,
        Sigmoid(): torch.sigmoid,
        Sigmoid(gain=2): lambda z: torch.sigmoid(2 * z),
        Sigmoid(gain=3): lambda z: torch.sigmoid(3 * z),
        # PyTorch's own hardsigmoid has the derivative 1/6 of float32 in float64 too.
        HardSigmoid(): lambda z: functions.relu6(z + 3) / 6,
        Tanh(): torch.tanh,
        Softsign(): functions.softsign,
        ReLU(): torch.relu,
        LeakyReLU(): functions.leaky_relu,
        LeakyReLU(negative_slope=0.3): lambda z: functions.leaky_relu(z, 0.3),
        PReLU(): prelu(0.25),
        PReLU(initial_slope=-0.5): prelu(-0.5),
        ELU(): functions.elu,
        ELU(alpha=0.5): lambda z: functions.elu(z, 0.5),
        SELU(): functions.selu,
        GELU(): functions.gelu,
        GELU(approximate="tanh"): lambda z: functions.gelu(z, approximate="tanh"),
        Swish(): functions.silu,
        Swish(beta=2): lambda z: z * torch.sigmoid(2 * z),
        Softplus(): functions.softplus,
        Exponential(): torch.exp,
        Linear(): torch.clone,
        Softmax(): lambda z: torch.softmax(z, dim=1),
        Maxout(): maxout(2),
        Maxout(pieces=3): maxout(3),
    }
    return oracles[f]


def normal(*shape: int, seed: int = 0, dtype: DTypeLike = np.float64) -> Array:
    """Return normally distributed numbers."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype(dtype)


def labels_of(count: int, classes: int, seed: int = 0) -> Any:
    """Return random labels."""
    return np.random.default_rng(seed).integers(0, classes, count)


def make_network(
    sizes: Sequence[int], activations: Sequence[str | Activation], dtype: DTypeLike = np.float64
) -> Network:
    """Return a network of these sizes, inputs first, all that it learns drawn at random."""
    layers = [
        Layer(units, ACTIVATIONS[kind]() if isinstance(kind, str) else kind)
        for units, kind in zip(sizes[1:], activations, strict=True)
    ]
    network = Network(sizes[0], layers, dtype)
    network.initialize(np.random.default_rng(0))
    for biases in network.parameters.biases:
        biases[...] = normal(*biases.shape, seed=1) / 10
    for learned in network.parameters.learned:
        learned[...] = normal(*learned.shape, seed=2) / 4
    return network


def clouds(count: int, *, noise: int = 120, seed: int = 0) -> Examples:
    """Return examples of 3 classes with 12 inputs: a point for each class, and noise around it."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    points = np.random.default_rng(99).integers(0, 256, (3, 12))[labels]
    pixels = (points + rng.integers(-noise, noise + 1, points.shape)).clip(0, 255)
    return Examples(pixels.astype(np.uint8), labels)


def make_training(network: Network, examples: Examples, rate: float, **given: Any) -> Training:
    """Return a training; what is not given is plain: cross-entropy, one epoch, batches of 10."""
    rule = {key: given.pop(key) for key in ("momentum", "nesterov", "weight_decay") if key in given}
    loss = make_loss(given.pop("loss", "cross_entropy"), network.layers[-1].activation)
    plain = {
        "schedule": ConstantSchedule(),
        "validation": None,
        "epochs": 1,
        "batch_size": 10,
        "early_stopping": None,
        "shuffle": np.random.default_rng(5),
    }
    return Training(network, loss, SGD(rate, **rule), examples=examples, **{**plain, **given})


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
    """Train by softmax and cross-entropy, in place; yield losses and hits of each batch."""
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


def numerical_gradient(
    network: Network, loss: Loss, inputs: Array, targets: Array, step: float = 1e-5
) -> Parameters:
    """Return the gradient of the mean loss of a batch, by central differences."""
    gradient = Parameters(network.sizes[0], network.layers, network.dtype)
    vector = network.parameters.vector

    def mean_loss() -> float:
        return float(loss.values(network.logits(inputs), targets).mean())

    for i, value in enumerate(vector.copy()):
        vector[i] = value + step
        above = mean_loss()
        vector[i] = value - step
        below = mean_loss()
        vector[i] = value
        gradient.vector[i] = (above - below) / (2 * step)
    return gradient


def relative_error(gradient: Array, reference: Array) -> float:
    """Return |g - r| / max(|g|, |r|) in the Euclidean norm, 0 where both are 0."""
    scale = max(float(np.linalg.norm(gradient)), float(np.linalg.norm(reference)))
    return float(np.linalg.norm(gradient - reference)) / scale if scale else 0.0
