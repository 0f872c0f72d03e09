"""Datasets: find and read their files, and split off examples for validation."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnctl.data import download, idx, readers
from nnctl.data.gates import GATES, INPUTS
from nnctl.data.registry import (
    DATASETS,
    DIGITS,
    MINI,
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    KnownDataset,
    hash_of,
)
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.files import exists, expand_home, remove_temporaries, write_atomically
from nnctl.nn.examples import Examples
from nnctl.text import did_you_mean

MINI_DIRECTORY = Path(__file__).parent / "mini"

NAMED = (*DATASETS, "mini", *GATES)
"""Datasets with a name; any other name is the path of a folder or file."""

SMALLEST_SIDE = 8
"""Smallest height of an image of a digit, in pixels."""

_HASHES = "hashes.json"


@dataclass(frozen=True)
class DatasetInfo:
    """Sizes and class names of a dataset, which are known before its images are read."""

    n_training: int
    pixels: int
    class_names: tuple[str, ...]


@dataclass(frozen=True)
class Dataset:
    """A dataset in four local files.

    Parameters
    ----------
    name : str
        Name in a configuration.
    files : mapping of str to Path
        Paths by the name of the IDX file.
    hashes : mapping of str to str
        SHA-256 hashes by file name. Files of MNIST are hashed uncompressed, so that compressed and
        uncompressed files have the same hash; other files are hashed as they are.
    """

    name: str
    files: Mapping[str, Path]
    hashes: Mapping[str, str]

    @functools.cached_property
    def training(self) -> Examples:
        """The training set; it is read on first use."""
        return self._read(TRAIN_IMAGES, TRAIN_LABELS)

    @functools.cached_property
    def test(self) -> Examples:
        """The test set; it is read on first use."""
        return self._read(TEST_IMAGES, TEST_LABELS)

    @functools.cached_property
    def class_names(self) -> tuple[str, ...]:
        """The names of the classes."""
        if self.name in NAMED:
            return dataset_info(self.name).class_names
        # On a worker that received the files, the name is a path of another machine.
        return _class_names(self.files[TRAIN_LABELS])

    def _read(self, images_name: str, labels_name: str) -> Examples:
        images = idx.read_idx(self.files[images_name], dimensions=3)
        labels = idx.read_idx(self.files[labels_name], dimensions=1)
        if len(images) != len(labels):
            raise DamagedFileError(
                f"{self.files[images_name]} has {len(images):,} images, but "
                f"{self.files[labels_name].name} has {len(labels):,} labels"
            )
        if known := _known(self.name):
            images = images.transpose(0, 2, 1) if known.transposed else images
            labels = labels - np.uint8(known.first_label)  # a missing class 0 becomes 255
        if labels.max() >= len(self.class_names):
            raise DataError(
                f"{self.files[labels_name]} has the label {labels.max()}; the dataset has "
                f"{len(self.class_names)} classes, 0 to {len(self.class_names) - 1}"
            )
        return Examples(images.reshape(len(images), -1), labels)


class Gate(Dataset):
    """A logic gate: its four examples are both the training set and the test set."""

    @functools.cached_property
    def training(self) -> Examples:
        """The truth table."""
        return Examples(INPUTS, np.array(GATES[self.name], np.uint8))

    @property
    def test(self) -> Examples:
        """The truth table."""
        return self.training


def _class_names(labels_file: Path) -> tuple[str, ...]:
    """Return the class names of a user's labels: the numbers from 0, at least ten of them.

    Raises
    ------
    DataError
        The labels start at 1, or skip numbers above 9.
    """
    present = np.unique(idx.read_idx(labels_file, dimensions=1))
    last = int(present[-1])
    if present[0] == 1 and last >= len(DIGITS):
        raise DataError(
            f"{labels_file} has the labels 1 to {last}; classes are counted from 0",
            hint="Subtract 1 from all labels, or replace 10 by 0 if it stands for the digit 0.",
        )
    missing = np.setdiff1d(np.arange(len(DIGITS), last), present)
    if missing.size:
        raise DataError(
            f"{labels_file} has the label {last}, but no label {missing[0]}",
            hint="Labels are numbers from 0, without gaps.",
        )
    return tuple(str(label) for label in range(max(len(DIGITS), last + 1)))


def data_directory() -> Path:
    """Return the folder for downloads: $NNCTL_DATA_DIR, or the user's cache.

    Raises
    ------
    DataError
        The variable is not set, and the user has no home directory for a cache.
    """
    if configured := os.environ.get("NNCTL_DATA_DIR"):
        return expand_home(configured)
    import platformdirs

    # Without a home directory, platformdirs raises an error; older versions return a path with ~.
    with contextlib.suppress(RuntimeError):
        cache = platformdirs.user_cache_path("nnctl")
        if cache.is_absolute():
            return cache
    raise DataError(
        "cannot choose a folder for downloads: the home directory is unknown",
        hint="Name a folder with --data-dir or NNCTL_DATA_DIR, or set HOME.",
    )


def configured_mirrors() -> tuple[str, ...]:
    """Return the mirrors in $NNCTL_MIRROR, which are separated by white space."""
    return tuple(os.environ.get("NNCTL_MIRROR", "").split())


def image_side(pixels: int) -> int | None:
    """Return the side of a square image of at least 8 x 8 pixels; None for other examples.

    The examples of logic gates have two inputs.
    """
    side = math.isqrt(pixels)
    return side if side * side == pixels and side >= SMALLEST_SIDE else None


def canonical_name(name: str) -> str:
    """Return a dataset's name, or its absolute path, which is valid in any working directory."""
    return name if name in NAMED else str(expand_home(name).resolve())


