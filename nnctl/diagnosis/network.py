"""Diagnoses why a network does not learn, from its configuration and the health of its layers.

A healthy run has no diagnosis: the thresholds below are far from the values of healthy runs.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from nnctl.build import build_layers, build_network
from nnctl.config import Config
from nnctl.data.dataset import dataset_info, open_dataset
from nnctl.diagnosis.base import Diagnosis, layer_key
from nnctl.nn.activations import Exponential, HardSigmoid, Linear, Sigmoid, Step
from nnctl.nn.events import Divergence, EpochMetrics
from nnctl.nn.examples import scaled
from nnctl.nn.health import LayerHealth, Probe
from nnctl.nn.initializers import Auto
from nnctl.nn.losses import make_loss
from nnctl.nn.metrics import Labels, make_targets
from nnctl.nn.network import Network, Parameters
from nnctl.nn.streams import stream
from nnctl.nn.types import Array
from nnctl.text import percent

Health = Sequence[LayerHealth]
"""Health of every layer, from first to last."""
History = Sequence[EpochMetrics]
"""Metrics of the epochs of a run."""

_PROBED = 256  # examples for measuring the health of the initial network

DEAD = 0.4
"""Threshold for dead units: the fraction of a layer's units that output 0 for every image."""
SATURATED = 0.8
"""Threshold for saturation: the fraction of a hidden layer's outputs near their bounds."""
STRONGEST_DECAY = 0.02
"""Threshold for regularization: the product of the learning rate and the decay or L1 factor."""
VANISHING_GRADIENT = 1 / 100
"""Threshold for vanishing gradients: norm of the first layer's error over that of the last layer.

The inverse is the threshold for exploding gradients.
"""
SHIFTED = 3.0
"""Threshold for the mean of activations that are never negative, in standard deviations."""
OVERFITTING = 0.10
"""Threshold for overfitting: training accuracy minus validation accuracy."""
MEMORIZED = 0.99
"""Training accuracy of a network that has nothing more to learn from its training images."""
OVERFITTING_IF_MEMORIZED = 0.055
"""Threshold for overfitting of such a network."""
OVERFITTING_EPOCHS = 3
"""Number of epochs in a row with such a difference; one epoch can be bad luck."""
FEW_STEPS = 100
"""Trainings with fewer steps are too short to judge a network that has not learned."""
LEARNED = 0.9
"""Threshold for a network that has learned its training images: training accuracy."""
PLATEAU = 0.05
"""Threshold for a loss plateau: largest relative difference of two losses that count as equal."""
RISING = 3
"""Threshold for a loss that rises: a multiple of the loss of random guessing."""
USUAL_BATCH_SIZE = 32
"""Batch size to suggest."""
EXPLAINING = {
    "classes sorted",
    "constant images",
    "light background",
    "missing classes",
    "pixels scaled twice",
    "wrong labels",
}
"""Problems of a dataset that explain most problems of a network."""
TINY_UPDATE = 1e-5
"""Threshold for updates too small to learn: norm of a step divided by that of the weights."""
HIGH_DROPOUT = 0.5
"""Dropout rates above this are unusually high."""
VANISHING_ACTIVATIONS = 1e-2
"""Threshold for vanishing activations: their standard deviation."""

VANISHING_ACTIVATIONS_REASON = (
    "the weights are too small, so the activations shrink from layer to layer until all images "
    "look the same"
)

LEARNING_RATES = {"cross_entropy": (1e-4, 5.0), "quadratic": (1e-2, 30.0)}
"""Usual range of learning_rate / (1 - momentum) of sgd, by loss."""
_ROUNDING = 1e-9  # 0.5 / (1 - 0.9) is a little more than 5
ADAPTIVE_RATES = {
    "adagrad": (1e-4, 1.0),
    "rmsprop": (1e-6, 0.1),
    "adam": (1e-6, 0.1),
    "adamw": (1e-6, 0.1),
}
"""Usual range of the learning rate of optimizers that scale steps by the size of the gradients."""


def check_config(config: Config) -> list[Diagnosis]:
    """Return the problems that can be found in a configuration, before any training."""
    return [
        *_step_activations(config),
        *_linear(config, None),
        *_deep_sigmoids(config),
        *_exponentials(config),
        *_symmetry(config),
        *_learning_rate(config),
        *_regularization(config),
    ]


