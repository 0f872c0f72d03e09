"""A run is refused if its configuration and its checkpoints do not match."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import nnctl as api
from nnctl.errors import DamagedFileError
from nnctl.runs.checkpoint import load_checkpoint, save_checkpoint
from nnctl.runs.run import Run
from tests.conftest import CONFIGS, Nnctl
from tests.runs.helpers import EVENTS_AN_EPOCH, begin, outcome, resume, train

SMOKE = CONFIGS / "smoke.yaml"


def edit(path: Path, old: str, new: str) -> None:
    """Replace every occurrence of a text in a file, which must contain it."""
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


@pytest.fixture(scope="module")
def other_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the same layers as `trained_run`, with another seed."""
    folder = tmp_path_factory.mktemp("other") / "run"
    return api.train(SMOKE, epochs=2, seed=1, run_dir=folder).directory


EDITS = {
    "activation": ("activation: relu", "activation: tanh"),
    "units": ("units: 64", "units: 32"),
    "learning rate": ("learning_rate: 0.1", "learning_rate: 0.3"),
    "seed": ("seed: 0", "seed: 7"),
    "validation": ("validation: 833", "validation: 400"),
    "threads": ("threads: 1", "threads: 2"),
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_configuration_is_refused_with_both_values(
    nnctl: Nnctl, copied_run: Path, what: str
) -> None:
    old, new = EDITS[what]
    edit(copied_run / "config.yaml", old, new)
    before = contents(copied_run)
    stderr = nnctl("train", "--resume", copied_run, "--epochs", 4, code=3).stderr
    assert f"{copied_run}/last.npz does not match {copied_run}/config.yaml; differences:" in stderr
    key, value = old.split(": ")
    assert re.search(
        rf"\.{key}: {value} in last\.npz, {new.split(': ')[1]} in config\.yaml", stderr
    )
    assert "Hint: The configuration of a run cannot be changed: restore the values" in stderr
    assert before == contents(copied_run)


@pytest.mark.parametrize("name", ["last.npz", "best.npz"])
def test_the_checkpoint_of_another_run_is_refused(
    nnctl: Nnctl, copied_run: Path, other_run: Path, name: str
) -> None:
    shutil.copy(other_run / name, copied_run / name)
    before = contents(copied_run)
    stderr = nnctl("train", "--resume", copied_run, "--epochs", 4, code=3).stderr
    assert f"training.seed: 1 in {name}, 0 in config.yaml" in stderr
    assert before == contents(copied_run)


def test_an_older_best_checkpoint_of_the_same_run_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    train(begin(directory), stop_after=EVENTS_AN_EPOCH)
    first = (directory / "best.npz").read_bytes()
    train(resume(directory))
    assert (directory / "best.npz").read_bytes() != first
    (directory / "best.npz").write_bytes(first)
    with pytest.raises(DamagedFileError, match=r"best\.npz is not the checkpoint of the best"):
        resume(directory)


@pytest.mark.parametrize(
    "words",
    [
        ("eval",),
        ("eval", "--checkpoint", "last"),
        ("predict",),
        ("export", "--format", "safetensors"),
        ("check",),
        ("report",),
    ],
    ids=" ".join,
)
def test_no_command_uses_a_checkpoint_that_does_not_match_the_configuration(
    nnctl: Nnctl, copied_run: Path, words: tuple[str, ...]
) -> None:
    command, *options = words
    edit(copied_run / "config.yaml", "activation: relu", "activation: tanh")
    pictures = ["digit.png"] if command == "predict" else []
    stderr = nnctl(command, copied_run, *options, *pictures, code=3).stderr
    assert "network.layers.0.activation: relu in " in stderr
    assert "tanh in config.yaml" in stderr
    assert not list(copied_run.glob("*.safetensors"))


def test_a_changed_dataset_name_is_refused(nnctl: Nnctl, copied_run: Path) -> None:
    edit(copied_run / "config.yaml", "dataset: mini", "dataset: mnist")
    stderr = nnctl("eval", copied_run, code=3).stderr
    assert "data.dataset: mini in best.npz, mnist in config.yaml" in stderr


def test_python_code_gets_the_same_refusal(copied_run: Path) -> None:
    edit(copied_run / "config.yaml", "activation: relu", "activation: tanh")
    for use in (api.evaluate, lambda run: api.load(run).predict([[0] * 784])):
        with pytest.raises(DamagedFileError, match=r"does not match .*config\.yaml"):
            use(copied_run)


def test_a_long_list_of_differences_is_cut(nnctl: Nnctl, copied_run: Path) -> None:
    layers = "  - {units: 9, activation: tanh, init: null, dropout: 0.0}\n"
    text = (copied_run / "config.yaml").read_text("utf-8")
    text = text.replace("  layers:\n", f"  layers:\n{30 * layers}")
    (copied_run / "config.yaml").write_text(text, encoding="utf-8")
    stderr = nnctl("eval", copied_run, code=3).stderr
    assert len(stderr.splitlines()) == 23
    assert re.search(r"\.\.\. and \d+ more", stderr)


def test_the_number_of_epochs_may_be_edited(tmp_path: Path) -> None:
    train(begin(tmp_path / "whole"))
    directory = tmp_path / "run"
    train(begin(directory), stop_after=EVENTS_AN_EPOCH)
    edit(directory / "config.yaml", "epochs: 4", "epochs: 2")
    assert train(resume(directory)) == "finished"
    edit(directory / "config.yaml", "epochs: 2", "epochs: 4")
    assert train(resume(directory)) == "finished"
    assert outcome(tmp_path / "whole") == outcome(directory)


def test_the_folder_of_a_dataset_may_move_but_its_files_may_not_change(
    nnctl: Nnctl, mini_folder: Path, scratch: Path
) -> None:
    nnctl("train", SMOKE, "--dataset", mini_folder, "--epochs", 1, "--run-dir", "run", "--quiet")
    moved = mini_folder.rename(scratch / "moved")
    edit(Path("run/config.yaml"), str(mini_folder), str(moved))
    nnctl("train", "--resume", "run", "--epochs", 2, "--quiet")
    labels = moved / "t10k-labels-idx1-ubyte.gz"
    shutil.copy(moved / "train-labels-idx1-ubyte.gz", labels)
    stderr = nnctl("train", "--resume", "run", "--epochs", 3, code=3).stderr
    assert "have changed since" in stderr


def test_edited_metrics_of_complete_epochs_are_refused(nnctl: Nnctl, copied_run: Path) -> None:
    path = copied_run / "metrics.jsonl"
    rows = list(map(json.loads, path.read_text("utf-8").splitlines()))
    rows[0]["val_loss"] = 0.001
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    before = contents(copied_run)
    stderr = nnctl("train", "--resume", copied_run, "--epochs", 4, code=3).stderr
    assert "metrics.jsonl is damaged: its content was changed after last.npz was saved" in stderr
    assert before == contents(copied_run)


def test_a_checkpoint_without_the_checksum_of_its_metrics_is_resumed(
    tmp_path: Path,
) -> None:
    directory = tmp_path / "run"
    train(begin(directory), stop_after=EVENTS_AN_EPOCH)
    path = directory / "last.npz"
    save_checkpoint(path, replace(load_checkpoint(path), metrics=None))
    assert train(resume(directory)) == "finished"


# More threads than a batch has examples ----------------------------------------------------------


def test_no_more_threads_start_than_a_batch_has_examples(nnctl: Nnctl) -> None:
    words = (SMOKE, "--set", "training.batch_size=10", "--threads", 1000)
    options = ("--epochs", 1, "--subset", 200, "--quiet")
    done = nnctl("train", *words, *options, "--run-dir", "run")
    warning = "Warning: 1000 threads cannot share a batch of 10: training with 10\n"
    assert done.stderr == warning
    assert Run(Path("run")).config.training.threads == 10
    # The run resumes with the same options, and without them.
    nnctl("train", *words, "--subset", 200, "--epochs", 2, "--resume", "run", "--quiet")
    nnctl("train", "--resume", "run", "--epochs", 3, "--quiet")
    stderr = nnctl("train", *words[:-1], 5, "--subset", 200, "--resume", "run", code=2).stderr
    assert "training.threads: 10 in the run, 5 requested" in stderr


def test_a_run_of_an_earlier_version_with_too_many_threads_is_resumed(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr("nnctl.build.most_threads", lambda _: 1024)
        nnctl("train", SMOKE, "--threads", 40, "--epochs", 1, "--subset", 64, "--run-dir", "run")
    assert Run(Path("run")).config.training.threads == 40
    nnctl("train", "--resume", "run", "--epochs", 2)
    assert Run(Path("run")).config.training.threads == 40


def test_a_sweep_warns_once_of_each_number_of_threads(nnctl: Nnctl) -> None:
    varied = ("-p", "training.batch_size=10,20", "-p", "training.seed=0,1")
    options = ("--threads", 15, "--epochs", 1, "--subset", 60, "--workers", 1, "--quiet")
    done = nnctl("sweep", SMOKE, *varied, *options, "--sweep-dir", "sweep")
    assert done.stderr.splitlines() == [
        "Warning: 15 threads cannot share a batch of 10: training with 10",
        "Warning: 15 threads may be slower than 1, which threads: auto would choose",
    ]


def test_python_code_is_warned_of_too_many_threads(scratch: Path) -> None:
    settings = {"training.threads": 50, "training.batch_size": 20}
    with pytest.warns(UserWarning, match="50 threads cannot share a batch of 20") as caught:
        api.train(SMOKE, epochs=1, subset=100, settings=settings, run_dir=scratch / "run")
    assert [Path(warning.filename) for warning in caught] == [Path(__file__)]
