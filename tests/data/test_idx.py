"""Reading an IDX file gives an array, or an error that names the file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data.idx import read_idx, read_idx_shape
from nnctl.errors import DamagedFileError, DataError
from tests.data.conftest import idx_bytes

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
WHOLE = idx_bytes(IMAGES)
PACKED = gzip.compress(WHOLE, mtime=0)


def written(folder: Path, content: bytes, name: str = "images") -> Path:
    """Write a file."""
    path = folder / name
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content"), [("a", WHOLE), ("a.gz", PACKED), ("a", PACKED), ("a.gz", WHOLE)]
)
def test_a_file_is_read_compressed_or_not_whatever_its_name(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = written(tmp_path, content, name)
    actual = read_idx(path, dimensions=3)
    np.testing.assert_array_equal(IMAGES, actual)
    assert np.uint8 == actual.dtype
    assert read_idx_shape(path, dimensions=3) == (2, 4, 3)


def test_labels_have_one_dimension(tmp_path: Path) -> None:
    labels = np.arange(300).astype(np.uint8)
    np.testing.assert_array_equal(labels, read_idx(written(tmp_path, idx_bytes(labels)), 1))


@pytest.mark.parametrize(
    "array",
    [
        IMAGES.reshape(2, 4, 3, 1),
        IMAGES.reshape(2, 1, 4, 3),
        IMAGES.astype(">i4"),
        (IMAGES / 255).astype(">f4"),
        IMAGES / 256,
        IMAGES.astype(">f8"),
    ],
    ids=["channels last", "channels first", "int32", "float32", "divided by 256", "float64"],
)
def test_images_in_another_form_are_read_if_nothing_is_lost(
    tmp_path: Path, array: NDArray[Any]
) -> None:
    np.testing.assert_array_equal(IMAGES, read_idx(written(tmp_path, idx_bytes(array)), 3))


def test_rows_of_pixels_are_square_images(tmp_path: Path) -> None:
    rows = np.arange(32, dtype=np.uint8).reshape(2, 16)
    images = read_idx(written(tmp_path, idx_bytes(rows)), 3)
    np.testing.assert_array_equal(rows.reshape(2, 4, 4), images)


@pytest.mark.parametrize(
    "array", [IMAGES / 100, IMAGES.astype(">i4") * 20, -IMAGES.astype(">i4"), IMAGES * np.nan]
)
def test_images_that_would_lose_something_are_an_error(tmp_path: Path, array: NDArray[Any]) -> None:
    with pytest.raises(DataError, match="neither whole numbers from 0 to 255 nor these divided"):
        read_idx(written(tmp_path, idx_bytes(array)), 3)


LABELS = np.array([3, 1, 2], np.uint8)


@pytest.mark.parametrize(
    "array", [LABELS.astype(">i4"), LABELS[:, None], LABELS.astype(float), np.eye(3, 8) + 0]
)
def test_labels_in_another_form_are_read(tmp_path: Path, array: NDArray[Any]) -> None:
    labels = read_idx(written(tmp_path, idx_bytes(array)), 1)
    np.testing.assert_array_equal(LABELS if array.shape[-1] != 8 else [1, 0, 0], labels)


@pytest.mark.parametrize(
    ("array", "problem"),
    [
        (LABELS / 2, "not whole numbers"),
        (LABELS.astype(">i4") - 5, "not numbers from 0 to 255"),
        (LABELS.astype(">i4") * 100, "not numbers from 0 to 255"),
        (np.eye(3), "does not contain labels: its shape is 3 x 3"),
        (LABELS * np.nan, "not numbers from 0 to 255"),
    ],
)
def test_labels_that_would_lose_something_are_an_error(
    tmp_path: Path, array: NDArray[Any], problem: str
) -> None:
    with pytest.raises(DataError, match=problem):
        read_idx(written(tmp_path, idx_bytes(array)), 1)


IN_HEADER = {
    "empty": (b"", "is not an IDX file of images: it is empty"),
    "text": (b"<b>text", "is not an IDX file of images: it begins with '<b>text'"),
    "web page": (
        b"\n<!DOCTYPE html><html>403",
        "is not an IDX file of images: it is a web page, such as the error message of a server",
    ),
    "zip": (b"PK\3\4" + WHOLE, "it is a zip archive"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1",
        "it is a pointer of Git LFS, not the file itself",
    ),
    "unknown type": (b"\0\0\7\3" + WHOLE[4:], "it begins with 00000703"),
    "labels": (idx_bytes(IMAGES[0, 0]), "is not an IDX file of images: it contains labels"),
    "five dimensions": (idx_bytes(IMAGES[None, None]), "it contains data with 5 dimensions"),
    "short-magic": (WHOLE[:3], "it begins with 000008"),
    "short-header": (WHOLE[:15], "is incomplete: it ends within its header"),
    "huge": (
        struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 1),
        "header for 2,147,483,648 x 2,147,483,648 x 1 numbers; the limit is 800,000,000 bytes",
    ),
    "huge floats": (struct.pack(">4B3I", 0, 0, 14, 3, 2**17, 28, 28), "limit is 800,000,000 bytes"),
    "no-images": (
        struct.pack(">4B3I", 0, 0, 8, 3, 0, 28, 28),
        "has a header for 0 x 28 x 28 numbers; a size of zero is not valid",
    ),
    "no-pixels": (
        struct.pack(">4B3I", 0, 0, 8, 3, 5, 28, 0),
        "has a header for 5 x 28 x 0 numbers; a size of zero is not valid",
    ),
}
IN_BODY = {
    "short": (WHOLE[:-1], "has fewer bytes than the 24 in its header"),
    "header-only": (WHOLE[:16], "has fewer bytes than the 24 in its header"),
    "long": (WHOLE + b"\0", "has more bytes than the 24 in its header"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    ("content", "expected"), [*IN_HEADER.values(), *IN_BODY.values()], ids=[*IN_HEADER, *IN_BODY]
)
def test_a_wrong_header_or_length_is_an_error(
    tmp_path: Path, content: bytes, expected: str, compressed: bool
) -> None:
    packed = (gzip.compress(content), "images.gz") if compressed else (content, "images")
    path = written(tmp_path, *packed)
    for read in (read_idx, read_idx_shape):
        if read is read_idx_shape and expected in dict(IN_BODY.values()).values():
            assert read_idx_shape(path, dimensions=3) == IMAGES.shape
            continue
        with pytest.raises(DataError) as caught:
            read(path, dimensions=3)
        assert caught.value.message.startswith(f"{path} ")
        assert caught.value.message.endswith(expected)


@pytest.mark.parametrize(
    "content",
    [PACKED[:-9], PACKED[:12], PACKED + b"trailing", PACKED[:-8] + bytes(8)],
    ids=["truncated", "header-only", "trailing", "checksum"],
)
def test_a_damaged_gzip_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = written(tmp_path, content, "images.gz")
    with pytest.raises(DamagedFileError, match="is not a complete gzip file") as caught:
        read_idx(path, dimensions=3)
    assert str(path) in caught.value.message
    assert caught.value.hint == "Replace the damaged file."


def test_no_flipped_byte_of_a_gzip_file_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "images.gz"
    for position in (*range(4), *range(10, len(PACKED))):
        path.write_bytes(
            PACKED[:position] + bytes([PACKED[position] ^ 0xFF]) + PACKED[position + 1 :]
        )
        with pytest.raises(DataError):
            read_idx(path, dimensions=3)


@pytest.mark.parametrize("name", ["missing", "missing.gz", "folder", "folder.gz"])
def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path, name: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    for read in (read_idx, read_idx_shape):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / name, dimensions=3)