def diagnose(
    config: Config,
    history: History,
    network: Network | None,
    divergence: Divergence | None = None,
    *,
    steps_per_epoch: int,
    of_data: Sequence[Diagnosis] = (),
) -> list[Diagnosis]:
    """Return the problems found in the metrics and the network of a run.

    Parameters
    ----------
    config : Config
        Configuration of the run.
    history : sequence of EpochMetrics
        Metrics of its epochs, with the health of the layers.
    network : Network, optional
        Network after the last epoch.
    divergence : Divergence, optional
        Divergence that ended the training, if any.
    steps_per_epoch : int
        Number of steps in a complete epoch.
    of_data : sequence of Diagnosis
        Problems of the dataset. Most of them explain why the network does not learn.
    """
    if divergence:
        return [*of_data, _diverged(config, divergence)]
    problems = [*_step_activations(config), *_symmetry(config), *_linear(config, network)]
    # Early versions of nnctl did not measure the errors.
    history = [epoch for epoch in history if epoch.health]
    if not history or any(problem.kind in EXPLAINING for problem in of_data):
        return [*of_data, *problems]
    if too_short := [*_too_few_steps(config, history, steps_per_epoch)]:
        return [*of_data, *problems, *too_short]
    health, initial = history[-1].health, None
    if network and any(_is_dead(layer) or _is_saturated(layer) for layer in health[:-1]):
        initial = initial_health(config, network.sizes[0])
    problems += [
        *_dead_outputs(config, health),
        *([] if problems else _dead(config, health, initial)),
        *_saturation(config, history[0].health, health, initial),
        *_gradients(config, health),
        *_bias_shift(config, health),
    ]
    problems += _loss(config, history, explained=bool(problems))
    if history[-1].train_accuracy < LEARNED:
        problems += _learning_rate(config)
    return [*of_data, *problems, *_overfitting(config, history)]


def diagnose_initialization(config: Config, health: Health) -> list[Diagnosis]:
    """Return the problems of a network's initial weights, before any training."""
    overflowing = [number for number, layer in enumerate(health, 1) if not layer.is_finite()]
    if overflowing:
        return [_overflow(config, overflowing[0])]
    return [
        *_dead(config, health, health),
        *_saturation(config, health, health, health),
        *_vanishing_activations(config, health),
        *_gradients(config, health),
    ]


def initial_health(config: Config, pixels: int) -> list[LayerHealth]:
    """Return the health of the layers with the initial weights, measured without a download."""
    network = build_network(config, pixels)
    probe = Probe(
        network,
        make_loss(config.loss, config.network.layers[-1].activation),
        *some_examples(network, _PROBED),
        Parameters(pixels, network.layers, network.dtype),
    )
    with np.errstate(over="ignore", invalid="ignore"):
        network.initialize(stream(config.training.seed, "initialization"))
        return probe.measure(0.0)


def some_examples(network: Network, count: int) -> tuple[Array, Array]:
    """Return bundled examples that fit a network, or random ones if there are none.

    Returns
    -------
    inputs : array, shape (count, pixels)
        Pixels from 0 to 1; fewer rows if the bundled dataset has fewer examples.
    targets : array, shape (count, units)
        Desired outputs; classes that the network does not have are replaced.
    """
    pixels, units, dtype = network.sizes[0], network.sizes[-1], network.dtype
    inputs: Array = np.random.default_rng(0).random((count, pixels)).astype(dtype)
    labels: Labels = np.arange(count)
    for name in ("mini", "xor"):
        if dataset_info(name).pixels == pixels:
            examples = open_dataset(name, notify=lambda _: None).training
            inputs, labels = scaled(examples.inputs[:count], dtype), examples.labels[:count]
    return inputs, make_targets(labels % max(2, units), units, dtype)


