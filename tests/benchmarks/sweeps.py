"""How fast a sweep is: two workers compared with one, and scikit-learn's grid search.

    python -m tests.benchmarks.sweeps --rounds 3

Sixteen trials on MNIST, 784-30-10 and 784-100-10 in batches of 10 with eight learning rates, and
the same sixteen `MLPClassifier`s by `GridSearchCV(n_jobs=2)`, judged by the same 10,000 validation
images. The programs take turns; each is a whole process. Then a sweep of many tiny trials: the
CPU time and the memory of the parent process.
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

from tests.benchmarks.programs import run, spread

RATES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0]
UNITS = [30, 100]
BATCH = 10
VALIDATION = 10_000
OUTPUT = {"units": 10, "activation": "softmax"}

CONDUCT = """
import resource, sys, time
from nnctl.cli import main
started = time.perf_counter()
try: main()
except SystemExit as end: assert not end.code, end
own = resource.getrusage(resource.RUSAGE_SELF)
print(own.ru_utime + own.ru_stime, time.perf_counter() - started, own.ru_maxrss)
"""
"""The command nnctl; afterwards it prints its own processor time, its wall time and its memory."""


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
        where = ["--sweep-dir", str(Path(folder) / "sweep"), "--workers", str(workers)]
        process = run("-m", "nnctl", "sweep", path, *varied, *where, "-q", "--json")
    assert len(process.output.splitlines()) == len(RATES) * len(UNITS)
    return process.seconds


def grid_search(epochs: int) -> None:
    """Search the same grid with scikit-learn."""
    import warnings

    from sklearn.model_selection import GridSearchCV, PredefinedSplit
    from sklearn.neural_network import MLPClassifier

    from nnctl.data.dataset import open_dataset

    warnings.simplefilter("ignore")  # it has not converged after a few epochs
    images, labels = open_dataset("mnist", notify=lambda _: None).training
    fold = np.full(len(labels), -1)
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
    search.fit(images / np.float32(255), labels)
    assert len(search.cv_results_["params"]) == len(RATES) * len(UNITS)


def conduct(trials: int) -> tuple[float, float, float]:
    """Return CPU seconds, wall seconds and megabytes of the parent of many tiny trials."""
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
        where = ["--sweep-dir", str(Path(folder) / "sweep"), "-q", "--json"]
        process = run("-c", CONDUCT, "sweep", path, "-p", f"training.seed={seeds}", *where)
    *rows, figures = process.output.splitlines()
    assert len(rows) == trials
    processor, wall, kilobytes = map(float, figures.split())
    return processor, wall, kilobytes / 1000


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--trials", type=int, default=5000, help="tiny ones; 0: none")
    parser.add_argument("--grid-search", action="store_true", help="scikit-learn alone, once")
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
    found: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(options.rounds):
        for name, program in programs.items():
            found[name].append(program())
    print(f"{len(RATES) * len(UNITS)} trials of {epochs} epochs, seconds of a whole process:")
    for name, seconds in found.items() if options.rounds else ():
        ratios = np.array(seconds) / np.array(found["two workers"])
        print(f"  {name:24} {spread(seconds, '.1f'):24} ratio {spread(list(ratios), '.2f')}")
    if options.trials and sys.platform != "win32":
        processor, wall, megabytes = conduct(options.trials)
        print(
            f"{options.trials:,} tiny trials: {wall:.0f} s; the parent took {processor:.1f} s of "
            f"processor time ({processor / wall:.1%}) and {megabytes:.0f} MB"
        )


if __name__ == "__main__":
    main()
