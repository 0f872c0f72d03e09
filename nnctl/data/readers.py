"""Reading datasets in the files that people have: IDX, CSV, NPZ, pickle, or a folder per class.

Each reader returns four arrays, by the names of the IDX files: training images (n, height, width)
and labels (n,), then test images and labels. If a dataset has no test set, or one without labels,
as on Kaggle, every sixth training example becomes the test set. Nothing in a file is executed.
"""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from nnctl.data import idx
from nnctl.data.registry import NAMES, hash_of
from nnctl.errors import DamagedFileError, DataError, requiring
from nnctl.text import quoted, shortened

Arrays = Mapping[str, NDArray[np.uint8]]
"""Images and labels, by the names in `NAMES`."""

ACCEPTED = (
    "four IDX files, CSV files with the label in a column, mnist.npz, mnist.pkl.gz, or a folder of "
    "images per class (0, 1, ...)"
)
"""The accepted contents of a folder, for error messages."""

VERSION = 1
"""Version of the readers; a change of what they read makes earlier conversions invalid."""
_IDX_NAME = re.compile(
    r"(?P<prefix>.*?)(?P<part>train|t10k|test)[-_.](?P<what>images|labels)"
    r"[-_.]idx\d[-_.](ubyte|int)(?P<gz>\.gz)?",
    re.IGNORECASE,
)
_TRAINING, _TEST = re.compile("train", re.IGNORECASE), re.compile("test|t10k", re.IGNORECASE)
_TEST_EVERY = 6  # without a test set, every sixth training example becomes a test example
_MAX_OPCODES = 10_000  # of a pickle; arrays need about a hundred
_MAX_IMAGE_PIXELS = 1_000_000
_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


class Container(NamedTuple):
    """The files of a dataset that is not in IDX files, and the function that reads them."""

    files: tuple[Path, ...]
    read: Callable[[Sequence[Path]], Arrays]

    def key(self) -> str:
        """Return a hash of the names and contents of the files, and of the readers' version."""
        total = hashlib.sha256(f"{VERSION}\n".encode())
        for path in self.files:
            name = f"{path.parent.parent.name}/{path.parent.name}"
            total.update(f"{name} {hash_of(path)}\n".encode())
        return total.hexdigest()


def read(source: Path) -> Arrays:
    """Return the images and labels of a folder or file that contains no IDX files.

    Raises
    ------
    DataError
        The data cannot be read, or is not one of the known forms.
    UsageError
        Pillow, which reads PNG and JPEG files, is not installed.
    """
    container = find_container(source)
    try:
        return container.read(container.files)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error.strerror or error}") from None


# IDX files ----------------------------------------------------------------------------------------


def find_idx_files(source: Path, prefixes: Sequence[str] = ("",)) -> dict[str, Path] | None:
    """Return the IDX files in a folder by their usual names; None if there are none.

    Names may have dots (``train-images.idx3-ubyte``) and a prefix (``emnist-letters-train-...``),
    with or without ``.gz``. The files may also be in the subfolder ``raw``, or ``MNIST/raw`` as
    torchvision creates it.

    Parameters
    ----------
    source : Path
        Folder.
    prefixes : sequence of str
        Prefixes of the names, the preferred one first.
    """
    if not source.is_dir():
        return None
    for folder in (source, source / "raw", *sorted(source.glob("*/raw"))):
        groups: dict[str, dict[str, Path]] = {}
        # A compressed file comes first, because its CRC-32 detects damage.
        for path in sorted(_list_folder(folder), key=lambda path: path.suffix != ".gz"):
            if match := _IDX_NAME.fullmatch(path.name):
                is_training = match["part"].lower() == "train"
                is_images = match["what"].lower() == "images"
                name = NAMES[2 * (not is_training) + (not is_images)]
                groups.setdefault(match["prefix"].lower(), {}).setdefault(name, path)
        for prefix in prefixes:
            if prefix in groups:
                return groups[prefix]
        if groups:
            names = ", ".join(sorted(prefix.rstrip("-_.") or "mnist" for prefix in groups))
            raise DataError(
                f"{folder} contains IDX files of another dataset: {names}",
                hint="Import a dataset by its name, for example: nnctl download emnist-letters "
                f"--from {source}",
            )
    return None


