"""Downloading datasets: each file comes from the first mirror with the right content.

A mirror may be silent, slow or hostile. Its data is limited to the size of the file, and only
verified content is written to the cache.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import os
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from nnctl.data import idx
from nnctl.data.registry import (
    DATASETS,
    SCHEMES,
    TEST_LABELS,
    TRAIN_LABELS,
    KnownDataset,
    KnownFile,
    hash_of,
)
from nnctl.errors import DataError, UsageError
from nnctl.files import remove_temporaries, write_atomically
from nnctl.text import quoted, without_secrets


@dataclass(frozen=True)
class FileKept:
    """A cached file is correct and is not downloaded."""

    name: str


@dataclass(frozen=True)
class FileDamaged:
    """A cached file is damaged and will be downloaded again."""

    name: str
    path: Path


@dataclass(frozen=True)
class FileStarted:
    """The download of a file of `size` bytes from a mirror begins; None: the size is not known."""

    name: str
    url: str
    size: int | None


@dataclass(frozen=True)
class BytesReceived:
    """`count` more bytes of a file were received."""

    name: str
    count: int


@dataclass(frozen=True)
class MirrorFailed:
    """A mirror did not serve a file, or served wrong content."""

    name: str
    url: str
    reason: str


@dataclass(frozen=True)
class FileDone:
    """A file was received and verified."""

    name: str
    url: str
    size: int


DownloadEvent = FileKept | FileDamaged | FileStarted | BytesReceived | MirrorFailed | FileDone
Notify = Callable[[DownloadEvent], None]
State = Literal["right", "missing", "damaged"]


def find(directory: Path, file: KnownFile) -> Path | None:
    """Return the path of a verified file in a folder, compressed or not; None if there is none."""
    compressed, plain = directory / file.gzip_name, directory / file.name
    if file.hash is None:
        return compressed if _size_of(compressed) and _is_idx(compressed, file) else None
    if _matches(compressed, file.size, file.hash):
        return compressed
    if file.idx_sha256 and _matches(plain, None, file.idx_sha256):
        return plain
    return None


def _matches(path: Path, size: int | None, known_hash: str) -> bool:
    actual = _size_of(path)
    return actual is not None and size in (None, actual) and hash_of(path, known_hash) == known_hash


def _is_idx(path: Path, file: KnownFile, *, whole: bool = False) -> bool:
    """Return whether a file begins like an IDX file, or is one: its length and CRC-32 are right."""
    read = idx.read_idx if whole else idx.read_idx_shape
    try:
        read(path, _dimensions(file))
    except DataError:
        return False
    return True


def _dimensions(file: KnownFile) -> int:
    return 1 if file.name in (TRAIN_LABELS, TEST_LABELS) else 3


def inspect(directory: Path, file: KnownFile) -> State:
    """Check whether a known file is in a folder and has the right content."""
    path = find(directory, file)
    if path and (file.hash or _is_idx(path, file, whole=True)):
        return "right"
    present = (directory / file.gzip_name).exists() or (directory / file.name).exists()
    return "damaged" if present else "missing"


def _size_of(path: Path) -> int | None:
    """Return the size of a regular file, else None: reading a pipe or device may never end."""
    try:
        return path.stat().st_size if path.is_file() else None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None


def fetch(
    directory: Path,
    dataset: KnownDataset,
    *,
    mirrors: Sequence[str] = (),
    notify: Notify,
    force: bool = False,
) -> None:
    """Download the files of a dataset that are missing or damaged in a folder.

    Parameters
    ----------
    directory : Path
        Cache folder of the dataset; it is created when a file has to be written.
    dataset : KnownDataset
        Dataset whose files the folder must contain afterwards.
    mirrors : sequence of str
        Base URLs to try first.
    notify : callable
        Function that is called with each `DownloadEvent`.
    force : bool
        Whether to download correct files again. The old files stay until all new ones are received.

    Raises
    ------
    UsageError
        A mirror is not an HTTP URL.
    DataError
        No mirror served a file, or it cannot be written. Files that were downloaded before it are
        saved, except with `force`.
    """
    tried = [*map(check_mirror, mirrors), *dataset.mirrors]
    remove_temporaries(directory)
    wanted = []
    for file in dataset.files:
        state = inspect(directory, file)
        if state == "right" and not force:
            notify(FileKept(file.name))
            continue
        if state == "damaged":
            plain = directory / file.name
            notify(FileDamaged(file.name, plain if plain.exists() else directory / file.gzip_name))
        wanted.append(file)
    if not wanted:
        return
    with writing(directory), tempfile.TemporaryDirectory() as folder:
        downloader = _Downloader(dataset.name, tried, Path(folder), notify)
        received = (
            _extract(downloader.receive(dataset.archive), dataset.archive, directory)
            if dataset.archive
            else ((directory / f.gzip_name, downloader.receive(f).read_bytes()) for f in wanted)
        )
        _write(list(received) if force else received)


def _write(contents: Iterable[tuple[Path, bytes]]) -> None:
    for path, content in contents:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)


def _extract(path: Path, archive: KnownFile, directory: Path) -> Iterator[tuple[Path, bytes]]:
    """Yield the files of all datasets in an archive, with their paths in the cache."""
    try:
        with zipfile.ZipFile(path) as opened:
            for dataset in DATASETS.values():
                for file in dataset.files if dataset.archive == archive else ():
                    content = opened.read(f"gzip/{file.published_name}")
                    yield directory.parent / dataset.name / file.gzip_name, content
    except (zipfile.BadZipFile, KeyError) as error:
        raise DataError(f"{archive.published_name} has other content: {error}") from None


def import_files(directory: Path, source: Path, dataset: KnownDataset) -> None:
    """Copy a dataset from local files into the cache, and verify it by its content.

    Parameters
    ----------
    directory : Path
        Cache folder of the dataset.
    source : Path
        Folder with the four IDX files, another folder or file that `nnctl.data.readers` reads, or
        the dataset's archive.
    dataset : KnownDataset
        Dataset that it must contain.

    Raises
    ------
    DataError
        Files are missing or have wrong content (the message lists all of them), or the cache cannot
        be written. In these cases no file is copied.
    """
    from nnctl.data import readers  # most commands do not need it

    # Without known hashes, the names of the files are the only evidence of what they are.
    prefix = dataset.files[0].published_name.partition("train")[0]
    prefixes = [prefix] if dataset.archive else [prefix, ""]
    found = readers.find_idx_files(source, prefixes)
    contents, problems = {}, []
    hint = f"To train on other data than {dataset.title}, use --dataset {source}"
    if dataset.archive and _matches(source, dataset.archive.size, str(dataset.archive.hash)):
        contents = dict(_extract(source, dataset.archive, directory))
    elif found is None:
        if not all(file.idx_sha256 for file in dataset.files):
            raise DataError(
                f"{source} does not contain the files of {dataset.title} as they are published",
                hint=f"To train on it nevertheless, use --dataset {source}",
            )
        for file, array in zip(dataset.files, readers.read(source).values(), strict=True):
            content = contents[directory / file.name] = idx.encode(array)
            if hash_of(content) != file.idx_sha256:
                count = f"{len(array):,} {'images' if array.ndim == 3 else 'labels'}"
                problems.append(f"{file.name}: its {count} are not those of {dataset.title}")
    else:
        for file in dataset.files:
            path = found.get(file.name)
            if path is None:
                problems.append(f"{file.name}[.gz] is missing")
                continue
            try:
                name, content = _verified_content(path, file)
                contents[directory / name] = content
            except DataError as error:
                problems.append(error.message)
                hint = (
                    error.hint or hint
                )  # training on files that are not IDX files would fail, too
    if problems:
        lines = "\n  ".join([f"{source} does not contain {dataset.title}:", *problems])
        raise DataError(lines, hint=hint)
    with writing(directory):
        remove_temporaries(directory)
        _write(contents.items())


def _verified_content(path: Path, file: KnownFile) -> tuple[str, bytes]:
    """Return the name in the cache and the content of a file, if it is the known one.

    Raises
    ------
    DataError
        It is another file; the message says which, if possible.
    """
    if _size_of(path) is None:
        raise DataError(f"{path} is not a file")
    plain, content = idx.read_plain(path), path.read_bytes()
    plain_hash, hashes = hash_of(plain), (hash_of(content), hash_of(content, "md5:"))
    if file.hash in hashes:
        return file.gzip_name, content
    if file.idx_sha256 == plain_hash:
        return file.name, plain
    idx.decode(plain, path, _dimensions(file))  # says what is wrong with another file
    if file.hash is None:
        return file.gzip_name, content if content != plain else gzip.compress(plain, 1)
    for known in DATASETS.values():
        for other in known.files:
            if other.hash in hashes or other.idx_sha256 == plain_hash:
                raise DataError(f"{path} is {other.name} of {known.title}")
    raise DataError(
        f"{path} has the format of {file.name}, but not its content"
        if file.idx_sha256
        else f"{path} has the format of {file.name}, but is not the published file"
    )


@contextlib.contextmanager
def writing(directory: Path) -> Iterator[None]:
    """Create a folder, and raise an error if it is read-only, before anything is downloaded."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not os.access(directory, os.W_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        yield
    except OSError as error:
        raise DataError(
            f"{directory} cannot be written: {error.strerror or error}",
            hint="Choose another folder with --data-dir or NNCTL_DATA_DIR.",
        ) from None


