"""Checkpoints with random damage, or with a right checksum over wrong content."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnctl.errors import DataError, NnctlError
from nnctl.runs.checkpoint import load_checkpoint
from nnctl.runs.directory import Run
from nnctl.runs.training import TrainingRun
from tests.runs.helpers import ignore
from tests.torture.conftest import Torture
from tests.torture.hostile import (
    KEPT_RUN,
    PATIENCE,
    SLOW,
    changed,
    flipped,
    mutated,
    npy,
    peak,
    read_checkpoint,
    replaced_at,
    reset_peak,
    run_command,
    some_of,
    write_checkpoint,
    write_members,
)

pytestmark = PATIENCE

WHOLE = (KEPT_RUN / "last.npz").read_bytes()
MEMBERS = read_checkpoint(KEPT_RUN / "last.npz")
STATE: dict[str, Any] = MEMBERS["state"]
IMAGES = KEPT_RUN.parents[2] / "nnctl" / "data" / "mini" / "t10k-images-idx3-ubyte.gz"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose checkpoints are replaced again and again."""
    return Path(shutil.copytree(KEPT_RUN, tmp_path_factory.mktemp("runs") / "run"))


def use_all_ways(directory: Path, *, train: bool) -> None:
    """Use the last checkpoint of a run as the commands do; training takes the longest."""
    run = Run.open(directory)
    with contextlib.suppress(NnctlError):
        run.network("last")
    with contextlib.suppress(NnctlError):
        training = TrainingRun.resume(run, epochs=3, notify=ignore)
        try:
            for _ in training.events(lambda: False) if train else ():
                pass
        finally:
            training._lock.unlock()


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
        *(loaded.parameters.tobytes(), loaded.velocity.tobytes(), loaded.progress),
        *(loaded.config, loaded.dataset, loaded.seconds),
    )


def test_a_flipped_bit_is_damage_or_changes_nothing(torture: Torture, run: Path) -> None:
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
def test_changed_bytes_are_damage_or_change_nothing(
    torture: Torture, run: Path, content: bytes
) -> None:
    path = run / "last.npz"
    path.write_bytes(content)
    torture.tried("changed bytes of a checkpoint, read")
    with contextlib.suppress(DataError):
        assert meaning(KEPT_RUN / "last.npz") == meaning(path)


@SLOW
@given(state=changed(STATE), trained=st.integers(0, 4))
def test_a_state_made_by_hand_is_used_or_refused(
    torture: Torture, run: Path, state: Any, trained: int
) -> None:
    write_checkpoint(run / "last.npz", MEMBERS | {"state": state})
    shutil.copy(KEPT_RUN / "metrics.jsonl", run / "metrics.jsonl")
    shutil.copy(KEPT_RUN / "config.yaml", run / "config.yaml")
    torture.tried("a state made by hand, used")
    try:
        load_checkpoint(run / "last.npz")
    except NnctlError:
        return
    use_all_ways(run, train=not trained)


def other(*path: str, value: Any) -> Any:
    """Return the state of a checkpoint with one value replaced."""
    return replaced_at({**STATE, "x": None}, path, lambda _: value)