def _list_folder(folder: Path) -> list[Path]:
    """Return the files and folders in a folder; nothing if it does not exist."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []


# Other files --------------------------------------------------------------------------------------


def find_container(source: Path) -> Container:
    """Return the files of a dataset that is not in IDX files, and their reader.

    Raises
    ------
    DataError
        The folder or file does not contain a dataset.
    """
    if source.is_file():
        return Container((source,), _reader_of(source))
    listed = _list_folder(source)
    for reader in dict.fromkeys(_READERS.values()):
        files = [
            path for path in listed if path.is_file() and _READERS.get(_suffix(path)) is reader
        ]
        if files:
            return Container(_choose_files(source, files, pairs=reader is _read_csv), reader)
    if files := _images_in_classes(source):
        return Container(tuple(files), functools.partial(_read_image_folders, source))
    names = [path.name for path in listed[:5]] + ["..."] * (len(listed) > 5)
    content = f"it contains {', '.join(names)}" if names else "it is empty"
    raise DataError(
        f"{source} contains no dataset: {content}",
        hint=f"nnctl reads {ACCEPTED}.",
    )


def _reader_of(path: Path) -> Callable[[Sequence[Path]], Arrays]:
    """Return the reader of a single file, by its suffix or its content."""
    if reader := _READERS.get(_suffix(path)):
        return reader
    with path.open("rb") as file:
        head = file.read(64)
    if head[:2] == b"\0\0":
        raise DataError(
            f"{path} is one of four IDX files", hint=f"Name their folder: {path.parent}"
        )
    raise DataError(
        f"{path} is not a dataset: {idx.describe(head)}", hint=f"nnctl reads {ACCEPTED}."
    )


def _suffix(path: Path) -> str:
    return Path(path.name.lower().removesuffix(".gz")).suffix


def _choose_files(source: Path, files: list[Path], *, pairs: bool) -> tuple[Path, ...]:
    """Return the file, or the file for training and, if there may be pairs, that for testing."""
    if len(files) == 1:
        return tuple(files)
    training = [path for path in files if _TRAINING.search(path.name)]
    test = [path for path in files if _TEST.search(path.name)]
    if len(training) == 1 and len(test) <= pairs and training != test:
        return (*training, *test)
    names = ", ".join(path.name for path in files[:5])
    raise DataError(
        f"{source} contains several datasets: {names}", hint="Name the file instead of the folder."
    )


def _checked_arrays(source: object, *parts: tuple[NDArray[Any], NDArray[Any]]) -> Arrays:
    """Return the checked images and labels of the training set and the test set.

    Without a test set, every sixth training example is moved to one.
    """
    arrays = []
    for kind, part in zip(("", "test "), parts, strict=False):
        images, labels = idx.as_images(part[0], source), idx.as_labels(part[1], source)
        if len(images) != len(labels):
            counts = f"{len(images):,} {kind}images, but {len(labels):,} {kind}labels"
            raise DataError(f"{source} has {counts}")
        arrays += [images, labels]
    if len(parts) == 1:
        is_test = np.arange(len(labels)) % _TEST_EVERY == _TEST_EVERY - 1
        if not is_test.any():
            raise DataError(f"{source} has only {len(labels)} examples, too few for a test set")
        arrays = [images[~is_test], labels[~is_test], images[is_test], labels[is_test]]
    elif arrays[2].shape[1:] != arrays[0].shape[1:]:
        raise DataError(f"the training and test images of {source} have different sizes")
    return dict(zip(NAMES, arrays, strict=True))


def _read_npz(paths: Sequence[Path]) -> Arrays:
    """Read ``mnist.npz`` as Keras provides it: ``x_train``, ``y_train``, ``x_test``, ``y_test``."""
    (path,) = paths
    with path.open("rb") as file:
        head = file.read(64)
    if not head.startswith(b"PK"):
        raise DataError(f"{path} is not an NPZ file: {idx.describe(head)}")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(member.file_size for member in archive.infolist()) > idx.MAX_BYTES:
                raise DataError(f"{path} has more than {idx.MAX_BYTES:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            missing = [name for name in ("x_train", "y_train") if name not in arrays]
            if missing:
                raise DataError(
                    f"{path} has no array {' and no array '.join(missing)}; "
                    f"it has {', '.join(arrays.files[:8])}"
                )
            has_test = {"x_test", "y_test"} <= set(arrays.files)
            sets = ("train", "test") if has_test else ("train",)
            return _checked_arrays(path, *((arrays[f"x_{s}"], arrays[f"y_{s}"]) for s in sets))
    except DataError:
        raise
    except Exception as error:  # damaged archives raise many types of errors
        raise DamagedFileError(
            f"{path} is not a complete NPZ file of numbers ({error})",
            hint="Replace the damaged file.",
        ) from None


def _read_pickle(paths: Sequence[Path]) -> Arrays:
    """Read ``mnist.pkl.gz`` of Nielsen's book: pairs for training, validation and testing.

    The validation images are the last of the training set, where nnctl also holds out its own.
    """
    (path,) = paths
    content = idx.read_plain(path)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(content)):
            # A large index would make the unpickler reserve memory for all smaller ones.
            index = argument if "PUT" in opcode.name and isinstance(argument, int) else 0
            if max(count, index) > _MAX_OPCODES:
                raise pickle.UnpicklingError("it contains too many objects")
        value = _Unpickler(io.BytesIO(content), encoding="latin1").load()
        pairs = [(_unpickle_array(images), _unpickle_array(labels)) for images, labels in value]
    except Exception as error:  # malformed pickles raise many types of errors
        raise DataError(
            f"{path} is not a pickle of arrays only: {error}",
            hint="nnctl reads pairs of images and labels: (training, validation, test).",
        ) from None
    if len(pairs) not in (2, 3):
        raise DataError(f"{path} has {len(pairs)} parts, not (training, validation, test)")
    images, labels = (np.concatenate(part) for part in zip(*pairs[:-1], strict=True))
    return _checked_arrays(path, (images, labels), pairs[-1])


class _Pickled:
    """A harmless substitute for an array or its type in a pickle, before it is checked."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays only; any other class or function in a pickle is an error."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the substitute for a part of an array."""
        match module.replace("numpy.core", "numpy._core"), name:
            case (
                ("numpy", "ndarray" | "dtype")
                | ("numpy._core.multiarray", "_reconstruct")
                | ("numpy._core.numeric", "_frombuffer")
            ):
                return _Pickled
            case "_codecs", "encode":
                return lambda text, _: text.encode("latin1")
        raise pickle.UnpicklingError(f"it contains {module}.{name}")


def _unpickle_array(value: Any) -> NDArray[Any]:
    """Return an array of numbers from a pickle."""
    if not isinstance(value, _Pickled):
        raise pickle.UnpicklingError(f"it contains a {type(value).__name__} in place of an array")
    if value.state:
        _, shape, kind, is_fortran, raw = value.state
    else:  # saved with protocol 5
        raw, kind, shape, order = value.arguments
        is_fortran = order == "F"
    code, byte_order = kind.arguments[0], kind.state[1] if kind.state else "|"
    if code[0] not in "iufb" or byte_order not in "<>|=":
        raise pickle.UnpicklingError("it contains an array that does not consist of numbers")
    dtype = np.dtype(byte_order.replace("|", "") + code)
    data = raw.encode("latin1") if isinstance(raw, str) else raw
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _read_csv(paths: Sequence[Path]) -> Arrays:
    """Read CSV files: a row per image, with the label and the pixels, as on Kaggle."""
    tables = [_read_table(path) for path in paths]
    labeled = [(images, labels) for images, labels in tables if labels is not None]
    if tables[0][1] is None:
        raise DataError(
            f"{paths[0]} has no labels", hint="A row has the label, then the pixels of an image."
        )
    return _checked_arrays(paths[0], *labeled)


def _read_table(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return the images of a CSV file, and their labels if it has any."""
    content = idx.read_plain(path)
    first = "".join(content[:100_000].decode("utf-8-sig", "replace").splitlines()[:1])
    row = [cell.strip() for cell in next(csv.reader([first]), [])]
    has_header = not all(re.fullmatch(r"[\d.eE+-]+", cell) for cell in row)
    columns = len(row)
    if columns < 3:
        hint = "Separate the values by commas." if len(re.split("[;\t ]", first)) > 3 else None
        problem = idx.describe(content[:64])
        raise DataError(f"{path} is not a CSV file of images: {problem}", hint=hint)
    named = [i for i, cell in enumerate(row) if cell.lower() in ("label", "class", "digit")]
    label: int | None = named[0] if has_header and named else 0
    if not named and math.isqrt(columns) ** 2 == columns:
        label = None  # every column is a pixel
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # an empty file is only a warning
            table = np.loadtxt(
                io.BytesIO(content),
                np.uint8,
                delimiter=",",
                skiprows=int(has_header),
                encoding="utf-8-sig",
                ndmin=2,
            )
    except (ValueError, UserWarning) as error:
        raise DataError(
            _csv_mistake(path, content, columns, has_header)
            or f"{path} is not a CSV file of images: {str(error).splitlines()[0]}",
            hint="All cells must be whole numbers from 0 to 255, as many in each row.",
        ) from None
    if label is None:
        return table, None
    if not named and np.ptp(table[:, 0]) == 0 < np.ptp(table[:, -1]):
        raise DataError(
            f"{path} has the same label in every row: {table[0, 0]}",
            hint="Without a header, the first column has the labels. If another column has them, "
            "add a header that names it 'label'.",
        )
    return np.delete(table, label, axis=1), table[:, label]


