"""``nnctl predict`` as a user sees it."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

import nnctl as face
from nnctl.analysis.prediction import BUNDLED_RUN, predict
from nnctl.data import image_files
from nnctl.data.dataset import MINI_DIRECTORY, open_dataset
from nnctl.data.registry import MNIST
from tests.conftest import CONFIGS, Nnctl
from tests.helpers import write_idx
from tests.photographs import DISTORTIONS, encoded, photograph
from tests.terminal import COLOR, in_terminal, on_screen

DIGITS = open_dataset("mini", notify=lambda _: None).test


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on the bundled digits."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return face.train(CONFIGS / "smoke.yaml", run_dir=folder).directory


@pytest.fixture
def photos(scratch: Path) -> Path:
    """A folder with three photographs and a text file."""
    folder = scratch / "photos"
    folder.mkdir()
    for i in range(3):
        (folder / f"{i}.JPG").write_bytes(photograph(DIGITS.inputs[i], i))
    (folder / "notes.txt").write_text("7, 2, 1", "utf-8")
    return folder


def objects(printed: str) -> list[dict[str, Any]]:
    """Return the objects that ``--json`` printed."""
    return [json.loads(line) for line in printed.splitlines()]


def test_each_photograph_of_a_folder_has_a_line(nnctl: Nnctl, trained: Path, photos: Path) -> None:
    done = nnctl("predict", trained, photos)
    rows = [line.split("\t") for line in done.stdout.splitlines()]
    assert [str(photos / f"{i}.JPG") for i in range(3)] == [row[0] for row in rows]
    assert DIGITS.labels[:3].tolist() == [int(row[1]) for row in rows]
    assert all(re.fullmatch(r"(\d [\d.]+ %(, )?){3}", row[2]) for row in rows)
    assert all(row[2].startswith(f"{row[1]} ") for row in rows)
    assert done.stderr == ""


def test_json_has_an_object_per_file(nnctl: Nnctl, trained: Path, photos: Path) -> None:
    for checkpoint in ("best", "last"):
        done = nnctl("predict", trained, photos, "--json", "--checkpoint", checkpoint)
        answers = objects(done.stdout)
        keys = ["file", "digit", "probabilities", "error", "number", "digits"]
        assert [list(one) for one in answers] == [keys] * 3
        for one, label in zip(answers, DIGITS.labels, strict=False):
            assert one["digit"] == label == np.argmax(one["probabilities"])
            assert sum(one["probabilities"]) == pytest.approx(1, abs=1e-5)
            assert one["error"] is None
            assert one["number"] == str(label)
            assert [digit["digit"] for digit in one["digits"]] == [label]


def test_unreadable_files_are_reported_and_the_others_classified(
    nnctl: Nnctl, trained: Path, photos: Path
) -> None:
    good = (photos / "0.JPG").read_bytes()
    blank = io.BytesIO()
    Image.new("L", (300, 200), 230).save(blank, "PNG")
    (photos / "cut.jpg").write_bytes(good[: len(good) // 2])
    (photos / "blank.png").write_bytes(blank.getvalue())
    (photos / "nothing.png").write_bytes(b"")
    (photos / "text.png").write_text("hello", "utf-8")
    (photos / "empty").mkdir()
    write_idx(photos / "small", np.zeros((2, 14, 14), np.uint8))
    write_idx(photos / "labels", np.zeros(4, np.uint8))
    names = ("cut.jpg", "blank.png", "nothing.png", "text.png", "missing", "small", "labels")
    bad = [photos / name for name in (*names, "empty", "notes.txt")]
    done = nnctl("predict", trained, *bad, photos / "1.JPG", code=3)
    assert len(done.stdout.splitlines()) == 1
    for path in bad:
        assert f"Error: {path}: " in done.stderr
    assert done.stderr.count("Hint: ") == len(bad)
    assert "9 of 10 images could not be classified" in done.stderr
    answers = objects(nnctl("predict", trained, *bad, photos / "1.JPG", "--json", code=3).stdout)
    assert [one["digit"] is None for one in answers] == [True] * 9 + [False]
    assert all(isinstance(one["error"], str) for one in answers[:9])
    nnctl("predict", trained, photos / "cut.jpg", code=3)
    assert "the path is empty" in nnctl("predict", trained, "", code=2).stderr


def test_a_file_that_is_too_large_for_an_image_is_rejected(
    nnctl: Nnctl, trained: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_files, "_MAX_BYTES", 2_000_000)
    for size, wrong in (
        (2_000_000, "not a readable image"),
        (2_000_001, "the file is larger than 2 MB"),
    ):
        (scratch / "large.png").write_bytes(bytes(size))
        assert wrong in nnctl("predict", trained, scratch / "large.png", code=3).stderr


def test_standard_input_is_an_image_or_idx_file(nnctl: Nnctl, trained: Path, photos: Path) -> None:
    photo = (photos / "0.JPG").read_bytes()
    idx = (MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz").read_bytes()
    for content, lines, code in (
        (photo, 1, 0),
        (idx, 1000, 0),
        (b"", 0, 3),
        (gzip.compress(photo), 0, 3),
    ):
        done = nnctl("predict", trained, "-", stdin=content, code=code)
        assert len(done.stdout.splitlines()) == lines
    nnctl("predict", trained, "-", "-", stdin=b"", code=2)


def test_a_pipe_is_read_as_an_image(nnctl_process: Nnctl, trained: Path, photos: Path) -> None:
    with (photos / "0.JPG").open("rb") as photo:
        done = nnctl_process("predict", trained, "-", stdin=photo)
    assert done.stdout.split("\t")[1] == str(DIGITS.labels[0])


def test_idx_files_are_not_preprocessed(nnctl: Nnctl, trained: Path) -> None:
    done = nnctl("predict", trained, MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz", "--json")
    answers = objects(done.stdout)
    assert list(range(1000)) == [one["index"] for one in answers]
    expected = face.load(trained).predict(DIGITS.inputs)
    assert expected.argmax(axis=1).tolist() == [one["digit"] for one in answers]
    assert np.allclose(expected, [one["probabilities"] for one in answers], atol=1e-6)


@pytest.mark.parametrize("missing", ["PIL", "scipy"])
def test_without_pillow_or_scipy_idx_files_are_read_and_other_images_name_the_package(
    nnctl: Nnctl, trained: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "nnctl.data.preprocess", raising=False)
    monkeypatch.setitem(sys.modules, missing, None)
    nnctl("predict", trained, MINI_DIRECTORY / "t10k-images-idx3-ubyte.gz")
    done = nnctl("predict", trained, photos / "0.JPG", code=2)
    assert '[plot]"' in done.stderr


def test_a_binary_task_predicts_its_digit_or_null(
    nnctl: Nnctl, scratch: Path, photos: Path
) -> None:
    settings = {"data.positive_digit": int(DIGITS.labels[0])}
    run = face.train(
        CONFIGS / "is-it-a-nine.yaml",
        settings=settings,
        epochs=8,
        dataset="mini",
        run_dir=scratch / "question",
    )
    answers = objects(nnctl("predict", run.directory, photos, "--json").stdout)
    assert [one["digit"] for one in answers] == [int(DIGITS.labels[0]), None, None]
    assert all(sum(one["probabilities"]) == pytest.approx(1) for one in answers)
    first = nnctl("predict", run.directory, photos).stdout.splitlines()
    assert [line.split("\t")[1] for line in first] == [str(DIGITS.labels[0]), "other", "other"]


def test_a_network_for_gates_rejects_images(nnctl: Nnctl, scratch: Path, photos: Path) -> None:
    run = face.train(CONFIGS / "gates" / "and.yaml", epochs=1, run_dir=scratch / "gate")
    assert "was trained on and" in nnctl("predict", run.directory, photos, code=2).stderr
    assert "no image is given" in nnctl("predict", run.directory, code=2).stderr


def test_without_a_run_the_bundled_network_is_used(nnctl: Nnctl, photos: Path) -> None:
    for arguments in ([photos], [photos / f"{i}.JPG" for i in range(3)]):
        done = nnctl("predict", *arguments)
        assert [line.split("\t")[1] for line in done.stdout.splitlines()] == ["7", "2", "1"]
        assert "network that ships with nnctl" in done.stderr


def test_the_bundled_network_is_that_of_its_preset() -> None:
    preset = yaml.safe_load((CONFIGS / "photographs.yaml").read_text("utf-8"))
    bundled = yaml.safe_load(BUNDLED_RUN.config_path.read_text("utf-8"))
    for name, values in flat(preset):
        assert (name, values) in [*flat(bundled)], name
    summary = BUNDLED_RUN.summary
    assert summary is not None
    assert {file.name: file.idx_sha256 for file in MNIST.files} == summary.dataset.hashes
    assert summary.best_val_accuracy is not None
    assert summary.best_val_accuracy > 0.985
    assert sum(path.stat().st_size for path in BUNDLED_RUN.directory.iterdir()) < 400_000
    right = BUNDLED_RUN.predict(DIGITS.inputs).argmax(axis=1) == DIGITS.labels
    assert right.mean() > 0.985


def flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of nested mappings and lists, with their paths."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from flat(inner, f"{path}.{key}")
    else:
        yield path, value


def test_a_first_argument_that_is_neither_a_run_nor_an_image_is_an_error(
    nnctl: Nnctl, trained: Path, photos: Path
) -> None:
    empty = photos / "empty"
    empty.mkdir()
    for first, wrong in (
        (photos / "missing-run", "run directory not found"),
        (empty, "neither a run directory nor a folder of images"),
        (trained.parent, "it has no config.yaml, and no images in it or in folders named 0 to 9"),
    ):
        assert wrong in nnctl("predict", first, photos / "0.JPG", code=2).stderr
    nnctl("predict", photos / "missing.png", photos / "0.JPG", code=3)
    nnctl("predict", photos / "missing.png", code=3)
    nnctl("predict", code=2)


def _number(indices: Sequence[int]) -> bytes:
    """Return a picture of bundled digits next to each other, three times as large as needed."""
    digits = np.hstack([255 - DIGITS.inputs[i].reshape(28, 28) for i in indices])
    return encoded(digits.repeat(30, 0).repeat(30, 1) / 255)


def test_several_digits_are_a_number(nnctl: Nnctl, scratch: Path) -> None:
    (scratch / "number.png").write_bytes(_number([0, 1, 2]))
    [line] = nnctl("predict", "number.png").stdout.splitlines()
    assert re.fullmatch(r"number.png\t721\t7 [\d.]+ %, 2 [\d.]+ %, 1 [\d.]+ %", line)
    [one] = objects(nnctl("predict", "number.png", "--json").stdout)
    assert (one["number"], one["digit"], one["probabilities"]) == ("721", None, None)
    for i, digit in enumerate(one["digits"]):
        assert np.argmax(digit["probabilities"]) == digit["digit"] == DIGITS.labels[i]
        box = digit["box"]
        inked = np.argwhere(DIGITS.inputs[i].reshape(28, 28) > 127) * 30
        (top, left), (bottom, right) = inked.min(axis=0), inked.max(axis=0) + 30
        expected = {"left": left + 840 * i, "top": top, "right": right + 840 * i, "bottom": bottom}
        assert box == pytest.approx(expected, abs=35)


def test_an_answer_below_the_threshold_is_no_digit(
    nnctl: Nnctl, scratch: Path, photos: Path
) -> None:
    letter = Image.new("L", (280, 280), 255)
    lines = [(60, 240), (140, 40), (220, 240), (180, 150), (100, 150)]
    ImageDraw.Draw(letter).line(lines, fill=0, width=22)
    letter.save(scratch / "letter.png")
    names = ["letter.png", *(photos / f"{i}.JPG" for i in range(3))]
    done = nnctl("predict", *names, "--threshold", 0.95)
    answers = [line.split("\t")[1] for line in done.stdout.splitlines()]
    assert answers == ["no digit", "7", "2", "1"]
    first, *_ = objects(nnctl("predict", *names, "--threshold", 0.95, "--json").stdout)
    assert (first["digit"], first["number"], first["error"]) == (None, None, None)
    assert max(first["probabilities"]) < 0.95
    for wrong in ("1.5", "-1", "nan", "much"):
        nnctl("predict", *names, "--threshold", wrong, code=2)


def test_a_folder_per_digit_gives_the_accuracy(nnctl: Nnctl, scratch: Path) -> None:
    labels = [*DIGITS.labels[:6].tolist(), 8]  # the last one is wrong
    for i, label in enumerate(labels):
        folder = scratch / "digits" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.png").write_bytes(photograph(DIGITS.inputs[i], i))
    (scratch / "digits" / "0" / "damaged.png").write_bytes(b"?")
    done = nnctl("predict", "digits", code=3)
    *lines, accuracy = done.stdout.splitlines()
    assert len(lines) == 7
    assert accuracy == "accuracy 75.00 % (6 of 8 correct, 1 without a prediction)"
    *answers, score = objects(nnctl("predict", "digits", "--json", code=3).stdout)
    assert score == {"accuracy": 0.75, "labeled": 8, "correct": 6, "rejected": 1}
    assert sorted(one["label"] for one in answers) == sorted([*labels, 0])


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_shows_what_the_network_sees(trained: Path, photos: Path) -> None:
    printed = in_terminal("predict", trained, photos / "0.JPG")
    lines = on_screen(printed)
    blocks = [line for line in lines if "▀" * 28 in line]
    assert len(blocks) == 14
    assert any(f"digit {DIGITS.labels[0]}" in line for line in blocks)
    assert sum(bool(re.search(r"\d +[\d.]+ %", line)) for line in blocks) == 3
    assert COLOR.search(printed) or "38;" in printed


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=str)
def test_a_terminal_without_color_draws_images_with_letters(
    trained: Path, photos: Path, env: dict[str, str]
) -> None:
    printed = in_terminal("predict", trained, photos / "0.JPG", env=env)
    assert "▀" not in printed
    assert "\x1b[3" not in printed
    assert sum("@" in line or "#" in line for line in on_screen(printed)) > 6


def test_distorted_photographs_of_the_bundled_digits(trained: Path, scratch: Path) -> None:
    originals, photographs = _right(trained, scratch, DIGITS.inputs[:12], DIGITS.labels[:12])
    assert photographs >= originals - 1


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_the_bundled_network_reaches_the_accuracy_in_its_preset() -> None:
    test = open_dataset("mnist", notify=lambda _: None).test
    assert (BUNDLED_RUN.predict(test.inputs).argmax(axis=1) == test.labels).mean() > 0.992


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_distorted_photographs_of_mnist(scratch: Path) -> None:
    run = face.train(CONFIGS / "relu.yaml", run_dir=scratch / "run")
    test = open_dataset("mnist", notify=lambda _: None).test
    originals, photographs = _right(run.directory, scratch, test.inputs[:100], test.labels[:100])
    assert originals >= 98
    assert photographs >= 95


def _right(run: Path, folder: Path, digits: Any, labels: Any) -> tuple[int, int]:
    """Return the number of correct predictions for images and for photographs of them."""
    names = [folder / f"{i}.jpg" for i in range(len(digits))]
    for i, name in enumerate(names):
        name.write_bytes(photograph(digits[i], i, DISTORTIONS))
    predictions = predict(face.load(run), [*map(str, names)])
    answers = np.array([int(one.predicted or -1) for one in predictions])
    originals = face.load(run).predict(digits).argmax(axis=1)
    return int((originals == labels).sum()), int((answers == labels).sum())
