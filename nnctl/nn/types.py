"""The array type of the numeric core."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
"""Floating-point numbers: float32 in training, float64 in gradient checks."""
