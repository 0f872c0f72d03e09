"""Compare the time of a sweep with one worker, with two, and of scikit-learn's grid search.

    python -m tests.benchmarks.sweeps --rounds 3

The sweep has sixteen trials on MNIST: 784-30-10 and 784-100-10, with batches of 10 and eight
learning rates. `GridSearchCV(n_jobs=2)` trains the same sixteen `MLPClassifier`s, evaluated on the
same 10,000 validation images. The programs take turns, and whole processes are measured. Then a
sweep with many tiny trials shows the CPU time and the memory of the parent process.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.benchmarks.programs import format_range, run

RATES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0]
UNITS = [30, 100]
BATCH = 10
VALIDATION = 10_000
OUTPUT = {"units": 10, "activation": "softmax"}

MEASURE_PARENT = """
import resource, sys, time
from nnctl.cli import main
started = time.perf_counter()
try: main()
except SystemExit as end: assert not end.code, end
own = resource.getrusage(resource.RUSAGE_SELF)
print(own.ru_utime + own.ru_stime, time.perf_counter() - started, own.ru_maxrss)
"""
"""Source of a program that runs nnctl, then prints its own CPU time, wall time and memory."""


def sweep(epochs: int, workers: int) -> float:
    configuration = {
        "data": {"validation": VALIDATION},
        "network": {"layers": [{"units": 30, "activation": "sigmoid"}, OUTPUT]},
        "optimizer": {"learning_rate": 0.1},
        "training": {"epochs": epochs, "batch_size": BATCH},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.yaml"
        path.write_text(json.dumps(configuration), encoding="utf-8")
        varied = [
            "-p", f"network.layers.0.units={','.join(map(str, UNITS))}",
            "-p", f"optimizer.learning_rate={','.join(map(str, RATES))}",
        ]  # fmt: skip
        options = ["--sweep-dir", str(Path(folder) / "sweep"), "--workers", str(workers)]
        process = run("-m", "nnctl", "sweep", path, *varied, *options, "-q", "--json")
    assert len(process.output.splitlines()) == len(RATES) * len(UNITS)
    return process.seconds


def grid_search(epochs: int) -> None:
    """Search the same grid with scikit-learn."""
    import warnings

    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    from nnctl.data.dataset import open_dataset

    warnings.simplefilter("ignore")  # scikit-learn warns that a few epochs have not converged
    training = open_dataset("mnist", notify=lambda _: None).training
    fold = np.full(len(training), -1)
    fold[-VALIDATION:] = 0
    model = MLPClassifier(
        activation="logistic",
        solver="sgd",
        momentum=0,
        alpha=0,
        batch_size=BATCH,
        max_iter=epochs,
        random_state=0,
    )
    grid = {"hidden_layer_sizes": [(units,) for units in UNITS], "learning_rate_init": RATES}
    search = GridSearchCV(model, grid, n_jobs=2, cv=PredefinedSplit(fold), refit=False)
    search.fit(training.inputs / np.float32(255), training.labels)
    assert len(search.cv_results_["params"]) == len(RATES) * len(UNITS)


def measure_parent(trials: int) -> tuple[float, float, float]:
    """Run tiny trials; return CPU seconds, wall seconds and megabytes of the parent process."""
    configuration = {
        "data": {"dataset": "mini", "validation": 500},
        "network": {"layers": [OUTPUT]},
        "optimizer": {"learning_rate": 0.1},
        "training": {"epochs": 1, "batch_size": 10},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "tiny.yaml"
        path.write_text(json.dumps(configuration), encoding="utf-8")
        seeds = ",".join(map(str, range(trials)))
        options = ["--sweep-dir", str(Path(folder) / "sweep"), "-q", "--json"]
        process = run("-c", MEASURE_PARENT, "sweep", path, "-p", f"training.seed={seeds}", *options)
    *rows, figures = process.output.splitlines()
    assert len(rows) == trials
    processor, wall, kilobytes = map(float, figures.split())
    return processor, wall, kilobytes / 1000


def main() -> None:
    """Run the sweeps and print their times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5000, help="number of tiny trials; 0: none")
    parser.add_argument("--grid-search", action="store_true", help="only run scikit-learn, once")
    options = parser.parse_args()
    epochs = options.epochs
    if options.grid_search:
        grid_search(epochs)
        return
    search = ("-m", "tests.benchmarks.sweeps", "--grid-search", "--epochs", str(epochs))
    programs: dict[str, Callable[[], float]] = {
        "one worker": lambda: sweep(epochs, 1),
        "two workers": lambda: sweep(epochs, 2),
    }
    if importlib.util.find_spec("sklearn"):
        programs["GridSearchCV(n_jobs=2)"] = lambda: run(*search).seconds
    seconds_of: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            seconds_of[name].append(program())
    print(f"{len(RATES) * len(UNITS)} trials of {epochs} epochs, seconds per process:")
    for name, seconds in seconds_of.items() if options.rounds else ():
        ratios = np.array(seconds) / np.array(seconds_of["two workers"])
        ratio = format_range(list(ratios), ".2f")
        print(f"  {name:24} {format_range(seconds, '.1f'):24} ratio {ratio}")
    if options.trials and sys.platform != "win32":
        processor, wall, megabytes = measure_parent(options.trials)
        print(
            f"{options.trials:,} tiny trials: {wall:.0f} s; the parent process used "
            f"{processor:.1f} s of CPU time ({processor / wall:.1%}) and {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
