"""Logic gates as datasets: a perceptron can learn all of them except XOR.

Deep Learning from Scratch, chapter 2; Minsky and Papert 1969 on XOR. The inputs are images of two
pixels, black or white, so that all code for digits also works for gates.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

INPUTS: NDArray[np.uint8] = np.array([[0, 0], [0, 255], [255, 0], [255, 255]], np.uint8)
INPUTS.setflags(write=False)

GATES: Mapping[str, tuple[int, int, int, int]] = {
    "and": (0, 0, 0, 1),
    "or": (0, 1, 1, 1),
    "nand": (1, 1, 1, 0),
    "xor": (0, 1, 1, 0),
}
"""Output of each gate for each row of `INPUTS`."""
