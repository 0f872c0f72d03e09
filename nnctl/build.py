"""Builds the layers, the network, the regularization and the optimizer of a configuration."""

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
    """Return the network of a configuration, with all parameters 0."""
    return Network(pixels, build_layers(config))


def build_augmentation(config: Config) -> Augmentation | None:
    """Return the image augmentation of a configuration, or None."""
    augment = config.data.augment
    if augment is None:
        return None
    elastic = augment.elastic and Elastic(augment.elastic.alpha, augment.elastic.sigma)
    return Augmentation(**{**dict(augment), "elastic": elastic})


def build_regularization(config: Config) -> Regularization:
    """Return the regularization of a configuration."""
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
    options = config.optimizer
    if options.name == "sgd":
        return SGD(options.learning_rate, options.weight_decay, options.momentum, options.nesterov)
    return OPTIMIZERS[options.name](options.learning_rate, options.weight_decay)
