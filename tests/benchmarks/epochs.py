"""Time an epoch of nnctl beside the same in other libraries, and beside its matrix products alone.

    python tests/benchmarks/epochs.py [--rounds 3]

Each measurement is a process of its own, and the programs take turns, so that a busy moment of the
machine falls on all of them. What counts are ratios of medians within one run. nnctl is measured
through `nnctl train`, by `seconds` in its metrics. Libraries that are not installed are left out.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import yaml

CASES: list[tuple[tuple[int, ...], int, str, float]] = [
    ((784, 30, 10), 10, "sigmoid", 0.5),
    ((784, 100, 10), 32, "relu", 0.1),
    ((784, 128, 10), 64, "sigmoid", 0.5),
    ((784, 512, 512, 10), 128, "relu", 0.1),
    ((784, 1024, 1024, 10), 256, "relu", 0.1),
]
"""Sizes, batch, hidden activation, rate; softmax, cross-entropy, plain SGD, all 60,000 images."""

EPOCHS = 3
"""The first of them warms up, or compiles, and does not count."""


def nnctl(sizes: tuple[int, ...], batch: int, activation: str, rate: float) -> Iterator[float]:
    """Train with the command, and read its metrics."""
    layers = [{"units": units, "activation": activation} for units in sizes[1:-1]]
    config = {
        "data": {"dataset": "mnist", "validation": 0},
        "network": {"layers": [*layers, {"units": 10, "activation": "softmax"}]},
        "optimizer": {"learning_rate": rate},
        "training": {"epochs": EPOCHS, "batch_size": batch},
    }
    with tempfile.TemporaryDirectory() as folder:
        path, run = Path(folder) / "bench.yaml", Path(folder) / "run"
        path.write_text(yaml.safe_dump(config), encoding="utf-8")
        command = [sys.executable, "-m", "nnctl", "train", str(path), "--run-dir", str(run), "-q"]
        subprocess.run(command, check=True, capture_output=True)
        for line in (run / "metrics.jsonl").read_text("utf-8").splitlines():
            yield json.loads(line)["seconds"]


def floor(sizes: tuple[int, ...], batch: int, activation: str, rate: float) -> Iterator[float]:
    """Multiply the matrices of an epoch, and nothing else."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    fans = list(itertools.pairwise(sizes))
    activations, errors = ([normal(batch, size) for size in sizes] for _ in range(2))
    weights = [normal(*fan) for fan in fans]
    gradients = [np.empty_like(w) for w in weights]
    outputs = [np.empty_like(a) for a in activations]
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for _ in range(60_000 // batch):
            for i, w in enumerate(weights):
                np.matmul(activations[i], w, out=outputs[i + 1])
            for i in reversed(range(len(weights))):
                np.matmul(activations[i].T, errors[i + 1], out=gradients[i])
                if i:
                    np.matmul(errors[i + 1], weights[i].T, out=outputs[i])
        yield time.perf_counter() - started


def digits() -> tuple[Any, Any]:
    """Return MNIST's training images as floats from 0 to 1, and their labels."""
    from nnctl.data.dataset import open_dataset

    images, labels = open_dataset("mnist", notify=lambda _: None).training
    return images.astype(np.float32) / 255, labels.astype(np.int64)


def jax(sizes: tuple[int, ...], batch: int, activation: str, rate: float) -> Iterator[float]:
    """Compile a whole epoch into one function."""
    import jax
    from jax import numpy as jnp

    x, y = map(jnp.asarray, digits())
    rng = np.random.default_rng(0)
    fans = list(itertools.pairwise(sizes))
    parameters = [
        (jnp.asarray(rng.normal(0, (2 / m) ** 0.5, (m, n)), jnp.float32), jnp.zeros(n))
        for m, n in fans
    ]
    function = jax.nn.relu if activation == "relu" else jax.nn.sigmoid

    def loss(parameters: Any, a: Any, labels: Any) -> Any:
        for w, b in parameters[:-1]:
            a = function(a @ w + b)
        w, b = parameters[-1]
        log_p = jax.nn.log_softmax(a @ w + b)
        return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()

    def step(parameters: Any, chosen: Any) -> Any:
        gradient = jax.grad(loss)(parameters, x[chosen], y[chosen])
        return jax.tree.map(lambda p, g: p - rate * g, parameters, gradient), None

    @jax.jit
    def epoch(parameters: Any, order: Any) -> Any:
        return jax.lax.scan(step, parameters, order)[0]

    for i in range(EPOCHS):
        started = time.perf_counter()
        order = jax.random.permutation(jax.random.PRNGKey(i), len(x))
        order = order[: len(x) // batch * batch].reshape(-1, batch)
        parameters = jax.block_until_ready(epoch(parameters, order))
        yield time.perf_counter() - started


def torch(sizes: tuple[int, ...], batch: int, activation: str, rate: float) -> Iterator[float]:
    """Train as a tutorial does, step by step."""
    import torch
    from torch import nn

    x, y = map(torch.from_numpy, digits())
    modules: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        modules += [nn.Linear(fan_in, fan_out), nn.ReLU() if activation == "relu" else nn.Sigmoid()]
    model = nn.Sequential(*modules[:-1])
    optimizer, loss = torch.optim.SGD(model.parameters(), lr=rate), nn.CrossEntropyLoss()
    for _ in range(EPOCHS):
        started = time.perf_counter()
        for chosen in torch.randperm(len(x)).split(batch):
            optimizer.zero_grad(set_to_none=True)
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        yield time.perf_counter() - started


def sklearn(sizes: tuple[int, ...], batch: int, activation: str, rate: float) -> Iterator[float]:
    """Fit an MLPClassifier, an epoch at a time."""
    from sklearn.neural_network import MLPClassifier

    x, y = digits()
    model = MLPClassifier(
        sizes[1:-1],
        activation="relu" if activation == "relu" else "logistic",
        solver="sgd",
        momentum=0,
        alpha=0,
        batch_size=batch,
        learning_rate_init=rate,
        max_iter=1,
        warm_start=True,
    )
    warnings.simplefilter("ignore")  # it has not converged after an epoch
    for _ in range(EPOCHS):
        started = time.perf_counter()
        model.fit(x, y)
        yield time.perf_counter() - started


Program = Callable[[tuple[int, ...], int, str, float], Iterator[float]]
PROGRAMS: dict[str, Program] = {
    program.__name__: program for program in (nnctl, floor, jax, torch, sklearn)
}


def measured(program: str, case: int) -> list[float]:
    """Return the seconds of an epoch in a process of its own, without the first."""
    command = [sys.executable, __file__, "--one", program, str(case)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in done.stdout.split()][1:]


def main() -> None:
    """Measure all, in turns, and print seconds and nnctl's ratios to the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", default="0,1,2,3,4", help="which of the networks, from 0")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(*PROGRAMS[given.one[0]](*CASES[int(given.one[1])]))
        return
    own = ("nnctl", "floor")
    programs = [name for name in PROGRAMS if name in own or importlib.util.find_spec(name)]
    print("| network, batch, activation | " + " | ".join(programs) + " | nnctl's ratio to each |")
    print("|---" * (len(programs) + 2) + "|")
    for case in map(int, given.cases.split(",")):
        seconds: dict[str, list[float]] = {name: [] for name in programs}
        for _ in range(given.rounds):
            for name in programs:
                seconds[name] += measured(name, case)
        medians = {name: statistics.median(found) for name, found in seconds.items()}
        sizes, batch, activation, _ = CASES[case]
        cells = [
            f"{medians[name]:.3f} ({min(found):.3f} to {max(found):.3f})"
            for name, found in seconds.items()
        ]
        ratios = [f"{medians['nnctl'] / medians[name]:.2f}" for name in programs[1:]]
        network = f"{'-'.join(map(str, sizes))}, {batch}, {activation}"
        print(f"| {network} | {' | '.join(cells)} | {', '.join(ratios)} |", flush=True)


if __name__ == "__main__":
    main()
