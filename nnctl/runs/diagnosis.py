"""Why a network does not learn: sentences told from a configuration, and from what health shows.

Each names its evidence, the reason, and the key of the configuration to change. A healthy run has
none; the thresholds below are far from what healthy runs show.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnctl.config import Config
from nnctl.nn.activations import Exponential, HardSigmoid, Linear, Sigmoid, Step
from nnctl.nn.initializers import Constant, Zeros
from nnctl.nn.network import Network
from nnctl.nn.training import Divergence
from nnctl.runs.directory import build_layers

DEAD = 0.4
"""The share of a layer's units that may be 0 for every image."""
SATURATED = 0.8
"""The share of a hidden layer's outputs that may be near their bounds."""
VANISHING = 1 / 100
"""How much shorter the first layer's errors may be than the last one's; longer is the inverse."""
SHIFTED = 3.0
"""How many standard deviations the mean of activations without a sign may be from 0."""
OVERFITTING = 0.10
"""By how much the training accuracy may exceed the validation accuracy."""
FLAT = 0.05
"""The share of the loss that is no progress."""
TINY_UPDATE = 1e-5
"""A first step so short, measured by the weights, that nothing can come of it."""
FAINT = 1e-2
"""A standard deviation of activations so small that all images look the same."""

FAINT_REASON = (
    "weights that are too small make each layer fainter than the one before, until all images look "
    "the same"
)

LEARNING_RATES = {"cross_entropy": (1e-4, 5.0), "quadratic": (1e-2, 30.0)}
"""Outside of these, learning_rate / (1 - momentum) of sgd is far out for the loss."""
_ROUNDING = 1e-9  # 0.5 / (1 - 0.9) is a little more than 5
ADAPTIVE_RATES = {"adagrad": (1e-4, 1.0), "adam": (1e-6, 0.1)}
"""Outside of these it is far out for optimizers that scale each step by the gradients' size."""


@dataclass(frozen=True)
class Diagnosis:
    """Something that keeps a network from learning.

    Parameters
    ----------
    kind : str
        One word or two: what is wrong.
    layer : int, optional
        Where, counted from 1.
    evidence : str
        What was seen.
    reason : str
        Why that hurts.
    cure : str
        The keys of the configuration to change.
    """

    kind: str
    layer: int | None
    evidence: str
    reason: str
    cure: str


def foresee(config: Config) -> list[Diagnosis]:
    """Return what can be known of a configuration before any training."""
    return [
        *_steps(config),
        *_linear(config, None),
        *_deep_sigmoids(config),
        *_exponentials(config),
        *_equal_weights(config),
        *_learning_rate(config),
    ]


def diagnose(
    config: Config,
    rows: Sequence[Mapping[str, Any]],
    network: Network | None,
    divergence: Divergence | None = None,
) -> list[Diagnosis]:
    """Return why a run did not learn, or not better.

    Parameters
    ----------
    config : Config
        Of the run.
    rows : sequence of mapping
        The metrics of its epochs, with the health of the layers.
    network : Network, optional
        As it is after the last of them.
    divergence : Divergence, optional
        Where it left the finite numbers.
    """
    finite = None if divergence else network
    found = [*_divergence(config, divergence), *_steps(config), *_linear(config, finite)]
    # Earlier versions measured less.
    rows = [row for row in rows if all("error" in layer for layer in row["health"])]
    if rows and not divergence:
        health = rows[-1]["health"]
        found += [
            *_dead(config, health),
            *_saturation(config, rows[0]["health"], rows[-1]["health"]),
            *_gradients(config, health),
            *_bias_shift(config, health),
        ]
        found += [*_flat(config, rows, bool(found)), *_overfitting(rows)]
    return found


def diagnose_start(config: Config, health: Sequence[Mapping[str, Any]]) -> list[Diagnosis]:
    """Return what is wrong with the first weights of a network, before any training."""
    return [
        *_saturation(config, health, health),
        *_faint(health),
        *_gradients(config, health),
    ]


def glance(config: Config, health: Sequence[Mapping[str, Any]]) -> str:
    """Return the worst of an epoch's health in nine characters or fewer."""
    hidden = health[:-1]
    dead = max((layer["dead"] for layer in hidden), default=0.0)
    saturated = max((layer["saturated"] for layer in hidden), default=0.0)
    if _faint_layer(health) < len(health):
        return "too faint"
    for share, least, what in ((dead, DEAD, "dead"), (saturated, SATURATED, "sat.")):
        if share >= least:
            return f"{100 * share:.0f} % {what}".replace("100 %", "all")
    found = [*_gradients(config, health), *_bias_shift(config, health)]
    return found[0].kind.split()[0] if found else "ok"


