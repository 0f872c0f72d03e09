"""Steps without the unused inputs of a block lead to the same network as steps with all inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnctl.data.dataset import open_dataset
from nnctl.nn.activations import ReLU, Softmax
from nnctl.nn.batches import UnusedInputs
from nnctl.nn.examples import Examples
from nnctl.nn.loop import TrainingLoop
from nnctl.nn.network import BatchNorm, Layer, Network
from nnctl.nn.optimizers import L1, OPTIMIZERS, SGD, AdaGrad, Adam, MaxNorm, Optimizer, RMSProp
from tests.nn.helpers import check_resuming, make_network, make_training

OPTIMIZERS_TO_SKIP_WITH: list[dict[str, Any]] = [
    {},
    {"weight_decay": 0.01, "clip_norm": 0.5, "average": 0.9},
    {"momentum": 0.9, "weight_decay": 0.01, "average": 0.99},
    {"momentum": 0.8, "nesterov": True},
    {"momentum": 0.8, "batch_norm": BatchNorm()},
    {"optimizer": AdaGrad(), "weight_decay": 0.01},
    {"optimizer": RMSProp(), "average": 0.9},
]


def digits(count: int) -> Examples:
    training = open_dataset("mini", notify=print).training
    return Examples(training.inputs[:count], training.labels[:count])


def train(threads: int = 1, batch_norm: BatchNorm | None = None, **settings: Any) -> TrainingLoop:
    """Train for two epochs of two blocks, the second of which has a shorter last batch."""
    layers = [Layer(12, ReLU(), batch_norm=batch_norm), Layer(10, Softmax())]
    network = Network(784, layers, np.float64)
    network.initialize(np.random.default_rng(0))
    loop = make_training(
        network, digits(700), 0.05, batch_size=64, epochs=2, threads=threads, **settings
    )
    for _ in loop:
        pass
    return loop


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("settings", OPTIMIZERS_TO_SKIP_WITH, ids=str)
def test_the_result_is_that_of_all_inputs(settings: dict[str, Any], threads: int) -> None:
    whole, skipping = train(**settings), train(threads, skip_unused=True, **settings)
    np.testing.assert_allclose(
        skipping.network.parameters.vector, whole.network.parameters.vector, rtol=0, atol=1e-9
    )
    for name, values in whole.state.items():
        np.testing.assert_allclose(skipping.state[name], values, rtol=1e-6, atol=1e-9)


def test_a_training_that_skips_inputs_resumes_to_the_same_bits() -> None:
    def create() -> TrainingLoop:
        network = make_network([784, 12, 10], ["relu", "softmax"], np.float32)
        settings = {"momentum": 0.9, "batch_size": 64, "epochs": 2, "skip_unused": True}
        return make_training(network, digits(700), 0.05, **settings)

    check_resuming(create)


def test_a_quarter_of_the_inputs_of_a_block_is_skipped() -> None:
    loop = make_training(
        make_network([784, 12, 10], ["relu", "softmax"]), digits(512), 0.1, skip_unused=True
    )
    (block,) = loop.batches.blocks(np.arange(510), 0, 0)
    assert block.unused
    assert 150 < block.unused.count < 250
    assert block.batches[0].inputs.shape == (10, 784 - block.unused.count)


def test_the_used_inputs_are_all_there_after_the_exchange() -> None:
    pixels = digits(64).inputs.copy()
    unused = UnusedInputs.find(pixels)
    assert unused
    rows = pixels.T.copy()
    unused.exchange(rows)
    assert not rows[: unused.count].any()
    unused.exchange(rows)
    np.testing.assert_array_equal(rows, pixels.T)


@pytest.mark.parametrize("used", [[*range(784)], [*range(30, 784)]], ids=["all", "all but 30"])
def test_few_unused_inputs_are_not_skipped(used: list[int]) -> None:
    pixels = np.zeros((2, 784), np.uint8)
    pixels[0, used] = 1
    assert UnusedInputs.find(pixels) is None


def test_without_any_used_input_a_step_still_works() -> None:
    empty = Examples(np.zeros((40, 784), np.uint8), np.arange(40) % 10)
    network = make_network([784, 12, 10], ["relu", "softmax"])
    before = network.parameters.weights[0].copy()
    loop = make_training(network, empty, 0.1, skip_unused=True)
    for _ in loop:
        pass
    np.testing.assert_array_equal(network.parameters.weights[0], before)
    assert loop.progress.epoch == 1


def test_rules_that_are_not_linear_without_a_gradient_are_known() -> None:
    linear = {name for name, kind in OPTIMIZERS.items() if Optimizer(kind()).is_linear}
    assert linear == {"sgd", "adagrad", "rmsprop"}
    assert not Optimizer(SGD(), before=(L1(0.1),)).is_linear
    assert not Optimizer(SGD(), after=(MaxNorm(1.0),)).is_linear
    assert not Optimizer(Adam()).is_linear
