"""Time nnctl compared with other libraries: an epoch of it, and a whole process.

    python -m tests.benchmarks.epochs [--rounds 3]

Each measurement is a process of its own, and the programs take turns, so that a busy moment of the
machine falls on all of them. What counts are ratios of medians within one run, on a machine that
does nothing else: on a busy one, the others lose far more than nnctl, and so does the floor, which
is the matrix products of an epoch alone. Libraries that are not installed are left out.
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
    Measured,
    Network,
    measured,
    programs,
    seconds_to_first_step,
    spread,
)

CASES = [
    Network((784, 30, 10), 10, "sigmoid", 0.5),
    Network((784, 100, 10), 32, "relu", 0.1),
    Network((784, 128, 10), 64, "sigmoid", 0.5),
    Network((784, 512, 512, 10), 128, "relu", 0.1),
    Network((784, 1024, 1024, 10), 256, "relu", 0.1),
]
"""All 60,000 images."""

EPOCHS = 3
"""The first of them warms up, or compiles, and does not count."""

WHOLE = CASES[1]._replace(examples=50_000, validation=10_000)
"""A whole process holds out as many images as nnctl does by default."""

WHOLE_EPOCHS = 10

SHORT, LONG = 3, 13
"""Epochs of two runs whose difference is free of start and end."""


def print_epochs(cases: Sequence[int], rounds: int) -> None:
    """Print the seconds of an epoch, and nnctl's ratios to the others."""
    names = programs()
    print("| network, batch, activation | " + " | ".join(names) + " | nnctl's ratio to each |")
    print("|---" * (len(names) + 2) + "|")
    ratios: dict[str, list[float]] = {name: [] for name in names[1:]}
    for case in cases:
        seconds: dict[str, list[float]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                seconds[name] += measured(name, CASES[case], EPOCHS).epochs[1:]
        own = statistics.median(seconds["nnctl"])
        for name, found in ratios.items():
            found.append(own / statistics.median(seconds[name]))
        cells = " | ".join(map(spread, seconds.values()))
        last = ", ".join(f"{found[-1]:.2f}" for found in ratios.values())
        print(f"| {CASES[case]} | {cells} | {last} |", flush=True)
    means = (f"{name} {statistics.geometric_mean(found):.2f}" for name, found in ratios.items())
    print(f"\nGeometric means of nnctl's ratios: {', '.join(means)}.\n")


def print_whole(rounds: int) -> None:
    """Print what whole processes take, from start to exit, and what nnctl does around its loop."""
    names = [name for name in programs() if name in ("nnctl", "torch", "jax")]
    found: dict[str, list[Measured]] = {name: [] for name in names}
    first_steps, surroundings = [], []
    for _ in range(rounds):
        for name in names:
            found[name].append(measured(name, WHOLE, WHOLE_EPOCHS))
        first_steps.append(seconds_to_first_step(WHOLE))
        short, long = (measured("nnctl", CASES[1], epochs) for epochs in (SHORT, LONG))
        outside = [one.process.seconds - sum(one.epochs) for one in (short, long)]
        surroundings.append((outside[1] - outside[0]) / sum(long.epochs[SHORT:]))
    print(f"| whole process: {WHOLE}, {WHOLE_EPOCHS} epochs | seconds | ratio to nnctl's |", end="")
    print(" peak MB | validation accuracy |\n|---|---|---|---|---|")
    medians = {
        name: statistics.median(one.process.seconds for one in those)
        for name, those in found.items()
    }
    for name, those in found.items():
        seconds = spread([one.process.seconds for one in those], ".2f")
        peaks = [one.process.megabytes for one in those if one.process.megabytes]
        peak = f"{statistics.median(peaks):.0f}" if peaks else ""
        ratio = medians[name] / medians["nnctl"]
        print(f"| {name} | {seconds} | {ratio:.2f} | {peak} | {those[-1].accuracy:.4f} |")
    print(f"\nnnctl's first step begins after {spread(first_steps)} seconds.")
    print("Outside of the training loop, without validation: ", end="")
    print(f"{spread(surroundings, '.1%')} of its time.\n")


@contextmanager
def busy_cores() -> Iterator[None]:
    """Keep every core busy with other processes."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def print_busy(cases: Sequence[int], rounds: int) -> None:
    """Print what an epoch of nnctl takes on a machine that is busy with something else."""
    print("| nnctl's epoch | on an idle machine | every core busy with another process | ratio |")
    print("|---|---|---|---|")
    for case in cases:
        at_rest: list[float] = []
        busy: list[float] = []
        for _ in range(rounds):
            at_rest += measured("nnctl", CASES[case], EPOCHS).epochs[1:]
            with busy_cores():
                busy += measured("nnctl", CASES[case], EPOCHS).epochs[1:]
        ratio = statistics.median(busy) / statistics.median(at_rest)
        print(f"| {CASES[case]} | {spread(at_rest)} | {spread(busy)} | {ratio:.2f} |", flush=True)


def main() -> None:
    """Measure all, in turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="0,1,2,3,4", help="which of the networks, from 0")
    given = parser.parse_args()
    cases = [int(case) for case in given.cases.split(",")]
    print_epochs(cases, given.rounds)
    print_whole(given.rounds)
    print_busy(cases, given.rounds)


if __name__ == "__main__":
    main()