def _key(layer: int, key: str) -> str:
    """Return the dotted key of a layer that is counted from 1."""
    return f"network.layers.{layer - 1}.{key}"


def _divergence(config: Config, divergence: Divergence | None) -> Iterator[Diagnosis]:
    if divergence:
        rate = config.optimizer.learning_rate
        yield Diagnosis(
            "divergence",
            divergence.layer,
            f"the {divergence.what} of layer {divergence.layer} were not finite in epoch "
            f"{divergence.epoch}, batch {divergence.batch}",
            "each step overshoots by more than it corrects, and the numbers grow until they "
            "overflow",
            f"lower optimizer.learning_rate: {rate:g}, to {rate / 10:g} for a start",
        )


def _steps(config: Config) -> Iterator[Diagnosis]:
    for number, layer in enumerate(config.network.layers, start=1):
        if isinstance(layer.activation, Step) and layer.activation.surrogate is None:
            which = "layer 1 learns" if number == 1 else f"layers 1 to {number} learn"
            yield Diagnosis(
                "step",
                number,
                f"layer {number} is step",
                f"its derivative is 0, so no error passes it, and {which} nothing",
                f"set {_key(number, 'activation')}: {{name: step, surrogate: sigmoid}}",
            )


def _linear(config: Config, network: Network | None) -> Iterator[Diagnosis]:
    """Tell of hidden layers that are all linear, and show it by the product of a network."""
    *hidden, output = config.network.layers
    if not hidden or not all(isinstance(layer.activation, Linear) for layer in hidden):
        return
    units = output.units
    if network is None:
        evidence = f"all hidden layers are linear: the {len(hidden) + 1} layers are one"
    else:
        inputs = network.sizes[0]
        evidence = (
            f"all hidden layers are linear: the product of the {len(hidden) + 1} weight matrices, "
            f"one of {inputs} x {units}, gives the same logits to {_distance(network):.0e}"
        )
    yield Diagnosis(
        "linear collapse",
        None,
        evidence,
        "a linear map of a linear map is a linear map; such a network can do no more than one "
        "without hidden layers",
        f"set {_key(1, 'activation')}: relu",
    )


def _distance(network: Network) -> float:
    """Return how far a network of linear layers is from the product of its matrices, relatively."""
    exact = network.as_float64()
    weights, biases = exact.parameters.weights, exact.parameters.biases
    product, shift = weights[0], biases[0]
    for w, b in zip(weights[1:], biases[1:], strict=True):
        product, shift = product @ w, shift @ w + b
    inputs = np.random.default_rng(0).random((100, network.sizes[0]))
    logits = network.logits(inputs.astype(network.dtype))
    largest = float(np.abs(logits).max()) or 1.0
    return float(np.abs(inputs @ product + shift - logits).max()) / largest


def _deep_sigmoids(config: Config) -> Iterator[Diagnosis]:
    *hidden, _ = config.network.layers
    steepest = 1.0
    for layer in hidden:
        if isinstance(layer.activation, Sigmoid):
            steepest *= layer.activation.gain / 4
        elif isinstance(layer.activation, HardSigmoid):
            steepest *= 1 / 6
    if steepest < 1 / 1000:
        yield Diagnosis(
            "vanishing gradients",
            1,
            f"{len(hidden)} hidden layers, whose derivatives multiply to {steepest:.1g} at most",
            "a sigmoid's derivative is 1/4 at most, so the first layers learn far more slowly "
            "than the last",
            f"use relu or tanh, beginning with {_key(1, 'activation')}; or fewer layers",
        )


def _exponentials(config: Config) -> Iterator[Diagnosis]:
    for number, layer in enumerate(config.network.layers[:-1], start=1):
        if isinstance(layer.activation, Exponential):
            yield Diagnosis(
                "exponential",
                number,
                f"layer {number} is exponential, and hidden",
                "its outputs and its derivative have no bound and grow with each step",
                f"set {_key(number, 'activation')}: relu, or softplus",
            )


def _equal_weights(config: Config) -> Iterator[Diagnosis]:
    *hidden, _ = build_layers(config)
    equal = {
        number: 0.0
        for number, layer in enumerate(hidden, start=1)
        if all(
            isinstance(drawn, Zeros | Constant)
            for drawn in (layer.weights, layer.biases_distribution)
        )
    }
    if equal:
        number = min(equal)
        layer = hidden[number - 1]
        yield Diagnosis(
            "equal units",
            number,
            f"layer {number} begins with {layer.weights.name} weights and "
            f"{layer.biases_distribution.name} biases" + _also(equal, number),
            "all its units are the same, get the same gradient, and stay the same for ever",
            f"set {_key(number, 'init')}: auto",
        )


