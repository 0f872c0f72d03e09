"""Datasets in the files that people have, and files that are something else."""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import struct
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from nnctl.data import idx, readers, registry
from nnctl.data.dataset import MINI_DIRECTORY, Dataset, dataset_info, open_dataset
from nnctl.data.registry import NAMES
from nnctl.errors import DataError, UsageError
from tests.conftest import CONFIGS, Nnctl
from tests.data.conftest import idx_bytes
from tests.runs.helpers import ignore

MINI = open_dataset("mini", notify=ignore)
X, Y = MINI.training.inputs[:60].reshape(-1, 28, 28), MINI.training.labels[:60].astype(np.uint8)
TEST_X, TEST_Y = MINI.test.inputs[:20].reshape(-1, 28, 28), MINI.test.labels[:20].astype(np.uint8)
ARRAYS = dict(zip(NAMES, (X, Y, TEST_X, TEST_Y), strict=True))


def opened(source: Path) -> Dataset:
    """Open a dataset, and check its sizes."""
    dataset = open_dataset(str(source), notify=ignore)
    info = dataset_info(str(source))
    assert (info.n_training, info.pixels) == dataset.training.inputs.shape
    assert info.class_names == dataset.class_names
    return dataset


def check(source: Path) -> None:
    """Check that a folder or file contains the digits above."""
    dataset = opened(source)
    np.testing.assert_array_equal(X.reshape(60, -1), dataset.training.inputs)
    np.testing.assert_array_equal(Y, dataset.training.labels)
    np.testing.assert_array_equal(TEST_X.reshape(20, -1), dataset.test.inputs)
    np.testing.assert_array_equal(TEST_Y, dataset.test.labels)


def check_without_test_set(source: Path, x: NDArray[Any] = X, y: NDArray[Any] = Y) -> None:
    """Check that every sixth training example is in the test set."""
    dataset = opened(source)
    is_test = np.arange(len(y)) % 6 == 5
    np.testing.assert_array_equal(x[~is_test].reshape(-1, 784), dataset.training.inputs)
    np.testing.assert_array_equal(y[is_test], dataset.test.labels)


def error_of(source: Path) -> str:
    """Return the error message and the hint for a folder or file that is not a dataset."""
    with pytest.raises((DataError, UsageError)) as caught:
        open_dataset(str(source), notify=ignore).training  # noqa: B018 - it is read on first use
    return f"{caught.value.message} {caught.value.hint}"


# IDX files ---------------------------------------------------------------------------------------


