"""Finds problems in the data of a run, unless its dataset is a published one, which is verified."""

from __future__ import annotations

import contextlib

from nnctl.config import Config
from nnctl.data.dataset import NAMED, Dataset
from nnctl.diagnosis.base import Diagnosis
from nnctl.diagnosis.data import diagnose_data, diagnose_labels
from nnctl.errors import DataError
from nnctl.nn.examples import Examples
from nnctl.nn.network import Network

_problems_by_data: dict[str, list[Diagnosis]] = {}
"""Problems found so far: the trials of a sweep often use the same examples."""


def find_data_problems(
    config: Config,
    dataset: Dataset,
    training: Examples,
    validation: Examples | None,
    network: Network | None = None,
) -> list[Diagnosis]:
    """Return the problems of the examples that a configuration uses.

    Parameters
    ----------
    config : Config
        Configuration without ``auto`` values.
    dataset : Dataset
        Its dataset.
    training, validation : Examples
        The examples for training and validation; see `nnctl.runs.resolve.split`.
    network : Network, optional
        Network that was trained on these examples; its predictions show wrong labels.
    """
    if dataset.name in NAMED:
        return []
    key = f"{sorted(dataset.hashes.items())} {config.data} {config.training.seed}"
    if key not in _problems_by_data:
        test = None
        with contextlib.suppress(DataError):  # a damaged test set is reported when it is used
            test = dataset.test
        names = dataset.class_names if config.data.positive_digit is None else None
        _problems_by_data[key] = diagnose_data(training, validation, test, names)
    problems = _problems_by_data[key]
    if network is None or problems:
        return problems
    return diagnose_labels(network, training)
