"""Random numbers: one seed, and a stream of its own for each purpose.

Streams do not disturb each other: a network with more layers does not shuffle its examples in
another order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

_KEYS = {"initialization": 0, "shuffling": 1, "subset": 2}


def stream(
    seed: int, purpose: Literal["initialization", "shuffling", "subset"]
) -> np.random.Generator:
    """Return the generator of a purpose, always the same one for the same seed."""
    sequence = np.random.SeedSequence(seed, spawn_key=(_KEYS[purpose],))
    return np.random.Generator(np.random.PCG64(sequence))
