"""An interrupted run that is resumed ends in the same bits as one that was left alone."""

from __future__ import annotations

import copy
import threading
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import from_mapping, replaced, to_mapping
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.nn.training import EpochDone, Finished
from nnctl.runs.directory import Run
from nnctl.runs.training import TrainingRun
from tests.runs.helpers import (
    EVENTS_AN_EPOCH,
    SMALL,
    STEPS_AN_EPOCH,
    begin,
    ignore,
    outcome,
    resume,
    train,
)

NO_MOMENTUM = {"optimizer.momentum": 0, "optimizer.nesterov": False}
REGULARIZED = {
    "data.augment": {"shift": 1, "rotate": 10, "elastic": {}, "noise": 0.1},
    "network.input_dropout": 0.1,
    "network.layers.0.dropout": 0.3,
    "optimizer.clip_norm": 1.0,
    "optimizer.max_norm": 2.0,
    "training.label_smoothing": 0.1,
    "training.adversarial": 0.5,
    "training.average": 0.99,
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The outcome of a run that nobody interrupted."""
    directory = tmp_path_factory.mktemp("undisturbed") / "run"
    assert train(begin(directory)) == "finished"
    return outcome(directory)


@pytest.mark.parametrize("events", range(1, 4 * EVENTS_AN_EPOCH))
def test_resuming_after_any_event_leads_to_the_same_bits(
    tmp_path: Path, undisturbed: Any, events: int
) -> None:
    directory = tmp_path / "run"
    assert train(begin(directory), stop_after=events) == "interrupted"
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {**NO_MOMENTUM, "optimizer.name": "adam"},
        {**NO_MOMENTUM, "optimizer.name": "adagrad"},
        {**NO_MOMENTUM, "training.sampling": "with_replacement"},
        {"training.steps": 3 * STEPS_AN_EPOCH + 5, "optimizer.schedule": {"name": "cosine"}},
        {"network.layers.0.activation": "prelu", "network.layers.0.init": "he_uniform"},
        {"network.layers.0.activation": {"name": "maxout", "pieces": 3}},
        {"network.layers.0.activation": {"name": "step", "surrogate": "sigmoid"}},
        {"network.layers.0.activation": "prelu", "training.threads": 2},
        {**NO_MOMENTUM, "optimizer.name": "adam", "training.threads": 3},
        REGULARIZED,
        {**REGULARIZED, "training.threads": 2},
    ],
    ids=str,
)
def test_whatever_is_trained_resuming_leads_to_the_same_bits(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = to_mapping(replaced(from_mapping(SMALL, "small"), settings))
    assert train(begin(tmp_path / "whole", config)) == "finished"
    for events in (1, EVENTS_AN_EPOCH - 1, EVENTS_AN_EPOCH, 3 * EVENTS_AN_EPOCH + 1):
        directory = tmp_path / f"from-{events}"
        assert train(begin(directory, config), stop_after=events) == "interrupted"
        assert train(resume(directory)) == "finished"
        assert outcome(tmp_path / "whole") == outcome(directory)


def test_a_run_that_ends_after_steps_is_not_extended_by_epochs(tmp_path: Path) -> None:
    config = to_mapping(replaced(from_mapping(SMALL, "small"), {"training.steps": 3}))
    train(begin(tmp_path / "run", config))
    with pytest.raises(UsageError, match="is a run of 3 steps"):
        TrainingRun.resume(Run.open(tmp_path / "run"), epochs=9, notify=ignore)


def test_a_run_that_is_interrupted_again_and_again_leads_to_the_same_bits(
    tmp_path: Path, undisturbed: Any
) -> None:
    directory = tmp_path / "run"
    reason = train(begin(directory), stop_after=2)
    interruptions = 0
    while reason == "interrupted":
        interruptions += 1
        reason = train(resume(directory), stop_after=2)
    assert interruptions > 5
    assert undisturbed == outcome(directory)


def test_the_same_configuration_gives_the_same_bits(tmp_path: Path, undisturbed: Any) -> None:
    directory = tmp_path / "again"
    train(begin(directory))
    assert undisturbed == outcome(directory)


def test_another_seed_gives_other_weights(tmp_path: Path, undisturbed: Any) -> None:
    config = copy.deepcopy(SMALL)
    config["training"]["seed"] = 4
    train(begin(tmp_path / "run", config))
    assert undisturbed[0] != outcome(tmp_path / "run")[0]


def test_the_word_to_stop_after_the_last_epoch_comes_too_late(tmp_path: Path) -> None:
    assert train(begin(tmp_path / "run"), stop_after=4 * EVENTS_AN_EPOCH) == "finished"


def test_a_run_that_is_being_trained_is_not_resumed_by_another_process(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    training = begin(directory)
    with pytest.raises(UsageError, match="is being trained by another process"):
        resume(directory)
    train(training, stop_after=1)
    assert train(resume(directory)) == "finished"
    assert not (directory / ".lock").exists()


def test_the_summary_of_an_end_that_is_none_any_more_is_taken_away(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    train(begin(directory))
    assert Run(directory).summary["status"] == "finished"
    TrainingRun.resume(Run.open(directory), epochs=5, notify=ignore)
    assert Run(directory).summary == {}


@pytest.mark.parametrize("also_lost", ["", "metrics.jsonl", "best.npz"])
def test_a_run_without_its_last_checkpoint_is_not_begun_anew_over_what_is_left(
    tmp_path: Path, also_lost: str
) -> None:
    directory = tmp_path / "run"
    train(begin(directory))
    for name in filter(None, ("last.npz", also_lost)):
        (directory / name).unlink()
    before = {path: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(DamagedFileError, match=r"no .*last\.npz, though [1-4] epochs are done"):
        resume(directory)
    assert before == {path: path.read_bytes() for path in directory.iterdir()}
    (directory / "last.npz").symlink_to("nowhere")
    with pytest.raises(DamagedFileError, match="though"):
        resume(directory)


@pytest.mark.parametrize(("lost", "what"), [(0, ":1 is"), (1, ":2 is"), (3, "ends with epoch 3")])
def test_a_run_whose_metrics_lack_an_epoch_is_not_gone_on_with(
    tmp_path: Path, lost: int, what: str
) -> None:
    directory = tmp_path / "run"
    train(begin(directory))
    lines = (directory / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    damaged = b"".join(lines[:lost] + lines[lost + 1 :])
    (directory / "metrics.jsonl").write_bytes(damaged)
    with pytest.raises(DamagedFileError, match=what):
        resume(directory)
    assert (directory / "metrics.jsonl").read_bytes() == damaged


def test_a_run_killed_before_its_first_epoch_begins_again(tmp_path: Path, undisturbed: Any) -> None:
    directory = tmp_path / "run"
    begin(directory)
    assert [path.name for path in directory.iterdir() if path.suffix] == ["config.yaml"]
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)


def test_a_directory_in_which_a_process_was_killed_before_its_run_was_begun_is_as_good_as_empty(
    tmp_path: Path, undisturbed: Any
) -> None:
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / ".lock").touch()
    (directory / ".config.yaml.0badcafe.nnctl-tmp").write_bytes(b"half a configuration")
    assert train(begin(directory)) == "finished"
    assert undisturbed == outcome(directory)
    assert not list(directory.glob(".*"))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / ".notes").touch()
    with pytest.raises(UsageError, match="is not empty"):
        begin(tmp_path / "other")


def test_a_run_killed_between_its_metrics_and_its_checkpoint_writes_the_epoch_once(
    tmp_path: Path, undisturbed: Any
) -> None:
    directory = tmp_path / "run"
    train(begin(directory), stop_after=2 * EVENTS_AN_EPOCH)
    run = Run(directory)
    run.append_metrics({**run.metrics[-1], "epoch": 3, "train_loss": 99.0})
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "train_lo')
    (directory / ".last.npz.0badcafe.nnctl-tmp").write_bytes(b"half a checkpoint")
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)
    assert not list(directory.glob(".*"))


def test_a_divergence_is_not_told_to_be_an_interruption(tmp_path: Path) -> None:
    config = copy.deepcopy(SMALL)
    config["network"] = {"layers": [{"units": 10, "activation": "linear"}]}
    config |= {"loss": "quadratic", "optimizer": {"learning_rate": 1e25}}
    config["training"] |= {"batch_size": 2500}
    training = begin(tmp_path / "run", config)
    ended = threading.Event()
    for event in training.events(ended.is_set):
        if isinstance(event, Finished):
            ended.set()
    assert training.loop.is_finite()
    assert Run(tmp_path / "run").summary["status"] == "diverged"


def test_early_stopping_counts_on_after_a_resume(tmp_path: Path) -> None:
    config = copy.deepcopy(SMALL)
    config["optimizer"] = {"learning_rate": 2.0}
    config["training"] |= {"epochs": 40, "early_stopping": {"patience": 2, "metric": "val_loss"}}
    assert train(begin(tmp_path / "whole", config)) == "stopped_early"
    epochs = len(Run(tmp_path / "whole").metrics)
    for boundary in range(1, epochs):
        directory = tmp_path / f"from-{boundary}"
        assert train(begin(directory, config), boundary * EVENTS_AN_EPOCH) == "interrupted"
        assert train(resume(directory)) == "stopped_early"
        assert outcome(tmp_path / "whole") == outcome(directory)


def test_more_epochs_extend_a_finished_run(tmp_path: Path, undisturbed: Any) -> None:
    config = copy.deepcopy(SMALL)
    config["training"]["epochs"] = 2
    directory = tmp_path / "run"
    train(begin(directory, config))
    run = Run.open(directory)
    assert train(TrainingRun.resume(run, epochs=4, notify=ignore)) == "finished"
    assert undisturbed == outcome(directory)
    assert run.config.training.epochs == 4


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, undisturbed: Any) -> None:
    directory = tmp_path / "run"
    train(begin(directory))
    training = resume(directory)
    assert not any(isinstance(event, EpochDone) for event in training.events(lambda: False))
    assert undisturbed == outcome(directory)


def test_other_changes_are_refused_with_a_list(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    train(begin(directory), stop_after=1)
    run = Run.open(directory)
    asked = replaced(run.config, {"optimizer.learning_rate": 0.2, "network.layers.0.units": 21})
    with pytest.raises(UsageError) as caught:
        TrainingRun.resume(run, asked, notify=ignore)
    assert "optimizer.learning_rate: 0.05 in the run, 0.2 asked for" in caught.value.message
    assert "network.layers.0.units: 20 in the run, 21 asked for" in caught.value.message


def test_fewer_epochs_than_are_done_are_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    train(begin(directory), stop_after=2 * EVENTS_AN_EPOCH)
    run = Run.open(directory)
    before = {path.name: path.read_bytes() for path in directory.iterdir()}
    with pytest.raises(UsageError, match="has done 2 epochs already"):
        TrainingRun.resume(run, epochs=1, notify=ignore)
    assert before == {path.name: path.read_bytes() for path in directory.iterdir()}


def test_a_dataset_that_changed_is_refused(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    training = begin(directory)
    training.dataset["hashes"] = {"train-images-idx3-ubyte.gz": "another"}
    train(training, stop_after=1)
    with pytest.raises(DataError, match="are not those that"):
        resume(directory)
