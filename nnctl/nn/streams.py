"""Random numbers: one seed, and a stream of its own for each purpose.

Streams do not disturb each other: a network with more layers does not shuffle its examples in
another order.
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


def stream(seed: int, purpose: Purpose, *place: int) -> np.random.Generator:
    """Return the generator of a purpose, always the same one for the same seed.

    Where randomness is needed anew again and again, `place` says where, such as epoch and batch. So
    it is the same after a resume, and no state has to be kept.
    """
    sequence = np.random.SeedSequence(seed, spawn_key=(_KEYS[purpose], *place))
    return np.random.Generator(np.random.PCG64(sequence))
