"""Compare presets with the same training in PyTorch: total time, and time to reach an accuracy.

    python -m tests.benchmarks.presets [--rounds 3] [fast plain invariant]

Both programs read layers, optimizer, schedule, label smoothing, weight averaging and adversarial
distance from the file of the preset, and use the same validation images. The preset `best` is not
compared, because this PyTorch program has no augmentation. The programs take turns, each in its own
process.
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

from tests.benchmarks.programs import Network, digits, format_range

CONFIGS = Path(__file__).parents[2] / "configs"
PRESETS = ("fast", "plain", "invariant")


class Timeline(NamedTuple):
    """Seconds since the start of the process, and validation accuracy, after each epoch."""

    epochs: list[tuple[float, float]]
    seconds: float  # of the whole process

    @property
    def best(self) -> float:
        """Highest validation accuracy."""
        return max(accuracy for _, accuracy in self.epochs)

    def seconds_to(self, accuracy: float) -> float:
        """Return the seconds until the end of the first epoch with at least this accuracy."""
        return next(seconds for seconds, reached in self.epochs if reached >= accuracy)


def train_in_torch(name: str, seed: int) -> Iterator[float]:
    """Train a preset with PyTorch, step by step; yield the validation accuracy of each epoch."""
    import torch
    from torch import nn
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    from nnctl.runs.resolve import load_config

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
            elapsed = epoch + (step + 0.5) / steps
            rate = optimizer_config.learning_rate * optimizer_config.schedule.factor(
                elapsed, training.epochs
            )
            optimizer.param_groups[0]["lr"] = rate
            inputs = x[chosen]
            if training.adversarial:
                inputs.requires_grad_()
                (direction,) = torch.autograd.grad(loss(model(inputs), y[chosen]), inputs)
                direction *= training.adversarial / (direction.norm(dim=1, keepdim=True) + 1e-20)
                inputs = (inputs + direction).detach()
            optimizer.zero_grad(set_to_none=True)
            loss(model(inputs), y[chosen]).backward()
            with torch.no_grad():
                for weight in weights:
                    weight *= 1 - rate * optimizer_config.weight_decay
            optimizer.step()
            if average:
                average.update_parameters(model)
        with torch.no_grad():
            evaluated = (average or model).eval()
            yield float((evaluated(held_out_x).argmax(1) == held_out_y).float().mean())
        model.train()


def run_with_times(*arguments: object) -> tuple[list[tuple[float, str]], float]:
    """Run Python; return its lines on stderr with their times, and the total time, in seconds."""
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


def nnctl(name: str, seed: int) -> Timeline:
    """Train a preset with nnctl."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        preset = CONFIGS / f"{name}.yaml"
        lines, seconds = run_with_times(
            "-m", "nnctl", "train", preset, "--seed", seed, "--run-dir", run
        )
        rows = (run / "metrics.jsonl").read_text("utf-8").splitlines()
    # A line that begins with a number is an epoch; "*" marks the best so far.
    times = [when for when, line in lines if line.strip(" *")[:1].isdigit()]
    accuracies = [json.loads(row)["val_accuracy"] for row in rows]
    return Timeline(list(zip(times, accuracies, strict=True)), seconds)


def torch(name: str, seed: int) -> Timeline:
    """Train a preset with PyTorch."""
    lines, seconds = run_with_times(
        "-m", "tests.benchmarks.presets", "--torch", name, "--seed", seed
    )
    return Timeline([(when, float(line)) for when, line in lines], seconds)


PROGRAMS: tuple[Callable[[str, int], Timeline], ...] = (nnctl, torch)


def main() -> None:
    """Compare presets and print a table; or train one preset with PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("presets", nargs="*", default=PRESETS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--torch", metavar="PRESET", help="only train this preset, with PyTorch")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.torch:
        for accuracy in train_in_torch(options.torch, options.seed):
            print(accuracy, file=sys.stderr, flush=True)
        return
    print("| preset | program | total, s | best validation accuracy | s to the lower best |")
    print("|---|---|---|---|---|")
    for preset in options.presets:
        rounds = [[program(preset, seed) for program in PROGRAMS] for seed in range(options.rounds)]
        goals = [min(run.best for run in runs) for runs in rounds]
        for i, program in enumerate(PROGRAMS):
            own = [runs[i] for runs in rounds]
            to_goal = [run.seconds_to(goal) for run, goal in zip(own, goals, strict=True)]
            seconds = format_range([run.seconds for run in own], ".1f")
            best = statistics.mean(run.best for run in own)
            print(f"| {preset} | {program.__name__} | {seconds} | {best:.4f} | ", end="")
            print(f"{format_range(to_goal, '.1f')} |", flush=True)


if __name__ == "__main__":
    main()
