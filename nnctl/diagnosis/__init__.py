"""Why a network does not learn: from its configuration, its metrics, its layers and its data."""

from nnctl.diagnosis.base import TITLES, Diagnosis
from nnctl.diagnosis.cures import with_tried_cures
from nnctl.diagnosis.data import diagnose_data, diagnose_labels
from nnctl.diagnosis.network import (
    check_config,
    diagnose,
    diagnose_initialization,
    health_label,
    initial_health,
    is_initial,
    some_examples,
)

__all__ = [
    "TITLES",
    "Diagnosis",
    "check_config",
    "diagnose",
    "diagnose_data",
    "diagnose_initialization",
    "diagnose_labels",
    "health_label",
    "initial_health",
    "is_initial",
    "some_examples",
    "with_tried_cures",
]
