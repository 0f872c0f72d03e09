"""Uncompressed copies of gzip files: made once, mapped, and checked against their source."""

from __future__ import annotations

import gzip
import mmap
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data import idx, idx_cache
from nnctl.data.dataset import Dataset, open_dataset
from nnctl.errors import DamagedFileError
from tests.data.conftest import PLANTS, snapshot

IMAGES = np.random.default_rng(0).integers(
    0, 256, (5400, 28, 28), np.uint8
)  # just over 2**22 bytes
HEADER = bytes((0, 0, 8, 3)) + np.array(IMAGES.shape, ">u4").tobytes()
WHOLE = HEADER + IMAGES.tobytes()
PACKED = gzip.compress(WHOLE, compresslevel=1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A gzip file that is large enough for a copy."""
    path = tmp_path / "images.gz"
    path.write_bytes(PACKED)
    return path


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Path of the copy, in a folder that does not exist yet."""
    return tmp_path / "copies" / "images.idx"


def is_mapped(array: NDArray[np.uint8]) -> bool:
    """Check that the bytes of an array are pages of a file."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)


def test_the_header_is_that_of_the_file() -> None:
    assert idx.header(IMAGES.shape) == HEADER


def test_large_images_are_mapped_from_the_first_read_on(source: Path, copy: Path) -> None:
    first = idx_cache.read(source, copy, 3)
    made = copy.stat().st_mtime_ns
    second = idx_cache.read(source, copy, 3)
    assert made == copy.stat().st_mtime_ns
    assert copy.read_bytes() == WHOLE
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
def test_a_copy_that_differs_from_its_source_is_made_again(
    source: Path, copy: Path, damage: Callable[[bytes], bytes]
) -> None:
    copy.parent.mkdir()
    copy.write_bytes(damage(WHOLE))
    np.testing.assert_array_equal(IMAGES, idx_cache.read(source, copy, 3))
    assert copy.read_bytes() == WHOLE


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has other links and no such pipes")
@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_no_write_follows_a_link_planted_at_the_path_of_a_copy(
    source: Path, copy: Path, tmp_path: Path, plant: Callable[[Path, Path], object]
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_bytes(b"precious")
    before = snapshot(victim)
    copy.parent.mkdir()
    plant(copy, victim)
    np.testing.assert_array_equal(IMAGES, idx_cache.read(source, copy, 3))
    assert before == snapshot(victim)
    assert [copy] == [*copy.parent.iterdir()]
    assert stat.S_ISREG(copy.lstat().st_mode)


def test_a_damaged_source_is_an_error_even_if_there_is_a_copy(source: Path, copy: Path) -> None:
    idx_cache.read(source, copy, 3)
    source.write_bytes(PACKED[:-100])
    with pytest.raises(DamagedFileError, match="not a complete gzip file"):
        idx_cache.read(source, copy, 3)


def test_the_file_is_read_if_no_copy_can_be_written(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    np.testing.assert_array_equal(IMAGES, idx_cache.read(source, tmp_path / "file" / "x.idx", 3))


def test_small_and_uncompressed_files_get_no_copy(tmp_path: Path) -> None:
    small, plain = tmp_path / "small.gz", tmp_path / "plain"
    few = IMAGES[:5300]  # just under 2**22 bytes
    small.write_bytes(gzip.compress(idx.header(few.shape) + few.tobytes(), 1))
    plain.write_bytes(WHOLE)
    np.testing.assert_array_equal(few, idx_cache.read(small, tmp_path / "a", 3))
    np.testing.assert_array_equal(IMAGES, idx_cache.read(plain, tmp_path / "b", 3))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_a_folder_with_other_images_has_another_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(idx_cache, "_MIN_COPY_BYTES", 1000)

    def dataset(images: NDArray[np.uint8]) -> Dataset:
        folder = tmp_path / "digits"
        folder.mkdir(exist_ok=True)
        labels = idx.header((len(images),)) + bytes(len(images))
        for part in ("train", "t10k"):
            packed = gzip.compress(idx.header(images.shape) + images.tobytes(), 1, mtime=0)
            (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(packed)
            (folder / f"{part}-labels-idx1-ubyte").write_bytes(labels)
        return open_dataset(str(folder), data_dir=tmp_path / "cache", notify=lambda _: None)

    some = IMAGES[:50]
    for images in (some, some[::-1], some):
        np.testing.assert_array_equal(images.reshape(50, -1), dataset(images).training.images)
    assert len([*(tmp_path / "cache" / "uncompressed").iterdir()]) == 2


def test_a_gzip_file_of_several_members_gets_no_copy(tmp_path: Path, copy: Path) -> None:
    source = tmp_path / "two.gz"
    source.write_bytes(gzip.compress(WHOLE[:1000], 1) + gzip.compress(WHOLE[1000:], 1))
    np.testing.assert_array_equal(IMAGES, idx_cache.read(source, copy, 3))
    assert not copy.exists()


def test_temporary_files_of_a_killed_process_are_removed(source: Path, copy: Path) -> None:
    copy.parent.mkdir()
    left = copy.with_name(f".{copy.name}.0123abcd.nnctl-tmp")
    left.write_bytes(b"x")
    idx_cache.read(source, copy, 3)
    assert [copy] == [*copy.parent.iterdir()]
