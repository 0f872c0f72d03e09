"""Random numbers: independent streams for different purposes, derived from one seed.

The streams are independent of each other. For example, a network with more layers draws more
initial weights, but its examples are shuffled in the same order.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

Purpose = Literal["initialization", "shuffling", "subset", "augmentation", "dropout"]

_KEYS: dict[Purpose, int] = {
    "initialization": 0,
    "shuffling": 1,
    "subset": 2,
    "augmentation": 3,
    "dropout": 4,
}


def stream(seed: int, purpose: Purpose, *indices: int) -> np.random.Generator:
    """Return the random generator for a purpose; the same seed gives the same generator.

    For random numbers that are drawn repeatedly, `indices` are those of the epoch, the batch and so
    on. A resumed run then draws the same numbers, and no generator state has to be saved.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_KEYS[purpose], *indices))
    return np.random.Generator(np.random.PCG64(sequence))
