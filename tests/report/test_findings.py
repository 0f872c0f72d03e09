"""The sentences above the charts state what the data show."""

from __future__ import annotations

import numpy as np
import pytest

from nnctl.analysis.evaluation import Corrupted
from nnctl.nn.events import EpochMetrics
from nnctl.nn.health import LayerHealth
from nnctl.nn.metrics import CalibrationBin
from nnctl.report import findings


def epoch(number: int, train: float, val: float | None) -> EpochMetrics:
    return EpochMetrics(number, 0.5, train, None if val is None else 0.5, val, None, 0.1, 1.0, [])


@pytest.mark.parametrize(
    ("accuracies", "best", "expected"),
    [
        ([(0.8, 0.8)], 0, ""),
        ([(0.8, None), (0.9, None)], None, ""),
        ([(0.8, 0.8), (0.9, 0.9)], 1, "best at the last epoch, 2; more epochs may help"),
        (
            [(0.8, 0.9), (0.9, 0.8)],
            0,
            "best at epoch 1; since then only the training images improve",
        ),
        ([(0.9, 0.9), (0.8, 0.8)], 0, "best at epoch 1 of 2"),
    ],
)
def test_curves_state_the_best_epoch(
    accuracies: list[tuple[float, float | None]], best: int | None, expected: str
) -> None:
    history = [epoch(i, *values) for i, values in enumerate(accuracies, 1)]
    assert findings.about_curves(history, None if best is None else history[best]) == expected


def test_classes_corruptions_and_parameters_state_the_extreme_one() -> None:
    classes = findings.about_classes(["cat", "dog", "owl"], [0.9, 0.75, None])
    assert classes == "the hardest is dog: 75.0 %"
    assert findings.about_classes(["cat", "dog", "owl"], [0.5, 0.5, 1]).startswith(
        "the hardest are cat and dog"
    )
    assert findings.about_classes(["cat", "dog"], [0, 0]) == "all classes are equally hard: 0.0 %"
    many = findings.about_classes("abcdef", [0, 0, 0, 0, 1, 1])
    assert many == "4 classes are the hardest: 0.0 %"
    assert findings.about_classes(["cat", "dog"], [0.9, None]) == ""
    rows = [Corrupted("blur", "pixels", [1, 2], [0.9, 0.3]), Corrupted("noise", "std", [1], [0.5])]
    assert findings.about_corruptions(rows) == "blur hurts most: 30 % at the strongest"
    assert findings.about_corruptions([]) == ""
    assert findings.about_points([0.1, 0.3], best=1) == "best with 0.3"
    assert findings.about_points([0.1, 0.1], best=1) == ""


@pytest.mark.parametrize(
    ("confidence", "accuracy", "expected"),
    [
        (0.95, 0.9, "overconfident: confidence and accuracy differ by 5.0 % on average"),
        (0.9, 0.95, "underconfident: confidence and accuracy differ by 5.0 % on average"),
        (0.95, 0.95, "confidence and accuracy agree"),
    ],
)
def test_calibration_states_the_direction_of_the_error(
    confidence: float, accuracy: float, expected: str
) -> None:
    bins = [CalibrationBin(0.9, 1.0, 100, confidence, accuracy)]
    assert findings.about_calibration(bins) == expected
    assert findings.about_calibration([]) == ""


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([(1, 1)], ""),
        ([(1, None), (0.5, None)], "the training loss falls: 1 to 0.5"),
        ([(1, None), (1, None)], "the training loss does not fall: 1 to 1"),
        ([(1, 1), (0.5, 0.8)], "the validation loss is lowest at the last epoch"),
        ([(0.5, 0.5), (1, 1)], "the validation loss is lowest at epoch 1"),
        (
            [(1, 0.5), (0.5, 1)],
            "the validation loss is lowest at epoch 1; since then only the training loss falls",
        ),
    ],
)
def test_losses_state_the_lowest_one(
    losses: list[tuple[float, float | None]], expected: str
) -> None:
    history = [
        EpochMetrics(i, train, 0.5, val, None if val is None else 0.5, None, 0.1, 1.0, [])
        for i, (train, val) in enumerate(losses, 1)
    ]
    assert findings.about_losses(history) == expected


@pytest.mark.parametrize(
    ("confusion", "expected"),
    [
        (
            [[9, 1, 0], [0, 10, 0], [2, 3, 5]],
            "the hardest is owl: 50.0 %, most often taken for dog",
        ),
        ([[9, 1, 0], [0, 10, 0], [2, 2, 6]], "the hardest is owl: 60.0 %"),
        ([[9, 1, 0], [1, 9, 0], [0, 0, 10]], "the hardest are cat and dog: 90.0 %"),
        ([[9, 0, 0], [0, 9, 0], [0, 0, 0]], "everything is classified correctly"),
        ([[0, 9, 0], [0, 0, 0], [0, 0, 0]], ""),
    ],
)
def test_the_confusion_matrix_states_the_hardest_class(
    confusion: list[list[int]], expected: str
) -> None:
    assert findings.about_confusion(["cat", "dog", "owl"], np.array(confusion)) == expected


@pytest.mark.parametrize(
    ("values", "errors", "steps"),
    [
        ([], "", ""),
        ([(0.5, 1e-3)], "", "the last steps of all layers are near the usual size"),
        (
            [(0.5, 2e-3), (1, 2e-5)],
            "the errors neither vanish nor explode: layer 1 gets 0.5 times the errors of layer 2",
            "the last steps of layer 2 are small: 2e-05",
        ),
        (
            [(1e-3, 0.2), (1, 0)],
            "the errors vanish: layer 1 gets 0.001 times the errors of layer 2",
            "the last steps of layer 2 are small: 0",
        ),
        (
            [(500, 0.2), (1, 1e-3)],
            "the errors explode: layer 1 gets 5e+02 times the errors of layer 2",
            "the last steps of layer 1 are large: 0.2",
        ),
        ([(0, 1e-3), (0, 1e-3)], "", "the last steps of all layers are near the usual size"),
    ],
)
def test_layers_state_vanishing_errors_and_unusual_steps(
    values: list[tuple[float, float]], errors: str, steps: str
) -> None:
    layers = [LayerHealth(0, 1, 0, 0, error, None, step) for error, step in values]
    assert findings.about_errors(layers) == errors
    assert findings.about_steps(layers) == steps
