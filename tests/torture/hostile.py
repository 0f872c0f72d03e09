"""Files that somebody made to do harm, and what a command may do with them: end in a sentence."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import math
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import settings
from hypothesis import strategies as st

from nnctl.cli import main
from nnctl.runs.checkpoint import _digest

if sys.platform != "win32":
    import resource

PATIENCE = pytest.mark.timeout(3600)
"""What hangs is ended, but not what has thousands of cases on a busy machine."""
SLOW = settings(max_examples=settings().max_examples // 5)
"""For properties whose examples take some hundredths of a second."""

KEPT = Path(__file__).parents[1] / "compatibility"
KEPT_RUN, KEPT_SWEEP = KEPT / "run-1", KEPT / "sweep-1"
"""A run and a sweep that are small, to make hostile ones of."""

MOST_BYTES = 10**9
"""By which no file may let the memory of a process grow."""

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**140), 2**140)
    | st.floats()
    | st.sampled_from(["", "1", "auto", "\x00", "\x1b[2J", "\ud800", "../x", "<script>"])
    | st.text(max_size=8),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=5), below, max_size=3)
    ),
    max_leaves=6,
)
"""Whatever JSON can hold, and what Python's JSON takes beside it."""


def peak() -> int:
    """Return the most bytes of memory that this process had; 0 where nobody tells."""
    if sys.platform == "win32":
        return 0
    with contextlib.suppress(OSError):  # of Linux, which can forget
        status = Path("/proc/self/status").read_text("utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> int:
    """Let `peak` be of what comes, where the system can; return what it is before that."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", "utf-8")
    return peak()


def outcome(*arguments: object, codes: Sequence[int], stdin: bytes = b"") -> str:
    """Carry out a command in this process; return what it printed.

    It ends in one of these exit codes, without a traceback, and with less than a gigabyte more.
    """
    before = forget_peak()
    done = CliRunner().invoke(main, [*map(str, arguments)], input=stdin)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise AssertionError(f"{arguments}\n{done.output}") from done.exception
    assert done.exit_code in codes, f"{arguments} ended in {done.exit_code}\n{done.output}"
    assert peak() - before < MOST_BYTES, f"{arguments} took {peak() - before:,} bytes"
    return done.output


def flipped(content: bytes, random: Random, begin: int = 0, end: int | None = None) -> bytes:
    """Return bytes of which one bit, somewhere between two of them, is another."""
    result = bytearray(content)
    result[random.randrange(begin, len(content) if end is None else end)] ^= 1 << random.randrange(
        8
    )
    return bytes(result)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the members of a checkpoint, its state as plain values."""
    with np.load(path) as file:
        members: dict[str, Any] = {name: file[name] for name in file.files}
    return members | {"state": json.loads(str(members["state"]))}


def write_checkpoint(path: Path, members: dict[str, Any]) -> None:
    """Write members as a checkpoint whose checksum is right, whatever they are."""
    state = members["state"]
    text = state if isinstance(state, str) else json.dumps(state)
    digest = _digest(members["parameters"], members["velocity"], text)
    with path.open("wb") as file:
        np.savez(
            file,
            allow_pickle=True,
            parameters=members["parameters"],
            velocity=members["velocity"],
            state=np.array(text),
            digest=np.array(digest),
        )


def write_members(path: Path, members: Sequence[tuple[str, bytes]]) -> None:
    """Write a zip file of members under any names, each as often as it is given."""
    with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a name that is there already
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    """Return an array as the content of a .npy file, pickled if there is no other way."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=True)
    return content.getvalue()


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return where each value of a JSON document stands, those within others as well."""
    found = [path] if path else []
    items: Any = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for step, below in items:
        found += leaves(below, (*path, step))
    return found


def replaced_at(value: Any, path: Sequence[Any], change: Callable[[Any], Any]) -> Any:
    """Return a JSON document in which one value is changed, or taken out if it becomes ``...``."""
    step, *rest = path
    new = change(value[step]) if not rest else replaced_at(value[step], rest, change)
    if isinstance(value, list):
        kept = [*value[:step], new, *value[step + 1 :]]
        return [one for one in kept if one is not ...]
    return {key: one for key, one in {**value, step: new}.items() if one is not ...}


numbers = st.sampled_from([-1, 0, 1, 2, 0.5, 10**6, 2**31, 2**63, 1e99, math.inf])
"""Those at which something may break."""


def _take(new: Any, _: Any) -> Any:
    return new


@st.composite
def changed(draw: st.DrawFn, document: Any) -> Any:
    """A JSON document in which some values are others, are left out, or are new."""
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
    """Bytes of which some are others, are gone, or are there twice."""
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
