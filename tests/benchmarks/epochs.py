"""Compare the time of an epoch and of a whole process of nnctl with other libraries.

    python -m tests.benchmarks.epochs [--rounds 3]

Each measurement runs in its own process, and the programs take turns, so that other load on the
machine affects all of them. Use ratios of medians from one run on an otherwise idle machine: on a
busy one the other libraries slow down far more than nnctl. So does the "floor", which computes only
the matrix products of an epoch. Libraries that are not installed are skipped.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.benchmarks.programs import (
    Measurement,
    Network,
    format_range,
    measure,
    programs,
    seconds_to_first_step,
)

CASES = [
    Network((784, 30, 10), 10, "sigmoid", 0.5),
    Network((784, 100, 10), 32, "relu", 0.1),
    Network((784, 128, 10), 64, "sigmoid", 0.5),
    Network((784, 512, 512, 10), 128, "relu", 0.1),
    Network((784, 1024, 1024, 10), 256, "relu", 0.1),
]
"""Networks that are trained on all 60,000 images."""

EPOCHS = 3
"""Epochs per measurement. The first one, in which a library may compile, is not counted."""

WHOLE = CASES[1]._replace(examples=50_000, validation=10_000)
"""Network for whole processes, with the default number of validation images of nnctl."""

WHOLE_EPOCHS = 10

SHORT, LONG = 3, 13
"""Epochs of two runs. Their difference in time does not contain startup and shutdown."""


def print_epochs(cases: Sequence[int], rounds: int) -> None:
    """Print the seconds per epoch, and the ratios of nnctl to the other programs."""
    names = programs()
    print("| network, batch, activation | " + " | ".join(names) + " | nnctl / each |")
    print("|---" * (len(names) + 2) + "|")
    ratios: dict[str, list[float]] = {name: [] for name in names[1:]}
    for case in cases:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                seconds[name] += measure(name, CASES[case], EPOCHS).epochs[1:]
        own = statistics.median(seconds["nnctl"])
        for name, values in ratios.items():
            values.append(own / statistics.median(seconds[name]))
        cells = " | ".join(map(format_range, seconds.values()))
        last = ", ".join(f"{values[-1]:.2f}" for values in ratios.values())
        print(f"| {CASES[case]} | {cells} | {last} |", flush=True)
    means = (f"{name} {statistics.geometric_mean(values):.2f}" for name, values in ratios.items())
    print(f"\nGeometric mean of these ratios: {', '.join(means)}.\n")


def print_whole(rounds: int) -> None:
    """Print the time of whole processes, and the overhead of nnctl outside of its training loop."""
    names = [name for name in programs() if name in ("nnctl", "torch", "jax")]
    measurements: dict[str, list[Measurement]] = {name: [] for name in names}
    first_steps, overheads = [], []
    for _ in range(rounds):
        for name in names:
            measurements[name].append(measure(name, WHOLE, WHOLE_EPOCHS))
        first_steps.append(seconds_to_first_step(WHOLE))
        short, long = (measure("nnctl", CASES[1], epochs) for epochs in (SHORT, LONG))
        outside = [one.process.seconds - sum(one.epochs) for one in (short, long)]
        overheads.append((outside[1] - outside[0]) / sum(long.epochs[SHORT:]))
    print(f"| whole process: {WHOLE}, {WHOLE_EPOCHS} epochs | seconds | ratio to nnctl |", end="")
    print(" peak MB | validation accuracy |\n|---|---|---|---|---|")
    medians = {
        name: statistics.median(one.process.seconds for one in runs)
        for name, runs in measurements.items()
    }
    for name, runs in measurements.items():
        seconds = format_range([one.process.seconds for one in runs], ".2f")
        peaks = [one.process.megabytes for one in runs if one.process.megabytes]
        peak = f"{statistics.median(peaks):.0f}" if peaks else ""
        ratio = medians[name] / medians["nnctl"]
        print(f"| {name} | {seconds} | {ratio:.2f} | {peak} | {runs[-1].accuracy:.4f} |")
    print(f"\nThe first training step of nnctl begins after {format_range(first_steps)} seconds.")
    print("Overhead outside of the training loop, in runs without validation: ", end="")
    print(f"{format_range(overheads, '.1%')} of the time of the loop.\n")


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep all cores busy with other processes."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def print_busy(cases: Sequence[int], rounds: int) -> None:
    """Print the time of an epoch of nnctl on an idle machine and on a busy one."""
    print("| epoch of nnctl | idle machine | all cores busy with other processes | ratio |")
    print("|---|---|---|---|")
    for case in cases:
        idle: list[float] = []
        busy: list[float] = []
        for _ in range(rounds):
            idle += measure("nnctl", CASES[case], EPOCHS).epochs[1:]
            with busy_cores():
                busy += measure("nnctl", CASES[case], EPOCHS).epochs[1:]
        ratio = statistics.median(busy) / statistics.median(idle)
        print(
            f"| {CASES[case]} | {format_range(idle)} | {format_range(busy)} | {ratio:.2f} |",
            flush=True,
        )


def main() -> None:
    """Run all comparisons and print tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="0,1,2,3,4", help="network indices, counted from 0")
    options = parser.parse_args()
    cases = [int(case) for case in options.cases.split(",")]
    print_epochs(cases, options.rounds)
    print_whole(options.rounds)
    print_busy(cases, options.rounds)


if __name__ == "__main__":
    main()