def write_idx(
    folder: Path,
    name_of: Callable[[str], str] = str,
    encode: Callable[[bytes], bytes] = bytes,
    **changed: NDArray[Any],
) -> Path:
    """Write four IDX files, with other names, encodings, or arrays (such as ``labels=``)."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in ARRAYS.items():
        (folder / name_of(name)).write_bytes(encode(idx_bytes(changed.get(name[:5], array))))
    return folder


@pytest.mark.parametrize(
    ("name_of", "encode"),
    [
        (lambda name: name.replace("-idx", ".idx"), bytes),
        (lambda name: name.replace("-idx", ".idx") + ".gz", gzip.compress),
        (str, gzip.compress),
        (lambda name: f"{name}.gz", bytes),
        (lambda name: f"{name}.GZ".upper(), gzip.compress),
        (lambda name: f"qmnist-{name.replace('t10k', 'test')}.gz"[7:], gzip.compress),
    ],
    ids=["dots", "dots.gz", "gzip without .gz", "plain named .gz", "upper case", "test"],
)
def test_idx_files_are_found_and_read_whatever_their_names(
    tmp_path: Path, name_of: Callable[[str], str], encode: Callable[[bytes], bytes]
) -> None:
    check(write_idx(tmp_path / "digits", name_of, encode))


@pytest.mark.parametrize("below", ["MNIST/raw", "raw"])
def test_the_folder_of_torchvision_is_found_below_the_named_one(tmp_path: Path, below: str) -> None:
    raw = write_idx(tmp_path / "data" / below)
    write_idx(raw, lambda name: f"{name}.gz", gzip.compress)  # torchvision keeps both
    check(tmp_path / "data")


def test_the_files_of_emnist_are_imported_by_name(tmp_path: Path) -> None:
    write_idx(tmp_path / "raw", "emnist-digits-{}".format)
    write_idx(tmp_path / "raw", "emnist-letters-{}".format)
    message = error_of(tmp_path)
    assert "contains IDX files of another dataset: emnist-digits, emnist-letters" in message
    assert "nnctl download emnist-letters --from" in message


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"<!DOCTYPE html><html>", "is not an IDX file of images: it is a web page"),
        (gzip.compress(gzip.compress(b"x")), "it is still compressed with gzip"),
        (gzip.compress(idx_bytes(X))[:-20], "is not a complete gzip file"),
        (idx_bytes(X)[:-20], "has fewer bytes than the 47,040 in its header"),
        (idx_bytes(Y), "is not an IDX file of images: it contains labels"),
    ],
    ids=["web page", "compressed twice", "truncated gzip", "truncated", "labels"],
)
def test_the_message_says_what_a_wrong_file_is_and_that_only_a_damaged_one_is_damaged(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    folder = write_idx(tmp_path / "digits")
    (folder / NAMES[0]).write_bytes(content)
    message = error_of(folder)
    assert message.startswith(f"{folder / NAMES[0]} ")
    assert problem in message
    damaged = "complete" in problem or "fewer" in problem
    assert ("Replace the damaged file" in message) == damaged


def test_more_than_ten_classes_are_possible_without_gaps(tmp_path: Path) -> None:
    labels = np.arange(60, dtype=np.uint8) % 12
    folder = write_idx(tmp_path / "digits")
    (folder / NAMES[1]).write_bytes(idx_bytes(labels))
    assert opened(folder).class_names == tuple(map(str, range(12)))


# NPZ ---------------------------------------------------------------------------------------------


def write_npz(path: Path, **arrays: Any) -> Path:
    np.savez_compressed(path, **arrays)
    return path


KERAS = {"x_train": X, "y_train": Y, "x_test": TEST_X, "y_test": TEST_Y}


@pytest.mark.parametrize("in_folder", [True, False])
def test_keras_mnist_npz_is_read(tmp_path: Path, in_folder: bool) -> None:
    path = write_npz(tmp_path / "mnist.npz", **KERAS)
    check(tmp_path if in_folder else path)


def test_arrays_in_another_form_are_read_from_npz(tmp_path: Path) -> None:
    check(
        write_npz(
            tmp_path / "digits.npz",
            x_train=(X / 255).astype(np.float32)[..., None],
            y_train=Y.astype(np.int64),
            x_test=TEST_X.reshape(20, 784) / 255,
            y_test=TEST_Y[:, None],
        )
    )


def test_without_a_test_set_every_sixth_example_is_held_out(tmp_path: Path) -> None:
    check_without_test_set(write_npz(tmp_path / "digits.npz", x_train=X, y_train=Y))


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"images": X}, "has no array x_train and no array y_train; it has images"),
        ({**KERAS, "y_train": Y[1:]}, "has 60 images, but 59 labels"),
        ({**KERAS, "y_test": TEST_Y[1:]}, "has 20 test images, but 19 test labels"),
        ({**KERAS, "x_test": TEST_X[:, 1:]}, "images of .* have different sizes"),
        ({**KERAS, "x_train": X / 100}, "neither whole numbers"),
        ({**KERAS, "x_train": X[0, 0]}, "does not contain gray images: its shape is 28"),
        ({**KERAS, "x_train": np.array([{}])}, "is not a complete NPZ file of numbers"),
        ({"x_train": X[:3], "y_train": Y[:3]}, "has only 3 examples, too few for a test set"),
    ],
)
def test_an_npz_file_with_other_arrays_is_an_error(
    tmp_path: Path, arrays: dict[str, Any], problem: str
) -> None:
    path = write_npz(tmp_path / "digits.npz", **arrays)
    assert np.char.find(error_of(path), str(path)) >= 0
    with pytest.raises(DataError, match=problem):
        dataset_info(str(path))


def test_a_damaged_npz_file_is_an_error(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "digits.npz", **KERAS)
    path.write_bytes(path.read_bytes()[:-100])
    assert "is not a complete NPZ file" in error_of(path)
    path.write_bytes(b"<!DOCTYPE html>")
    assert "is not an NPZ file: it is a web page" in error_of(path)


# Pickle ------------------------------------------------------------------------------------------


def old_array(array: NDArray[Any]) -> bytes:
    """Return the pickle of an array as Python 2 writes it."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
    kind = array.dtype.str[1:].encode()
    data = array.tobytes()
    return (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\0tU\1btR(K\1"
        + (shape + b"cnumpy\ndtype\n(U\2" + kind + b"K\0K\1tR(K\3U\1<NNNJ\xff\xff\xff\xff")
        + (b"J\xff\xff\xff\xffK\0tbI00\nT" + struct.pack("<i", len(data)) + data + b"tb")
    )


def nielsen(*, old: bool = False, protocol: int = 2) -> bytes:
    """Return ``mnist.pkl``: pairs of floats from 0 to 1 and labels, in three parts."""
    pairs = [
        ((x.reshape(-1, 784) / 256).astype(np.float32), y.astype(np.int64))
        for x, y in ((X[:50], Y[:50]), (X[50:], Y[50:]), (TEST_X, TEST_Y))
    ]
    if not old:
        return pickle.dumps(tuple(pairs), protocol)
    parts = (b"(" + old_array(x) + old_array(y) + b"t" for x, y in pairs)
    return b"\x80\2(" + b"".join(parts) + b"t."


@pytest.mark.parametrize(
    "content",
    [nielsen(old=True), *(nielsen(protocol=number) for number in (0, 2, 4, 5))],
    ids=["Python 2", "0", "2", "4", "5"],
)
def test_nielsen_s_mnist_pkl_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "mnist.pkl.gz").write_bytes(gzip.compress(content))
    check(tmp_path)
    (tmp_path / "mnist.pkl").write_bytes(content)
    check(tmp_path / "mnist.pkl")