def health_label(config: Config, health: Health) -> str:
    """Return the worst problem of an epoch in at most nine characters, or ``ok``."""
    hidden = health[:-1]
    dead = max((layer.dead for layer in hidden), default=0.0)
    saturated = max((layer.saturated for layer in hidden), default=0.0)
    if _vanishing_layer(health) < len(health):
        return "tiny act."
    for share, least, what in ((dead, DEAD, "dead"), (saturated, SATURATED, "sat.")):
        if share >= least:
            return f"{percent(share, 0)} {what}".replace("100 %", "all")
    problems = [*_gradients(config, health), *_bias_shift(config, health)]
    return problems[0].kind.split()[0] if problems else "ok"


def is_initial(divergence: Divergence) -> bool:
    """Return whether the very first forward pass overflowed, before any step."""
    first = (divergence.epoch, divergence.batch, divergence.last_finite_loss) == (1, 1, None)
    return first and divergence.what != "gradient"


def _diverged(config: Config, divergence: Divergence) -> Diagnosis:
    if is_initial(divergence):
        return _overflow(config, divergence.layer)
    rate = config.optimizer.learning_rate
    verb = "was" if divergence.what == "gradient" else "were"
    return Diagnosis(
        "divergence",
        f"the {divergence.what} of layer {divergence.layer} {verb} not finite in epoch "
        f"{divergence.epoch}, batch {divergence.batch}",
        "each step overshoots the minimum, so the numbers grow until they overflow",
        f"lower optimizer.learning_rate (now {rate:g}), for example to {rate / 10:g} or "
        f"{rate / 100:g}",
        layer=divergence.layer,
    )


def _step_activations(config: Config) -> Iterator[Diagnosis]:
    for number, layer in enumerate(config.network.layers, start=1):
        if isinstance(layer.activation, Step) and layer.activation.surrogate is None:
            which = "layer 1 learns" if number == 1 else f"layers 1 to {number} learn"
            yield Diagnosis(
                "step",
                f"layer {number} uses the step activation without a surrogate",
                f"the derivative of step is 0, so no gradient passes through it: {which} nothing",
                f"set {layer_key(number, 'activation')}: {{name: step, surrogate: sigmoid}}",
                layer=number,
            )


def _linear(config: Config, network: Network | None) -> Iterator[Diagnosis]:
    """Report hidden layers that are all linear; a network's weights give the evidence."""
    *hidden, output = config.network.layers
    if not hidden or not all(isinstance(layer.activation, Linear) for layer in hidden):
        return
    units = output.units
    if network is None:
        evidence = (
            f"all hidden layers are linear: the {len(hidden) + 1} layers are equivalent to one"
        )
    else:
        inputs = network.sizes[0]
        evidence = (
            f"all hidden layers are linear: one matrix of {inputs} x {units}, the product of the "
            f"{len(hidden) + 1} weight matrices, gives the same logits up to a relative error of "
            f"{_distance(network):.0e}"
        )
    yield Diagnosis(
        "linear collapse",
        evidence,
        "a composition of linear maps is linear, so the network can do no more than one without "
        "hidden layers",
        f"set {layer_key(1, 'activation')}: relu",
    )


def _distance(network: Network) -> float:
    """Return the relative error of replacing linear layers by the product of their matrices."""
    exact = network.as_float64().folded()
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
        if layer.batch_norm:  # it divides the gradient by the standard deviation of its inputs
            continue
        if isinstance(layer.activation, Sigmoid):
            steepest *= layer.activation.gain / 4
        elif isinstance(layer.activation, HardSigmoid):
            steepest *= 1 / 6
    if steepest < 1 / 1000:
        yield Diagnosis(
            "vanishing gradients",
            f"{len(hidden)} hidden layers; the product of their derivatives is at most "
            f"{steepest:.1g}",
            "the derivative of a sigmoid is at most 1/4, so the first layers learn much more "
            "slowly than the last",
            "use relu or tanh in all hidden layers of network.layers, or use fewer layers",
            layer=1,
        )


def _exponentials(config: Config) -> Iterator[Diagnosis]:
    for number, layer in enumerate(config.network.layers[:-1], start=1):
        if isinstance(layer.activation, Exponential):
            yield Diagnosis(
                "exponential",
                f"layer {number} is a hidden layer with the exponential activation",
                "its outputs and its derivative are unbounded and grow with each training step",
                f"set {layer_key(number, 'activation')}: relu, or softplus",
                layer=number,
            )


