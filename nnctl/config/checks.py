"""Checks that compare several keys of a training configuration with each other."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

from nnctl.config.reader import KeyPath
from nnctl.config.schema import Config, OptimizerConfig
from nnctl.nn.activations import Softmax
from nnctl.nn.losses import make_loss
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.nn.schedules import PlateauSchedule
from nnctl.text import enumeration


@dataclass(frozen=True)
class Problem:
    """A mistake in a configuration.

    Parameters
    ----------
    path : tuple
        Key at which the mistake is reported.
    message : str
        What is wrong, and what to do.
    related : tuple of paths
        Other keys that the mistake depends on.
    of_key : bool
        Whether the key itself is wrong, rather than its value.
    """

    path: KeyPath
    message: str
    related: tuple[KeyPath, ...] = ()
    of_key: bool = False


Check = Callable[[Config], Iterator[Problem]]

_OPTIMIZER_KEYS: dict[str, list[str]] = {}
"""For each key that only some optimizers have, the names of these optimizers."""
for _name, _kind in OPTIMIZERS.items():
    for _field in fields(_kind):
        _OPTIMIZER_KEYS.setdefault(_field.name, []).append(_name)


def check_network(config: Config) -> Iterator[Problem]:
    """Check that the activations fit their layers, and that the loss fits the last layer."""
    *hidden, output = config.network.layers
    for i, layer in enumerate(hidden):
        if layer.activation.place == "output":
            yield Problem(
                ("network", "layers", i, "activation"),
                f"{layer.activation.name} is for the last layer only; use relu, tanh or sigmoid in "
                "a hidden layer",
            )
    last = len(config.network.layers) - 1
    activation = ("network", "layers", last, "activation")
    if output.activation.place == "hidden":
        yield Problem(
            activation,
            f"{output.activation.name} is for hidden layers only; use softmax, sigmoid or linear "
            "in the last layer",
        )
    if isinstance(output.activation, Softmax) and output.units == 1:
        yield Problem(
            ("network", "layers", last, "units"),
            "softmax over one unit is always 1; use one unit per class, or sigmoid",
            related=(activation,),
        )
    for key in ("dropout", "batch_norm"):
        if getattr(output, key):
            yield Problem(
                ("network", "layers", last, key),
                f"{key} is for hidden layers only; set it in an earlier layer",
            )
    try:
        make_loss(config.loss, output.activation)
    except ValueError as error:
        yield Problem(
            ("loss",),
            f"{error}; use quadratic, or another activation in the last layer",
            related=(activation,),
        )


def check_optimizer(config: Config) -> Iterator[Problem]:
    """Check that the optimizer's settings fit each other."""
    optimizer = config.optimizer
    for key, names in _OPTIMIZER_KEYS.items():
        if getattr(optimizer, key) and optimizer.name not in names:
            default = json.dumps(OptimizerConfig.model_fields[key].default)
            yield Problem(
                ("optimizer", key),
                f"{key} is for {enumeration(names)} only, not for {optimizer.name}; remove it, "
                f"set it to {default}, or use {enumeration(names, 'or')}",
                related=(("optimizer", "name"),),
            )
    if optimizer.name == "sgd" and optimizer.nesterov and not optimizer.momentum:
        yield Problem(
            ("optimizer", "nesterov"),
            "nesterov needs momentum, which is 0; set optimizer.momentum",
            related=(("optimizer", "momentum"),),
        )
    if optimizer.learning_rate * optimizer.weight_decay >= 1:
        yield Problem(
            ("optimizer", "weight_decay"),
            "learning_rate * weight_decay must be below 1: each step multiplies the weights by "
            f"1 - {optimizer.learning_rate:g} * {optimizer.weight_decay:g}",
            related=(("optimizer", "learning_rate"),),
        )


def check_training(config: Config) -> Iterator[Problem]:
    """Check what depends on validation, and the size of batches that are normalized."""
    normalized = [i for i, layer in enumerate(config.network.layers) if layer.batch_norm]
    for path, count in (
        (("training", "batch_size"), config.training.batch_size),
        (("data", "subset"), config.data.subset),
    ):
        if normalized and count == 1:
            yield Problem(
                path,
                "batch_norm needs 2 or more examples in a batch: the variance of one is 0, so "
                "nothing would be learned",
                related=(("network", "layers", normalized[0], "batch_norm"),),
            )
    decided_by_validation = {
        ("training", "early_stopping"): ("early stopping", config.training.early_stopping),
        ("optimizer", "schedule"): (
            "the schedule plateau",
            isinstance(config.optimizer.schedule, PlateauSchedule),
        ),
    }
    for path, (what, used) in decided_by_validation.items():
        if used and config.data.validation == 0:
            yield Problem(
                path,
                f"{what} needs validation examples, but data.validation is 0",
                related=(("data", "validation"),),
            )
        if used and isinstance(config.training.validate_every, str):
            yield Problem(
                ("training", "validate_every"),
                f"{what} needs a number of epochs here: with a time, the trained weights would "
                "depend on the speed of the machine",
                related=(path,),
            )


CHECKS: tuple[Check, ...] = (check_network, check_optimizer, check_training)
"""Checks of the configuration alone; others compare it with the dataset and the machine."""