class Evil:
    """An object whose pickle creates a file when it is loaded."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo > executed",)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (pickle.dumps(Evil()), "system"),
        (pickle.dumps(((X, Evil()),)), "system"),
        (pickle.dumps({"x": X}), "is not a pickle of arrays only"),
        (pickle.dumps([("a", "b")] * 3), "it contains a str in place of an array"),
        (pickle.dumps([(np.array([None]), Y)] * 2), "does not consist of numbers"),
        (pickle.dumps([(X, Y)]), "has 1 parts, not (training, validation, test)"),
        (nielsen()[:-1000], "is not a pickle of arrays only"),
        (b"\x80\2" + b"]" * 20_000 + b".", "it contains too many objects"),
        (b"\x80\2]r\xff\xff\xff\x7f.", "it contains too many objects"),
        (nielsen(old=True).replace(b"(J\x32", b"(J\x33"), "is not a pickle of arrays only"),
        (b"<html>", "is not a pickle of arrays only"),
        (b"", "is not a pickle of arrays only"),
    ],
)
def test_a_pickle_with_anything_but_arrays_is_an_error_and_is_not_executed(
    scratch: Path, content: bytes, problem: str
) -> None:
    path = scratch / "mnist.pkl"
    path.write_bytes(content)
    assert problem in error_of(path)
    assert [*scratch.iterdir()] == [path]


# CSV ---------------------------------------------------------------------------------------------


def csv_of(x: NDArray[Any], y: NDArray[Any] | None, *, header: bool, last: bool = False) -> bytes:
    """Return a table with a row per image, with the label in the first or last column."""
    rows = x.reshape(len(x), -1)
    names = [f"pixel{i}" for i in range(rows.shape[1])]
    if y is not None:
        rows = np.hstack([rows, y[:, None]] if last else [y[:, None], rows])
        names = [*names, "class"] if last else ["label", *names]
    text = io.StringIO()
    np.savetxt(text, rows, "%d", ",", header=",".join(names) if header else "", comments="")
    return text.getvalue().encode()


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (("train.csv", "test.csv"), {"header": True}),
        (("mnist_train.csv", "mnist_test.csv"), {"header": False}),
        (("fashion-mnist_train.csv", "fashion-mnist_test.csv"), {"header": True, "last": True}),
    ],
)
def test_csv_files_are_read_with_or_without_a_header(
    tmp_path: Path, names: tuple[str, str], options: dict[str, bool]
) -> None:
    (tmp_path / names[0]).write_bytes(csv_of(X, Y, **options))
    (tmp_path / names[1]).write_bytes(csv_of(TEST_X, TEST_Y, **options))
    check(tmp_path)


def test_a_csv_file_with_a_byte_order_mark_and_windows_line_ends_is_read(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + csv_of(X, Y, header=True).replace(b"\n", b"\r\n")
    (tmp_path / "train.csv").write_bytes(content)
    check_without_test_set(tmp_path)


def test_the_test_file_of_kaggle_has_no_labels_and_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes(csv_of(X, Y, header=True))
    (tmp_path / "test.csv").write_bytes(csv_of(TEST_X, None, header=True))
    check_without_test_set(tmp_path)
    check_without_test_set(tmp_path / "train.csv")
    assert "has no labels" in error_of(tmp_path / "test.csv")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (csv_of(np.full((9, 28, 28), 300), Y[:9], header=True), ":2: column 2 is not a pixel or"),
        (csv_of(X, Y, header=False) + b"1,2,3\n", f":{len(X) + 1}: 3 columns, but the first line"),
        (csv_of(X, Y, header=True).replace(b",0,", b",x,", 1), "is not a pixel or label: 'x'"),
        (csv_of(X, Y, header=True).replace(b",0,", b",,", 1), "is not a pixel or label: ''"),
        (csv_of(X, Y, header=True).replace(b",", b";"), "Separate the values by commas"),
        (csv_of(X, Y, header=False, last=True), "same label in every row: 0"),
        (b"label,a,b,c,d\n", "is not a CSV file of images"),
        (b"<!DOCTYPE html>\n<html>", "it is a web page"),
        (b"", "it is empty"),
        (b"a,b\n1,2\n", "is not a CSV file of images"),
        (b'"' * 500, "is not a CSV file of images"),
    ],
)
def test_a_csv_file_with_something_else_is_an_error(
    tmp_path: Path, content: bytes, problem: str
) -> None:
    (tmp_path / "train.csv").write_bytes(content)
    assert problem in error_of(tmp_path)


# A folder of images per class --------------------------------------------------------------------


def write_images(folder: Path, x: NDArray[Any], y: NDArray[Any], kind: str = "png") -> Path:
    for i, (image, label) in enumerate(zip(x, y, strict=True)):
        path = folder / str(label) / f"{i:03}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def in_any_order(inputs: NDArray[Any], labels: NDArray[Any]) -> list[bytes]:
    """Return examples sorted."""
    pairs = zip(inputs.reshape(len(inputs), -1), labels, strict=True)
    return sorted(bytes([label]) + image.tobytes() for image, label in pairs)


def test_a_folder_of_images_per_class_is_read_in_a_mixed_order(tmp_path: Path) -> None:
    dataset = opened(write_images(tmp_path / "digits", X, Y))
    inputs = np.concatenate([dataset.training.inputs, dataset.test.inputs])
    labels = np.concatenate([dataset.training.labels, dataset.test.labels])
    assert (len(dataset.training), len(dataset.test)) == (50, 10)
    assert in_any_order(X, Y) == in_any_order(inputs, labels)
    assert len(set(dataset.training.labels[-10:].tolist())) > 3


@pytest.mark.parametrize("names", [("train", "test"), ("training", "testing")])
def test_folders_for_training_and_testing_are_kept_apart(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    write_images(tmp_path / names[0], X, Y)
    write_images(tmp_path / names[1], TEST_X, TEST_Y)
    dataset = opened(tmp_path)
    assert in_any_order(X, Y) == in_any_order(dataset.training.inputs, dataset.training.labels)
    assert in_any_order(TEST_X, TEST_Y) == in_any_order(dataset.test.inputs, dataset.test.labels)


def test_jpeg_files_are_read(tmp_path: Path) -> None:
    dataset = opened(write_images(tmp_path, X, Y, "jpg"))
    assert dataset.training.inputs.shape == (50, 784)


def test_images_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    folder = write_images(tmp_path / "digits", X, Y)
    extra = folder / "3" / "x.png"
    extra.write_bytes(b"\x89PNG broken")
    assert f"{extra} is not a readable image" in error_of(folder)
    Image.fromarray(X[0, 1:]).save(extra)
    assert f"{extra} has 27 x 28 pixels" in error_of(folder)
    Image.new("L", (2000, 2000)).save(extra)
    assert f"{extra} is too large: 2000 x 2000" in error_of(folder)
    extra.unlink()
    write_images(folder, X[:1], np.array([300]))
    assert "labels that are not numbers from 0 to 255" in error_of(folder)


def test_without_pillow_the_extra_that_installs_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_images(tmp_path / "digits", X, Y)
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert "requires Pillow Install it with: " in error_of(folder)


# Anything else -----------------------------------------------------------------------------------


def test_a_folder_or_file_without_a_dataset_is_an_error(tmp_path: Path) -> None:
    assert "contains no dataset: it is empty" in error_of(tmp_path)
    (tmp_path / "notes.txt").write_text("x", "utf-8")
    message = error_of(tmp_path)
    assert "contains no dataset: it contains notes.txt" in message
    assert "four IDX files, CSV files" in message
    assert "notes.txt is not a dataset: it begins with 'x'" in error_of(tmp_path / "notes.txt")
    write_idx(tmp_path)
    assert "is one of four IDX files Name their folder" in error_of(tmp_path / NAMES[0])


@pytest.mark.parametrize("name", ["train.csv", "mnist.npz", "mnist.pkl.gz"])
def test_a_file_that_is_too_large_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(idx, "MAX_BYTES", 1000)
    path = tmp_path / name
    content = gzip.compress(bytes(10_000)) if name != "mnist.npz" else b""
    path.write_bytes(content or write_npz(path, **KERAS).read_bytes())
    assert f"{path} has more than 1,000 bytes" in error_of(path)


def test_several_datasets_in_a_folder_are_an_error(tmp_path: Path) -> None:
    write_npz(tmp_path / "a.npz", **KERAS)
    write_npz(tmp_path / "b.npz", **KERAS)
    assert "contains several datasets: a.npz, b.npz" in error_of(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_a_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.csv")
    assert "contains no dataset" in error_of(tmp_path)
    assert "neither a folder nor a regular file" in error_of(tmp_path / "train.csv")


# The converted files -----------------------------------------------------------------------------


def test_a_changed_source_and_a_damaged_conversion_are_converted_again(tmp_path: Path) -> None:
    path = write_npz(tmp_path / "digits.npz", **KERAS)
    before = opened(path)
    assert before.hashes == opened(path).hashes
    before.files[NAMES[0]].write_bytes(b"damaged")
    path.touch()
    check(path)
    write_npz(path, **{**KERAS, "x_train": X[::-1], "y_train": Y[::-1]})
    assert before.hashes != opened(path).hashes
    np.testing.assert_array_equal(Y[::-1], opened(path).training.labels)


def test_a_cache_that_cannot_be_written_is_a_data_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path / "digits.npz", **KERAS)
    (tmp_path / "file").touch()
    monkeypatch.setenv("NNCTL_DATA_DIR", str(tmp_path / "file"))
    message = error_of(path)
    assert "cannot be written" in message
    assert "NNCTL_DATA_DIR" in message


# Commands ----------------------------------------------------------------------------------------


def test_the_data_directory_of_an_option_holds_the_converted_files(
    nnctl: Nnctl, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, default = write_npz(scratch / "mnist.npz", **KERAS), scratch / "default"
    monkeypatch.setenv("NNCTL_DATA_DIR", str(default))
    smoke = (CONFIGS / "smoke.yaml", "--dataset", path, "--epochs", 1)
    nnctl("train", *smoke, "--run-dir", "run", "--data-dir", "here")
    nnctl("eval", "run", "--data-dir", "here")
    nnctl("sweep", *smoke, "-p", "training.seed=1", "--workers", 1, "--data-dir", "here")
    assert [file.name for file in Path("here").iterdir()] == ["converted"]
    assert not default.exists()
    assert os.environ["NNCTL_DATA_DIR"] == str(default)


def test_a_file_is_trained_on_evaluated_and_resumed(nnctl: Nnctl, scratch: Path) -> None:
    path = write_npz(scratch / "mnist.npz", **KERAS)
    options = ("--run-dir", "run", "--quiet")
    nnctl("train", CONFIGS / "smoke.yaml", "--dataset", path, "--epochs", 1, *options)
    result = json.loads(nnctl("eval", "run", "--json").stdout)
    assert (result["n"], result["dataset"]) == (20, str(path))
    nnctl("train", "--resume", "run", "--epochs", 2, "--quiet")
    write_npz(path, **{**KERAS, "x_train": X[::-1]})
    message = "have changed since"
    assert message in nnctl("train", "--resume", "run", "--epochs", 3, code=3).stderr
    assert message in nnctl("eval", "run").stderr


@pytest.fixture
def mini_as_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the bundled digits as MNIST."""
    known = replace(registry.MINI, name="mnist", title="MNIST")
    monkeypatch.setitem(registry.DATASETS, "mnist", known)


