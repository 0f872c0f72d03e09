"""Finds problems in the data of a run, unless its dataset is a published one, which is verified."""

from __future__ import annotations

import contextlib

from nnctl.config import Config
from nnctl.data.dataset import NAMED, Dataset
from nnctl.diagnosis import Diagnosis, diagnose_data, diagnose_labels
from nnctl.errors import DataError
from nnctl.nn.network import Network
from nnctl.runs.resolve import split


def find_data_problems(
    config: Config, dataset: Dataset, network: Network | None = None
) -> list[Diagnosis]:
    """Return the problems of the examples that a configuration uses.

    Parameters
    ----------
    config : Config
        Configuration without ``auto`` values.
    dataset : Dataset
        Its dataset.
    network : Network, optional
        Network that was trained on these examples; its answers show wrong labels.
    """
    if dataset.name in NAMED:
        return []
    training, validation = split(config, dataset)
    test = None
    with contextlib.suppress(DataError):  # a damaged test set is reported when it is used
        test = dataset.test
    names = dataset.class_names if config.data.positive_digit is None else None
    problems = diagnose_data(training, validation, test, names)
    if network is not None and not problems:
        problems += diagnose_labels(network, training)
    return problems