def _csv_mistake(path: Path, content: bytes, columns: int, has_header: bool) -> str | None:
    """Return the message for the first line that has wrong cells; None if none is found."""
    lines = io.StringIO(content.decode("utf-8-sig", "replace"))
    with contextlib.suppress(csv.Error):
        for number, row in enumerate(csv.reader(lines), start=1):
            if not row or (has_header and number == 1):
                continue
            if len(row) != columns:
                return f"{path}:{number}: {len(row)} columns, but the first line has {columns}"
            for column, cell in enumerate(row, start=1):
                if not re.fullmatch(r"\s*0*(\d{1,2}|1\d\d|2[0-4]\d|25[0-5])\s*", cell):
                    value = quoted(shortened(cell.strip(), 40))
                    return f"{path}:{number}: column {column} is not a pixel or label: {value}"
    return None


def _images_in_classes(source: Path) -> list[Path]:
    """Return the image files in folders named by labels, also within training and test folders."""
    return [
        path
        for part in (source, *filter(Path.is_dir, _list_folder(source)))
        for folder in _list_folder(part)
        if folder.name.isascii() and folder.name.isdecimal() and folder.is_dir()
        for path in _list_folder(folder)
        if path.suffix.lower() in _IMAGE_SUFFIXES and path.is_file()
    ]


