"""From a configuration to the layers, the network and the optimizer that it describes."""

from __future__ import annotations

from nnctl.config import Config
from nnctl.nn.augmentation import Augmentation, Elastic
from nnctl.nn.network import Layer, Network
from nnctl.nn.optimizer import OPTIMIZERS, SGD, Optimizer
from nnctl.nn.regularization import Regularization


def build_layers(config: Config) -> list[Layer]:
    """Return the layers of a configuration."""
    layers = []
    for layer in config.network.layers:
        init = layer.init or config.network.init
        layers.append(
            Layer(layer.units, layer.activation, init.weights, init.biases, layer.dropout)
        )
    return layers


def build_network(config: Config, pixels: int) -> Network:
    """Return the network of a configuration, its parameters still zero."""
    return Network(pixels, build_layers(config))


def build_augmentation(config: Config) -> Augmentation | None:
    """Return how a configuration deforms images."""
    given = config.data.augment
    if given is None:
        return None
    elastic = given.elastic and Elastic(given.elastic.alpha, given.elastic.sigma)
    return Augmentation(**{**dict(given), "elastic": elastic})


def build_regularization(config: Config) -> Regularization:
    """Return what of a configuration keeps the training within bounds."""
    return Regularization(
        augmentation=build_augmentation(config),
        input_dropout=config.network.input_dropout,
        label_smoothing=config.training.label_smoothing,
        adversarial=config.training.adversarial,
        clip_norm=config.optimizer.clip_norm,
        max_norm=config.optimizer.max_norm,
        average=config.training.average,
    )


def build_optimizer(config: Config) -> Optimizer:
    """Return the optimizer of a configuration."""
    given = config.optimizer
    if given.name == "sgd":
        return SGD(given.learning_rate, given.weight_decay, given.momentum, given.nesterov)
    return OPTIMIZERS[given.name](given.learning_rate, given.weight_decay)
