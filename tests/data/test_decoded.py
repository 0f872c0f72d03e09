"""Uncompressed copies: made once, mapped, checked against their source, and never a duty."""

from __future__ import annotations

import gzip
import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data import decoded, idx
from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import DamagedFileError

IMAGES = np.random.default_rng(0).integers(0, 256, (6000, 28, 28), np.uint8)
HEADER = bytes((0, 0, 8, 3)) + np.array(IMAGES.shape, ">u4").tobytes()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A gzip file that is worth a copy."""
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(HEADER + IMAGES.tobytes(), compresslevel=1))
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Where the copy is to be, in a folder that is not there yet."""
    return tmp_path / "copies" / "images.idx"


def is_mapped(array: NDArray[np.uint8]) -> bool:
    """Tell whether the bytes of an array are pages of a file."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_the_header_is_that_of_the_file() -> None:
    assert idx.header(IMAGES.shape) == HEADER


def test_what_is_large_is_mapped_from_the_first_time_on(source: Path, copy: Path) -> None:
    first = decoded.read(source, copy, 3)
    made = copy.stat().st_mtime_ns
    second = decoded.read(source, copy, 3)
    assert made == copy.stat().st_mtime_ns
    assert HEADER + IMAGES.tobytes() == copy.read_bytes()
    for images in (first, second):
        np.testing.assert_array_equal(IMAGES, images)
        assert is_mapped(images)
        assert not images.flags.writeable


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: content[:1000] + bytes([content[1000] ^ 1]) + content[1001:],
        lambda _: b"",
        lambda content: content[:10],
        lambda content: b"x" * len(content),
    ],
    ids=["shorter", "longer", "one bit", "empty", "within the header", "something else"],
)
def test_a_copy_that_is_not_its_source_is_made_again(
    source: Path, copy: Path, damage: object
) -> None:
    decoded.read(source, copy, 3)
    assert callable(damage)
    copy.write_bytes(damage(copy.read_bytes()))
    np.testing.assert_array_equal(IMAGES, decoded.read(source, copy, 3))
    assert HEADER + IMAGES.tobytes() == copy.read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_pipe_in_the_place_of_a_copy_is_replaced(source: Path, copy: Path) -> None:
    copy.parent.mkdir()
    os.mkfifo(copy)
    np.testing.assert_array_equal(IMAGES, decoded.read(source, copy, 3))
    assert copy.is_file()


def test_a_damaged_source_is_told_even_if_there_is_a_copy(source: Path, copy: Path) -> None:
    decoded.read(source, copy, 3)
    source.write_bytes(source.read_bytes()[:-100])
    with pytest.raises(DamagedFileError, match="not a whole gzip file"):
        decoded.read(source, copy, 3)


def test_where_no_copy_can_be_made_the_file_is_read(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    np.testing.assert_array_equal(IMAGES, decoded.read(source, tmp_path / "file" / "x.idx", 3))


def test_what_is_small_or_not_compressed_is_read(tmp_path: Path, source: Path) -> None:
    small, plain = tmp_path / "small.gz", tmp_path / "plain"
    small.write_bytes(gzip.compress(idx.header((5, 28, 28)) + IMAGES[:5].tobytes()))
    plain.write_bytes(gzip.decompress(source.read_bytes()))
    np.testing.assert_array_equal(IMAGES[:5], decoded.read(small, tmp_path / "a", 3))
    np.testing.assert_array_equal(IMAGES, decoded.read(plain, tmp_path / "b", 3))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_folder_with_other_images_has_another_copy(tmp_path: Path) -> None:
    def dataset(images: NDArray[np.uint8]) -> Dataset:
        folder = tmp_path / "digits"
        folder.mkdir(exist_ok=True)
        labels = idx.header((len(images),)) + bytes(len(images))
        for part in ("train", "t10k"):
            content = idx.header(images.shape) + images.tobytes()
            (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(
                gzip.compress(content, 1, mtime=0)
            )
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        return open_dataset(str(folder), data_dir=tmp_path / "cache", notify=lambda _: None)

    for images in (IMAGES, IMAGES[::-1], IMAGES):
        np.testing.assert_array_equal(images.reshape(6000, -1), dataset(images).training.images)
    assert len([*(tmp_path / "cache" / "uncompressed").iterdir()]) == 2


def test_of_a_gzip_file_in_several_members_no_copy_is_made(tmp_path: Path, copy: Path) -> None:
    source, whole = tmp_path / "two.gz", HEADER + IMAGES.tobytes()
    source.write_bytes(gzip.compress(whole[:1000], 1) + gzip.compress(whole[1000:], 1))
    np.testing.assert_array_equal(IMAGES, decoded.read(source, copy, 3))
    assert not copy.exists()


def test_what_a_killed_process_left_is_removed(source: Path, copy: Path) -> None:
    copy.parent.mkdir()
    left = copy.with_name(f".{copy.name}.0123abcd.nnctl-tmp")
    left.write_bytes(b"x")
    decoded.read(source, copy, 3)
    assert [copy] == [*copy.parent.iterdir()]
