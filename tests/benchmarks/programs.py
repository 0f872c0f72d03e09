"""Train a network on MNIST with nnctl or another library, and measure time and memory.

    python -m tests.benchmarks.programs torch NETWORK EPOCHS

trains the network, given as JSON, with another library (or only computes its matrix products) and
prints the seconds and the validation accuracy of each epoch. Each training runs in its own process.
nnctl itself is measured with `nnctl train`; its metrics contain the seconds of each epoch.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

MNIST = 60_000
"""Number of training images."""

FIRST_STEP = """
import os
from nnctl.cli import main
from nnctl.nn.loop import TrainingLoop
assert TrainingLoop._train_block
TrainingLoop._train_block = lambda *_: os._exit(0)
main()
"""
"""Source of a program that runs nnctl, but exits when the first training step begins."""


class Network(NamedTuple):
    """A network with a softmax output, trained with cross-entropy and SGD."""

    sizes: tuple[int, ...]  # number of pixels, of units of each hidden layer, of classes
    batch: int
    activation: str  # of the hidden layers
    rate: float
    momentum: float = 0.0  # used only by nnctl, like weight_decay
    weight_decay: float = 0.0
    examples: int = MNIST  # number of training images, the first of MNIST
    validation: int = 0  # number of validation images, the last of MNIST

    def __str__(self) -> str:
        return f"{'-'.join(map(str, self.sizes))}, {self.batch}, {self.activation}"


class Process(NamedTuple):
    """Output, wall time and peak memory of a finished process."""

    output: str
    seconds: float
    megabytes: float | None


class Measurement(NamedTuple):
    """Seconds of each epoch, the final validation accuracy, and the process of a training run."""

    epochs: list[float]
    accuracy: float | None
    process: Process


Epoch = Callable[[], float | None]
"""Trains for one epoch; returns the validation accuracy, if there are validation images."""


def floor(network: Network) -> Epoch:
    """Compute only the matrix products of an epoch, a lower bound of its time."""
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return rng.standard_normal(shape, dtype=np.float32)

    sizes, batch = network.sizes, network.batch
    activations, errors = ([normal(batch, size) for size in sizes] for _ in range(2))
    weights = [normal(*fans) for fans in itertools.pairwise(sizes)]
    gradients = [np.empty_like(w) for w in weights]
    outputs = [np.empty_like(a) for a in activations]

    def epoch() -> None:
        for _ in range(network.examples // batch):
            for i, w in enumerate(weights):
                np.matmul(activations[i], w, out=outputs[i + 1])
            for i in reversed(range(len(weights))):
                np.matmul(activations[i].T, errors[i + 1], out=gradients[i])
                if i:
                    np.matmul(errors[i + 1], weights[i].T, out=outputs[i])

    return epoch


def digits(network: Network) -> tuple[Any, Any, Any, Any]:
    """Return training images (floats 0 to 1) and labels, then those for validation."""
    from nnctl.data.dataset import open_dataset

    training = open_dataset("mnist", notify=lambda _: None).training
    x, y = training.inputs / np.float32(255), training.labels.astype(np.int64)
    count, held_out = network.examples, len(x) - network.validation
    return x[:count], y[:count], x[held_out:], y[held_out:]


def jax(network: Network) -> Epoch:
    """Compile a whole epoch into one function."""
    import jax
    from jax import numpy as jnp

    x, y, held_out_x, held_out_y = map(jnp.asarray, digits(network))
    rng = np.random.default_rng(0)
    parameters = [
        (jnp.asarray(rng.normal(0, (2 / m) ** 0.5, (m, n)), jnp.float32), jnp.zeros(n))
        for m, n in itertools.pairwise(network.sizes)
    ]
    keys = (jax.random.PRNGKey(i) for i in itertools.count())
    function = jax.nn.relu if network.activation == "relu" else jax.nn.sigmoid

    def logits(parameters: Any, a: Any) -> Any:
        for w, b in parameters[:-1]:
            a = function(a @ w + b)
        w, b = parameters[-1]
        return a @ w + b

    def loss(parameters: Any, a: Any, labels: Any) -> Any:
        log_p = jax.nn.log_softmax(logits(parameters, a))
        return -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()

    @jax.jit
    def train(parameters: Any, x: Any, y: Any, order: Any) -> Any:
        def step(parameters: Any, chosen: Any) -> Any:
            gradient = jax.grad(loss)(parameters, x[chosen], y[chosen])
            return jax.tree.map(lambda p, g: p - network.rate * g, parameters, gradient), None

        return jax.lax.scan(step, parameters, order)[0]

    @jax.jit
    def accuracy(parameters: Any, x: Any, y: Any) -> Any:
        return (logits(parameters, x).argmax(axis=1) == y).mean()

    def epoch() -> float | None:
        nonlocal parameters
        order = jax.random.permutation(next(keys), len(x))
        order = order[: len(x) // network.batch * network.batch].reshape(-1, network.batch)
        parameters = jax.block_until_ready(train(parameters, x, y, order))
        return float(accuracy(parameters, held_out_x, held_out_y)) if network.validation else None

    return epoch


def torch(network: Network) -> Epoch:
    """Train step by step, as in a PyTorch tutorial."""
    import torch
    from torch import nn

    x, y, held_out_x, held_out_y = map(torch.from_numpy, digits(network))
    modules: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(network.sizes):
        function = nn.ReLU() if network.activation == "relu" else nn.Sigmoid()
        modules += [nn.Linear(fan_in, fan_out), function]
    model = nn.Sequential(*modules[:-1])
    optimizer = torch.optim.SGD(model.parameters(), lr=network.rate)
    loss = nn.CrossEntropyLoss()

    def epoch() -> float | None:
        for chosen in torch.randperm(len(x)).split(network.batch):
            optimizer.zero_grad(set_to_none=True)
            loss(model(x[chosen]), y[chosen]).backward()
            optimizer.step()
        if not network.validation:
            return None
        with torch.no_grad():
            return float((model(held_out_x).argmax(1) == held_out_y).float().mean())

    return epoch


def sklearn(network: Network) -> Epoch:
    """Fit an MLPClassifier, one epoch per call."""
    from sklearn.neural_network import MLPClassifier

    x, y, held_out_x, held_out_y = digits(network)
    model = MLPClassifier(
        network.sizes[1:-1],
        activation="relu" if network.activation == "relu" else "logistic",
        solver="sgd",
        momentum=0,
        alpha=0,
        batch_size=network.batch,
        learning_rate_init=network.rate,
        max_iter=1,
        warm_start=True,
    )
    warnings.simplefilter("ignore")  # scikit-learn warns that one epoch has not converged

    def epoch() -> float | None:
        model.fit(x, y)
        return float(model.score(held_out_x, held_out_y)) if network.validation else None

    return epoch


OTHERS: dict[str, Callable[[Network], Epoch]] = {
    program.__name__: program for program in (floor, jax, torch, sklearn)
}


def programs() -> list[str]:
    """Return "nnctl", "floor" and the names of the installed libraries."""
    others = [name for name in OTHERS if name == "floor" or importlib.util.find_spec(name)]
    return ["nnctl", *others]


def run(*arguments: str | Path) -> Process:
    """Run Python with these arguments and measure it; raise an error if it fails."""
    command, megabytes = [sys.executable, *arguments], None
    started = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        output = process.stdout.read()
        if sys.platform != "win32":
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            megabytes = usage.ru_maxrss / (1e6 if sys.platform == "darwin" else 1e6 / 1024)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, output)
    return Process(output, seconds, megabytes)


def run_nnctl(network: Network, epochs: int, *start: str) -> Measurement:
    """Train with nnctl; `start` are the Python arguments that start it."""
    layers = [{"units": units, "activation": network.activation} for units in network.sizes[1:-1]]
    config = {
        "data": {
            "validation": network.validation,
            "subset": network.examples,
            "selection": "first",
        },
        "network": {"layers": [*layers, {"units": 10, "activation": "softmax"}]},
        "optimizer": {
            "learning_rate": network.rate,
            "momentum": network.momentum,
            "weight_decay": network.weight_decay,
        },
        "training": {"epochs": epochs, "batch_size": network.batch},
    }
    with tempfile.TemporaryDirectory() as folder:
        path, directory = Path(folder) / "bench.yaml", Path(folder) / "run"
        path.write_text(json.dumps(config), encoding="utf-8")
        process = run(*start, "train", path, "--run-dir", directory, "-q")
        metrics = directory / "metrics.jsonl"
        lines = metrics.read_text("utf-8").splitlines() if metrics.exists() else []
    rows = [json.loads(line) for line in lines]
    accuracy = rows[-1]["val_accuracy"] if rows else None
    return Measurement([row["seconds"] for row in rows], accuracy, process)


def measure(program: str, network: Network, epochs: int) -> Measurement:
    """Train with one of the programs and measure it."""
    if program == "nnctl":
        return run_nnctl(network, epochs, "-m", "nnctl")
    process = run("-m", __name__, program, json.dumps(network), str(epochs))
    rows = [json.loads(line) for line in process.output.splitlines()]
    return Measurement([seconds for seconds, _ in rows], rows[-1][1], process)


def seconds_to_first_step(network: Network) -> float:
    """Return the seconds from the start of the nnctl process to its first training step."""
    return run_nnctl(network, 1, "-c", FIRST_STEP).process.seconds


def format_range(values: Sequence[float], form: str = ".3f") -> str:
    """Return the median, the minimum and the maximum as text."""
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def main() -> None:
    """Train with another library, and print the seconds and the accuracy of each epoch."""
    program, network, epochs = sys.argv[1:]
    epoch = OTHERS[program](Network(*json.loads(network)))
    for _ in range(int(epochs)):
        started = time.perf_counter()
        accuracy = epoch()
        print(json.dumps([time.perf_counter() - started, accuracy]))


if __name__ == "__main__":
    main()