def _learning_rate(config: Config) -> Iterator[Diagnosis]:
    optimizer = config.optimizer
    rate = optimizer.learning_rate / (1 - optimizer.momentum)
    low, high = ADAPTIVE_RATES.get(optimizer.name) or LEARNING_RATES[config.loss]
    what = f"the {config.loss} loss" if optimizer.name == "sgd" else optimizer.name
    if not low * (1 - _ROUNDING) <= rate <= high * (1 + _ROUNDING):
        by_momentum = " / (1 - optimizer.momentum)" if optimizer.momentum else ""
        high_or_low = "high" if rate > high else "low"
        yield Diagnosis(
            "learning rate",
            None,
            f"optimizer.learning_rate{by_momentum} is {rate:g}",
            f"that is very {high_or_low} for {what}; "
            f"what works is usually between {low:g} and {high:g}",
            f"{'lower' if rate > high else 'raise'} optimizer.learning_rate",
        )


def _dead(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    dead = {
        number: layer["dead"]
        for number, layer in enumerate(health[:-1], start=1)
        if layer["dead"] >= DEAD and number < _faint_layer(health)
    }
    if dead:
        number = max(dead, key=dead.__getitem__)
        name = config.network.layers[number - 1].activation.name
        yield Diagnosis(
            "dead units",
            number,
            f"layer {number}: {100 * dead[number]:.0f} % of units are 0 for every image"
            + _also(dead, number),
            f"a {name} unit that is 0 for every image has no gradient and cannot come back",
            f"lower optimizer.learning_rate: {config.optimizer.learning_rate:g}, or use "
            f"leaky_relu or elu in {_key(number, 'activation')}",
        )


def _faint_layer(health: Sequence[Mapping[str, Any]]) -> int:
    """Return the first hidden layer that lives, but hardly answers; one past the last if none."""
    for number, layer in enumerate(health[:-1], start=1):
        if layer["std"] < FAINT and layer["dead"] < DEAD:
            return number
    return len(health) + 1


def _also(found: Mapping[int, float], worst: int) -> str:
    """Return a clause that names the other layers of which the same is to be said."""
    others = [str(number) for number in found if number != worst]
    if not others:
        return ""
    return f"; the same is wrong with layer{'s' * (len(others) > 1)} {', '.join(others)}"


def _saturation(
    config: Config, first: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]
) -> Iterator[Diagnosis]:
    """Tell of layers that were saturated from the first on: later, it can be certainty."""
    saturated = {
        number: now["saturated"]
        for number, (then, now) in enumerate(zip(first[:-1], last[:-1], strict=True), start=1)
        if min(then["saturated"], now["saturated"]) >= SATURATED
    }
    if saturated:
        number = max(saturated, key=saturated.__getitem__)
        before = f", {100 * first[number - 1]['saturated']:.0f} % after the first epoch already"
        yield Diagnosis(
            "saturation",
            number,
            f"layer {number}: {100 * saturated[number]:.0f} % of the outputs are within 5 % of "
            f"their bounds{before if first is not last else ''}" + _also(saturated, number),
            f"there the derivative of {config.network.layers[number - 1].activation.name} is "
            "nearly 0, and so is what the layer learns; its weights began too large",
            f"set {_key(number, 'init')}: auto, or lower optimizer.learning_rate: "
            f"{config.optimizer.learning_rate:g}",
        )