def _symmetry(config: Config) -> Iterator[Diagnosis]:
    *hidden, _ = build_layers(config)
    equal = {
        number: 0.0
        for number, layer in enumerate(hidden, start=1)
        if not any(
            drawn.standard_deviation(2, 2)
            for drawn in (layer.weights_distribution, layer.biases_distribution)
        )
    }
    if equal:
        number = min(equal)
        layer = hidden[number - 1]
        yield Diagnosis(
            "equal units",
            f"layer {number} is initialized with weights: {layer.weights_distribution.name}, "
            f"biases: {layer.biases_distribution.name}" + _also(equal, number),
            "all its units are identical, so they get the same gradient and stay identical",
            _init_cure(config, number) or f"set {layer_key(number, 'init')}: auto",
            layer=number,
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
            f"optimizer.learning_rate{by_momentum} is {rate:g}",
            f"the learning rate is too {high_or_low} for {what}; "
            f"usual values are between {low:g} and {high:g}",
            f"{'lower' if rate > high else 'raise'} optimizer.learning_rate",
        )


def _regularization(config: Config) -> Iterator[Diagnosis]:
    """Report decay that removes the weights within a hundred steps: Nielsen's lambda, not / n."""
    optimizer = config.optimizer
    for key, value in (("weight_decay", optimizer.weight_decay), ("l1", optimizer.l1)):
        if optimizer.learning_rate * value > STRONGEST_DECAY:
            yield Diagnosis(
                "regularization",
                f"optimizer.{key} is {value:g}, and the learning rate {optimizer.learning_rate:g}",
                "each step moves the weights toward 0 by their product, which is far more than the "
                "gradient can hold against",
                f"lower optimizer.{key}: it is lambda / n in Nielsen's book, for n training images",
            )


def _is_dead(layer: LayerHealth) -> bool:
    return bool(layer.dead >= DEAD)


def _is_saturated(layer: LayerHealth) -> bool:
    return bool(layer.saturated >= SATURATED)


def _overflow(config: Config, number: int) -> Diagnosis:
    return Diagnosis(
        "overflow",
        f"layer {number}: its numbers overflow float32 before any training",
        "infinite numbers have no gradient, so the network cannot learn",
        _init_cure(config, number) or f"use relu in {layer_key(number, 'activation')}",
        layer=number,
    )


def init_keys(config: Config) -> list[str]:
    """Return the keys that set another initialization than ``auto``."""
    layers = config.network.layers
    inits = {layer_key(number, "init"): layer.init for number, layer in enumerate(layers, 1)}
    if any(layer.init is None for layer in layers):
        inits = {"network.init": config.network.init, **inits}
    return [
        key
        for key, init in inits.items()
        if init and not (isinstance(init.weights, Auto) and isinstance(init.biases, Auto))
    ]


def _init_cure(config: Config, number: int) -> str | None:
    """Return how to initialize a layer to fit its activation; None if it already does."""
    has_own = config.network.layers[number - 1].init is not None
    key = layer_key(number, "init") if has_own else "network.init"
    return f"set {key}: auto" if key in init_keys(config) else None


def _rate_cure(config: Config) -> str:
    """Return the settings to lower: strong regularization first, then the learning rate."""
    dropout = {"network.input_dropout": config.network.input_dropout}
    for number, layer in enumerate(config.network.layers, start=1):
        dropout[layer_key(number, "dropout")] = layer.dropout
    settings = {
        "training.adversarial": config.training.adversarial,
        **{key: rate for key, rate in dropout.items() if rate > HIGH_DROPOUT},
        "optimizer.learning_rate": config.optimizer.learning_rate,
    }
    named = [f"{key} (now {value:g})" for key, value in settings.items() if value]
    return "lower " + ", or ".join(named)


def _dead_outputs(config: Config, health: Health) -> Iterator[Diagnosis]:
    """Report output units near 0 for every image, which the quadratic loss cannot revive."""
    number, output = len(health), config.network.layers[-1]
    dead = round(health[-1].dead * output.units)
    if dead and output.units > 1 and config.loss == "quadratic":
        is_sigmoid = isinstance(output.activation, Sigmoid)
        cures = (
            "set loss: cross_entropy" if is_sigmoid else None,
            _init_cure(config, number),
            "try another training.seed",
        )
        yield Diagnosis(
            "silent outputs",
            f"layer {number}: {dead} of {output.units} outputs are near 0 for every image",
            "the network never predicts these digits: the gradient of the quadratic loss is "
            "proportional to the derivative of the output, which is nearly 0 there",
            ", or ".join(filter(None, cures)),
            layer=number,
        )


