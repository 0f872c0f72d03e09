"""The sentences above the charts state what the data show."""

from __future__ import annotations

import pytest

from nnctl.analysis.evaluation import Corrupted
from nnctl.nn.events import EpochMetrics
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
    assert classes == "the hardest is dog: 75.0 % after the last epoch"
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
