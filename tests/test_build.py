"""Every regularization key of a configuration reaches the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nnctl.config import from_mapping, replaced, to_mapping
from nnctl.nn.augmentation import Augmentation, Elastic
from nnctl.nn.regularization import Regularization
from tests.runs.helpers import SMALL, begin


def augmented(**settings: Any) -> Regularization:
    """Return a regularization that consists of augmentation only."""
    return Regularization(augmentation=Augmentation(**settings))


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("training.epochs", 4, Regularization()),
        ("network.input_dropout", 0.1, Regularization(input_dropout=0.1)),
        ("training.label_smoothing", 0.1, Regularization(label_smoothing=0.1)),
        ("training.adversarial", 0.1, Regularization(adversarial=0.1)),
        ("optimizer.clip_norm", 0.1, Regularization(clip_norm=0.1)),
        ("optimizer.max_norm", 0.1, Regularization(max_norm=0.1)),
        ("training.average", 0.1, Regularization(average=0.1)),
        ("data.augment", {"shift": 0.1}, augmented(shift=0.1)),
        ("data.augment", {"rotate": 0.1}, augmented(rotate=0.1)),
        ("data.augment", {"scale": 0.1}, augmented(scale=0.1)),
        ("data.augment", {"shear": 0.1}, augmented(shear=0.1)),
        ("data.augment", {"noise": 0.1}, augmented(noise=0.1)),
        ("data.augment", {"elastic": {}}, augmented(elastic=Elastic(34, 4))),
        ("data.augment", {"elastic": {"alpha": 3, "sigma": 2}}, augmented(elastic=Elastic(3, 2))),
    ],
)
def test_a_key_changes_only_its_own_parameter_of_the_training(
    tmp_path: Path, key: str, value: Any, expected: Regularization
) -> None:
    config = to_mapping(replaced(from_mapping(SMALL, "small"), {key: value}))
    assert begin(tmp_path / "run", config).loop.regularization == expected
