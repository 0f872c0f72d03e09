"""Measure how the time of an epoch grows with the size of the network and other settings.

    python -m tests.benchmarks.scale [--rounds 3] [--groups units,batch]

One setting varies at a time. The time is compared with that of the matrix products of the same
steps alone, computed by `numpy.matmul` with the default threads of the BLAS; both take turns. Large
networks and small batches train on fewer images; all times are scaled to 60,000 images.
"""

from __future__ import annotations

import argparse
import statistics
from typing import Any

from tests.benchmarks.programs import MNIST, Network, format_range, measure


def network(*hidden: int, batch: int = 64, examples: int = MNIST, **settings: Any) -> Network:
    """Return a network with one batch size for all batches: the rest of the images is not used."""
    default = Network((784, *hidden, 10), batch, "relu", 0.01, examples=examples // batch * batch)
    return default._replace(**settings)


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
"""Networks by the setting that varies; default: 784-128-10, batches of 64, relu, plain SGD."""

EPOCHS = 4
"""Epochs per measurement. The first one is not counted."""


def main() -> None:
    """Measure all networks, and print one row for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--groups", default=",".join(GROUPS), help="settings to vary (default: all)"
    )
    options = parser.parse_args()
    print(
        "| setting | nnctl, s per 60,000 images | matrix products, s | ratio |\n|---|---|---|---|"
    )
    for group in options.groups.split(","):
        for label, varied in GROUPS[group].items():
            seconds: dict[str, list[float]] = {"nnctl": [], "floor": []}
            for _ in range(options.rounds):
                for name, values in seconds.items():
                    epochs = measure(name, varied, EPOCHS).epochs[1:]
                    values += [epoch * MNIST / varied.examples for epoch in epochs]
            own, products = map(statistics.median, seconds.values())
            cells = " | ".join(map(format_range, seconds.values()))
            print(f"| {label} | {cells} | {own / products:.2f} |", flush=True)


if __name__ == "__main__":
    main()
