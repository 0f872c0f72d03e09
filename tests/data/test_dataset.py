"""Datasets: bundled digits, MNIST in the cache, a user's folder; and their subsets."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from nnctl.data.dataset import (
    MINI_DIRECTORY,
    DatasetInfo,
    balanced_subset,
    canonical_name,
    configured_mirrors,
    data_directory,
    dataset_directory,
    dataset_info,
    fold_size,
    hold_out,
    hold_out_fold,
    open_dataset,
    relabel_binary,
)
from nnctl.data.download import DownloadEvent
from nnctl.data.registry import (
    MINI,
    MNIST,
    NAMES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
)
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.nn.examples import Examples
from tests.data.conftest import digits_folder, idx_bytes, snapshot


def no_download(event: DownloadEvent) -> None:
    """Fail a test that starts a download."""
    raise AssertionError(event)


def assert_same(expected: Examples, actual: Examples) -> None:
    """Compare images and labels."""
    np.testing.assert_array_equal(expected.inputs, actual.inputs)
    np.testing.assert_array_equal(expected.labels, actual.labels)


# The known datasets ------------------------------------------------------------------------------


def test_mini_is_the_beginning_of_mnist(with_mnist: Path) -> None:
    mini = open_dataset("mini", notify=no_download)
    mnist = open_dataset("mnist", notify=no_download)
    assert_same(Examples(mnist.training.inputs[:5000], mnist.training.labels[:5000]), mini.training)
    assert_same(Examples(mnist.test.inputs[:1000], mnist.test.labels[:1000]), mini.test)
    assert with_mnist == data_directory()


def test_mini_ships_with_its_license() -> None:
    text = (MINI_DIRECTORY / "LICENSE.md").read_text(encoding="utf-8")
    for words in ("Yann LeCun", "Corinna Cortes", "Attribution-Share Alike 3.0", "by-sa/3.0"):
        assert words in text


@pytest.mark.parametrize("name", ["mini", "mnist"])
def test_the_known_sizes_of_a_dataset_are_those_of_its_files(
    name: str, request: pytest.FixtureRequest
) -> None:
    if name == "mnist":
        request.getfixturevalue("with_mnist")
    info = dataset_info(name)
    dataset = open_dataset(name, notify=no_download)
    assert (info.n_training, info.pixels) == dataset.training.inputs.shape
    assert (
        set(range(len(info.class_names)))
        == set(dataset.training.labels)
        == set(dataset.test.labels)
    )
    known = MINI if name == "mini" else MNIST
    assert {file.name: file.idx_sha256 for file in known.files} == dataset.hashes


def test_mnist_in_the_cache_may_be_uncompressed(mnist_cache: Path) -> None:
    folder = dataset_directory("mnist")
    folder.mkdir(parents=True)
    for path in (mnist_cache / "mnist").iterdir():
        if path.stem == TEST_LABELS:
            (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
        else:
            (folder / path.name).write_bytes(path.read_bytes())
    dataset = open_dataset("mnist", notify=no_download)
    hashes = {file.name: file.idx_sha256 for file in MNIST.files}
    assert hashes[TEST_LABELS] == dataset.hashes[TEST_LABELS]
    assert hashes[TRAIN_LABELS] == dataset.hashes[TRAIN_LABELS]
    assert len(dataset.test.labels) == 10_000


def test_the_cache_is_in_the_directory_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NNCTL_DATA_DIR", str(tmp_path / "there"))
    assert tmp_path / "there" == data_directory()
    assert tmp_path / "there" / "mnist" == dataset_directory("mnist")
    for nothing in ("", None):
        if nothing is None:
            monkeypatch.delenv("NNCTL_DATA_DIR")
        else:
            monkeypatch.setenv("NNCTL_DATA_DIR", nothing)
        assert platformdirs.user_cache_path("nnctl") == data_directory()


def test_mirrors_in_the_environment_are_separated_by_white_space(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert configured_mirrors() == ()
    monkeypatch.setenv("NNCTL_MIRROR", " http://a/  http://b/\n")
    assert configured_mirrors() == ("http://a/", "http://b/")


# Logic gates -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gate"),
    [
        ("and", np.logical_and),
        ("or", np.logical_or),
        ("nand", lambda a, b: ~np.logical_and(a, b)),
        ("xor", np.logical_xor),
    ],
)
def test_a_gate_has_the_labels_of_its_truth_table(
    name: str, gate: Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.bool_]]
) -> None:
    dataset = open_dataset(name, notify=no_download)
    assert DatasetInfo(n_training=4, pixels=2, class_names=("0", "1")) == dataset_info(name)
    assert_same(dataset.training, dataset.test)
    inputs = dataset.training.inputs
    assert sorted(map(tuple, inputs.tolist())) == [(0, 0), (0, 255), (255, 0), (255, 255)]
    expected = gate(inputs[:, 0], inputs[:, 1]).astype(int)
    assert expected.tolist() == dataset.training.labels.tolist()


def test_the_inputs_of_a_gate_are_read_only() -> None:
    inputs = open_dataset("and", notify=no_download).training.inputs
    with pytest.raises(ValueError, match="read-only"):
        inputs[0, 0] = 1


def test_the_name_of_a_gate_takes_precedence_over_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    digits_folder(tmp_path / "xor", compressed=False)
    assert canonical_name("xor") == "xor"
    assert dataset_info("xor").n_training == 4
    assert dataset_info("./xor").n_training == 30


# A folder ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_four_files_is_a_dataset(tmp_path: Path, compressed: bool) -> None:
    folder = digits_folder(tmp_path / "digits", compressed=compressed)
    before = snapshot(folder)
    assert DatasetInfo(n_training=30, pixels=12, class_names=tuple("0123456789")) == dataset_info(
        str(folder)
    )
    dataset = open_dataset(str(folder), notify=no_download)
    assert (dataset.training.inputs.shape, dataset.test.inputs.shape) == ((30, 12), (20, 12))
    assert [i % 10 for i in range(20)] == dataset.test.labels.tolist()
    assert str(folder) == dataset.name
    assert set(before) == set(dataset.hashes)
    assert before == snapshot(folder)


def test_compressed_and_uncompressed_folders_are_the_same_dataset(tmp_path: Path) -> None:
    plain, packed = (
        open_dataset(
            str(digits_folder(tmp_path / str(compressed), compressed=compressed)),
            notify=no_download,
        )
        for compressed in (False, True)
    )
    assert_same(plain.training, packed.training)
    assert_same(plain.test, packed.test)
    raw = (tmp_path / "False" / TRAIN_IMAGES).read_bytes()
    assert raw[16:] == plain.training.inputs.tobytes()


def test_all_missing_files_of_a_folder_are_named(tmp_path: Path) -> None:
    folder = digits_folder(tmp_path / "digits", compressed=True)
    for name in NAMES[1:3]:
        (folder / f"{name}.gz").unlink()
    for use in (dataset_info, lambda name: open_dataset(name, notify=no_download)):
        with pytest.raises(DataError) as caught:
            use(str(folder))
        assert (
            f"missing files in {folder}: {NAMES[1]}[.gz], {NAMES[2]}[.gz]" == caught.value.message
        )


@pytest.mark.parametrize(
    ("error", "expected", "labels"),
    [
        (DamagedFileError, "has 30 images, but train-labels-idx1-ubyte has 29 labels", [1] * 29),
        (DataError, "has the labels 1 to 10; classes are counted from 0", [10, *[1] * 29]),
        (DataError, "has the label 12, but no label 10", [0, 12, *[1] * 28]),
    ],
)
def test_labels_that_do_not_match_the_images_are_an_error(
    tmp_path: Path, error: type[DataError], expected: str, labels: list[int]
) -> None:
    folder = digits_folder(tmp_path / "digits", compressed=False)
    (folder / TRAIN_LABELS).write_bytes(idx_bytes(np.array(labels, np.uint8)))
    dataset = open_dataset(str(folder), notify=no_download)
    with pytest.raises(error) as caught:
        _ = dataset.training
    assert str(folder) in caught.value.message
    assert caught.value.message.endswith(expected)


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("unknown dataset 'MNITS'; did you mean 'mnist'?", "MNITS"),
        ("unknown dataset 'xr'; did you mean 'xor'?", "xr"),
        ("unknown dataset 'nowhere'", "nowhere"),
        ("file or folder './nowhere/data' not found", "./nowhere/data"),
        ("file or folder 'trian.csv' not found", "trian.csv"),
        ("unknown dataset 'a\0b'", "a\0b"),
    ],
)
def test_the_error_of_an_unknown_name_lists_the_datasets(message: str, name: str) -> None:
    with pytest.raises(UsageError) as caught:
        dataset_info(name)
    assert message == caught.value.message
    hint = str(caught.value.hint)
    for word in ("mnist", "fashion-mnist", "mini", "xor", "folder or file"):
        assert word in hint


# Splits ------------------------------------------------------------------------------------------


def digits_of(labels: list[int]) -> Examples:
    """Return digits with a single pixel, whose value is the position."""
    positions = np.arange(len(labels)).reshape(-1, 1).astype(np.uint8)
    return Examples(positions, np.array(labels, np.uint8))


def test_the_last_digits_are_held_out() -> None:
    training, validation = hold_out(digits_of([5, 0, 4, 1, 9]), 2)
    assert_same(digits_of([5, 0, 4]), training)
    assert validation is not None
    assert validation.inputs.tolist() == [[3], [4]]
    assert validation.labels.tolist() == [1, 9]


def test_holding_out_nothing_returns_none() -> None:
    digits = digits_of([1, 2])
    assert (digits, None) == hold_out(digits, 0)


@given(
    labels=st.lists(st.integers(0, 3), min_size=2, max_size=60),
    of=st.integers(2, 9),
    stratified=st.booleans(),
)
def test_each_example_is_in_one_of_the_folds(labels: list[int], of: int, stratified: bool) -> None:
    digits, of = digits_of(labels), min(of, len(labels))
    folds = [
        hold_out_fold(digits, number, of, stratified=stratified) for number in range(1, of + 1)
    ]
    for number, (training, validation) in enumerate(folds, 1):
        assert len(validation.labels) == fold_size(len(labels), number, of)
        both = np.concatenate([training.inputs, validation.inputs])
        assert sorted(both[:, 0].tolist()) == list(range(len(labels)))
    held_out = np.concatenate([validation.inputs[:, 0] for _, validation in folds]).tolist()
    assert sorted(held_out) == list(range(len(labels)))
    if stratified:
        for label in set(labels):
            counts = [np.count_nonzero(validation.labels == label) for _, validation in folds]
            assert max(counts) - min(counts) <= 1
    else:
        assert sorted(held_out) == held_out


def test_a_binary_task_has_the_labels_zero_and_one() -> None:
    digits = digits_of([9, 0, 9, 1])
    relabeled = relabel_binary(digits, 9)
    assert relabeled.labels.tolist() == [1, 0, 1, 0]
    assert relabeled.labels.dtype == np.uint8
    assert digits.inputs.tolist() == relabeled.inputs.tolist()
    assert digits.labels.tolist() == [9, 0, 9, 1]


def test_subsets_of_mini_are_balanced_and_depend_on_the_seed() -> None:
    training = open_dataset("mini", notify=no_download).training
    one, two = (balanced_subset(training, 1000, np.random.default_rng(seed)) for seed in (1, 2))
    assert np.bincount(one.labels).tolist() == [100] * 10
    assert not np.array_equal(one.inputs, two.inputs)


@settings(deadline=None)
@given(data=st.data(), labels=st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_a_subset_is_as_balanced_as_possible(data: st.DataObject, labels: list[int]) -> None:
    digits = digits_of(labels)
    count = data.draw(st.integers(1, len(labels)))
    subset = balanced_subset(digits, count, np.random.default_rng(0))
    positions = subset.inputs[:, 0].tolist()
    assert count == len(positions)
    assert sorted(set(positions)) == positions
    assert [labels[position] for position in positions] == subset.labels.tolist()

    available, taken = (np.bincount(some, minlength=10) for some in (labels, subset.labels))
    fullest = taken.max()
    for there, used in zip(available, taken, strict=True):
        assert used >= fullest - 1 or used == there
    assert_same(subset, balanced_subset(digits, count, np.random.default_rng(0)))