HUGE_NETWORK = {
    "network": {
        "layers": [
            {"units": 10**5, "activation": "relu"},
            {"units": 10**5, "activation": "softmax"},
        ]
    },
    "optimizer": {"learning_rate": 0.1},
}
NO_GENERATOR = {
    "bit_generator": "PCG64",
    "state": {"state": 2**128, "inc": -1},
    "has_uint32": 2,
    "uinteger": 2**32,
}
VALUES: dict[tuple[str, ...], list[Any]] = {
    ("format_version",): ["1", None, 1e400, -1, 0, 2, True, 1.5, [1], "\x1b[2J" * 100],
    ("progress",): [None, [], {}],
    ("progress", "epoch"): [-1, 1.5, "1", None, 10**30, True],
    ("progress", "batch"): [-1, 10**15, 0.5],
    ("progress", "correct"): [-1, 10**15],
    ("progress", "loss_sum"): [float("nan"), 1e400, "0"],
    ("progress", "patience_used"): [-1, "0"],
    ("progress", "best"): [
        *({}, [], {"epoch": 1}, {"epoch": 1, "x": 1}),
        {"epoch": 1, "val_accuracy": None, "val_loss": None},
        {"epoch": 1, "val_accuracy": 0.5, "val_loss": None},
        {"epoch": 1, "val_accuracy": 7, "val_loss": 1},
    ],
    ("progress", "shuffling"): [None, {}, [], {"bit_generator": "MT19937"}, NO_GENERATOR],
    ("config",): [{}, [], HUGE_NETWORK],
    ("config", "data", "validation"): ["auto", 5000, 9000],
    ("config", "training", "epochs"): ["auto"],
    ("config", "training", "threads"): ["auto"],
    ("dataset", "name"): [None, "", "\x00", "../x", "\ud800", "xor", ["mini"]],
    ("dataset", "pixels"): [0, -1, 10**15, "784", 785, True],
    ("dataset", "hashes"): [None, [], {"x": 1}, {}],
    ("dataset", "training"): [-1, 0, "x"],
    ("dataset", "validation"): [-1, "x"],
    ("x",): [json.loads("[" * 900 + "]" * 900)],
}
STATES: dict[str, Any] = {
    "not JSON": "{",
    "deep": "[" * 100_000,
    "a list": [],
    "a new key": {**STATE, "progress": {**STATE["progress"], "new": 1}},
    **{
        f"{'.'.join(path)} {number}": other(*path, value=value)
        for path, values in VALUES.items()
        for number, value in enumerate(values)
    },
}
"""States in which no training can be, by name."""


def test_every_command_refuses_a_hostile_state(torture: Torture, run: Path) -> None:
    random = torture.random("commands")
    for name in some_of(torture, [*STATES], 2):
        write_checkpoint(run / "last.npz", MEMBERS | {"state": STATES[name]})
        for command in random.sample(commands(run), 2):
            shutil.copy(KEPT_RUN / "metrics.jsonl", run / "metrics.jsonl")
            shutil.copy(KEPT_RUN / "config.yaml", run / "config.yaml")
            run_command(*command)
            torture.tried("a hostile state, by command")


def test_every_command_refuses_hostile_members(torture: Torture, run: Path) -> None:
    path, parameters = run / "last.npz", MEMBERS["parameters"]
    whole = {name: npy(np.asarray(MEMBERS[name])) for name in ("parameters", "velocity", "digest")}
    whole["state"] = npy(np.array(json.dumps(STATE)))
    members = [(f"{name}.npy", content) for name, content in whole.items()]
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
    liar = (header % b"250000000000000").ljust(127) + b"\n"
    packed = {
        "records": [("parameters.npy", npy(np.zeros(1600, [("x", "<f4")]))), *members[1:]],
        "a matrix": [("parameters.npy", npy(parameters.reshape(40, 40))), *members[1:]],
        "fewer": [("parameters.npy", npy(parameters[:-1])), *members[1:]],
        "a parent's name": [("../parameters.npy", whole["parameters"]), *members[1:]],
        "an absolute name": [("/parameters.npy", whole["parameters"]), *members[1:]],
        "a member twice": [*members, members[0]],
        "a member of another name": [*members, ("x.npy", b"")],
        "a member too few": members[1:],
        "an enormous shape": [("parameters.npy", liar), *members[1:]],
        "no array": [("parameters.npy", b"x"), *members[1:]],
    }
    for name in some_of(torture, [*packed], 1):
        write_members(path, packed[name])
        for command in commands(run):
            output = run_command(*command).output
            assert "damaged" in output or command[0] == "report", (name, command, output)
            torture.tried("hostile members of a checkpoint, by command")
        assert not (run.parent / "parameters.npy").exists()
    write_checkpoint(path, MEMBERS)


def test_a_file_of_100_gb_is_not_read(torture: Torture, tmp_path: Path) -> None:
    path, before = tmp_path / "last.npz", reset_peak()
    with path.open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(DataError):
        load_checkpoint(path)
    assert peak() - before < 10**9
    torture.tried("a bomb in a checkpoint")
