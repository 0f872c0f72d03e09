"""Datasets with a name: small files of the same form, over real HTTP on loopback."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import string
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnctl.data.dataset import dataset_info, open_dataset
from nnctl.data.registry import DATASETS, NAMES, KnownDataset
from nnctl.export.formats import export
from nnctl.runs.run import Run
from tests.conftest import CONFIGS, Nnctl
from tests.data.conftest import idx_bytes
from tests.data.mirrors import MakeMirror, Mirror
from tests.runs.helpers import ignore

MINI = open_dataset("mini", notify=ignore)
X, TEST_X = (part.inputs.reshape(-1, 28, 28) for part in (MINI.training, MINI.test))
X, TEST_X = X[:260], TEST_X[:52]
Y, TEST_Y = MINI.training.labels[:260].astype(np.uint8), MINI.test.labels[:52].astype(np.uint8)
FASHION = DATASETS["fashion-mnist"].class_names


def files_of(name: str) -> dict[str, bytes]:
    """Return the four files of a dataset as they are published, by their names on a mirror."""
    known = DATASETS[name]
    arrays: list[NDArray[Any]] = [X, Y, TEST_X, TEST_Y]
    if name == "qmnist":
        arrays[1::2] = [np.tile(part[:, None], 8).astype(np.int32) for part in arrays[1::2]]
        for labels in arrays[1::2]:
            labels[:, 1:] = 123_456  # the writer and so on
    if name == "emnist-letters":
        arrays[1::2] = [1 + np.arange(len(part), dtype=np.uint8) % 26 for part in arrays[1::2]]
    if name.startswith("emnist"):
        arrays[::2] = [part.transpose(0, 2, 1).copy() for part in arrays[::2]]
    return {
        file.published_name: gzip.compress(idx_bytes(array), mtime=0)
        for file, array in zip(known.files, arrays, strict=True)
    }


def publish(
    monkeypatch: pytest.MonkeyPatch, mirror: MakeMirror, name: str, *, mirrors: int = 1
) -> Mirror:
    """Replace the files and mirrors of a dataset by small files on loopback."""
    names = ["emnist-digits", "emnist-letters"] if name.startswith("emnist") else [name]
    contents = {key: content for each in names for key, content in files_of(each).items()}
    archive = None
    if name.startswith("emnist"):
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as opened:
            for key, content in contents.items():
                opened.writestr(f"gzip/{key}", content)
        contents = {"gzip.zip": packed.getvalue()}
        sha256 = hashlib.sha256(packed.getvalue()).hexdigest()
        published = DATASETS[name].archive
        assert published
        archive = replace(published, size=len(packed.getvalue()), hash=sha256)
    good = mirror(contents)
    for each in names:
        known = DATASETS[each]
        files = known.files if archive else tuple(_hashed(known, contents))
        small = replace(
            known, files=files, archive=archive, mirrors=(good.url,) * mirrors, n_training=260
        )
        monkeypatch.setitem(DATASETS, each, small)
    return good


def _hashed(known: KnownDataset, contents: Mapping[str, bytes]) -> Any:
    for file in known.files:
        content = contents[file.published_name]
        if str(file.hash).startswith("md5:"):
            md5 = hashlib.md5(content, usedforsecurity=False).hexdigest()
            yield replace(file, hash=f"md5:{md5}")
        else:
            yield replace(file, size=len(content), hash=hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("name", ["fashion-mnist", "kmnist", "qmnist", "emnist-digits"])
def test_a_dataset_is_downloaded_by_name(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    good = publish(monkeypatch, mirror, name)
    title = DATASETS[name].title
    assert nnctl("download", name).stdout.startswith(f"{title} is in ")
    assert f"{NAMES[0]}: right" in nnctl("download", name, "--verify").stdout
    dataset = open_dataset(name, notify=ignore)
    np.testing.assert_array_equal(X.reshape(-1, 784), dataset.training.inputs)
    np.testing.assert_array_equal(Y, dataset.training.labels)
    np.testing.assert_array_equal(TEST_X.reshape(-1, 784), dataset.test.inputs)
    np.testing.assert_array_equal(TEST_Y, dataset.test.labels)
    assert dataset_info(name).class_names == dataset.class_names
    assert len(dataset.class_names) == 10
    requests = len(good.requests)
    nnctl("download", name)
    assert len(good.requests) == requests


@pytest.mark.parametrize("name", ["fashion-mnist", "qmnist", "emnist-digits"])
def test_a_file_with_other_content_is_not_accepted(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    good = publish(monkeypatch, mirror, name)
    good.contents = {
        key: content[:-1] + bytes([content[-1] ^ 1]) for key, content in good.contents.items()
    }
    expected = "MD5" if name == "qmnist" else "SHA-256"
    message = f"sent wrong content: its {expected} is not the known one"
    assert message in nnctl("download", name, code=3).stderr


def test_both_parts_of_emnist_are_in_one_archive_and_damage_is_detected(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = publish(monkeypatch, mirror, "emnist-letters")
    folder = Path(nnctl("download", "emnist-letters").stdout.split(" is in ")[1].strip())
    nnctl("download", "emnist-digits")
    assert good.requests == ["/gzip.zip"]
    path = folder / f"{NAMES[0]}.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert f"{NAMES[0]}: damaged" in nnctl("download", "emnist-letters", "--verify", code=3).stdout
    nnctl("download", "emnist-letters")
    assert good.requests == ["/gzip.zip"] * 2


@pytest.mark.parametrize("name", ["fashion-mnist", "qmnist", "emnist-letters"])
def test_local_files_are_imported_by_name(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, scratch: Path, name: str
) -> None:
    publish(monkeypatch, mirror, name)
    raw = scratch / "raw"
    raw.mkdir()
    for key, content in files_of(name).items():
        (raw / key).write_bytes(content)
    assert " is in " in nnctl("download", name, "--from", scratch).stdout
    nnctl("download", name, "--verify")


def test_what_cannot_be_verified_is_not_imported(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    publish(monkeypatch, mirror, "emnist-letters")
    for name, content in files_of("mnist").items():
        Path(name).write_bytes(content)
    message = nnctl("download", "emnist-letters", "--from", scratch, code=3).stderr
    assert "contains IDX files of another dataset: mnist" in message
    np.savez("fashion.npz", x_train=X, y_train=Y, x_test=TEST_X, y_test=TEST_Y)
    message = nnctl("download", "fashion-mnist", "--from", "fashion.npz", code=3).stderr
    assert "does not contain the files of Fashion-MNIST as they are published" in message
    assert "use --dataset fashion.npz" in message


def test_the_archive_of_emnist_is_imported(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    good = publish(monkeypatch, mirror, "emnist-letters")
    (scratch / "gzip.zip").write_bytes(good.contents["gzip.zip"])
    nnctl("download", "emnist-letters", "--from", "gzip.zip")
    for name in ("emnist-digits", "emnist-letters"):
        nnctl("download", name, "--verify")
    (scratch / "gzip.zip").write_bytes(good.contents["gzip.zip"][:-1])
    message = nnctl("download", "emnist-letters", "--from", "gzip.zip", code=3).stderr
    assert "does not contain the files of EMNIST letters as they are published" in message


def test_a_file_of_another_dataset_is_recognized(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    publish(monkeypatch, mirror, "fashion-mnist")
    for key, content in files_of("fashion-mnist").items():
        Path(key).write_bytes(content)
    message = nnctl("download", "--from", scratch, code=3).stderr
    for name in NAMES:
        assert f"{name}.gz is {name} of Fashion-MNIST" in message
    nnctl("download", "fashion-mnist", "--from", scratch)
    for key, content in files_of("fashion-mnist").items():
        Path(key).write_bytes(gzip.compress(gzip.decompress(content), 1))
    message = nnctl("download", "fashion-mnist", "--from", scratch, code=3).stderr
    assert f"has the format of {NAMES[0]}, but is not the published file" in message


def test_the_names_of_classes_are_shown_everywhere(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    publish(monkeypatch, mirror, "fashion-mnist")
    options = ("--dataset", "fashion-mnist", "--epochs", 1, "--run-dir", "run", "--quiet")
    nnctl("train", CONFIGS / "smoke.yaml", *options)
    result = json.loads(nnctl("eval", "run", "--json", "--mistakes", 3).stdout)
    assert [row["class"] for row in result["per_class"]] == list(FASHION)
    assert {mistake["answer"] for mistake in result["mistakes"]} <= set(FASHION)
    text = nnctl("eval", "run").stdout
    assert "Each class" in text
    assert re.search(r"9 Ankle boot +[\d·]", text)

    images = scratch / "images"
    images.write_bytes(idx_bytes(TEST_X[:2]))
    [first, _] = map(json.loads, nnctl("predict", "run", images, "--json").stdout.splitlines())
    assert first["digit"] is None
    assert first["class"] in FASHION
    assert f"images[0]\t{first['class']}\t" in nnctl("predict", "run", images).stdout

    written = export(Run.open(scratch / "run"), "safetensors").file.read_bytes()
    assert b"Ankle boot" in written


def test_26_letters_are_trained_and_evaluated(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, mirror, "emnist-letters")
    options = ("--dataset", "emnist-letters", "--epochs", 1, "--run-dir", "run", "--quiet")
    message = nnctl("train", CONFIGS / "smoke.yaml", *options, code=2).stderr
    assert "the last layer has 10 units, but 26 classes need 26" in message
    nnctl("train", CONFIGS / "smoke.yaml", *options, "--set", "network.layers.1.units=26")
    result = json.loads(nnctl("eval", "run", "--json").stdout)
    assert [row["class"] for row in result["per_class"]] == list(string.ascii_lowercase)
    assert "Confusion matrix" not in nnctl("eval", "run").stdout  # too wide for a terminal
    dataset = open_dataset("emnist-letters", notify=ignore)
    assert sorted(set(dataset.training.labels.tolist())) == list(range(26))
    np.testing.assert_array_equal(TEST_X.reshape(-1, 784), dataset.test.inputs)


@pytest.mark.usefixtures("sketched_reports")
def test_the_report_shows_the_names_of_classes(
    nnctl: Nnctl, mirror: MakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, mirror, "fashion-mnist")
    options = ("--dataset", "fashion-mnist", "--epochs", 1, "--run-dir", "run", "--quiet")
    nnctl("train", CONFIGS / "smoke.yaml", *options)
    nnctl("report", "run", "-o", "report.html")
    page = Path("report.html").read_text("utf-8")
    assert "Draw an image" in page
    assert 'data-name="Ankle boot"' in page
    assert '<th scope="row">Trouser</th>' in page


def test_every_known_file_has_a_hash_or_is_in_an_archive_that_has_one() -> None:
    for known in DATASETS.values():
        assert known.mirrors
        assert tuple(file.name for file in known.files) == NAMES
        for file in known.files:
            hashed = known.archive or file
            assert re.fullmatch(r"[0-9a-f]{64}|md5:[0-9a-f]{32}", str(hashed.hash))
