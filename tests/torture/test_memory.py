"""The estimated memory of a training, compared with the peak of its process."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import numpy as np
import pytest

from nnctl.config import from_mapping
from nnctl.data.dataset import dataset_info
from nnctl.runs.memory import memory_needed
from tests.helpers import write_idx
from tests.processes import Processes, end_of
from tests.torture.conftest import Torture

TRAIN = """
import sys
import nnctl.runs.training_run, nnctl.views.download, nnctl.views.training
from nnctl.cli import main

def status_of(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

before = status_of("VmRSS")
try:
    main(["train", *sys.argv[1:], "--quiet"])
except SystemExit as end:
    assert not end.code
print(1024 * (status_of("VmHWM") - before))
"""
"""Trains, and prints the growth of its process in bytes."""

UNCERTAIN = 16e6
"""Bytes of the interpreter and the allocator, which the estimate does not include."""
ELASTIC = {"shift": 2, "rotate": 10, "elastic": {"alpha": 30, "sigma": 4}, "noise": 0.1}
MAXOUT = {"name": "maxout", "pieces": 4}


def shape(
    units: tuple[int, ...],
    batch: int,
    activation: str | dict[str, Any] = "relu",
    dropout: float = 0.0,
    **also: dict[str, Any],
) -> dict[str, Any]:
    """Return a configuration of two steps, with these hidden layers."""
    hidden = [{"units": n, "activation": activation, "dropout": dropout} for n in units]
    return {
        "data": {"dataset": "mini", "validation": 500, "subset": 2 * batch, **also.get("data", {})},
        "network": {
            "layers": [*hidden, {"units": 10, "activation": "softmax"}],
            **also.get("network", {}),
        },
        "loss": "cross_entropy",
        "optimizer": {"learning_rate": 1e-4, **also.get("optimizer", {})},
        "training": {"epochs": 1, "batch_size": batch, "threads": 1, **also.get("training", {})},
    }


MOMENTUM, ADAM = {"learning_rate": 1e-4, "momentum": 0.9}, {"name": "adam"}
TWO = {"threads": 2}
SHAPES: dict[str, dict[str, Any]] = {
    "what backpropagation keeps": shape((500, 500), 2000, "gelu"),
    "dropout": shape((500, 500), 2000, dropout=0.5, network={"input_dropout": 0.2}),
    "adam and a mean": shape((2000, 1000), 50, optimizer=ADAM, training={"average": 0.99}),
    "wide": shape((6000,), 50),
    "deep": shape((600,) * 16, 50),
    "momentum": shape((2000, 1000), 50, optimizer=MOMENTUM),
    "adagrad": shape((2000, 1000), 50, optimizer={"name": "adagrad"}),
    "bounds": shape((2000, 1000), 50, optimizer={"clip_norm": 1.0, "max_norm": 2.0}),
    "a large batch": shape((1000, 1000), 2000),
    "two threads": shape((1000, 1000), 2000, training=TWO),
    "a shorter last batch": shape((500, 500), 1700, "tanh", data={"subset": 3000}),
    "maxout": shape((300, 300), 1000, MAXOUT),
    "prelu": shape((500, 500), 2000, "prelu"),
    "swish": shape((500, 500), 2000, "swish"),
    "softsign": shape((500, 500), 2000, "softsign"),
    "gelu by tanh": shape((500, 500), 2000, {"name": "gelu", "approximate": "tanh"}),
    "validation": shape((4000, 100), 50, data={"validation": 4000}, training=TWO),
    "deformed": shape((100,), 2000, data={"augment": ELASTIC}),
    "large images": shape((20,), 50, data={"dataset": "large", "validation": 100}),
    "large images, moved uphill": shape(
        (20,), 150, data={"dataset": "large", "validation": 100}, training={"adversarial": 1.0}
    ),
    "large images, deformed": shape(
        (20,), 50, data={"dataset": "large", "validation": 100, "augment": ELASTIC}, training=TWO
    ),
}
"""Configurations by name; the first one is always tried."""


@pytest.fixture
def _large_images(torture: Torture, scratch: Path) -> None:
    """Write a folder of images as large as photographs."""
    if not torture.full:
        return
    folder, draw = scratch / "large", np.random.default_rng(0)
    folder.mkdir()
    for count, name in ((400, "train"), (10, "t10k")):
        write_idx(folder / f"{name}-images-idx3-ubyte", draw.integers(0, 256, (count, 160, 160)))
        write_idx(folder / f"{name}-labels-idx1-ubyte", np.arange(count) % 10)


@pytest.mark.skipif(sys.platform != "linux", reason="needs the peak that Linux keeps of a process")
@pytest.mark.usefixtures("_large_images")
def test_a_training_uses_the_estimated_amount_of_memory(
    torture: Torture, scratch: Path, processes: Processes
) -> None:
    shares, wrong = [], []
    for name in [*SHAPES][: torture.cases(1, full=len(SHAPES))]:
        real, needed = measured(name, scratch, processes), estimated(name)
        compared = f"{name}: {real / 1e6:.0f} MB, estimated {needed / 1e6:.0f} MB"
        if not (real <= 1.15 * needed + UNCERTAIN and needed <= 3 * real + UNCERTAIN):
            wrong.append(compared)
        shares.append(real / needed)
    torture.tried("trainings whose peak of memory was compared with the estimate", len(shares))
    torture.tried("% of the estimate was the largest of these peaks", round(100 * max(shares)))
    assert not wrong


def measured(name: str, folder: Path, processes: Processes) -> int:
    """Train one of the shapes, and return the growth of the process in bytes."""
    (folder / "c.yaml").write_text(json.dumps(SHAPES[name]), encoding="utf-8")
    words = [sys.executable, "-c", TRAIN, "c.yaml", "--run-dir", name]
    done = end_of(processes.start(words, stdout=PIPE, stderr=PIPE, encoding="utf-8"))
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


def estimated(name: str) -> int:
    """Return the estimated bytes of one of the shapes."""
    config = from_mapping(SHAPES[name], "test")
    assert config.data.validation != "auto"
    return memory_needed(config, dataset_info(config.data.dataset), config.data.validation)
