"""Generated digits, and mirrors that serve files."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data.registry import NAMES
from tests.data.mirrors import MakeMirror, closed_port, mirrors


def idx_bytes(array: NDArray[Any]) -> bytes:
    """Return an array as the content of an IDX file."""
    code = {"u1": 8, "i1": 9, "i2": 11, "i4": 12, "f4": 13, "f8": 14}[array.dtype.str[1:]]
    header = struct.pack(f">4B{array.ndim}I", 0, 0, code, array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def digits_folder(folder: Path, *, compressed: bool, training: int = 30, test: int = 20) -> Path:
    """Write a folder of four IDX files with images of 4 x 3 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for name, count in zip(NAMES, (training, training, test, test), strict=True):
        labels = np.arange(count, dtype=np.uint8) % 10
        images = rng.integers(0, 256, (count, 4, 3), dtype=np.uint8)
        content = idx_bytes(images if "images" in name else labels)
        path = folder / (f"{name}.gz" if compressed else name)
        path.write_bytes(gzip.compress(content) if compressed else content)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return the modification times and contents of all files in a folder, by name."""
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in folder.rglob("*")
        if path.is_file()
    }


PLANTS: dict[str, Callable[[Path, Path], object]] = {
    "a link to a file": lambda path, victim: path.symlink_to(victim / "file"),
    "a link to a folder": lambda path, victim: path.symlink_to(victim),
    "a link to nothing": lambda path, victim: path.symlink_to(victim / "new"),
    "a link to itself": lambda path, _: path.symlink_to(path),
    "a link to a device": lambda path, _: path.symlink_to("/dev/zero"),
    "a second name of a file": lambda path, victim: path.hardlink_to(victim / "file"),
    "a pipe": lambda path, _: os.mkfifo(path),
}
"""Functions that replace a file with something else, such as a link to a victim's file."""


@pytest.fixture(autouse=True)
def _loopback_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    keep_to_loopback(monkeypatch)


def keep_to_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Route requests to all other hosts to a proxy that does not exist."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def mirror() -> Iterator[MakeMirror]:
    """Starts mirrors; see `mirrors`."""
    with mirrors() as start:
        yield start
