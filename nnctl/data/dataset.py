"""Datasets: find and read their files, and split off examples for validation."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np

from nnctl.data import download, idx
from nnctl.data.gates import GATES, INPUTS
from nnctl.data.registry import (
    CLASSES,
    MINI,
    MNIST,
    NAMES,
    TEST_IMAGES,
    TEST_LABELS,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    KnownFile,
)
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.nn.examples import Examples
from nnctl.text import did_you_mean

MINI_DIRECTORY = Path(__file__).parent / "mini"

NAMED = ("mnist", "mini", *GATES)
SMALLEST_SIDE = 8
"""Smallest height of an image of a digit, in pixels."""
"""Datasets with a name; any other name is the path of a folder."""


@dataclass(frozen=True)
class DatasetInfo:
    """Sizes of a dataset that are known before it is read."""

    n_training: int
    pixels: int
    classes: int


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
        SHA-256 hashes by file name. Known files are hashed uncompressed, so that compressed and
        uncompressed files have the same hash; a user's files are hashed as they are.
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

    def _read(self, images_name: str, labels_name: str) -> Examples:
        images = idx.read_idx(self.files[images_name], dimensions=3)
        labels = idx.read_idx(self.files[labels_name], dimensions=1)
        if len(images) != len(labels):
            raise DamagedFileError(
                f"{self.files[images_name]} has {len(images):,} images, but "
                f"{self.files[labels_name].name} has {len(labels):,} labels"
            )
        if labels.max() >= CLASSES:
            raise DataError(
                f"{self.files[labels_name]} has the label {labels.max()}; digits are 0 to 9"
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


def data_directory(given: Path | None = None) -> Path:
    """Return the folder for downloads: the given one, $NNCTL_DATA_DIR, or the user's cache.

    Raises
    ------
    DataError
        No folder is given, and the user has no home directory for a cache.
    """
    chosen = given or os.environ.get("NNCTL_DATA_DIR")
    if chosen:
        return Path(chosen)
    import platformdirs

    # Without a home directory, platformdirs raises an error; older versions return a path with ~.
    with contextlib.suppress(RuntimeError):
        cache = platformdirs.user_cache_path("nnctl")
        if cache.is_absolute():
            return cache
    raise DataError(
        "there is no folder for downloads: the home directory is unknown",
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
    return name if name in NAMED else str(Path(name).resolve())


def dataset_info(name: str) -> DatasetInfo:
    """Return the sizes of a dataset without downloading it.

    Raises
    ------
    UsageError
        The name is neither a known dataset nor a folder.
    DataError
        A file of the folder is missing or damaged.
    """
    if name == "mnist":
        return DatasetInfo(n_training=60_000, pixels=784, classes=CLASSES)
    if name == "mini":
        return DatasetInfo(n_training=5_000, pixels=784, classes=CLASSES)
    if name in GATES:
        return DatasetInfo(n_training=len(INPUTS), pixels=2, classes=2)
    count, *sides = idx.read_idx_shape(_folder_files(name)[TRAIN_IMAGES], dimensions=3)
    return DatasetInfo(n_training=count, pixels=int(np.prod(sides)), classes=CLASSES)


def open_dataset(
    name: str,
    *,
    data_dir: Path | None = None,
    mirrors: Sequence[str] | None = None,
    notify: download.Notify,
) -> Dataset:
    """Return a dataset with verified files; MNIST is downloaded if it is missing.

    Parameters
    ----------
    name : str
        Dataset: ``mnist``, ``mini``, a logic gate, or a folder of four IDX files.
    data_dir : Path, optional
        Folder for downloads; see `data_directory`.
    mirrors : sequence of str, optional
        Mirrors to try before the known ones (default: $NNCTL_MIRROR).
    notify : callable
        Function that is called with each event of a download.

    Raises
    ------
    UsageError, DataError
        The dataset is unknown or not available.
    """
    if name in GATES:
        return Gate(name, {}, {})
    if name == "mini":
        return _verified(name, MINI_DIRECTORY, MINI) or _raise_damaged(MINI_DIRECTORY)
    if name == "mnist":
        directory = mnist_directory(data_dir)
        cached = _verified(name, directory, MNIST)
        if cached:
            return cached
        tried = configured_mirrors() if mirrors is None else mirrors
        download.fetch(directory, tuple(MNIST.values()), mirrors=tried, notify=notify)
        return _verified(name, directory, MNIST) or _raise_damaged(directory)
    files = _folder_files(name)
    hashes = {path.name: download.sha256_of(path) for path in files.values()}
    return Dataset(canonical_name(name), files, hashes)


def find_cached(name: str, data_dir: Path | None = None) -> Dataset | None:
    """Return a dataset without downloading; None if it is not available. See `open_dataset`."""
    try:
        if name == "mnist":
            return _verified(name, mnist_directory(data_dir), MNIST)
        return open_dataset(name, data_dir=data_dir, notify=lambda _: None)
    except (DataError, UsageError):
        return None


def mnist_directory(data_dir: Path | None = None) -> Path:
    """Return the folder for MNIST's files."""
    return data_directory(data_dir) / "mnist"


def _verified(name: str, directory: Path, known: Mapping[str, KnownFile]) -> Dataset | None:
    """Return a dataset of known files, or None if one is missing or damaged."""
    files, hashes = {}, {}
    for file in known.values():
        path = download.find(directory, file)
        if path is None:
            return None
        files[file.name] = path
        hashes[file.name] = file.idx_sha256
    return Dataset(name, files, hashes)


def _raise_damaged(directory: Path) -> NoReturn:
    raise DamagedFileError(
        f"the dataset in {directory} is damaged", hint="Reinstall nnctl, or download MNIST again."
    )


def _folder_files(name: str) -> dict[str, Path]:
    """Return the four files in a user's folder, each compressed or uncompressed."""
    folder = Path(name)
    try:
        is_folder = folder.is_dir()
    except OSError:  # the name is not valid as a path
        is_folder = False
    if not is_folder:
        raise UsageError(
            f"unknown dataset '{name}'{did_you_mean(name, NAMED)}",
            hint=f"A dataset is mnist, mini, a logic gate ({', '.join(GATES)}), or a folder with "
            "four IDX files.",
        )
    files, missing = {}, []
    for wanted in NAMES:
        candidates = [folder / f"{wanted}.gz", folder / wanted]
        present = [path for path in candidates if path.is_file()]
        if present:
            files[wanted] = present[0]
        else:
            missing.append(f"{wanted}[.gz]")
    if missing:
        raise DataError(f"missing files in {folder}: {', '.join(missing)}")
    return files


def hold_out(examples: Examples, count: int) -> tuple[Examples, Examples | None]:
    """Split off the last `count` examples for validation; the second part is None if count is 0."""
    if not count:
        return examples, None
    cut = len(examples.labels) - count
    return (
        Examples(examples.inputs[:cut], examples.labels[:cut]),
        Examples(examples.inputs[cut:], examples.labels[cut:]),
    )


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
    for label in range(CLASSES):
        members = labels == label
        rank_in_class[members] = np.arange(np.count_nonzero(members))
    chosen = np.sort(shuffled[np.argsort(rank_in_class, kind="stable")[:count]])
    return Examples(examples.inputs[chosen], examples.labels[chosen])
