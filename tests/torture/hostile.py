"""Generators of hostile files, and a helper that runs a command on them."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from hypothesis import strategies as st

from nnctl.cli import main
from nnctl.runs.checkpoint import _ARRAYS, _digest
from tests.processes import ENVIRONMENT
from tests.torture.conftest import Torture

if sys.platform != "win32":
    import resource

T = TypeVar("T")
PATIENCE = pytest.mark.timeout(3600)
"""For tests of thousands of cases, on a busy machine."""
SLOW = settings(max_examples=settings().max_examples // 5)
"""For properties whose examples take some hundredths of a second."""

KEPT = Path(__file__).parents[1] / "compatibility"
KEPT_RUN, KEPT_SWEEP = KEPT / "run-1", KEPT / "sweep-1"
"""A small run and a small sweep that tests change into hostile ones."""

MOST_BYTES = 10**9
"""Limit in bytes for the memory that a command may use for a file."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**140), 2**140)
    | st.floats()
    | st.sampled_from(["", "1", "auto", "\x00", "\x1b[2J", "\ud800", "../x", "<script>"])
    | st.text(max_size=8),
    lambda nested: (
        st.lists(nested, max_size=3) | st.dictionaries(st.text(max_size=5), nested, max_size=3)
    ),
    max_leaves=6,
)
"""Any JSON value, and the other values that Python's JSON parser accepts."""


def peak() -> int:
    """Return the peak memory of this process in bytes; 0 if it is unknown."""
    if sys.platform == "win32":
        return 0
    with contextlib.suppress(OSError):  # Linux can reset this one
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> int:
    """Reset `peak`, where the system can, and return it."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    return peak()


_CONTROL = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202e]")
REFUSED = (2, 3)
"""Exit codes of a command with invalid input."""


def run_command(
    *arguments: object,
    codes: Collection[int] = (0, *REFUSED),
    env: Mapping[str, str] | None = None,
    stdin: bytes = b"",
) -> Result:
    """Run a command in this process.

    The command must end with one of these exit codes, without a traceback, print no control
    characters, and use less than a gigabyte.
    """
    before = reset_peak()
    words = [*map(str, arguments)]
    done = CliRunner().invoke(main, words, input=stdin, env={**ENVIRONMENT, **(env or {})})
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{arguments}\n{done.output}") from done.exception
    assert done.exit_code in codes, f"{arguments} ended with {done.exit_code}\n{done.output}"
    assert not _CONTROL.search(done.output), done.output
    assert peak() - before < MOST_BYTES, f"{arguments} took {peak() - before:,} bytes"
    return done


def some_of(torture: Torture, cases: Sequence[T], few: int) -> list[T]:
    """Return all cases, or a few of them."""
    if torture.full:
        return list(cases)
    return torture.random(len(cases), few).sample(list(cases), few)


def flipped(content: bytes, random: Random, begin: int = 0, end: int | None = None) -> bytes:
    """Return bytes with one flipped bit at a random position between two positions."""
    result = bytearray(content)
    place = random.randrange(begin, len(content) if end is None else end)
    result[place] ^= 1 << random.randrange(8)
    return bytes(result)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the members of a checkpoint, its state as plain values."""
    with np.load(path) as file:
        members: dict[str, Any] = {name: file[name] for name in file.files}
    return members | {"state": json.loads(str(members["state"]))}


def write_checkpoint(path: Path, members: dict[str, Any]) -> None:
    """Write any members as a checkpoint with a correct checksum."""
    state = members["state"]
    text = state if isinstance(state, str) else json.dumps(state)
    arrays = {name: members[name] for name in _ARRAYS if name in members}
    with path.open("wb") as file:
        np.savez(
            file,
            allow_pickle=True,
            **arrays,
            state=np.array(text),
            digest=np.array(_digest(arrays, text)),
        )


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of all values of a JSON document, nested ones included."""
    paths = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, nested in items:
        paths += leaves(nested, (*path, step))
    return paths


def replaced_at(value: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    """Return a JSON document with one value changed, or removed if it becomes ``...``."""
    step, *rest = path
    new = change(value[step]) if not rest else replaced_at(value[step], rest, change)
    if isinstance(value, list):
        items = [*value[:step], new, *value[step + 1 :]]
        return [item for item in items if item is not ...]
    return {key: one for key, one in {**value, step: new}.items() if one is not ...}


numbers = st.sampled_from([-1, 0, 1, 2, 0.5, 10**6, 2**31, 2**63, 1e99, math.inf])
"""Numbers that often cause errors."""


def _take(new: Any, _: Any) -> Any:
    return new


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document with some values replaced, removed or added."""
    for _ in range(draw(st.integers(1, 3))):
        places = leaves(document)
        if not places:
            break
        place = draw(st.sampled_from(places))
        new = draw(json_values | st.just(...) | numbers)
        document = replaced_at(document, place, functools.partial(_take, new))
        if draw(st.integers(0, 4)) == 0 and isinstance(document, dict):
            document = {**document, draw(st.text(max_size=5)): draw(json_values)}
    return document


@st.composite
def mutated(draw: st.DrawFn, content: bytes, most: int = 8) -> bytes:
    """Bytes with some of them replaced, removed, repeated or added."""
    result = bytearray(content)
    for _ in range(draw(st.integers(1, most))):
        place = draw(st.integers(0, max(0, len(result) - 1)))
        match draw(st.sampled_from(["flip", "set", "cut", "drop", "double", "insert"])):
            case "flip" if result:
                result[place] ^= 1 << draw(st.integers(0, 7))
            case "set" if result:
                result[place] = draw(st.sampled_from([0, 1, 127, 128, 255]))
            case "cut":
                del result[place:]
            case "drop":
                del result[place : place + draw(st.integers(1, 64))]
            case "double":
                result[place:place] = result[place : place + draw(st.integers(1, 64))]
            case "insert":
                result[place:place] = draw(st.binary(max_size=16))
    return bytes(result)