def _dead(config: Config, health: Health, initial: Health | None) -> Iterator[Diagnosis]:
    dead = {
        number: layer.dead
        for number, layer in enumerate(health[:-1], start=1)
        if _is_dead(layer) and not _is_saturated(layer) and number < _vanishing_layer(health)
    }
    if dead:
        number = max(dead, key=dead.__getitem__)
        was_dead = initial is not None and _is_dead(initial[number - 1])
        name = config.network.layers[number - 1].activation.name
        other = f"use leaky_relu in {layer_key(number, 'activation')}"
        init = _init_cure(config, number) if was_dead else None
        yield Diagnosis(
            "dead units",
            f"layer {number}: {percent(dead[number], 0)} of the {name} units output 0 for every "
            f"image{', already before training' if was_dead else ''}" + _also(dead, number),
            "a unit that outputs 0 for every image has no gradient and cannot recover",
            f"{init or _rate_cure(config)}, or {other}",
            layer=number,
        )


def _vanishing_layer(health: Health) -> int:
    """Return the first hidden layer with vanishing activations, or ``len(health) + 1``.

    A layer whose units are mostly dead is not one of them.
    """
    for number, layer in enumerate(health[:-1], start=1):
        if layer.std < VANISHING_ACTIVATIONS and layer.dead < DEAD:
            return number
    return len(health) + 1


def _large(number: float) -> str:
    return f"{number:,.0f}" if number < 1e6 else f"{number:.1e}"


def _also(layers: Mapping[int, float], worst: int) -> str:
    """Return a clause that names the other layers with the same problem, or nothing."""
    others = [str(number) for number in layers if number != worst]
    if not others:
        return ""
    return f"; also in layer{'s' * (len(others) > 1)} {', '.join(others)}"


def _saturation(
    config: Config, first: Health, last: Health, initial: Health | None
) -> Iterator[Diagnosis]:
    """Report layers saturated since the first epoch; a confident network may saturate later."""
    saturated = {
        number: now.saturated
        for number, (then, now) in enumerate(zip(first[:-1], last[:-1], strict=True), start=1)
        if _is_saturated(then) and _is_saturated(now)
    }
    if saturated:
        number = max(saturated, key=saturated.__getitem__)
        before = f" ({percent(first[number - 1].saturated, 0)} after the first epoch)"
        init = _init_cure(config, number)
        # A layer that is half saturated at the start soon is mostly saturated, at any rate.
        was_saturated = init is not None and (
            initial is None or initial[number - 1].saturated >= SATURATED / 2
        )
        why = "its initial weights are too large" if was_saturated else "the steps were too large"
        name = config.network.layers[number - 1].activation.name
        yield Diagnosis(
            "saturation",
            f"layer {number}: {percent(saturated[number], 0)} of the outputs are within 5 % of "
            f"their bounds{before if first is not last else ''}" + _also(saturated, number),
            f"there the derivative of {name} is nearly 0, so the layer learns very slowly; {why}",
            init if was_saturated and init else _rate_cure(config),
            layer=number,
        )


