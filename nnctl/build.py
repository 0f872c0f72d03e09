"""Builds the network, the optimizer and the training loop of a configuration."""

from __future__ import annotations

from dataclasses import fields

from nnctl.config import Config
from nnctl.nn.augmentation import Augmentation, Elastic
from nnctl.nn.batches import BatchLoader, balanced_weights
from nnctl.nn.examples import Examples
from nnctl.nn.loop import TrainingLoop
from nnctl.nn.losses import make_loss
from nnctl.nn.network import BatchNorm, Layer, Network, count_parameters
from nnctl.nn.optimizers import (
    L1,
    OPTIMIZERS,
    SGD,
    ClipNorm,
    MaxNorm,
    MovingAverage,
    Optimizer,
    UpdateRule,
    WeightDecay,
)
from nnctl.nn.state import EarlyStopping
from nnctl.nn.streams import stream
from nnctl.nn.threads import ThreadTeam
from nnctl.system import cores

_FLOPS_PER_THREAD = 4e7  # a few tenths of a millisecond: several times the time to wake a thread
_EXAMPLES_PER_THREAD = 32  # matrix products of fewer examples are slow

_FEWEST_UNITS_TO_SKIP = 80  # in the first layer: with fewer, skipping unused inputs saves nothing


def build_layers(config: Config) -> list[Layer]:
    """Return the layers of a configuration."""
    layers = []
    for layer in config.network.layers:
        init = layer.init or config.network.init
        norm = BatchNorm(**dict(layer.batch_norm)) if layer.batch_norm else None
        kind = Layer(layer.units, layer.activation, init.weights, init.biases, layer.dropout, norm)
        layers.append(kind)
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


def build_optimizer(config: Config) -> Optimizer:
    """Return the optimizer of a configuration."""
    options, average = config.optimizer, config.training.average
    kind = OPTIMIZERS[options.name]
    settings = {field.name: getattr(options, field.name) for field in fields(kind)}
    descent = kind(**{key: value for key, value in settings.items() if value is not None})
    before: list[UpdateRule] = []
    if options.clip_norm is not None:
        before.append(ClipNorm(options.clip_norm, is_scaled=isinstance(descent, SGD)))
    if options.weight_decay:
        before.append(WeightDecay(options.weight_decay))
    if options.l1:
        before.append(L1(options.l1))
    after: list[UpdateRule] = []
    if options.max_norm is not None:
        after.append(MaxNorm(options.max_norm))
    if average is not None:
        after.append(MovingAverage(average))
    return Optimizer(descent, tuple(before), tuple(after))


def choose_threads(config: Config, pixels: int) -> int:
    """Return the number of threads for each training step; with ``auto`` 1 if steps are short."""
    if config.training.threads == "auto":
        return useful_threads(config, pixels)
    return min(config.training.threads, most_threads(config))


def useful_threads(config: Config, pixels: int) -> int:
    """Return the number of threads beyond which steps do not become faster: 1 for short steps."""
    examples, layers = config.training.batch_size, build_layers(config)
    flops_of_a_step = 6 * examples * count_parameters(pixels, layers)
    most = min(flops_of_a_step // _FLOPS_PER_THREAD, examples // _EXAMPLES_PER_THREAD)
    return int(min(max(most, 1), cores()))


def most_threads(config: Config) -> int:
    """Return the largest number of threads for a step: one for each example of a batch."""
    batch_size = config.training.batch_size
    return min(batch_size, config.data.subset or batch_size)


def _skips_unused_inputs(config: Config, optimizer: Optimizer) -> bool:
    """Return whether inputs that are 0 in a whole block are left out; see `SkippingStep`."""
    return (
        optimizer.is_linear
        and config.network.layers[0].units >= _FEWEST_UNITS_TO_SKIP
        and not config.network.input_dropout
        and not config.data.augment
        and not config.training.adversarial  # it changes unused inputs, too
    )


def build_loop(
    config: Config, network: Network, training: Examples, validation: Examples | None
) -> TrainingLoop:
    """Return the training loop of a configuration without ``auto`` values."""
    options, stopping = config.training, config.training.early_stopping
    assert options.epochs != "auto"
    assert options.threads != "auto"
    class_weights = None
    if options.class_weights == "balanced":
        class_weights = balanced_weights(training.labels, max(2, network.sizes[-1]))
    optimizer = build_optimizer(config)
    batches = BatchLoader(
        training,
        network,
        batch_size=options.batch_size,
        rng=stream(options.seed, "shuffling"),
        seed=options.seed,
        with_replacement=options.sampling == "with_replacement",
        augmentation=build_augmentation(config),
        input_dropout=config.network.input_dropout,
        label_smoothing=options.label_smoothing,
        class_weights=class_weights,
        skip_unused=_skips_unused_inputs(config, optimizer),
        team=ThreadTeam(options.threads),
    )
    return TrainingLoop(
        network,
        make_loss(config.loss, network.layers[-1].activation),
        optimizer,
        batches,
        learning_rate=config.optimizer.learning_rate,
        schedule=config.optimizer.schedule,
        validation=validation,
        epochs=options.epochs,
        steps=options.steps,
        early_stopping=EarlyStopping(stopping.patience, stopping.metric) if stopping else None,
        validate_every=options.validation_epochs,
        validate_after=options.validation_seconds,
        monitor_every=options.monitor_every,
        adversarial=options.adversarial,
    )