def locate(name: str, folder: Path) -> str:
    """Return a dataset's name, or its path, which is `name` in `folder` if that exists."""
    if not name or name in NAMED:
        return name
    path = folder / expand_home(name)
    return str(path) if exists(path) else name


def dataset_info(name: str) -> DatasetInfo:
    """Return the sizes and class names of a dataset without downloading it.

    Raises
    ------
    UsageError
        The name is neither a known dataset nor a folder or file.
    DataError
        A file is missing, damaged or not a dataset.
    """
    return _source(name).info()


def open_dataset(name: str, *, notify: download.Notify) -> Dataset:
    """Return a dataset with verified files; a known one is downloaded if it is missing.

    Parameters
    ----------
    name : str
        Dataset: a name in `NAMED`, or a folder or file; see `nnctl.data.readers`.
    notify : callable
        Function that is called with each event of a download.

    Raises
    ------
    UsageError, DataError
        The dataset is unknown or not available.
    """
    return _source(name).open(notify)


def find_cached(name: str) -> Dataset | None:
    """Return a dataset without downloading; None if it is not available. See `open_dataset`."""
    try:
        return _source(name).open(None)
    except (DataError, UsageError):
        return None


def dataset_directory(name: str) -> Path:
    """Return the folder for the files of a known dataset."""
    return MINI_DIRECTORY if name == "mini" else data_directory() / name


def _known(name: str) -> KnownDataset | None:
    return MINI if name == "mini" else DATASETS.get(name)


def _source(name: str) -> _Source:
    if name in GATES:
        return _GateSource(name)
    known = _known(name)
    return _KnownSource(name, known) if known else _Source(name)


@dataclass(frozen=True)
class _Source:
    """A folder or file of the user, from which a dataset is opened."""

    name: str

    def info(self) -> DatasetInfo:
        """Return the sizes and class names; see `dataset_info`."""
        files = _user_files(self.name)
        count, *sides = idx.read_idx_shape(files[TRAIN_IMAGES], dimensions=3)
        return DatasetInfo(count, math.prod(sides), _class_names(files[TRAIN_LABELS]))

    def open(self, notify: download.Notify | None) -> Dataset:
        """Return the dataset; None for `notify` forbids a download. See `open_dataset`."""
        files = _user_files(self.name)
        hashes = {path.name: hash_of(path) for path in files.values()}
        return Dataset(canonical_name(self.name), files, hashes)


