"""Checkpoints that somebody damaged, or made by hand with a right checksum over wrong content."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from collections.abc import Callable
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
    forget_peak,
    mutated,
    npy,
    outcome,
    peak,
    read_checkpoint,
    replaced_at,
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
    """A run whose checkpoints are written over, again and again."""
    return Path(shutil.copytree(KEPT_RUN, tmp_path_factory.mktemp("runs") / "run"))


def use_all_ways(directory: Path, *, train: bool) -> None:
    """Do with the last checkpoint of a run what the commands do; the training takes the longest."""
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
    """Return all that a checkpoint says."""
    loaded = load_checkpoint(path)
    return (
        *(loaded.parameters.tobytes(), loaded.velocity.tobytes(), loaded.progress),
        *(loaded.config, loaded.dataset, loaded.seconds),
    )


def test_a_flipped_bit_is_damage_or_changes_nothing(torture: Torture, run: Path) -> None:
    path, random = run / "last.npz", torture.random("bits of a checkpoint")
    said = meaning(KEPT_RUN / "last.npz")
    noticed = 0
    cases = torture.cases(300, full=10_000)
    for _ in range(cases):
        path.write_bytes(flipped(WHOLE, random))
        try:
            assert said == meaning(path)
        except DataError:
            noticed += 1
    torture.tried("a flipped bit of a checkpoint, read", cases)
    assert noticed > 0.9 * cases


def test_no_command_uses_a_checkpoint_with_a_flipped_bit(torture: Torture, run: Path) -> None:
    path, random = run / "last.npz", torture.random("bits and commands")
    begin = WHOLE.index(MEMBERS["parameters"].tobytes())
    for _ in range(torture.cases(1, full=30)):
        end = begin + MEMBERS["parameters"].nbytes
        path.write_bytes(flipped(WHOLE, random, begin, end))
        shutil.copy(path, run / "best.npz")
        for command in commands(run):
            told = outcome(*command, codes=[3])
            assert "is damaged" in told, command
            torture.tried("a flipped bit of a checkpoint, by command")
    shutil.copy(KEPT_RUN / "best.npz", run / "best.npz")


@given(content=mutated(WHOLE))
def test_bytes_that_are_changed_are_damage_or_change_nothing(
    torture: Torture, run: Path, content: bytes
) -> None:
    path = run / "last.npz"
    path.write_bytes(content)
    torture.tried("changed bytes of a checkpoint, read")
    with contextlib.suppress(DataError):
        assert meaning(KEPT_RUN / "last.npz") == meaning(path)


@SLOW
@given(state=changed(STATE), trained=st.integers(0, 4))
def test_a_state_that_was_made_by_hand_ends_in_a_sentence(
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
    """Return the state of a checkpoint with another value somewhere."""
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
"""By name, states that no training was ever in."""


def some(torture: Torture, cases: dict[str, Any], few: int) -> dict[str, Any]:
    """Return all cases, or a few of them that are others by each seed."""
    names = torture.random(*cases).sample([*cases], torture.cases(few, full=len(cases)))
    return {name: cases[name] for name in names}


def test_every_command_refuses_a_hostile_state(torture: Torture, run: Path) -> None:
    random = torture.random("commands")
    for name, state in some(torture, STATES, 2).items():
        write_checkpoint(run / "last.npz", MEMBERS | {"state": state})
        for command in random.sample(commands(run), torture.cases(2, full=3)):
            shutil.copy(KEPT_RUN / "metrics.jsonl", run / "metrics.jsonl")
            shutil.copy(KEPT_RUN / "config.yaml", run / "config.yaml")
            told = outcome(*command, codes=[0, 2, 3])
            assert "\x1b" not in told, name
            torture.tried("a hostile state, by command")


class _Bomb:
    """Pickled, it would make a folder when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def test_every_command_refuses_hostile_members(torture: Torture, run: Path) -> None:
    path, parameters = run / "last.npz", MEMBERS["parameters"]
    whole = {name: npy(np.asarray(MEMBERS[name])) for name in ("parameters", "velocity", "digest")}
    whole["state"] = npy(np.array(json.dumps(STATE)))
    matrix = np.asfortranarray(parameters.reshape(40, 40))
    not_finite = parameters.copy()
    not_finite[3] = np.nan
    arrays = {
        "a pickle": np.array([_Bomb()], object),
        "other bytes": parameters.astype(">f4"),
        "doubles": parameters.astype("<f8"),
        "integers": parameters.astype("<i4"),
        "records": np.zeros(1600, [("x", "<f4")]),
        "a matrix": matrix,
        "a number": np.float32(3),
        "fewer": parameters[:-1],
        "none": parameters[:0],
        "text": np.array("x"),
        "not finite": not_finite,
    }
    packed = {
        name: [(f"{one}.npy", npy(array) if one == "parameters" else whole[one]) for one in whole]
        for name, array in arrays.items()
    }
    members = [(f"{name}.npy", content) for name, content in whole.items()]
    header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }"
    liar = (header % b"250000000000000").ljust(127) + b"\n"
    packed |= {
        "a parent's name": [("../parameters.npy", whole["parameters"]), *members[1:]],
        "an absolute name": [("/parameters.npy", whole["parameters"]), *members[1:]],
        "a member twice": [*members, members[0]],
        "a member of another name": [*members, ("x.npy", b"")],
        "a member too few": members[1:],
        "an enormous shape": [("parameters.npy", liar), *members[1:]],
        "no array": [("parameters.npy", b"x"), *members[1:]],
    }
    here = Path.cwd()
    for name, content in some(torture, packed, 1).items():
        write_members(path, content)
        for command in commands(run):
            told = outcome(*command, codes=[0, 2, 3])
            assert "damaged" in told or command[0] in ("report",), (name, command, told)
            torture.tried("hostile members of a checkpoint, by command")
        assert not (here / "executed").exists()
        assert not (run.parent / "parameters.npy").exists()
    write_checkpoint(path, MEMBERS)


@pytest.mark.skipif(sys.platform == "win32", reason="has no resource usage to compare with")
def test_a_bomb_is_not_unpacked(torture: Torture, tmp_path: Path) -> None:
    path, before = tmp_path / "last.npz", forget_peak()
    zeros = np.zeros(torture.cases(5 * 10**7, full=4 * 10**8), np.float32)
    members = {**MEMBERS, "state": np.array(json.dumps(STATE))}
    np.savez_compressed(path, allow_pickle=False, **(members | {"velocity": zeros[:1000]}))
    with pytest.raises(DataError):
        load_checkpoint(path)
    with path.open("wb") as file:
        file.truncate(10**11)
    with pytest.raises(DataError):
        load_checkpoint(path)
    assert peak() - before < 10**9
    torture.tried("a bomb in a checkpoint", 2)