@pytest.mark.usefixtures("mini_as_mnist")
def test_mnist_is_imported_from_another_container_if_it_is_mnist(
    nnctl: Nnctl, scratch: Path
) -> None:
    x, y = (MINI.training.inputs.reshape(-1, 28, 28), MINI.training.labels)
    test = {"x_test": MINI.test.inputs.reshape(-1, 28, 28), "y_test": MINI.test.labels}
    path = write_npz(scratch / "mnist.npz", x_train=x, y_train=y, **test)
    assert nnctl("download", "--from", path).stdout.startswith("MNIST is in ")
    nnctl("download", "--verify")
    write_npz(path, x_train=x[:-1], y_train=y[:-1], **test)
    message = nnctl("download", "--from", path, code=3).stderr
    assert "mnist.npz does not contain MNIST" in message
    assert "train-images-idx3-ubyte: its 4,999 images are not those of MNIST" in message
    assert f"use --dataset {path}" in message


@pytest.mark.usefixtures("mini_as_mnist")
def test_an_import_accepts_the_right_content_and_names_the_wrong_files(
    nnctl: Nnctl, scratch: Path
) -> None:
    for name in NAMES:
        plain = gzip.decompress((MINI_DIRECTORY / f"{name}.gz").read_bytes())
        (scratch / name.replace("-idx", ".idx")).write_bytes(gzip.compress(plain, 1))
    assert nnctl("download", "--from", ".").stdout.startswith("MNIST is in ")
    nnctl("download", "--verify")
    dotted = [name.replace("-idx", ".idx") for name in NAMES]
    Path(dotted[0]).write_bytes(b"<html>403</html>")
    Path(dotted[1]).unlink()
    Path(dotted[2]).write_bytes(idx_bytes(TEST_X))
    Path(dotted[3]).write_bytes(Path(MINI_DIRECTORY / f"{NAMES[1]}.gz").read_bytes())
    lines = nnctl("download", "--from", ".", code=3).stderr.splitlines()
    assert lines[0] == "Error: . does not contain MNIST:"
    assert "train-images.idx3-ubyte is not an IDX file of images: it is a web page" in lines[1]
    assert "train-labels-idx1-ubyte[.gz] is missing" in lines[2]
    assert "has the format of t10k-images-idx3-ubyte, but not its content" in lines[3]
    assert "t10k-labels.idx1-ubyte is train-labels-idx1-ubyte of MNIST" in lines[4]


def test_another_version_of_the_readers_converts_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_npz(tmp_path / "digits.npz", **KERAS)
    before = readers.find_container(path).key()
    monkeypatch.setattr(readers, "VERSION", 2)
    assert readers.find_container(path).key() != before