def check_mirror(mirror: str) -> str:
    """Return the base URL of a mirror: with a slash at the end of its path, without a fragment."""
    try:
        parts = urlsplit(mirror)
        valid = parts.scheme in SCHEMES and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"a mirror must be an http:// or https:// URL, not {quoted(without_secrets(mirror))}",
            hint="Percent-encode special characters in a password, for example / as %2F. To copy "
            "local files, use: nnctl download --from DIR",
        )
    return parts._replace(path=parts.path.rstrip("/") + "/", fragment="").geturl()


class _Downloader:
    """Tries all mirrors in turn for each file of a dataset."""

    def __init__(self, dataset: str, mirrors: Sequence[str], folder: Path, notify: Notify) -> None:
        self._dataset = dataset
        self._mirrors = list(dict.fromkeys(mirrors))
        self._n_mirrors = max(1, len(self._mirrors))
        self._folder = folder
        self._notify = notify

    def receive(self, file: KnownFile) -> Path:
        """Return the path of a verified file, or raise an error that lists all failures."""
        from nnctl.data import mirror  # imports pooch, which is slow

        def report(count: int) -> None:
            self._notify(BytesReceived(file.name, count))

        patience = mirror.PATIENCE / self._n_mirrors
        failures = []
        for base in tuple(self._mirrors):
            parts = urlsplit(base)
            address = parts._replace(path=parts.path + file.published_name).geturl()
            shown = without_secrets(address)
            self._notify(FileStarted(file.name, shown, file.size))
            try:
                path = mirror.retrieve(address, file, self._folder, patience, report)
            except mirror.MirrorError as error:
                self._notify(MirrorFailed(file.name, shown, str(error)))
                failures.append(f"{shown} {error}")
                if isinstance(error, mirror.UnreachableError):
                    self._mirrors.remove(base)
            else:
                self._notify(FileDone(file.name, shown, path.stat().st_size))
                return path
        raise DataError(
            "\n  ".join([f"no mirror served {file.published_name}:", *failures]),
            hint="Choose another mirror with --mirror URL or NNCTL_MIRROR, or copy local files "
            f"with: nnctl download {self._dataset} --from DIR",
        )
