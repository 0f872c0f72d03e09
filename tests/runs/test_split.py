"""The split into training and validation examples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nnctl.config import from_mapping
from nnctl.data.dataset import open_dataset
from nnctl.nn.examples import Examples
from nnctl.runs.resolve import resolve_auto, split
from tests.runs.helpers import SMALL, ignore

MINI = open_dataset("mini", notify=ignore)


def split_of(**data: Any) -> tuple[Examples, Examples | None]:
    """Split the bundled digits with these values of the section ``data``."""
    units = 10 if data.get("positive_digit") is None else 2
    network = {"layers": [{"units": units, "activation": "softmax"}]}
    values = {**SMALL, "data": {"dataset": "mini", **data}, "network": network}
    return split(resolve_auto(from_mapping(values, "test"), MINI), MINI)


@pytest.mark.parametrize("positive_digit", [None, 9])
def test_the_last_sixth_is_held_out_and_never_trained_on(positive_digit: int | None) -> None:
    training, validation = split_of(positive_digit=positive_digit)
    assert validation is not None
    assert (len(training.labels), len(validation.labels)) == (4167, 833)
    np.testing.assert_array_equal(
        MINI.training.inputs, np.concatenate([training.inputs, validation.inputs])
    )


def test_selection_first_takes_the_beginning_of_the_file() -> None:
    training, _ = split_of(subset=1000, selection="first")
    np.testing.assert_array_equal(MINI.training.inputs[:1000], training.inputs)
    np.testing.assert_array_equal(MINI.training.labels[:1000], training.labels)


def test_a_balanced_subset_has_as_many_of_each_digit() -> None:
    balanced, first = split_of(subset=1000)[0], split_of(subset=1000, selection="first")[0]
    assert np.bincount(balanced.labels).tolist() == [100] * 10
    assert np.bincount(first.labels).tolist() != [100] * 10


def test_a_subset_is_balanced_by_digit_even_with_a_positive_digit() -> None:
    training, validation = split_of(subset=1000, positive_digit=9)
    assert validation is not None
    assert np.bincount(training.labels).tolist() == [900, 100]
    assert {0, 1} == set(validation.labels.tolist())