def _gradients(config: Config, health: Health) -> Iterator[Diagnosis]:
    first, last = health[0].error, health[-1].error
    hidden = [layer.activation for layer in config.network.layers[:-1]]
    if not last or _vanishing_layer(health) < len(health):
        return  # vanishing activations have their own diagnosis
    if not first and (any(isinstance(f, Step) for f in hidden) or any(map(_is_dead, health[:-1]))):
        return  # and so have step activations and dead units
    ratio = max(first, float(np.finfo(np.float32).tiny)) / last
    per_layer = f"a factor of {ratio ** (1 / max(1, len(hidden))):.2g} per layer"
    init = next(filter(None, (_init_cure(config, i + 1) for i in range(len(hidden)))), None)
    if ratio < VANISHING_GRADIENT:
        bounded = [function for function in hidden if function.initializer != "he_normal"]
        yield Diagnosis(
            "vanishing gradients",
            f"the backpropagated error of layer 1 is {_large(1 / ratio)} times smaller than that "
            f"of layer {len(health)}: {per_layer}",
            "each layer multiplies the error by its weights and by the derivative of "
            f"{' or '.join(sorted({function.name for function in hidden}))}, so the first layers "
            "learn very slowly",
            init
            or (
                "use relu in all hidden layers of network.layers, or use fewer layers"
                if bounded
                else "use more units or fewer layers in network.layers"
            ),
            layer=1,
        )
    elif ratio > 1 / VANISHING_GRADIENT:
        yield Diagnosis(
            "exploding gradients",
            f"the backpropagated error of layer 1 is {_large(ratio)} times larger than that of "
            f"layer {len(health)}: {per_layer}",
            "each layer multiplies the error by its weights, which are too large; no single "
            "learning rate suits both the first and the last layers",
            f"{init}, then choose optimizer.learning_rate as usual" if init else _rate_cure(config),
            layer=1,
        )


def _bias_shift(config: Config, health: Health) -> Iterator[Diagnosis]:
    hidden = zip(config.network.layers[:-1], health[:-1], strict=True)
    shifted = {
        number: state.mean / state.std
        for number, (layer, state) in enumerate(hidden, start=1)
        if layer.activation.positive and state.mean > SHIFTED * state.std > 0
    }
    if shifted:
        number = max(shifted, key=shifted.__getitem__)
        state = health[number - 1]
        yield Diagnosis(
            "shifted activations",
            f"layer {number}: the activations have mean {state.mean:.3g} and standard "
            f"deviation {state.std:.2g}, and none is negative" + _also(shifted, number),
            f"the inputs of layer {number + 1} are similar for all images, and the gradients of "
            "each unit's weights there all have the same sign, so the steps zigzag",
            f"use tanh or elu in {layer_key(number, 'activation')}",
            layer=number,
        )


def _vanishing_activations(config: Config, health: Health) -> Iterator[Diagnosis]:
    number = _vanishing_layer(health)
    if number < len(health):
        yield Diagnosis(
            "faint activations",
            f"layer {number}: the activations are nearly equal for all images (standard "
            f"deviation {health[number - 1].std:.1g})",
            VANISHING_ACTIVATIONS_REASON,
            _init_cure(config, number) or _rate_cure(config),
            layer=number,
        )


def _loss(config: Config, history: History, *, explained: bool) -> Iterator[Diagnosis]:
    """Report a loss that stays on a plateau or rises, unless another problem explains it."""
    first, last = history[0], history[-1]
    classes = max(2, config.network.layers[-1].units)
    if last.train_accuracy > min(2 / classes, 0.75):
        return
    first_loss = first.train_loss
    guessing = f"with an accuracy of {percent(last.train_accuracy, 1)}: no better than guessing"
    was = f"was {first_loss:.4g} in epoch {first.epoch} and " * (len(history) > 1)
    evidence = f"the training loss {was}is {last.train_loss:.4g} in epoch {last.epoch}"
    chance = math.log(classes) if config.loss == "cross_entropy" else 0.5
    stuck = config.loss == "quadratic" and _is_saturated(last.health[-1])
    if last.train_loss > max(RISING * chance, first_loss / 2) and not stuck:
        if not explained:
            yield Diagnosis(
                "learning rate",
                f"{evidence}; guessing gives {chance:.3g}",
                "the learning rate is too high: each step overshoots and makes the network more "
                "confident in wrong answers",
                _rate_cure(config),
            )
        return
    decrease = first_loss - last.train_loss
    if decrease <= PLATEAU * first_loss or abs(last.train_loss - chance) <= PLATEAU * chance:
        yield from _plateau(config, history, f"{evidence}, {guessing}", explained=explained)


