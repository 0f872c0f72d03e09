"""Threads and memory that a training uses and that the machine has."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
import threadpoolctl

from nnctl import system
from nnctl.build import choose_threads
from nnctl.config import Override, from_mapping, replaced
from nnctl.data.dataset import dataset_info
from nnctl.errors import ConfigError
from nnctl.runs import training_run
from nnctl.runs.memory import memory_needed
from nnctl.runs.resolve import load_config
from nnctl.system import cores, memory_there
from tests.conftest import CONFIGS
from tests.runs.helpers import SMALL, begin


def test_a_large_step_uses_all_cores() -> None:
    def threads(units: int, batch_size: int) -> int:
        layers = [{"units": units, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
        config = {
            "network": {"layers": layers},
            "optimizer": {"learning_rate": 0.1},
            "training": {"batch_size": batch_size},
        }
        return choose_threads(from_mapping(config, "test"), 784)

    assert threads(1024, 64) == min(cores(), 2)
    assert threads(512, 1024) == min(cores(), 32)
    assert [threads(100, 32), threads(30, 10), threads(4096, 1)] == [1, 1, 1]


def blas_threads() -> list[int]:
    """Return the number of threads of each BLAS in this process."""
    return [
        library["num_threads"]
        for library in threadpoolctl.threadpool_info()
        if library["user_api"] == "blas"
    ]


def test_the_blas_has_one_thread_during_a_training_but_not_while_the_caller_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, training = blas_threads(), begin(tmp_path / "run")
    while_training = list[int]()
    monkeypatch.setattr(
        training_run, "save_checkpoint", lambda *_: while_training.extend(blas_threads())
    )
    for _ in training.events(lambda: False):
        assert before == blas_threads()
    assert set(while_training) == {1}


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for control groups; this process belongs to ``/job/step``."""
    own = tmp_path / "own"
    own.write_text(
        "3:cpu,cpuacct:/job/step\n2:memory:/job/step\n1:pids:/elsewhere\n0::/job/step\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(system, "_OWN_GROUPS", own)
    monkeypatch.setattr(system, "_GROUPS", tmp_path / "groups")
    return tmp_path / "groups"


@pytest.mark.parametrize(
    "file",
    [
        *("memory.max", "job/memory.max", "job/step/memory.max"),
        *("memory/memory.limit_in_bytes", "memory/job/step/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_container_is_the_memory(groups: Path, file: str) -> None:
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text("300000000\n", encoding="utf-8")
    assert memory_there() == 300_000_000


@pytest.mark.parametrize("limit", ["max\n", "9223372036854771712\n", ""])
def test_without_a_limit_the_memory_of_the_machine_counts(groups: Path, limit: str) -> None:
    assert psutil.virtual_memory().total == memory_there()
    groups.mkdir()
    (groups / "memory.max").write_text(limit, encoding="utf-8")
    assert psutil.virtual_memory().total == memory_there()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"job/cpu.max": "150000 100000\n", "job/step/cpu.max": "max 100000\n"}, 2),
        ({"cpu.max": "1000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, 8),
        ({"cpu.max": "6400000 100000\n"}, 8),
        ({"cpu.max": "nonsense"}, 8),
        (
            {
                "cpu,cpuacct/job/cpu.cfs_quota_us": "300000\n",
                "cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
            },
            3,
        ),
        (
            {
                "cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "cpu,cpuacct/cpu.cfs_period_us": "100000\n",
            },
            8,
        ),
    ],
)
def test_the_limit_of_a_container_is_the_number_of_cores(
    groups: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], expected: int
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text, encoding="utf-8")
    assert cores() == expected


def test_a_network_that_a_container_cannot_hold_is_refused(groups: Path) -> None:
    groups.mkdir()
    (groups / "memory.max").write_text("600000000\n", encoding="utf-8")
    wide = {"network.layers.0.units": 10_000, "training.batch_size": 5000}
    overrides = [Override(key, value, f"--set {key}={value}") for key, value in wide.items()]
    with pytest.raises(ConfigError, match=r"and this machine has 0\.6 GB; use .* a smaller batch"):
        load_config(CONFIGS / "smoke.yaml", overrides)
    load_config(CONFIGS / "smoke.yaml", overrides[:1])


def test_larger_batches_more_validation_examples_and_a_state_need_memory() -> None:
    def needed(key: str = "", value: object = None, held_out: int = 500) -> int:
        config = replaced(from_mapping(SMALL, "test"), {key: value} if key else {})
        return memory_needed(config, dataset_info("mini"), held_out)

    assert needed("training.batch_size", 1000) > needed()
    assert needed("training.average", 0.99) > needed()
    assert needed(held_out=2000) > needed()
