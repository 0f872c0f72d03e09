"""Damaged and crafted datasets give an array or an error, and need little memory."""

from __future__ import annotations

import gzip
import io
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnctl.data import dataset as datasets
from nnctl.data import readers
from nnctl.data.dataset import Dataset, find_cached, open_dataset
from nnctl.data.download import import_files
from nnctl.data.idx import decode, read_idx
from nnctl.data.registry import DATASETS, MINI, NAMES, TRAIN_IMAGES
from nnctl.errors import DamagedFileError, DataError, NnctlError
from tests.conftest import CONFIGS, Nnctl
from tests.data.conftest import digits_folder, idx_bytes
from tests.runs.helpers import ignore
from tests.torture.conftest import Torture
from tests.torture.hostile import (
    KEPT_RUN,
    MOST_BYTES,
    PATIENCE,
    flipped,
    mutated,
    peak,
    reset_peak,
    run_command,
)

pytestmark = PATIENCE

IMAGES = np.arange(60, dtype=np.uint8).reshape(5, 4, 3)
WHOLE = idx_bytes(IMAGES)
PACKED = gzip.compress(WHOLE, mtime=0)

sizes = st.sampled_from([0, 1, 3, 28, 2**16, 2**31, 2**32 - 1]) | st.integers(0, 2**32 - 1)
crafted = st.builds(
    lambda magic, shape, body: magic + struct.pack(f">{len(shape)}I", *shape) + body,
    st.sampled_from([b"\0\0\x08\3", b"\0\0\x08\1", b"\0\0\x08\xff", b"\0\0\x0d\3", b"\0\0\0\0"]),
    st.lists(sizes, max_size=5),
    st.binary(max_size=80),
)
"""Headers with any sizes, and some bytes after them."""
contents = st.one_of(
    crafted,
    mutated(WHOLE),
    mutated(PACKED),
    crafted.map(gzip.compress),
    mutated(WHOLE).map(gzip.compress),
    crafted.map(gzip.compress).map(gzip.compress),
    st.tuples(mutated(WHOLE), st.integers(0, 90)).map(
        lambda two: gzip.compress(two[0][: two[1]]) + gzip.compress(two[0][two[1] :])
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose files the tests replace."""
    return tmp_path_factory.mktemp("digits")


@given(content=contents, suffix=st.sampled_from(["", ".gz"]), dimensions=st.sampled_from([1, 3]))
def test_any_content_gives_an_array_or_an_error(
    torture: Torture, folder: Path, content: bytes, suffix: str, dimensions: int
) -> None:
    path = folder / f"images{suffix}"
    path.write_bytes(content)
    before = reset_peak()
    torture.tried("any IDX file, read")
    ways: tuple[Callable[[], NDArray[np.uint8]], ...] = (
        lambda: read_idx(path, dimensions),
        lambda: decode(content, path, dimensions),
    )
    for read in ways:
        try:
            array = read()
        except DataError as error:
            assert str(path) in error.message  # noqa: PT017
        else:
            plain = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
            if plain[:4] == bytes((0, 0, 8, dimensions)):
                assert plain == idx_bytes(array)
            assert array.ndim == dimensions
            assert array.dtype == np.uint8
    assert peak() - before < MOST_BYTES


@given(which=st.sampled_from(NAMES), content=contents)
def test_any_file_in_a_user_s_folder_is_opened_or_rejected(
    torture: Torture, folder: Path, which: str, content: bytes
) -> None:
    own = digits_folder(folder / "own", compressed=False)
    (own / f"{which}.gz").unlink(missing_ok=True)
    if content.startswith(b"\x1f\x8b"):
        (own / f"{which}.gz").write_bytes(content)
    else:
        (own / which).write_bytes(content)
    torture.tried("any IDX file in a user's folder, opened")
    try:
        opened = open_dataset(str(own), notify=ignore)
        assert len(opened.training.inputs) == len(opened.training.labels)
        assert len(opened.test.inputs) == len(opened.test.labels)
    except NnctlError as error:
        assert str(own) in error.message  # noqa: PT017
    (own / f"{which}.gz").unlink(missing_ok=True)


def _npz(**arrays: NDArray[np.uint8]) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


LABELS = np.arange(5, dtype=np.uint8)
TABLE = b"label,a,b,c,d\n" + b"1,2,3,4,5\n" * 12
CONTAINERS = st.one_of(
    st.tuples(st.just(".npz"), mutated(_npz(x_train=IMAGES, y_train=LABELS))),
    st.tuples(st.just(".pkl"), mutated(pickle.dumps([(IMAGES, LABELS)] * 3, 2))),
    st.tuples(st.just(".csv"), mutated(TABLE)),
    st.tuples(st.sampled_from([".npz", ".pkl", ".csv", ""]), st.binary(max_size=200)),
)
"""Suffixes and contents of files, most of them slightly damaged."""


@given(file=CONTAINERS)
def test_any_file_of_another_kind_is_opened_or_rejected(
    torture: Torture, folder: Path, file: tuple[str, bytes]
) -> None:
    suffix, content = file
    path = folder / f"digits{suffix}"
    path.write_bytes(content)
    torture.tried("any file of another kind, opened")
    before = reset_peak()
    try:
        arrays = readers.read(path)
    except NnctlError as error:
        assert str(path) in error.message  # noqa: PT017
    else:
        assert [array.dtype for array in arrays.values()] == [np.uint8] * 4
    assert peak() - before < MOST_BYTES
    path.unlink()


def test_decompression_bombs_need_little_memory(
    torture: Torture, tmp_path: Path, scratch: Path
) -> None:
    some = torture.cases(20, full=700)
    megabyte = gzip.compress(bytes(2**20), 9)
    for shape in ((some, 1024, 1024), (5, 4, 3), (2**31, 1, 1)):
        path = tmp_path / "images.gz"
        path.write_bytes(gzip.compress(struct.pack(">4B3I", 0, 0, 8, 3, *shape)) + megabyte * 2000)
        done = run_command("predict", KEPT_RUN, path, codes=[3])
        assert "could not be classified" in done.output
        torture.tried("a bomb in an IDX file")
    assert [*scratch.iterdir()] == []


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the bundled digits."""
    directory = Path(shutil.copytree(datasets.MINI_DIRECTORY, tmp_path / "mini"))
    monkeypatch.setattr(datasets, "MINI_DIRECTORY", directory)
    return directory


@pytest.mark.parametrize("compressed", [True, False])
def test_a_flipped_bit_in_a_known_file_is_reported(
    torture: Torture, known: Path, compressed: bool
) -> None:
    random = torture.random("bits of the digits", compressed)
    files = [*known.glob("t*.gz")]
    if not compressed:
        for path in files:
            path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
        files = [path.with_suffix("") for path in files]
    cases = torture.cases(20, full=1000)
    for _ in range(cases):
        path = random.choice(files)
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, random))
        with pytest.raises(DamagedFileError, match="is damaged"):
            open_dataset("mini", notify=ignore)
        path.write_bytes(whole)
    assert open_dataset("mini", notify=ignore).training.inputs.shape == (5000, 784)
    torture.tried("a flipped bit of a known dataset", cases)


