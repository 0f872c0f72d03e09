"""Learning-rate schedules have the expected factors at given times."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl.nn.schedules import (
    SCHEDULES,
    ConstantSchedule,
    CosineSchedule,
    ExponentialSchedule,
    InverseTimeSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    Schedule,
    StepSchedule,
)

HALF = 0.5e-3
"""Half a step, with 1000 steps per epoch: a rate is computed for the middle of its step."""

gammas, warmups = st.floats(1e-6, 1), st.floats(0, 50)
schedules = st.one_of(
    st.builds(ConstantSchedule, warmup=warmups),
    st.builds(StepSchedule, warmup=warmups, every=st.integers(1, 20), gamma=gammas),
    st.builds(ExponentialSchedule, warmup=warmups, gamma=gammas),
    st.builds(CosineSchedule, warmup=warmups, final=st.floats(0, 1)),
    st.builds(InverseTimeSchedule, warmup=warmups, gamma=st.floats(0, 1e6)),
    st.builds(
        PolynomialSchedule, warmup=warmups, power=st.floats(0.01, 100), final=st.floats(0, 1)
    ),
    st.builds(
        OneCycleSchedule,
        warmup=warmups,
        start=st.floats(0.01, 0.99),
        rise=st.floats(0.01, 0.99),
        final=st.floats(0, 1),
    ),
    st.builds(PlateauSchedule, warmup=warmups),
)


@pytest.mark.parametrize(
    ("schedule", "time", "expected"),
    [
        (ConstantSchedule(), HALF, 1),
        (ConstantSchedule(), 10 - HALF, 1),
        (StepSchedule(every=2, gamma=0.5), HALF, 1),
        (StepSchedule(every=2, gamma=0.5), 2 - HALF, 1),
        (StepSchedule(every=2, gamma=0.5), 2 + HALF, 0.5),
        (StepSchedule(every=2, gamma=0.5), 4 - HALF, 0.5),
        (StepSchedule(every=2, gamma=0.5), 4 + HALF, 0.25),
        (ExponentialSchedule(gamma=0.9), HALF, 1),
        (ExponentialSchedule(gamma=0.9), 1 - HALF, 1),
        (ExponentialSchedule(gamma=0.9), 1 + HALF, 0.9),
        (ExponentialSchedule(gamma=0.9), 10 - HALF, 0.9**9),
        (CosineSchedule(), 2.5, (1 + math.sqrt(0.5)) / 2),
        (CosineSchedule(), 5, 0.5),
        (CosineSchedule(), 10, 0),
        (CosineSchedule(final=0.2), 5, 0.6),
        (CosineSchedule(final=0.2), 10, 0.2),
        (CosineSchedule(final=1), 5, 1),
        (InverseTimeSchedule(gamma=0.5), 0, 1),
        (InverseTimeSchedule(gamma=0.5), 4, 1 / 3),
        (PolynomialSchedule(), 2.5, 0.75),
        (PolynomialSchedule(power=2, final=0.2), 5, 0.4),
        (PolynomialSchedule(power=2, final=0.2), 10, 0.2),
        (OneCycleSchedule(start=0.1), 0, 0.1),
        (OneCycleSchedule(start=0.1), 1.5, 0.55),
        (OneCycleSchedule(), 3, 1),
        (OneCycleSchedule(final=0.1), 6.5, 0.55),
        (OneCycleSchedule(final=0.1), 10, 0.1),
        (PlateauSchedule(), 10, 1),
        (ConstantSchedule(warmup=2), HALF, HALF / 2),
        (ConstantSchedule(warmup=2), 1, 0.5),
        (ConstantSchedule(warmup=2), 2 - HALF, 1 - HALF / 2),
        (ConstantSchedule(warmup=2), 2 + HALF, 1),
        (ExponentialSchedule(warmup=2, gamma=0.9), 1.5, 0.75 * 0.9),
        (CosineSchedule(warmup=2), 1, 0.5),
        (CosineSchedule(warmup=2), 2, 1),
        (CosineSchedule(warmup=2), 6, 0.5),
        (CosineSchedule(warmup=2), 10, 0),
        (CosineSchedule(warmup=10), 10, 1),
        (CosineSchedule(warmup=20), 10, 0.5),
    ],
)
def test_factors_at_given_times_of_a_training_of_ten_epochs(
    schedule: Schedule, time: float, expected: float
) -> None:
    assert expected == pytest.approx(schedule.factor(time, epochs=10), abs=1e-12)


@settings(max_examples=50)
@given(schedules, st.integers(1, 1000), st.floats(0, 1))
def test_factors_are_between_0_and_1(schedule: Schedule, epochs: int, fraction: float) -> None:
    factor = schedule.factor(fraction * epochs, epochs)
    assert math.isfinite(factor)
    assert 0 <= factor <= 1


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        *((name, {"warmup": -1}, "warmup must not be negative") for name in SCHEDULES),
        ("step", {"every": 0}, "every must be at least 1 epoch"),
        ("step", {"gamma": 0}, "gamma must be above 0"),
        ("exponential", {"gamma": 1.5}, "gamma must be above 0 and at most 1"),
        ("cosine", {"final": -0.1}, "final must be between 0 and 1"),
        ("cosine", {"final": 1.1}, "final must be between 0 and 1"),
        ("inverse_time", {"gamma": -1}, "gamma must not be negative"),
        ("polynomial", {"power": 0}, "power must be above 0"),
        ("polynomial", {"final": 2}, "final must be between 0 and 1"),
        ("one_cycle", {"start": 0}, "start must be between 0 and 1"),
        ("one_cycle", {"rise": 1}, "rise must be between 0 and 1"),
        ("plateau", {"gamma": 1}, "gamma must be above 0 and below 1"),
        ("plateau", {"patience": 0}, "patience must be at least 1"),
        ("plateau", {"stop": 1}, "stop must be at least 0 and below 1"),
    ],
)
def test_invalid_parameters_are_rejected(
    name: str, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        SCHEDULES[name](**parameters)
