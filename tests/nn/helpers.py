"""Small networks and trainings, and a textbook's training loop to compare them with."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnctl.nn.activations import ACTIVATIONS, Activation, Array
from nnctl.nn.examples import Examples
from nnctl.nn.losses import make_loss
from nnctl.nn.network import Layer, Network
from nnctl.nn.optimizer import SGD
from nnctl.nn.schedules import ConstantSchedule
from nnctl.nn.training import Training

HIDDEN = [name for name in ACTIVATIONS if not ACTIVATIONS[name].output_only]
PAIRS = [
    ("cross_entropy", "softmax"),
    ("cross_entropy", "sigmoid"),
    *(("quadratic", name) for name in ACTIVATIONS),
]
"""Every loss with every activation of the output layer that it is defined over."""


def normal(*shape: int, seed: int = 0, dtype: DTypeLike = np.float64) -> Array:
    """Return normally distributed numbers."""
    return np.random.default_rng(seed).normal(0, 2, shape).astype(dtype)


def labels_of(count: int, classes: int, seed: int = 0) -> Any:
    """Return random labels."""
    return np.random.default_rng(seed).integers(0, classes, count)


def make_network(
    sizes: Sequence[int], activations: Sequence[str | Activation], dtype: DTypeLike = np.float64
) -> Network:
    """Return a network of these sizes, inputs first, with weights and biases drawn at random."""
    layers = [
        Layer(units, ACTIVATIONS[kind]() if isinstance(kind, str) else kind)
        for units, kind in zip(sizes[1:], activations, strict=True)
    ]
    network = Network(sizes[0], layers, dtype)
    network.initialize(np.random.default_rng(0))
    for biases in network.parameters.biases:
        biases[...] = normal(*biases.shape, seed=1) / 10
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
