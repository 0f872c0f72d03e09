"""Statistical tests agree with SciPy; networks are compared on their validation images."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from scipy import stats

from nnctl.analysis.comparison import mcnemar, paired_t_test
from nnctl.analysis.evaluation import predict_validation
from nnctl.data.dataset import open_dataset
from nnctl.errors import DataError
from tests.runs.helpers import SMALL, begin, ignore, train

MINI = open_dataset("mini", notify=ignore)

pairs = st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=40)


def answers(count: int, wrong: range) -> NDArray[np.bool_]:
    """Return whether each of `count` answers is right; those in a range are wrong."""
    right = np.ones(count, dtype=bool)
    right[wrong.start : wrong.stop] = False
    return right


# McNemar's test ----------------------------------------------------------------------------------


@given(both=arrays.arrays(bool, st.tuples(st.just(2), st.integers(1, 300))))
def test_mcnemar_s_test_is_the_binomial_test_of_the_differences(
    both: NDArray[np.bool_],
) -> None:
    ours, theirs = both
    only_ours, differing = int((ours & ~theirs).sum()), int((ours != theirs).sum())
    expected = stats.binomtest(only_ours, differing).pvalue if differing else 1.0
    assert mcnemar(ours, theirs) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(theirs, ours) == mcnemar(ours, theirs)


def test_mcnemar_s_test_of_all_of_mnist_does_not_overflow() -> None:
    ours, theirs = answers(10_000, range(4_800)), answers(10_000, range(4_800, 10_000))
    expected = stats.binomtest(4_800, 10_000).pvalue
    assert mcnemar(ours, theirs) == pytest.approx(expected, rel=1e-6)
    assert mcnemar(answers(10_000, range(0)), answers(10_000, range(10_000))) == 0.0


# The paired t-test -------------------------------------------------------------------------------


@given(pairs)
def test_the_paired_t_test_is_scipy_s(both: list[tuple[float, float]]) -> None:
    ours, theirs = map(list, zip(*both, strict=True))
    assume(statistics.pstdev(a - b for a, b in both) > 1e-6)
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert paired_t_test(ours, theirs) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert paired_t_test(theirs, ours) == paired_t_test(ours, theirs)
    assert 0 <= paired_t_test(ours, theirs) <= 1


@pytest.mark.parametrize("shift", [0.0, 0.01, 0.5])
def test_the_paired_t_test_of_all_images_is_scipy_s(shift: float) -> None:
    rng = np.random.default_rng(3)
    ours = rng.exponential(size=10_000)
    theirs = ours + rng.normal(shift, 1, size=10_000)
    expected = stats.ttest_rel(ours, theirs).pvalue
    assert paired_t_test(ours.tolist(), theirs.tolist()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("count", [2, 3, 5, 6])
def test_equal_differences_are_tested_like_coin_tosses(count: int) -> None:
    ours = [(700 + 7 * i) / 833 for i in range(count)]
    theirs = [(697 + 7 * i) / 833 for i in range(count)]
    assert paired_t_test(ours, theirs) == pytest.approx(2 * 0.5**count)
    assert paired_t_test(ours, ours) == 1.0
    assert paired_t_test(ours, [accuracy + 1e-17 for accuracy in ours]) == 1.0


def test_both_samples_have_the_same_length() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_t_test([1.0, 2.0, 3.0], [1.0, 2.0])


# Networks on their validation images ---------------------------------------------------


def test_a_network_is_evaluated_on_its_validation_images(tmp_path: Path) -> None:
    training = begin(tmp_path / "run")
    train(training)
    results = predict_validation(training.run, MINI)
    assert results is not None
    np.testing.assert_array_equal(MINI.training.labels[-500:], results.labels)
    summary = training.summary
    assert results.right.mean() == summary.best_val_accuracy
    assert results.loss == pytest.approx(summary.best_val_loss, rel=1e-5)


def test_a_run_without_validation_images_has_no_results(tmp_path: Path) -> None:
    config = {**SMALL, "data": {"dataset": "mini", "validation": 0, "subset": 100}}
    training = begin(tmp_path / "run", config)
    train(training)
    assert predict_validation(training.run, MINI) is None


def test_a_run_without_a_complete_epoch_is_an_error(tmp_path: Path) -> None:
    training = begin(tmp_path / "run")
    train(training, stop_after=2)
    with pytest.raises(DataError, match="no epoch of this run was completed"):
        predict_validation(training.run, MINI)
