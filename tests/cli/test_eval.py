"""``nnctl eval`` as a user sees it, against scikit-learn's metrics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import metrics

import nnctl as face
from nnctl.data.dataset import open_dataset
from tests.conftest import CONFIGS, Nnctl


@pytest.fixture
def run(scratch: Path) -> Path:
    """A run on the digits that ship, good but not perfect."""
    return face.train(CONFIGS / "smoke.yaml", epochs=2, run_dir=scratch / "run").directory


def test_json_has_the_fixed_keys_and_agrees_with_scikit_learn(nnctl: Nnctl, run: Path) -> None:
    """Accuracy, loss, precision, recall, F1, support and confusion matrix."""
    result: dict[str, Any] = json.loads(nnctl("eval", run, "--json").stdout)
    assert list(result) == [
        "accuracy",
        "loss",
        "n",
        "per_class",
        "confusion",
        "dataset",
        "split",
        "checkpoint",
        "run_dir",
    ]
    digits = open_dataset("mini", notify=lambda _: None).test
    probabilities = face.load(run).predict(digits.images)
    predictions = probabilities.argmax(axis=1)
    assert metrics.accuracy_score(digits.labels, predictions) == pytest.approx(result["accuracy"])
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    assert metrics.log_loss(digits.labels, probabilities) == pytest.approx(result["loss"], rel=1e-4)
    assert metrics.confusion_matrix(digits.labels, predictions).tolist() == result["confusion"]
    expected = metrics.precision_recall_fscore_support(digits.labels, predictions)
    for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert values.tolist() == pytest.approx([row[name] for row in result["per_class"]])
    assert list(range(10)) == [row["digit"] for row in result["per_class"]]
    assert (
        result["n"],
        result["dataset"],
        result["split"],
        result["checkpoint"],
    ) == (1000, "mini", "test", "best")


def test_the_tables_show_the_mistakes(nnctl: Nnctl, run: Path) -> None:
    """Accuracy first, then each digit, then who is taken for whom; within 80 columns."""
    done = nnctl("eval", run, env={"COLUMNS": "80"})
    lines = done.stdout.splitlines()
    assert "of 1,000 right" in lines[1]
    assert any("precision" in line and "recall" in line for line in lines)
    assert "most frequent mistakes: " in done.stdout
    assert "\x1b" not in done.stdout
    assert max(len(line) for line in lines[1:] if "most frequent" not in line) <= 80


def test_there_are_always_ten_classes(nnctl: Nnctl, mini_folder: Path) -> None:
    """Even where the images show only some of them."""
    from tests.helpers import write_idx

    digits = open_dataset("mini", notify=lambda _: None).test
    few = digits.labels < 3
    write_idx(mini_folder / "t10k-images-idx3-ubyte", digits.images[few].reshape(-1, 28, 28))
    write_idx(mini_folder / "t10k-labels-idx1-ubyte", digits.labels[few])
    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"):
        (mini_folder / name).unlink()
    face.train(CONFIGS / "smoke.yaml", epochs=1, run_dir="few", dataset=str(mini_folder))
    result = json.loads(nnctl("eval", "few", "--json").stdout)
    assert np.shape(result["confusion"]) == (10, 10)
    assert result["per_class"][9]["support"] == 0


def test_every_split_and_checkpoint_can_be_evaluated(nnctl: Nnctl, run: Path) -> None:
    """The sizes are those of the splits; the training split is the run's own."""
    sizes = {
        split: json.loads(nnctl("eval", run, "--split", split, "--json").stdout)["n"]
        for split in ("test", "validation", "train")
    }
    assert sizes == {"test": 1000, "validation": 833, "train": 4167}
    assert "last" in nnctl("eval", run, "--checkpoint", "last").stdout


def test_another_dataset_than_the_training_s_is_said(
    nnctl: Nnctl, run: Path, with_mnist: Path
) -> None:
    """A warning on stderr, and the result nevertheless."""
    assert with_mnist.is_dir()
    done = nnctl("eval", run, "--dataset", "mnist", "--json")
    assert "run was trained on mini, not on mnist" in done.stderr
    assert json.loads(done.stdout)["n"] == 10_000
    assert nnctl("eval", run, "--dataset", "mini", "--json").stderr == ""
    nnctl("eval", run, "--dataset", "mnist", "--split", "validation", code=2)


def test_fail_under_exits_with_5(nnctl: Nnctl, run: Path) -> None:
    """By the accuracy that was measured; the result is printed all the same."""
    nnctl("eval", run, "--fail-under", "0.5")
    done = nnctl("eval", run, "--fail-under", "0.9999", "--json", code=5)
    assert json.loads(done.stdout)["accuracy"] < 0.9999


def test_what_is_no_run_exits_with_2(nnctl: Nnctl, scratch: Path) -> None:
    """A folder of something else, a file, nothing at all."""
    (scratch / "empty").mkdir()
    (scratch / "file").write_text("", encoding="utf-8")
    assert "is not a run directory" in nnctl("eval", "empty", code=2).stderr
    assert "there is no run directory" in nnctl("eval", "nowhere", code=2).stderr
    nnctl("eval", "file", code=2)


def test_a_damaged_checkpoint_exits_with_3(nnctl: Nnctl, run: Path) -> None:
    """It is never evaluated; the other checkpoint still is."""
    content = bytearray((run / "best.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (run / "best.npz").write_bytes(content)
    done = nnctl("eval", run, code=3)
    assert "best.npz is damaged" in done.stderr
    assert "--checkpoint" in done.stderr
    nnctl("eval", run, "--checkpoint", "last")


def test_a_run_without_a_complete_epoch_says_so(nnctl: Nnctl, run: Path) -> None:
    """The last checkpoint may be there all the same."""
    (run / "best.npz").unlink()
    assert "no epoch of this run was complete" in nnctl("eval", run, code=3).stderr
