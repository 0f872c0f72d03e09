"""Why a network does not learn: sentences told from a configuration, and from what health shows.

Each names its evidence, the reason, and the key of the configuration to change. A healthy run has
none; the thresholds below are far from what healthy runs show.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from nnctl.config import Config
from nnctl.data.dataset import describe, open_dataset
from nnctl.nn.activations import Array, Exponential, HardSigmoid, Linear, Sigmoid, Step
from nnctl.nn.examples import scaled
from nnctl.nn.health import Probe
from nnctl.nn.initializers import Auto
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import Labels, make_targets
from nnctl.nn.network import Network, Parameters
from nnctl.nn.streams import stream
from nnctl.nn.training import Divergence
from nnctl.runs.build import build_layers, build_network

_PROBED = 256  # examples that the first weights are looked at with

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
LEARNED = 0.9
"""A training accuracy below this is that of a network that has not learned its images."""
FLAT = 0.05
"""The share of the loss that is no progress."""
RISEN = 3
"""How many times the loss of guessing is a loss that steps have driven up."""
TINY_UPDATE = 1e-5
"""A first step so short, measured by the weights, that nothing can come of it."""
MUCH_DROPOUT = 0.5
"""A share of dropped units above what is usual."""
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
    if divergence:
        return [_diverged(config, divergence)]
    found = [*_steps(config), *_equal_weights(config), *_linear(config, network)]
    # Earlier versions measured less.
    rows = [row for row in rows if all("error" in layer for layer in row["health"])]
    if not rows:
        return found
    health, start = rows[-1]["health"], None
    if network and any(_is_dead(layer) or _is_saturated(layer) for layer in health[:-1]):
        start = first_health(config, network.sizes[0])
    found += [
        *_silent_outputs(config, health),
        *([] if found else _dead(config, health, start)),
        *_saturation(config, rows[0]["health"], health, start),
        *_gradients(config, health),
        *_bias_shift(config, health),
    ]
    found += _loss(config, rows, explained=bool(found))
    if rows[-1]["train_accuracy"] < LEARNED:
        found += _learning_rate(config)
    return [*found, *_overfitting(config, rows)]


def diagnose_start(config: Config, health: Sequence[Mapping[str, Any]]) -> list[Diagnosis]:
    """Return what is wrong with the first weights of a network, before any training."""
    overflowing = [number for number, layer in enumerate(health, 1) if not _is_finite(layer)]
    if overflowing:
        return list(_overflow(config, overflowing[0]))
    return [
        *_dead(config, health, health),
        *_saturation(config, health, health, health),
        *_faint(config, health),
        *_gradients(config, health),
    ]


def first_health(config: Config, pixels: int) -> list[dict[str, Any]]:
    """Return the health of a network as it begins, on examples that need no download."""
    network = build_network(config, pixels)
    inputs, labels = some_examples(pixels, _PROBED, network.dtype)
    units = network.sizes[-1]
    probe = Probe(
        network,
        make_loss(config.loss, config.network.layers[-1].activation),
        inputs,
        make_targets(labels % max(2, units), units, network.dtype),
        Parameters(pixels, network.layers, network.dtype),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        network.initialize(stream(config.training.seed, "initialization"))
        return [dataclasses.asdict(layer) for layer in probe.measure(0.0)]


def some_examples(pixels: int, count: int, dtype: DTypeLike) -> tuple[Array, Labels]:
    """Return examples of so many inputs that ship with nnctl, or else random ones."""
    for name in ("mini", "xor"):
        if describe(name).pixels == pixels:
            digits = open_dataset(name, notify=lambda _: None).training
            return scaled(digits.images[:count], dtype), digits.labels[:count]
    inputs: Array = np.random.default_rng(0).random((count, pixels)).astype(dtype)
    return inputs, np.arange(count)


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


def before_any_step(divergence: Divergence) -> bool:
    """Tell whether the numbers of the first batch were too large, before anything was learned."""
    first = (divergence.epoch, divergence.batch, divergence.last_finite_loss) == (1, 1, None)
    return first and divergence.what != "gradient"


def _diverged(config: Config, divergence: Divergence) -> Diagnosis:
    if before_any_step(divergence):
        return next(_overflow(config, divergence.layer))
    rate = config.optimizer.learning_rate
    verb = "was" if divergence.what == "gradient" else "were"
    return Diagnosis(
        "divergence",
        divergence.layer,
        f"the {divergence.what} of layer {divergence.layer} {verb} not finite in epoch "
        f"{divergence.epoch}, batch {divergence.batch}",
        "each step overshoots by more than it corrects, and the numbers grow until they overflow",
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
            "use relu or tanh in all hidden layers of network.layers, or fewer layers",
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
        if not any(
            drawn.spread(2, 2) for drawn in (layer.weights_distribution, layer.biases_distribution)
        )
    }
    if equal:
        number = min(equal)
        layer = hidden[number - 1]
        yield Diagnosis(
            "equal units",
            number,
            f"layer {number} begins with {layer.weights_distribution.name} weights and "
            f"{layer.biases_distribution.name} biases" + _also(equal, number),
            "all its units are the same, get the same gradient, and stay the same for ever",
            _init_cure(config, number) or f"set {_key(number, 'init')}: auto",
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


def _is_dead(layer: Mapping[str, Any]) -> bool:
    return bool(layer["dead"] >= DEAD)


def _is_saturated(layer: Mapping[str, Any]) -> bool:
    return bool(layer["saturated"] >= SATURATED)


def _is_finite(layer: Mapping[str, Any]) -> bool:
    return all(math.isfinite(value) for value in layer.values() if value is not None)


def _overflow(config: Config, number: int) -> Iterator[Diagnosis]:
    yield Diagnosis(
        "overflow",
        number,
        f"layer {number}: its numbers are too large for float32 before any training",
        "nothing can be learned from infinity",
        _init_cure(config, number) or f"use relu in {_key(number, 'activation')}",
    )


def _init_cure(config: Config, number: int) -> str | None:
    """Return how a layer gets weights that fit its activation, if it has not got them."""
    layer = config.network.layers[number - 1]
    for init, key in ((layer.init, _key(number, "init")), (config.network.init, "network.init")):
        if init is not None:
            fits = isinstance(init.weights, Auto) and isinstance(init.biases, Auto)
            return None if fits else f"set {key}: auto"
    return None


def _rate_cure(config: Config) -> str:
    """Return what makes steps gentler: first what makes them harder than those of others."""
    shares = {"network.input_dropout": config.network.input_dropout}
    for number, layer in enumerate(config.network.layers, start=1):
        shares[_key(number, "dropout")] = layer.dropout
    gentler = {
        "training.adversarial": config.training.adversarial,
        **{key: share for key, share in shares.items() if share > MUCH_DROPOUT},
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }
    return "lower " + ", or ".join(f"{key}: {value:g}" for key, value in gentler.items() if value)


def _silent_outputs(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    """Tell of output units that are near 0 for every image, which the quadratic loss leaves so."""
    number, output = len(health), config.network.layers[-1]
    silent = round(health[-1]["dead"] * output.units)
    if silent and output.units > 1 and config.loss == "quadratic":
        init = _init_cure(config, number)
        yield Diagnosis(
            "silent outputs",
            number,
            f"layer {number}: {silent} of {output.units} outputs are near 0 for every image",
            "these digits are never answered: the gradient of the quadratic loss has the "
            "derivative of the output as a factor, which is nearly 0 there",
            ", or ".join(
                [
                    *(["set loss: cross_entropy"] * isinstance(output.activation, Sigmoid)),
                    *([init] if init else []),
                    "try another training.seed",
                ]
            ),
        )


def _dead(
    config: Config,
    health: Sequence[Mapping[str, Any]],
    start: Sequence[Mapping[str, Any]] | None,
) -> Iterator[Diagnosis]:
    dead = {
        number: layer["dead"]
        for number, layer in enumerate(health[:-1], start=1)
        if _is_dead(layer) and not _is_saturated(layer) and number < _faint_layer(health)
    }
    if dead:
        number = max(dead, key=dead.__getitem__)
        began_dead = start is not None and _is_dead(start[number - 1])
        other = f"use leaky_relu in {_key(number, 'activation')}"
        init = _init_cure(config, number) if began_dead else None
        yield Diagnosis(
            "dead units",
            number,
            f"layer {number}: {100 * dead[number]:.0f} % of units are 0 for every image"
            f"{', and were so before any training' if began_dead else ''}" + _also(dead, number),
            "a unit that is 0 for every image has no gradient and cannot come back",
            f"{init or _rate_cure(config)}, or {other}",
        )


def _faint_layer(health: Sequence[Mapping[str, Any]]) -> int:
    """Return the first hidden layer that lives, but hardly answers; one past the last if none."""
    for number, layer in enumerate(health[:-1], start=1):
        if layer["std"] < FAINT and layer["dead"] < DEAD:
            return number
    return len(health) + 1


def _large(number: float) -> str:
    return f"{number:,.0f}" if number < 1e6 else f"{number:.1e}"


def _also(found: Mapping[int, float], worst: int) -> str:
    """Return a clause that names the other layers of which the same is to be said."""
    others = [str(number) for number in found if number != worst]
    if not others:
        return ""
    return f"; the same is wrong with layer{'s' * (len(others) > 1)} {', '.join(others)}"


def _saturation(
    config: Config,
    first: Sequence[Mapping[str, Any]],
    last: Sequence[Mapping[str, Any]],
    start: Sequence[Mapping[str, Any]] | None,
) -> Iterator[Diagnosis]:
    """Tell of layers that were saturated from the first epoch on: later, it can be certainty."""
    saturated = {
        number: now["saturated"]
        for number, (then, now) in enumerate(zip(first[:-1], last[:-1], strict=True), start=1)
        if _is_saturated(then) and _is_saturated(now)
    }
    if saturated:
        number = max(saturated, key=saturated.__getitem__)
        before = f", {100 * first[number - 1]['saturated']:.0f} % after the first epoch already"
        init = _init_cure(config, number)
        began_so = init is not None and (start is None or _is_saturated(start[number - 1]))
        why = "its weights began too large" if began_so else "steps that are too long led there"
        name = config.network.layers[number - 1].activation.name
        yield Diagnosis(
            "saturation",
            number,
            f"layer {number}: {100 * saturated[number]:.0f} % of the outputs are within 5 % of "
            f"their bounds{before if first is not last else ''}" + _also(saturated, number),
            f"there the derivative of {name} is nearly 0, and so is what the layer learns; {why}",
            init if began_so and init else _rate_cure(config),
        )


def _gradients(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    first, last = health[0]["error"], health[-1]["error"]
    hidden = [layer.activation for layer in config.network.layers[:-1]]
    if not last or _faint_layer(health) < len(health):
        return  # activations that are too small have their own sentence
    if not first and (any(isinstance(f, Step) for f in hidden) or any(map(_is_dead, health[:-1]))):
        return  # and so have a step and dead units
    ratio = max(first, float(np.finfo(np.float32).tiny)) / last
    per_layer = f"a factor of {ratio ** (1 / max(1, len(hidden))):.2g} a layer"
    init = next(filter(None, (_init_cure(config, i + 1) for i in range(len(hidden)))), None)
    if ratio < VANISHING:
        flat = [found for found in hidden if found.initializer != "he_normal"]
        yield Diagnosis(
            "vanishing gradients",
            1,
            f"the error of layer 1 is {_large(1 / ratio)} times smaller than that of layer "
            f"{len(health)}: {per_layer}",
            "each layer multiplies the error by its weights and by the derivative of "
            f"{' or '.join(sorted({found.name for found in hidden}))}; the first layers hardly "
            "learn",
            init
            or (
                "use relu in all hidden layers of network.layers, or fewer of them"
                if flat
                else "give network.layers more units, or fewer layers"
            ),
        )
    elif ratio > 1 / VANISHING:
        yield Diagnosis(
            "exploding gradients",
            1,
            f"the error of layer 1 is {_large(ratio)} times larger than that of layer "
            f"{len(health)}: {per_layer}",
            "each layer multiplies the error by its weights, which are too large; no learning "
            "rate suits the first layers and the last",
            f"{init}, and then optimizer.learning_rate as for any network"
            if init
            else _rate_cure(config),
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


def _faint(config: Config, health: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    number = _faint_layer(health)
    if number < len(health):
        yield Diagnosis(
            "faint activations",
            number,
            f"layer {number}: the activations differ by no more than "
            f"{health[number - 1]['std']:.1g} from image to image",
            FAINT_REASON,
            _init_cure(config, number) or _rate_cure(config),
        )


def _loss(
    config: Config, rows: Sequence[Mapping[str, Any]], *, explained: bool
) -> Iterator[Diagnosis]:
    """Tell of a loss that stays where it began, or goes up, if nothing else explains it."""
    first, last = rows[0], rows[-1]
    classes = max(2, config.network.layers[-1].units)
    if last["train_accuracy"] > min(2 / classes, 0.75):
        return
    began = first["train_loss"]
    guessing = f"with {100 * last['train_accuracy']:.1f} % right: no better than chance"
    was = f"was {began:.4g} in epoch {first['epoch']} and " * (len(rows) > 1)
    evidence = f"the training loss {was}is {last['train_loss']:.4g} in epoch {last['epoch']}"
    chance = math.log(classes) if config.loss == "cross_entropy" else 0.5
    stuck = config.loss == "quadratic" and _is_saturated(last["health"][-1])
    if last["train_loss"] > max(RISEN * chance, began / 2) and not stuck:
        if not explained:
            yield Diagnosis(
                "learning rate",
                None,
                f"{evidence}; guessing costs {chance:.3g}",
                "each step overshoots, and makes the network surer of wrong answers",
                _rate_cure(config),
            )
        return
    fell = began - last["train_loss"]
    if fell <= FLAT * began or abs(last["train_loss"] - chance) <= FLAT * chance:
        yield from _flat(config, rows, f"{evidence}, {guessing}", explained=explained)


def _flat(
    config: Config, rows: Sequence[Mapping[str, Any]], evidence: str, *, explained: bool
) -> Iterator[Diagnosis]:
    """Tell why a loss stays where guessing is, as far as that is not explained yet."""
    health, rate = rows[-1]["health"], config.optimizer.learning_rate
    faint = _faint_layer(health)
    updates = [layer["update_ratio"] for layer in rows[0]["health"]]
    if faint < len(health) and not explained:
        reason = (
            f"the activations of layer {faint} differ by no more than "
            f"{health[faint - 1]['std']:.1g} from image to image; {FAINT_REASON}"
        )
        cure = _init_cure(config, faint) or _rate_cure(config)
    elif config.loss == "quadratic" and _is_saturated(health[-1]):
        reason = (
            f"{100 * health[-1]['saturated']:.0f} % of the outputs are within 5 % of their bounds; "
            "the gradient of the quadratic loss has their derivative as a factor, which is nearly 0"
        )
        is_sigmoid = isinstance(config.network.layers[-1].activation, Sigmoid)
        cure = _rate_cure(config) + (", or set loss: cross_entropy" if is_sigmoid else "")
    elif explained:
        return
    elif 0 < max(updates) < TINY_UPDATE:
        reason = "a step changes the weights by less than a hundred thousandth of their length"
        cure = f"raise optimizer.learning_rate: {rate:g}"
    elif len(config.network.layers) == 1:
        reason = "one layer parts two classes by a straight line or plane, and there may be none"
        cure = "add a hidden layer to network.layers"
    else:
        reason = "the network answers the same to every image, and steps do not lead away from that"
        cure = (
            f"change optimizer.learning_rate: {rate:g}, tenfold down or up, or give network.layers "
            "more units"
        )
    yield Diagnosis("flat loss", None, evidence, reason, cure)


def _overfitting(config: Config, rows: Sequence[Mapping[str, Any]]) -> Iterator[Diagnosis]:
    last = rows[-1]
    if last["val_accuracy"] is None or last["train_accuracy"] < LEARNED:
        return
    gap = last["train_accuracy"] - last["val_accuracy"]
    if gap > OVERFITTING:
        cures = ["raise optimizer.weight_decay"]
        hidden = config.network.layers[:-1]
        if hidden and not any(layer.dropout for layer in hidden):
            cures.append("set network.layers.0.dropout: 0.5")
        if config.data.augment is None:
            cures.append("deform the images with data.augment: {rotate: 10, elastic: {}}")
        if config.data.subset:
            cures.insert(0, "train on more with data.subset: null")
        if config.training.early_stopping is None:
            cures.append("stop early with training.early_stopping: {patience: 5}")
        yield Diagnosis(
            "overfitting",
            None,
            f"{100 * last['train_accuracy']:.1f} % of the training images are right, and "
            f"{100 * last['val_accuracy']:.1f} % of the validation images",
            "the network learned the training images by heart, with their accidents",
            ", or ".join(cures),
        )
