"""Mistakes that no single key shows: what does not fit together."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from nnctl.config.reader import Path_
from nnctl.config.schema import Config
from nnctl.nn.activations import Softmax
from nnctl.nn.losses import make_loss


@dataclass(frozen=True)
class Problem:
    """A mistake of a configuration.

    Parameters
    ----------
    path : tuple
        The key that it is shown at.
    message : str
        What is wrong, and what to do.
    about : tuple of paths
        The other keys that it depends on.
    of_key : bool
        Whether the key itself is wrong, not its value.
    """

    path: Path_
    message: str
    about: tuple[Path_, ...] = ()
    of_key: bool = False


Check = Callable[[Config], Iterator[Problem]]


def check_network(config: Config) -> Iterator[Problem]:
    """Check the layers against each other, and the loss against the last of them."""
    *hidden, output = config.network.layers
    for i, layer in enumerate(hidden):
        if layer.activation.place == "output":
            yield Problem(
                ("network", "layers", i, "activation"),
                f"{layer.activation.name} belongs in the last layer; in a hidden one use relu, "
                "tanh or sigmoid",
            )
    last = len(config.network.layers) - 1
    activation = ("network", "layers", last, "activation")
    if output.activation.place == "hidden":
        yield Problem(
            activation,
            f"{output.activation.name} belongs in a hidden layer; in the last one use softmax, "
            "sigmoid or linear",
        )
    if isinstance(output.activation, Softmax) and output.units == 1:
        yield Problem(
            ("network", "layers", last, "units"),
            "softmax over one unit is always 1; give it a unit for each class, or use sigmoid",
            about=(activation,),
        )
    if output.dropout:
        yield Problem(
            ("network", "layers", last, "dropout"),
            "the last layer's outputs are the answer; dropout belongs in the layers before it",
        )
    try:
        make_loss(config.loss, output.activation)
    except ValueError as error:
        yield Problem(
            ("loss",),
            f"{error}; use quadratic, or another activation in the last layer",
            about=(activation,),
        )


def check_optimizer(config: Config) -> Iterator[Problem]:
    """Check the numbers of the optimizer against each other."""
    optimizer = config.optimizer
    if optimizer.momentum and optimizer.name != "sgd":
        yield Problem(
            ("optimizer", "momentum"),
            f"momentum belongs to sgd; {optimizer.name} has a memory of its own",
            about=(("optimizer", "name"),),
        )
    if optimizer.nesterov and not optimizer.momentum:
        yield Problem(
            ("optimizer", "nesterov"),
            "nesterov looks ahead along the momentum, which is 0; set optimizer.momentum",
            about=(("optimizer", "momentum"),),
        )
    if optimizer.learning_rate * optimizer.weight_decay >= 1:
        yield Problem(
            ("optimizer", "weight_decay"),
            "learning_rate * weight_decay must be below 1: each step multiplies the weights by "
            f"1 - {optimizer.learning_rate:g} * {optimizer.weight_decay:g}",
            about=(("optimizer", "learning_rate"),),
        )


def check_training(config: Config) -> Iterator[Problem]:
    """Check what needs validation examples."""
    if config.training.early_stopping and config.data.validation == 0:
        yield Problem(
            ("training", "early_stopping"),
            "early stopping watches the validation examples, and data.validation is 0",
            about=(("data", "validation"),),
        )


CHECKS: tuple[Check, ...] = (check_network, check_optimizer, check_training)
"""What a configuration can be checked for by itself; others know the dataset and the machine."""