def _plateau(
    config: Config, history: History, evidence: str, *, explained: bool
) -> Iterator[Diagnosis]:
    """Report why the loss stays at that of guessing, unless another problem explains it."""
    health, rate = history[-1].health, config.optimizer.learning_rate
    vanishing = _vanishing_layer(health)
    updates = [layer.update_ratio for layer in history[0].health]
    if vanishing < len(health) and not explained:
        reason = (
            f"the activations of layer {vanishing} are nearly equal for all images (standard "
            f"deviation {health[vanishing - 1].std:.1g}); {VANISHING_ACTIVATIONS_REASON}"
        )
        cure = _init_cure(config, vanishing) or _rate_cure(config)
    elif config.loss == "quadratic" and _is_saturated(health[-1]):
        reason = (
            f"{percent(health[-1].saturated, 0)} of the outputs are within 5 % of their bounds; "
            "the gradient of the quadratic loss is proportional to their derivative, which is "
            "nearly 0 there"
        )
        is_sigmoid = isinstance(config.network.layers[-1].activation, Sigmoid)
        cure = _rate_cure(config) + (", or set loss: cross_entropy" if is_sigmoid else "")
    elif explained:
        return
    elif 0 < max(updates) < TINY_UPDATE:
        reason = (
            "the learning rate is too low: a step changes the weights by less than 1/100,000 of "
            "their norm"
        )
        cure = f"raise optimizer.learning_rate (now {rate:g})"
    elif len(config.network.layers) == 1:
        reason = (
            "a single layer separates two classes by a straight line or plane, which may not exist "
            "for this dataset"
        )
        cure = "add a hidden layer to network.layers"
    else:
        reason = "the network gives the same answer for every image, and the steps do not change it"
        cure = (
            f"divide or multiply optimizer.learning_rate (now {rate:g}) by 10, or use more units "
            "in network.layers"
        )
    yield Diagnosis("flat loss", evidence, reason, cure)


def _too_few_steps(config: Config, history: History, steps_per_epoch: int) -> Iterator[Diagnosis]:
    """Report a training that was too short to learn; its other figures mean little."""
    steps = min(history[-1].epoch * steps_per_epoch, config.training.steps or sys.maxsize)
    last = history[-1]
    if steps < FEW_STEPS and last.train_accuracy < LEARNED:
        batch_size, epochs = config.training.batch_size, config.training.epochs
        cures = ["raise training.epochs" + ("" if epochs == "auto" else f" (now {epochs:,})")]
        if config.training.steps:
            cures.append(f"raise training.steps (now {config.training.steps:,})")
        if batch_size > USUAL_BATCH_SIZE:
            cures.insert(0, f"lower training.batch_size (now {batch_size:,}) to {USUAL_BATCH_SIZE}")
        yield Diagnosis(
            "too few steps",
            f"{steps:,} step{'s' * (steps > 1)} in all; the accuracy is "
            f"{percent(last.train_accuracy, 1)} on the training images",
            "each step changes the weights only a little, so a network needs hundreds of steps or "
            "more",
            ", or ".join(cures),
        )


def _overfitting(config: Config, history: History) -> Iterator[Diagnosis]:
    last = history[-1]
    if last.val_accuracy is None or last.train_accuracy < LEARNED:
        return
    gaps = [
        epoch.train_accuracy - (epoch.val_accuracy or 0.0)
        for epoch in history[-OVERFITTING_EPOCHS:]
    ]
    memorized = last.train_accuracy >= MEMORIZED
    least = OVERFITTING_IF_MEMORIZED if memorized else OVERFITTING
    if len(gaps) == OVERFITTING_EPOCHS and min(gaps) > least:
        cures = ["raise optimizer.weight_decay"]
        hidden = config.network.layers[:-1]
        if hidden and not any(layer.dropout for layer in hidden):
            cures.append("set network.layers.0.dropout: 0.5")
        if config.data.augment is None:
            cures.append("augment the images with data.augment: {rotate: 10, elastic: {}}")
        if config.data.subset:
            cures.insert(0, "train on more images with data.subset: null")
        if config.training.early_stopping is None:
            cures.append("stop early with training.early_stopping: {patience: 5}")
        yield Diagnosis(
            "overfitting",
            f"the accuracy is {percent(last.train_accuracy, 1)} on the training images, but "
            f"{percent(last.val_accuracy, 1)} on the validation images",
            "the network memorized the training images, including their noise",
            ", or ".join(cures),
        )
