"""Every key of a configuration reaches its own part of the training."""

from __future__ import annotations

from typing import Any

import pytest

from nnctl.build import build_augmentation, build_loop, build_network, build_optimizer
from nnctl.config import from_mapping, replaced
from nnctl.nn.augmentation import Augmentation, Elastic
from nnctl.nn.loop import TrainingLoop
from nnctl.nn.optimizers import (
    L1,
    SGD,
    AdaGrad,
    Adam,
    AdamW,
    ClipNorm,
    MaxNorm,
    MovingAverage,
    Optimizer,
    RMSProp,
    WeightDecay,
)
from tests.nn.helpers import clouds
from tests.runs.helpers import SMALL

CONFIG = replaced(
    from_mapping(SMALL, "small"),
    {"optimizer.momentum": 0.0, "optimizer.nesterov": False, "optimizer.weight_decay": 0.0},
)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, Optimizer(SGD())),
        ({"optimizer.momentum": 0.9}, Optimizer(SGD(0.9))),
        ({"optimizer.momentum": 0.9, "optimizer.nesterov": True}, Optimizer(SGD(0.9, True))),
        ({"optimizer.name": "adagrad"}, Optimizer(AdaGrad())),
        ({"optimizer.name": "adagrad", "optimizer.epsilon": 0.1}, Optimizer(AdaGrad(0.1))),
        ({"optimizer.name": "rmsprop", "optimizer.beta2": 0.9}, Optimizer(RMSProp(beta2=0.9))),
        ({"optimizer.name": "adamw"}, Optimizer(AdamW())),
        ({"optimizer.l1": 0.1}, Optimizer(SGD(), (L1(0.1),))),
        ({"optimizer.name": "adam"}, Optimizer(Adam())),
        ({"optimizer.name": "adam", "optimizer.beta1": 0.0}, Optimizer(Adam(beta1=0.0))),
        ({"optimizer.name": "adam", "optimizer.beta2": 0.9}, Optimizer(Adam(beta2=0.9))),
        ({"optimizer.weight_decay": 0.1}, Optimizer(SGD(), (WeightDecay(0.1),))),
        ({"optimizer.clip_norm": 0.1}, Optimizer(SGD(), (ClipNorm(0.1, True),))),
        (
            {"optimizer.name": "adam", "optimizer.clip_norm": 0.1},
            Optimizer(Adam(), (ClipNorm(0.1, False),)),
        ),
        ({"optimizer.max_norm": 0.1}, Optimizer(SGD(), after=(MaxNorm(0.1),))),
        ({"training.average": 0.1}, Optimizer(SGD(), after=(MovingAverage(0.1),))),
        (
            {
                "optimizer.weight_decay": 0.1,
                "optimizer.clip_norm": 0.2,
                "optimizer.max_norm": 0.3,
                "training.average": 0.4,
            },
            Optimizer(
                SGD(),
                (ClipNorm(0.2, True), WeightDecay(0.1)),
                (MaxNorm(0.3), MovingAverage(0.4)),
            ),
        ),
    ],
    ids=str,
)
def test_an_optimizer_is_a_chain_of_the_configured_rules(
    values: dict[str, Any], expected: Optimizer
) -> None:
    assert build_optimizer(replaced(CONFIG, values)) == expected


@pytest.mark.parametrize(
    ("augment", "expected"),
    [
        ({"shift": 0.1}, Augmentation(shift=0.1)),
        ({"rotate": 0.1}, Augmentation(rotate=0.1)),
        ({"scale": 0.1}, Augmentation(scale=0.1)),
        ({"shear": 0.1}, Augmentation(shear=0.1)),
        ({"noise": 0.1}, Augmentation(noise=0.1)),
        ({"elastic": {}}, Augmentation(elastic=Elastic(34, 4))),
        ({"elastic": {"alpha": 3, "sigma": 2}}, Augmentation(elastic=Elastic(3, 2))),
    ],
    ids=str,
)
def test_an_augmentation_has_the_configured_values(
    augment: dict[str, Any], expected: Augmentation
) -> None:
    assert build_augmentation(replaced(CONFIG, {"data.augment": augment})) == expected


def loop_with(values: dict[str, Any]) -> TrainingLoop:
    final = {"training.epochs": 2, "training.threads": 1}
    config = replaced(CONFIG, {**final, **values})
    return build_loop(config, build_network(config, 12), clouds(40), None)


def test_settings_of_batches_and_steps_reach_the_training() -> None:
    default = loop_with({})
    assert not default.batches.dropout.is_used
    assert loop_with({"network.input_dropout": 0.1}).batches.dropout.of_inputs is not None
    assert loop_with({"training.label_smoothing": 0.1}).batches.label_smoothing == 0.1
    assert default.batches.class_weights is None
    weights = loop_with({"training.class_weights": "balanced"}).batches.class_weights
    assert weights is not None
    assert weights.shape == (10,)
    assert loop_with({"training.batch_size": 7}).batches.batch_size == 7
    assert loop_with({"data.augment": {"shift": 1}}).batches.augmentation == Augmentation(shift=1)
    assert (default.adversarial, loop_with({"training.adversarial": 0.1}).adversarial) == (
        None,
        0.1,
    )
    assert loop_with({"training.threads": 2}).batches.team.size == 2
    assert loop_with({"training.steps": 3}).steps == 3