def test_a_file_with_a_flipped_bit_in_the_cache_is_not_trained_on(
    torture: Torture,
    nnctl: Nnctl,
    mini_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(DATASETS, "mnist", MINI)  # small files instead of large ones
    cache, random = tmp_path / "cache" / "mnist", torture.random("the cache")
    import_files(cache, mini_folder, MINI)
    assert find_cached("mnist") is not None
    cases = torture.cases(10, full=300)
    for _ in range(cases):
        path = random.choice([*cache.iterdir()])
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, random))
        assert find_cached("mnist") is None
        path.write_bytes(whole)
    torture.tried("a flipped bit of a downloaded dataset", cases)
    shutil.rmtree(cache)
    cache.mkdir()
    (cache / f"{TRAIN_IMAGES}.gz").write_bytes(b"x")
    done = nnctl("train", CONFIGS / "smoke.yaml", "--dataset", "mnist", code=3)
    assert "no mirror served" in done.stderr


def test_a_flipped_bit_in_a_user_s_file_makes_another_dataset(
    torture: Torture, tmp_path: Path
) -> None:
    own, random = digits_folder(tmp_path / "own", compressed=False), torture.random("own")
    before = _hashes(own)
    cases = torture.cases(20, full=1000)
    for _ in range(cases):
        path = own / random.choice(NAMES)
        whole = path.read_bytes()
        path.write_bytes(flipped(whole, random))
        assert before != _hashes(own)
        path.write_bytes(whole)
    torture.tried("a flipped bit of a user's own dataset", cases)
    assert before == _hashes(own)


def _hashes(folder: Path) -> dict[str, str]:
    opened: Dataset = open_dataset(str(folder), notify=ignore)
    return dict(opened.hashes)