class _GateSource(_Source):
    """A logic gate, whose truth table is a dataset."""

    def info(self) -> DatasetInfo:
        return DatasetInfo(len(INPUTS), 2, DIGITS[:2])

    def open(self, notify: download.Notify | None) -> Dataset:
        return Gate(self.name, {}, {})


@dataclass(frozen=True)
class _KnownSource(_Source):
    """A dataset that is bundled or can be downloaded."""

    known: KnownDataset

    def info(self) -> DatasetInfo:
        return DatasetInfo(self.known.n_training, 784, self.known.class_names)

    def open(self, notify: download.Notify | None) -> Dataset:
        directory = dataset_directory(self.name)
        dataset = self._verified(directory)
        if dataset is None and notify and self.name in DATASETS:
            download.fetch(directory, self.known, mirrors=configured_mirrors(), notify=notify)
            dataset = self._verified(directory)
        if dataset is None:
            raise DamagedFileError(
                f"the dataset in {directory} is damaged",
                hint="Reinstall nnctl, or download it again.",
            )
        return dataset

    def _verified(self, directory: Path) -> Dataset | None:
        """Return the dataset, or None if one of its files is missing or damaged."""
        files, hashes = {}, {}
        for file in self.known.files:
            path = download.find(directory, file)
            if path is None:
                return None
            files[file.name] = path
            name, sha256 = (
                (file.name, file.idx_sha256) if file.idx_sha256 else (path.name, hash_of(path))
            )
            hashes[name] = sha256
        return Dataset(self.name, files, hashes)


def _user_files(name: str) -> Mapping[str, Path]:
    """Return the four IDX files of a user's folder, or of what its data was converted to."""
    source = expand_home(name)
    if not exists(source):
        is_path = bool(source.suffix) or len(source.parts) > 1
        raise UsageError(
            f"file or folder '{name}' not found"
            if is_path
            else f"unknown dataset '{name}'{did_you_mean(name, NAMED)}",
            hint=f"A dataset is {', '.join(DATASETS)}, mini, a logic gate ({', '.join(GATES)}), or "
            "a folder or file with images.",
        )
    if not source.is_dir() and not source.is_file():
        raise DataError(f"{name} is neither a folder nor a regular file")
    files = readers.find_idx_files(source)
    if files is None:
        container = readers.find_container(source)
        try:
            states = [path.stat() for path in container.files]
        except OSError as error:
            raise DataError(f"{name} cannot be read: {error.strerror}") from None
        signature = tuple((state.st_size, state.st_mtime_ns) for state in states)
        return _converted(source.resolve(), data_directory(), signature)
    missing = [f"{wanted}[.gz]" for wanted in NAMES if wanted not in files]
    if missing:
        raise DataError(f"missing files in {source}: {', '.join(missing)}")
    return files


@functools.lru_cache(maxsize=8)
def _converted(source: Path, cache: Path, _: tuple[tuple[int, int], ...]) -> Mapping[str, Path]:
    """Return IDX files in the cache with the content of another folder or file.

    The cache is found by the hash of the source, and its own files are verified by their hashes, so
    neither a changed source nor a damaged cache is used.

    Parameters
    ----------
    source : Path
        Folder or file; see `nnctl.data.readers`.
    cache : Path
        Folder for downloads and converted files.
    _ : tuple
        Sizes and times of its files: this process hashes them again if they have changed.
    """
    directory = cache / "converted" / readers.find_container(source).key()[:32]
    files = {name: directory / name for name in NAMES}
    try:
        hashes = json.loads((directory / _HASHES).read_text("utf-8"))
        if hashes == {name: hash_of(path) for name, path in files.items()}:
            return files
    except (OSError, ValueError, DataError):
        pass  # it was not converted yet, or the cache is damaged
    contents = {name: idx.encode(array) for name, array in readers.read(source).items()}
    hashes = {name: hash_of(content) for name, content in contents.items()}
    with download.writing(directory):
        remove_temporaries(directory)
        for name, content in contents.items():
            write_atomically(files[name], content)
        write_atomically(directory / _HASHES, json.dumps(hashes).encode())
    return files


