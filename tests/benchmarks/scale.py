"""Time how an epoch of nnctl and its matrix products grow when one thing varies at a time.

    python -m tests.benchmarks.scale [--rounds 3] [--groups units,batch]

The products are those of the same steps through `numpy.matmul`, with the threads that the BLAS
takes by default; nnctl and they take turns. Large networks and small batches train on fewer images,
and all seconds are scaled to 60,000.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from tests.benchmarks.programs import MNIST, Network, measured, spread


def network(*hidden: int, batch: int = 64, examples: int = MNIST, **given: Any) -> Network:
    """Return a network that is trained on whole batches only."""
    plain = Network((784, *hidden, 10), batch, "relu", 0.01, examples=examples // batch * batch)
    return plain._replace(**given)


GROUPS: dict[str, dict[str, Network]] = {
    "units": {
        f"{units} hidden units": network(units, examples=examples)
        for units, examples in zip(
            (16, 64, 256, 1024, 4096), (MNIST, MNIST, MNIST, 20_000, 5_000), strict=True
        )
    },
    "layers": {
        f"{count} hidden layer{'s' * (count > 1)}": network(*[128] * count) for count in range(1, 6)
    },
    "batch": {
        f"batch of {batch}": network(128, batch=batch, examples=examples)
        for batch, examples in zip(
            (1, 4, 16, 64, 256, 1024), (10_000, 30_000, *[MNIST] * 4), strict=True
        )
    },
    "activation": {name: network(128, activation=name) for name in ("sigmoid", "tanh", "relu")},
    "optimizer": {
        "plain SGD": network(128),
        "momentum": network(128, momentum=0.9),
        "weight decay": network(128, weight_decay=1e-4),
        "momentum and weight decay": network(128, momentum=0.9, weight_decay=1e-4),
    },
}
"""By default: 784-128-10, batches of 64, relu, plain SGD."""

EPOCHS = 4
"""The first of them warms up, and does not count."""


def main() -> None:
    """Measure all, in turns, and print a row for each network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--groups", default=",".join(GROUPS), help="what varies: some of these")
    given = parser.parse_args()
    print("| what varies | nnctl, s per 60,000 | products alone | ratio |\n|---|---|---|---|")
    for group in given.groups.split(","):
        for label, varied in GROUPS[group].items():
            seconds: dict[str, list[float]] = {"nnctl": [], "floor": []}
            for _ in range(given.rounds):
                for name, found in seconds.items():
                    epochs = measured(name, varied, EPOCHS).epochs[1:]
                    found += [epoch * MNIST / varied.examples for epoch in epochs]
            own, products = map(statistics.median, seconds.values())
            cells = " | ".join(map(spread, seconds.values()))
            print(f"| {label} | {cells} | {own / products:.2f} |", flush=True)


if __name__ == "__main__":
    main()
