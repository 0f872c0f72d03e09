"""Checkpoints with random damage, or with a correct checksum of wrong content."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.errors import DataError, NnctlError
from nnctl.runs.checkpoint import load_checkpoint
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun
from tests.runs.helpers import MINI
from tests.torture.conftest import Torture
from tests.torture.hostile import (
    KEPT_RUN,
    PATIENCE,
    SLOW,
    changed,
    flipped,
    mutated,
    read_checkpoint,
    run_command,
    write_checkpoint,
)

pytestmark = PATIENCE

WHOLE = (KEPT_RUN / "last.npz").read_bytes()
MEMBERS = read_checkpoint(KEPT_RUN / "last.npz")
STATE: dict[str, Any] = MEMBERS["state"]
IMAGES = KEPT_RUN.parents[2] / "nnctl" / "data" / "mini" / "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoints the tests replace."""
    return Path(shutil.copytree(KEPT_RUN, tmp_path_factory.mktemp("runs") / "run"))


def use_all_ways(directory: Path, *, train: bool) -> None:
    """Use the last checkpoint of a run as the commands do; training is the slowest part."""
    run = Run.open(directory)
    with contextlib.suppress(NnctlError):
        run.network("last")
    with contextlib.suppress(NnctlError):
        training = TrainingRun.resume(run, MINI, epochs=3)
        try:
            for _ in training.events(lambda: False) if train else ():
                pass
        finally:
            training.lock.unlock()


def commands(directory: Path) -> list[tuple[object, ...]]:
    """Return every command that reads the last checkpoint of a run."""
    which = ("--checkpoint", "last")
    return [
        ("eval", directory, *which),
        ("eval", directory, *which, "--split", "validation"),
        ("predict", directory, IMAGES, *which),
        ("export", directory, "--format", "safetensors", *which),
        ("check", directory),
        ("report", directory, "-o", directory.parent / "report.html"),
        ("train", "--resume", directory, "--epochs", 3, "--quiet"),
    ]


def meaning(path: Path) -> tuple[object, ...]:
    """Return the content of a checkpoint."""
    loaded = load_checkpoint(path)
    return (
        *(loaded.parameters.tobytes(), loaded.optimizer_state.tobytes(), loaded.progress),
        *(loaded.config, loaded.dataset, loaded.seconds),
    )


def test_a_flipped_bit_is_reported_or_changes_nothing(torture: Torture, run: Path) -> None:
    path, random = run / "last.npz", torture.random("bits of a checkpoint")
    right = meaning(KEPT_RUN / "last.npz")
    noticed = 0
    cases = torture.cases(100, full=5_000)
    for _ in range(cases):
        path.write_bytes(flipped(WHOLE, random))
        try:
            assert right == meaning(path)
        except DataError:
            noticed += 1
    torture.tried("a flipped bit of a checkpoint, read", cases)
    assert noticed > 0.9 * cases


def test_no_command_uses_a_checkpoint_with_a_flipped_bit(torture: Torture, run: Path) -> None:
    path, random = run / "last.npz", torture.random("bits and commands")
    begin = WHOLE.index(MEMBERS["parameters"].tobytes())
    for _ in range(torture.cases(1, full=20)):
        end = begin + MEMBERS["parameters"].nbytes
        path.write_bytes(flipped(WHOLE, random, begin, end))
        shutil.copy(path, run / "best.npz")
        for command in commands(run):
            assert "is damaged" in run_command(*command, codes=[3]).output, command
            torture.tried("a flipped bit of a checkpoint, by command")
    shutil.copy(KEPT_RUN / "best.npz", run / "best.npz")


@given(content=mutated(WHOLE))
def test_changed_bytes_are_reported_or_change_nothing(
    torture: Torture, run: Path, content: bytes
) -> None:
    path = run / "last.npz"
    path.write_bytes(content)
    torture.tried("changed bytes of a checkpoint, read")
    with contextlib.suppress(DataError):
        assert meaning(KEPT_RUN / "last.npz") == meaning(path)


@SLOW
@given(state=changed(STATE), trained=st.integers(0, 4))
def test_a_crafted_state_is_used_or_rejected(
    torture: Torture, run: Path, state: Any, trained: int
) -> None:
    write_checkpoint(run / "last.npz", MEMBERS | {"state": state})
    shutil.copy(KEPT_RUN / "metrics.jsonl", run / "metrics.jsonl")
    shutil.copy(KEPT_RUN / "config.yaml", run / "config.yaml")
    torture.tried("a crafted state, used")
    try:
        load_checkpoint(run / "last.npz")
    except NnctlError:
        return
    use_all_ways(run, train=not trained)