def _gradients(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    first, last = health[0]["error"], health[-1]["error"]
    if not first or not last or _faint_layer(health) < len(health):
        return  # a step, dead units, activations that are too small: they have their own sentence
    ratio = first / last
    names = {layer.activation.name for layer in config.network.layers[:-1]}
    per_layer = ratio ** (1 / max(1, len(health) - 1))
    if ratio < VANISHING:
        yield Diagnosis(
            "vanishing gradients",
            1,
            f"the error of layer 1 is {1 / ratio:,.0f} times smaller than that of layer "
            f"{len(health)}: a factor of {per_layer:.2g} a layer",
            f"each layer multiplies the error by its weights and by the derivative of "
            f"{' or '.join(sorted(names))}; the first layers hardly learn",
            "use relu in network.layers, with network.init: auto; or fewer layers",
        )
    elif ratio > 1 / VANISHING:
        yield Diagnosis(
            "exploding gradients",
            1,
            f"the error of layer 1 is {ratio:,.0f} times larger than that of layer "
            f"{len(health)}: a factor of {per_layer:.2g} a layer",
            "each layer multiplies the error by its weights, which are too large; no learning "
            "rate suits the first layers and the last",
            "set network.init: auto",
        )


def _bias_shift(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    hidden = zip(config.network.layers[:-1], health[:-1], strict=True)
    shifted = {
        number: state["mean"] / state["std"]
        for number, (layer, state) in enumerate(hidden, start=1)
        if layer.activation.positive and state["mean"] > SHIFTED * state["std"] > 0
    }
    if shifted:
        number = max(shifted, key=shifted.__getitem__)
        state = health[number - 1]
        yield Diagnosis(
            "shifted activations",
            number,
            f"layer {number}: the activations have mean {state['mean']:.3g} and standard "
            f"deviation {state['std']:.2g}, and none is negative" + _also(shifted, number),
            f"to layer {number + 1} all images look alike, and the gradients of each of its "
            "units' weights share one sign, so that steps zigzag",
            f"use tanh or elu in {_key(number, 'activation')}",
        )


def _faint(health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    number = _faint_layer(health)
    if number < len(health):
        yield Diagnosis(
            "faint activations",
            number,
            f"layer {number}: the activations differ by no more than "
            f"{health[number - 1]['std']:.1g} from image to image",
            FAINT_REASON,
            "set network.init: auto",
        )


def _flat(
    config: Config, rows: Sequence[Mapping[str, Any]], explained: bool
) -> Iterator[Diagnosis]:
    """Tell of a loss that stays where it began, unless what was found before explains it."""
    first, last = rows[0], rows[-1]
    classes = max(2, config.network.layers[-1].units)
    fell = first["train_loss"] - last["train_loss"]
    if fell > FLAT * first["train_loss"] or last["train_accuracy"] > min(2 / classes, 0.75):
        return
    rate = config.optimizer.learning_rate
    faint = _faint_layer(last["health"])
    output = last["health"][-1]
    if faint < len(last["health"]):
        reason = (
            f"the activations of layer {faint} differ by no more than "
            f"{last['health'][faint - 1]['std']:.1g} from image to image; {FAINT_REASON}"
        )
        cure = "set network.init: auto"
    elif config.loss == "quadratic" and output["saturated"] >= SATURATED:
        reason = (
            f"{100 * output['saturated']:.0f} % of the outputs are within 5 % of their bounds; the "
            "gradient of the quadratic loss has their derivative as a factor, which is nearly 0"
        )
        is_sigmoid = isinstance(config.network.layers[-1].activation, Sigmoid)
        other = "loss: cross_entropy" if is_sigmoid else "network.init: auto"
        cure = f"lower optimizer.learning_rate: {rate:g}, or set {other}"
    elif max(layer["update_ratio"] for layer in first["health"]) < TINY_UPDATE:
        reason = "a step changes the weights by less than a hundred thousandth of their length"
        cure = f"raise optimizer.learning_rate: {rate:g}"
    elif explained:
        return
    elif len(config.network.layers) == 1:
        reason = "one layer parts two classes by a straight line or plane, and there may be none"
        cure = "add a hidden layer to network.layers"
    else:
        reason = "the network answers the same to every image, and steps do not lead away from that"
        cure = f"change optimizer.learning_rate: {rate:g}, tenfold down or up, or network.init"
    was = f"was {first['train_loss']:.4g} in epoch {first['epoch']} and " * (len(rows) > 1)
    yield Diagnosis(
        "flat loss",
        None,
        f"the training loss {was}is {last['train_loss']:.4g} in epoch {last['epoch']}, with "
        f"{100 * last['train_accuracy']:.1f} % right: no better than chance",
        reason,
        cure,
    )


def _overfitting(rows: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    last = rows[-1]
    if last["val_accuracy"] is None:
        return
    gap = last["train_accuracy"] - last["val_accuracy"]
    if gap > OVERFITTING:
        yield Diagnosis(
            "overfitting",
            None,
            f"{100 * last['train_accuracy']:.1f} % of the training images are right, and "
            f"{100 * last['val_accuracy']:.1f} % of the validation images",
            "the network learned the training images by heart, with their accidents",
            "train on more with data.subset: null, or raise optimizer.weight_decay, or stop early "
            "with training.early_stopping: {patience: 5}",
        )
