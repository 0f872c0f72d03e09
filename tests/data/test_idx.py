"""Reading an IDX file gives an array, or an error that names the file."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

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


@pytest.mark.parametrize(("name", "content"), [("images", WHOLE), ("images.gz", PACKED)])
def test_a_file_is_read_compressed_or_not(tmp_path: Path, name: str, content: bytes) -> None:
    path = written(tmp_path, content, name)
    actual = read_idx(path, dimensions=3)
    np.testing.assert_array_equal(IMAGES, actual)
    assert np.uint8 == actual.dtype
    assert read_idx_shape(path, dimensions=3) == (2, 4, 3)


def test_labels_have_one_dimension(tmp_path: Path) -> None:
    labels = np.arange(300).astype(np.uint8)
    np.testing.assert_array_equal(labels, read_idx(written(tmp_path, idx_bytes(labels)), 1))


IN_HEADER = {
    "empty": (b"", "is not an IDX file of unsigned bytes in 3 dimensions: it is empty"),
    "text": (b"<html>", "it begins with 3c68746d"),
    "floats": (b"\0\0\x0d\3" + WHOLE[4:], "it begins with 00000d03"),
    "labels": (idx_bytes(IMAGES[0, 0]), "it begins with 00000801"),
    "short-magic": (WHOLE[:3], "it begins with 000008"),
    "short-header": (WHOLE[:15], "is incomplete: it ends within its header"),
    "huge": (
        struct.pack(">4B3I", 0, 0, 8, 3, 2**31, 2**31, 1),
        "has a header for 2,147,483,648 x 2,147,483,648 x 1 bytes; the limit is 800,000,000",
    ),
    "no-images": (
        struct.pack(">4B3I", 0, 0, 8, 3, 0, 28, 28),
        "has a header for 0 x 28 x 28 bytes; a size of zero is not valid",
    ),
    "no-pixels": (
        struct.pack(">4B3I", 0, 0, 8, 3, 5, 28, 0),
        "has a header for 5 x 28 x 0 bytes; a size of zero is not valid",
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
        with pytest.raises(DamagedFileError) as caught:
            read(path, dimensions=3)
        assert caught.value.message.startswith(f"{path} ")
        assert caught.value.message.endswith(expected)


@pytest.mark.parametrize(
    "content",
    [WHOLE, PACKED[:-9], PACKED[:12], PACKED + b"trailing", PACKED[:-8] + bytes(8)],
    ids=["plain", "truncated", "header-only", "trailing", "checksum"],
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
        with pytest.raises(DamagedFileError):
            read_idx(path, dimensions=3)


@pytest.mark.parametrize("name", ["missing", "missing.gz", "folder", "folder.gz"])
def test_a_file_that_cannot_be_read_is_a_data_error(tmp_path: Path, name: str) -> None:
    if name.startswith("folder"):
        (tmp_path / name).mkdir()
    for read in (read_idx, read_idx_shape):
        with pytest.raises(DataError, match="cannot be read"):
            read(tmp_path / name, dimensions=3)
