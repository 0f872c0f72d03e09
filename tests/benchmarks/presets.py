"""Time presets and the same recipe in PyTorch: whole processes, and the way to one accuracy.

    python -m tests.benchmarks.presets [--rounds 3] [fast plain invariant]

Both programs take layers, optimizer, schedule, smoothing, mean weights and adversarial distance
from the preset's own file, and look at the same validation images after each epoch. Deformed images
are not in PyTorch, so `best` is not compared. The programs take turns, each in its own process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.benchmarks.programs import Network, digits, spread

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = ("fast", "plain", "invariant")


class Way(NamedTuple):
    """A training: for each epoch, seconds since the process started and validation accuracy."""

    epochs: list[tuple[float, float]]
    seconds: float  # of the whole process

    @property
    def best(self) -> float:
        """The highest accuracy."""
        return max(accuracy for _, accuracy in self.epochs)

    def seconds_to(self, accuracy: float) -> float:
        """Return the seconds to the first epoch that is so accurate."""
        return next(seconds for seconds, reached in self.epochs if reached >= accuracy)


def train_in_torch(name: str, seed: int) -> Iterator[float]:
    """Train a preset step by step, as a tutorial does; yield each epoch's validation accuracy."""
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from nnctl.runs.plan import load_config

    config = load_config(CONFIGS / f"{name}.yaml")
    optimizer_config, training = config.optimizer, config.training
    assert training.epochs != "auto"
    torch.manual_seed(seed)
    x, y, held_out_x, held_out_y = map(
        torch.from_numpy, digits(Network((), 0, "", 0.0, examples=50_000, validation=10_000))
    )
    modules: list[Any] = []
    fan_in = x.shape[1]
    for layer in config.network.layers:
        linear = nn.Linear(fan_in, layer.units)
        nn.init.kaiming_normal_(linear.weight)
        nn.init.zeros_(linear.bias)
        modules += [linear, nn.ReLU()]
        if layer.dropout:
            modules.append(nn.Dropout(layer.dropout))
        fan_in = layer.units
    model = nn.Sequential(*modules[:-1])
    weights = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    average = training.average and AveragedModel(
        model, multi_avg_fn=get_ema_multi_avg_fn(training.average)
    )
    optimizer = torch.optim.SGD(
        model.parameters(), optimizer_config.learning_rate, optimizer_config.momentum
    )
    loss = nn.CrossEntropyLoss(label_smoothing=training.label_smoothing)
    steps = -(-len(x) // training.batch_size)
    for epoch in range(training.epochs):
        for step, chosen in enumerate(torch.randperm(len(x)).split(training.batch_size)):
            passed = epoch + (step + 0.5) / steps
            rate = optimizer_config.learning_rate * optimizer_config.schedule.factor(
                passed, training.epochs
            )
            optimizer.param_groups[0]["lr"] = rate
            inputs = x[chosen]
            if training.adversarial:
                inputs.requires_grad_()
                (uphill,) = torch.autograd.grad(loss(model(inputs), y[chosen]), inputs)
                uphill *= training.adversarial / (uphill.norm(dim=1, keepdim=True) + 1e-20)
                inputs = (inputs + uphill).detach()
            optimizer.zero_grad(set_to_none=True)
            loss(model(inputs), y[chosen]).backward()
            with torch.no_grad():
                for weight in weights:
                    weight *= 1 - rate * optimizer_config.weight_decay
            optimizer.step()
            if average:
                average.update_parameters(model)
        with torch.no_grad():
            looked_at = (average or model).eval()
            yield float((looked_at(held_out_x).argmax(1) == held_out_y).float().mean())
        model.train()


def watch(*arguments: object) -> tuple[list[tuple[float, str]], float]:
    """Run Python; return its lines on stderr with the seconds at which they came, and the end's."""
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr
        lines = [(time.perf_counter() - started, line) for line in process.stderr]
    if process.returncode:
        raise RuntimeError("".join(line for _, line in lines))
    return lines, time.perf_counter() - started


def nnctl(name: str, seed: int) -> Way:
    """Train a preset with the command."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        preset = CONFIGS / f"{name}.yaml"
        lines, seconds = watch("-m", "nnctl", "train", preset, "--seed", seed, "--run-dir", run)
        rows = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    # One line per epoch begins with its number; the best so far are marked.
    times = [when for when, line in lines if line.strip(" *")[:1].isdigit()]
    accuracies = [json.loads(row)["val_accuracy"] for row in rows]
    return Way(list(zip(times, accuracies, strict=True)), seconds)


def torch(name: str, seed: int) -> Way:
    """Train a preset with PyTorch."""
    lines, seconds = watch("-m", "tests.benchmarks.presets", "--torch", name, "--seed", seed)
    return Way([(when, float(line)) for when, line in lines], seconds)


PROGRAMS: tuple[Callable[[str, int], Way], ...] = (nnctl, torch)


def main() -> None:
    """Measure presets, in turns; or train one with PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", metavar="PRESET", help="only train this one, with PyTorch")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    if given.torch:
        for accuracy in train_in_torch(given.torch, given.seed):
            print(accuracy, file=sys.stderr, flush=True)
        return
    print("| preset | program | process, s | best validation accuracy | s to the lower of both |")
    print("|---|---|---|---|---|")
    for preset in given.presets:
        rounds = [[program(preset, seed) for program in PROGRAMS] for seed in range(given.rounds)]
        common = [min(way.best for way in ways) for ways in rounds]
        for i, program in enumerate(PROGRAMS):
            ways = [ways[i] for ways in rounds]
            to = [way.seconds_to(goal) for way, goal in zip(ways, common, strict=True)]
            seconds = spread([way.seconds for way in ways], ".1f")
            best = statistics.mean(way.best for way in ways)
            print(f"| {preset} | {program.__name__} | {seconds} | {best:.4f} | ", end="")
            print(f"{spread(to, '.1f')} |", flush=True)


if __name__ == "__main__":
    main()