def hold_out(
    examples: Examples, count: int, *, stratified: bool = False
) -> tuple[Examples, Examples | None]:
    """Split off `count` examples for validation; the second part is None if count is 0.

    They are the last ones, or the last ones of each class if `stratified`, with the same share of
    each class.
    """
    if not count:
        return examples, None
    if stratified:
        return _part(examples, _last_of_each_class(examples.labels, count))
    cut = len(examples.labels) - count
    return (
        Examples(examples.inputs[:cut], examples.labels[:cut]),
        Examples(examples.inputs[cut:], examples.labels[cut:]),
    )


def hold_out_fold(
    examples: Examples, number: int, of: int, *, stratified: bool = False
) -> tuple[Examples, Examples]:
    """Split off a fold for validation: each example is in exactly one of the folds.

    A fold is a sequence of consecutive examples, or of consecutive ones of each class if
    `stratified`, with the same share of each class.

    Parameters
    ----------
    examples : Examples
        Examples, at least as many as folds.
    number, of : int
        Number of the fold, from 1, and number of folds.
    stratified : bool
        Whether each fold has the same share of each class.
    """
    labels = examples.labels if stratified else np.zeros_like(examples.labels)
    by_class = np.argsort(labels, kind="stable")
    folds = np.arange(len(labels)) % of  # equally many of each, in all and in each class
    folds = folds[np.lexsort((folds, labels[by_class]))]
    held_out = np.zeros(len(labels), bool)
    held_out[by_class[folds == number - 1]] = True
    return _part(examples, held_out)


def fold_size(count: int, number: int, of: int) -> int:
    """Return the number of examples in a fold of `count` examples; see `hold_out_fold`."""
    return len(range(number - 1, count, of))


def _part(examples: Examples, held_out: NDArray[np.bool_]) -> tuple[Examples, Examples]:
    """Return the other examples, and the held-out ones."""
    return (
        Examples(examples.inputs[~held_out], examples.labels[~held_out]),
        Examples(examples.inputs[held_out], examples.labels[held_out]),
    )


def _last_of_each_class(labels: NDArray[Any], count: int) -> NDArray[np.bool_]:
    """Mark `count` examples in all, with the same share of each class up to rounding."""
    sizes = np.bincount(labels)
    exact = sizes * (count / len(labels))
    quotas = np.floor(exact).astype(np.int64)
    # The classes with the largest remainders get one more.
    quotas[np.argsort(quotas - exact, kind="stable")[: count - quotas.sum()]] += 1
    held_out = np.zeros(len(labels), bool)
    for label, quota in enumerate(quotas):
        held_out[np.flatnonzero(labels == label)[sizes[label] - quota :]] = True
    return held_out


def relabel_binary(examples: Examples, positive: int) -> Examples:
    """Replace the labels for a binary task: 1 for the class `positive`, 0 for all others."""
    return Examples(examples.inputs, (examples.labels == positive).astype(np.uint8))


def balanced_subset(examples: Examples, count: int, rng: np.random.Generator) -> Examples:
    """Return `count` random examples, with equally many of each class, in their original order.

    Class sizes differ by one if `count` is not divisible by the number of classes, and by more
    only if a class does not have enough examples.
    """
    shuffled = rng.permutation(len(examples.labels))
    labels = examples.labels[shuffled]
    rank_in_class = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank_in_class[members] = np.arange(np.count_nonzero(members))
    chosen = np.sort(shuffled[np.argsort(rank_in_class, kind="stable")[:count]])
    return Examples(examples.inputs[chosen], examples.labels[chosen])
