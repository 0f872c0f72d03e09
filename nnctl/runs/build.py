"""From a configuration to the layers, the network and the optimizer that it describes."""

from __future__ import annotations

from nnctl.config import Config
from nnctl.nn.network import Layer, Network
from nnctl.nn.optimizer import OPTIMIZERS, SGD, Optimizer


def build_layers(config: Config) -> list[Layer]:
    """Return the layers of a configuration."""
    layers = []
    for layer in config.network.layers:
        init = layer.init or config.network.init
        layers.append(Layer(layer.units, layer.activation, init.weights, init.biases))
    return layers


def build_network(config: Config, pixels: int) -> Network:
    """Return the network of a configuration, its parameters still zero."""
    return Network(pixels, build_layers(config))


def build_optimizer(config: Config) -> Optimizer:
    """Return the optimizer of a configuration."""
    given = config.optimizer
    if given.name == "sgd":
        return SGD(given.learning_rate, given.weight_decay, given.momentum, given.nesterov)
    return OPTIMIZERS[given.name](given.learning_rate, given.weight_decay)
