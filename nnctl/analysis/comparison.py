"""Paired tests of whether a difference between two networks is significant."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ALPHA = 0.05
"""Significance level: a difference with a larger p-value may be chance."""
_ROUNDING = 1e-14  # relative rounding error of differences that are equal otherwise


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Return the p-value of McNemar's test of whether two classifiers are equally good.

    Only the images that exactly one of the two classifies correctly count. If both classifiers are
    equally good, each such image is equally likely to be right for either of them (McNemar,
    Psychometrika 12, 1947; here exact and two-sided).

    Parameters
    ----------
    first, second : array of bool, shape (n,)
        Whether each classifier was right, on the same images.
    """
    only_first, only_second = count_only_right(first, second)
    count, fewer = only_first + only_second, min(only_first, only_second)
    tail = term = 1
    for k in range(fewer):
        term = term * (count - k) // (k + 1)  # the binomial coefficient of count over k + 1
        tail += term
    return min(1.0, 2 * tail / 2**count) if only_first != only_second else 1.0


def count_only_right(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> tuple[int, int]:
    """Return the number of images that only the first or only the second classifies correctly."""
    return int(np.count_nonzero(first & ~second)), int(np.count_nonzero(second & ~first))


def paired_t_test(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the p-value of the paired t-test of whether two samples have the same mean.

    Student's two-sided test of the differences of pairs, such as two settings trained with the
    same seeds (Student, Biometrika 6, 1908). If all differences are equal, as can happen with a
    few accuracies, their variance is 0 and the t-test is not defined; then it is the sign test.

    Parameters
    ----------
    first, second : sequence of float
        Values in the same order of pairs, at least two.
    """
    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, deviation = statistics.fmean(differences), statistics.stdev(differences)
    rounding = _ROUNDING * max(map(abs, [*first, *second]))
    if deviation <= rounding:
        return 1.0 if abs(mean) <= rounding else 2 * 0.5 ** len(differences)
    t = abs(mean) / deviation * math.sqrt(len(differences))
    return max(1 - _share_within(t, len(differences) - 1), 0.0)


def _share_within(t: float, freedom: int) -> float:
    """Return the probability that Student's t is between -t and t.

    For an integer number of degrees of freedom it is a finite sum (Abramowitz and Stegun, Handbook
    of Mathematical Functions, 26.7.3 and 26.7.4).
    """
    angle = math.atan(t / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) if odd else 1.0
    total = 0.0
    for k in range(2 + odd, freedom + 1, 2):
        total += term
        term *= math.cos(angle) ** 2 * (k - 1) / k
        if term < 1e-17:
            break
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