def _read_image_folders(source: Path, paths: Sequence[Path]) -> Arrays:
    """Read a folder of images per class.

    The files are sorted by class, so they are shuffled, always in the same way.
    """
    is_test = np.array(
        [
            path.parent.parent != source and bool(_TEST.search(path.parent.parent.name))
            for path in paths
        ]
    )
    labels = np.array([int(path.parent.name) for path in paths])
    images = _read_images(paths)
    order = np.random.default_rng(0).permutation(len(paths))
    training, test = order[~is_test[order]], order[is_test[order]]
    if not len(training):
        raise DataError(f"{source} has no training images")
    parts = [training, test] if len(test) else [training]
    return _checked_arrays(source, *((images[part], labels[part]) for part in parts))


def _read_images(paths: Sequence[Path]) -> NDArray[np.uint8]:
    """Return the gray values of PNG and JPEG files of the same size, shape (n, height, width)."""
    with requiring("Pillow", "reading images", extra="plot"):
        from PIL import Image
    images: list[NDArray[np.uint8]] = []
    for path in paths:
        try:
            with Image.open(path, formats=("PNG", "JPEG")) as opened:
                if opened.width * opened.height > _MAX_IMAGE_PIXELS:
                    raise DataError(f"{path} is too large: {opened.width} x {opened.height} pixels")
                image = np.asarray(opened.convert("L"))
        except DataError:
            raise
        except Exception as error:  # decoders raise many types of errors on damaged files
            raise DamagedFileError(
                f"{path} is not a readable image ({type(error).__name__})",
                hint="Replace or remove the file.",
            ) from None
        images.append(image)
        if len(paths) * image.size > idx.MAX_BYTES:
            raise DataError(f"the images have more than {idx.MAX_BYTES:,} pixels")
        if image.shape != images[0].shape:
            sizes = [" x ".join(map(str, each.shape)) for each in (image, images[0])]
            raise DataError(
                f"{path} has {sizes[0]} pixels, but {paths[0]} has {sizes[1]}",
                hint="All images of a dataset must have the same size.",
            )
    return np.stack(images)


_READERS: dict[str, Callable[[Sequence[Path]], Arrays]] = {
    ".npz": _read_npz,
    ".pkl": _read_pickle,
    ".pickle": _read_pickle,
    ".csv": _read_csv,
}
"""Reader of each suffix, without ``.gz``; in a folder, the first of them that has files."""
