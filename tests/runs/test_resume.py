"""An interrupted and resumed run gives exactly the same result as an uninterrupted one."""

from __future__ import annotations

import contextlib
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl.analysis.evaluation import evaluate
from nnctl.config import from_mapping, replaced, to_mapping
from nnctl.errors import DamagedFileError, DataError, UsageError
from nnctl.nn.events import EpochDone, Finished
from nnctl.runs.checkpoint import load_checkpoint
from nnctl.runs.monitor import measure
from nnctl.runs.resolve import split
from nnctl.runs.run import Run
from nnctl.runs.training_run import TrainingRun
from tests.runs.helpers import (
    EVENTS_AN_EPOCH,
    MINI,
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
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that was never interrupted."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    assert train(begin(directory)) == "finished"
    return directory


@pytest.fixture(scope="module")
def undisturbed(whole: Path) -> Any:
    """The outcome of that run."""
    return outcome(whole)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A path for a new run directory."""
    return tmp_path / "run"


@pytest.fixture
def finished(whole: Path, directory: Path) -> Path:
    """A copy of `whole`."""
    return Path(shutil.copytree(whole, directory))


def changed(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the small configuration with other values."""
    return to_mapping(replaced(from_mapping(SMALL, "small"), settings))


def contents(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.parametrize("events", [*range(1, 9), 11, 12, 13, 17, 18, 22, 23])
def test_resuming_after_any_event_leads_to_the_same_bits(
    directory: Path, undisturbed: Any, events: int
) -> None:
    assert train(begin(directory), stop_after=events) == "interrupted"
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)


@pytest.mark.parametrize(
    "settings",
    [
        {**NO_MOMENTUM, "optimizer.name": "adam"},
        {**NO_MOMENTUM, "optimizer.name": "adagrad"},
        {**NO_MOMENTUM, "optimizer.name": "rmsprop", "optimizer.l1": 1e-4},
        {
            "optimizer.learning_rate": 1e-9,
            "optimizer.schedule": {"name": "plateau", "patience": 1, "metric": "val_loss"},
        },
        {**NO_MOMENTUM, "training.sampling": "with_replacement"},
        {"training.steps": STEPS_AN_EPOCH + 65, "optimizer.schedule": {"name": "cosine"}},
        {"network.layers.0.activation": "prelu", "network.layers.0.init": "he_uniform"},
        {"training.monitor": ["cost", "train_accuracy", "test"], "training.monitor_every": 7},
        {"training.validate_every": 2, "training.monitor_every": 1, "training.threads": 2},
        {"network.layers.0.activation": {"name": "maxout", "pieces": 3}},
        {"network.layers.0.activation": {"name": "step", "surrogate": "sigmoid"}},
        {"network.layers.0.activation": "prelu", "training.threads": 2},
        {**NO_MOMENTUM, "optimizer.name": "adam", "training.threads": 3},
        {
            "network.layers.0.batch_norm": True,
            "training.average": 0.99,
            "training.batch_size": 31,
            "training.threads": 2,
        },
        REGULARIZED,
        {**REGULARIZED, "data.augment": {"rotate": 10, "noise": 0.1}, "training.threads": 2},
    ],
    ids=str,
)
def test_resuming_leads_to_the_same_bits_with_every_kind_of_state(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    config = changed({"training.epochs": 2, **settings})
    assert train(begin(tmp_path / "whole", config)) == "finished"
    for events in (1, EVENTS_AN_EPOCH, EVENTS_AN_EPOCH + 3):
        directory = tmp_path / f"from-{events}"
        assert train(begin(directory, config), stop_after=events) == "interrupted"
        assert train(resume(directory)) == "finished"
        assert outcome(tmp_path / "whole") == outcome(directory)


@pytest.mark.parametrize(("events", "done"), [(1, 0), (6, 1), (16, 3), (17, 3)])
def test_epochs_that_are_not_validated_are_not_recorded_and_resume_to_the_same_bits(
    tmp_path: Path, undisturbed: Any, events: int, done: int
) -> None:
    config, directory = changed({"training.validate_every": 3}), tmp_path / "run"
    assert train(begin(directory, config), stop_after=events) == "interrupted"
    assert TrainingRun.resume(Run.open(directory), MINI).loop.progress.epoch == done
    assert train(resume(directory)) == "finished"
    parameters, _, history, _ = outcome(directory)
    assert parameters == undisturbed[0], "the trained weights do not depend on the key"
    assert history == undisturbed[2][2:], "epochs 3 and 4"
    assert train(begin(tmp_path / "whole", config)) == "finished"
    assert outcome(tmp_path / "whole") == outcome(directory)


def test_between_validations_the_state_is_saved_by_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nnctl.runs.training_run.SAVE_EVERY", 0.0)
    for every in (1, "2h"):
        training = begin(tmp_path / str(every), changed({"training.validate_every": every}))
        with contextlib.closing(training.events(lambda: False)) as events:
            next(events)
    assert not (tmp_path / "1" / "last.npz").exists()
    progress = load_checkpoint(tmp_path / "2h" / "last.npz").progress
    assert (progress.epoch, progress.measured) == (0, 0)
    assert progress.batch > 0
    assert train(resume(tmp_path / "2h")) == "finished"
    assert [row.epoch for row in Run(tmp_path / "2h").history] == [4]


def test_figures_that_are_only_watched_change_nothing_else(
    directory: Path, undisturbed: Any
) -> None:
    settings = {"training.monitor": ["cost", "train_accuracy", "test"], "training.monitor_every": 9}
    train(begin(directory, changed(settings)))
    run, (parameters, best, history, steps) = Run(directory), outcome(directory)
    assert [*steps] == [*range(9, 4 * STEPS_AN_EPOCH + 1, 9)]
    history = [replace(row, monitor=None) for row in history]
    assert (parameters, best, history) == undisturbed[:3]
    tested = evaluate(run, checkpoint="last", notify=ignore)
    trained = evaluate(run, split_name="train", checkpoint="last", notify=ignore)
    weights = run.network("last").parameters.decaying.astype(np.float64)
    cost = trained.loss + SMALL["optimizer"]["weight_decay"] / 2 * (weights**2).sum()
    monitor = run.history[-1].monitor
    assert monitor
    assert monitor.cost == pytest.approx(cost, rel=1e-12)
    measured = (monitor.train_accuracy, monitor.test_loss, monitor.test_accuracy)
    assert measured == (trained.accuracy, tested.loss, tested.accuracy)
    with_l1 = replaced(run.config, {"optimizer.l1": 0.01})
    sparse = measure(with_l1, run.network("last"), split(run.config, MINI)[0], None)
    assert sparse
    assert sparse.cost == pytest.approx(cost + 0.01 * np.abs(weights).sum(), rel=1e-9)


def test_a_run_killed_after_steps_that_its_checkpoint_lacks_writes_them_once(
    directory: Path,
) -> None:
    config = changed({"training.monitor_every": 10})
    assert train(begin(directory, config), stop_after=9) == "interrupted"
    run = Run(directory)
    steps = [*run.step_losses]
    assert steps == [*range(10, STEPS_AN_EPOCH + 3 * 17 + 1, 10)]
    with run.steps_path.open("a", encoding="utf-8") as file:
        for step in (steps[-1] + 10, steps[-1] + 20):
            file.write(f'{{"step": {step}, "loss": 99.0}}\n')
        file.write('{"step": 1')
    assert train(resume(directory)) == "finished"
    assert [*run.step_losses] == [*range(10, 4 * STEPS_AN_EPOCH + 1, 10)]
    assert 99.0 not in run.step_losses.values()
    lines = run.steps_path.read_text("utf-8").splitlines(keepends=True)
    for damaged in (lines[:-1], lines[1:], ["[]\n", *lines[1:]], [lines[0], *lines]):
        run.steps_path.write_text("".join(damaged), "utf-8")
        with pytest.raises(DamagedFileError, match=r"steps\.jsonl"):
            resume(directory)


def test_a_run_with_a_single_validation_image_is_resumed(directory: Path) -> None:
    config = changed({"data.validation": 1, "data.subset": 500, "training.epochs": 2})
    assert train(begin(directory, config), stop_after=2) == "interrupted"
    assert Run(directory).history[0].val_accuracy is not None
    assert train(resume(directory)) == "finished"


def test_a_run_that_ends_after_steps_is_not_extended_by_epochs(directory: Path) -> None:
    train(begin(directory, changed({"training.steps": 3})))
    with pytest.raises(UsageError, match="is a run of 3 steps"):
        TrainingRun.resume(Run.open(directory), MINI, epochs=9)


def test_a_run_that_is_interrupted_again_and_again_leads_to_the_same_bits(
    directory: Path, undisturbed: Any
) -> None:
    reason = train(begin(directory), stop_after=3)
    interruptions = 0
    while reason == "interrupted":
        interruptions += 1
        assert interruptions < 4 * EVENTS_AN_EPOCH, "the training makes no progress"
        reason = train(resume(directory), stop_after=3)
    assert interruptions > 5
    assert undisturbed == outcome(directory)


def test_a_time_limit_ends_a_run_at_a_block_and_not_as_an_interruption(
    directory: Path, undisturbed: Any
) -> None:
    for blocks in (1, 2):
        training = begin(directory) if blocks == 1 else resume(directory)
        *_, end = training.events(lambda: False, max_seconds=0.0)
        assert end == Finished("interrupted")
        assert load_checkpoint(directory / "last.npz").progress.batch == blocks * 17
        training.raise_unless_finished()
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)


def test_the_same_configuration_gives_the_same_bits_and_another_seed_others(
    tmp_path: Path, undisturbed: Any
) -> None:
    train(begin(tmp_path / "same"))
    assert undisturbed == outcome(tmp_path / "same")
    train(begin(tmp_path / "other", changed({"training.seed": 4})))
    assert undisturbed[0] != outcome(tmp_path / "other")[0]


def test_a_request_to_stop_after_the_last_epoch_is_too_late(directory: Path) -> None:
    assert train(begin(directory), stop_after=4 * EVENTS_AN_EPOCH) == "finished"


def test_a_run_cannot_be_resumed_while_another_process_trains_it(directory: Path) -> None:
    training = begin(directory)
    with pytest.raises(UsageError, match="is being trained by another process"):
        resume(directory)
    train(training, stop_after=1)
    assert train(resume(directory)) == "finished"
    assert not (directory / ".lock").exists()


def test_resuming_a_finished_run_removes_its_summary(finished: Path) -> None:
    assert Run(finished).summary is not None
    TrainingRun.resume(Run.open(finished), MINI, epochs=5)
    assert Run(finished).summary is None


@pytest.mark.parametrize("also_lost", ["", "metrics.jsonl", "best.npz"])
def test_a_run_without_its_last_checkpoint_is_not_overwritten(
    finished: Path, also_lost: str
) -> None:
    for name in filter(None, ("last.npz", also_lost)):
        (finished / name).unlink()
    before = contents(finished)
    with pytest.raises(DamagedFileError, match=r"last\.npz: .* although [1-4] epochs are"):
        resume(finished)
    assert before == contents(finished)
    (finished / "last.npz").symlink_to("nowhere")
    with pytest.raises(DamagedFileError, match="although"):
        resume(finished)


@pytest.mark.parametrize(("lost", "what"), [(0, ":1 is"), (1, ":2 is"), (3, "ends with epoch 3")])
def test_a_run_whose_metrics_lack_an_epoch_is_not_resumed(
    finished: Path, lost: int, what: str
) -> None:
    metrics = finished / "metrics.jsonl"
    lines = metrics.read_bytes().splitlines(keepends=True)
    damaged = b"".join(lines[:lost] + lines[lost + 1 :])
    metrics.write_bytes(damaged)
    with pytest.raises(DamagedFileError, match=what):
        resume(finished)
    assert metrics.read_bytes() == damaged


def test_a_run_killed_before_its_first_epoch_begins_again(
    directory: Path, undisturbed: Any
) -> None:
    begin(directory)
    assert [path.name for path in directory.iterdir() if path.suffix] == ["config.yaml"]
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)


def test_a_directory_with_only_files_of_a_killed_process_counts_as_empty(
    tmp_path: Path, directory: Path, undisturbed: Any
) -> None:
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
    directory: Path, undisturbed: Any
) -> None:
    train(begin(directory), stop_after=2 * EVENTS_AN_EPOCH)
    run = Run(directory)
    run.append_metrics(replace(run.history[-1], epoch=3, train_loss=99.0))
    with run.metrics_path.open("a", encoding="utf-8") as file:
        file.write('{"epoch": 4, "train_lo')
    (directory / ".last.npz.0badcafe.nnctl-tmp").write_bytes(b"half a checkpoint")
    assert train(resume(directory)) == "finished"
    assert undisturbed == outcome(directory)
    assert not list(directory.glob(".*"))


def test_a_divergence_is_not_reported_as_an_interruption(directory: Path) -> None:
    layers = [{"units": 10, "activation": "linear"}]
    config = {**SMALL, "network": {"layers": layers}, "loss": "quadratic"}
    config |= {"optimizer": {"learning_rate": 1e25}}
    config["training"] = {**SMALL["training"], "batch_size": 2500}
    training = begin(directory, config)
    ended = threading.Event()
    for event in training.events(ended.is_set):
        if isinstance(event, Finished):
            ended.set()
    assert training.loop.is_finite()
    assert training.summary.status == "diverged"


def test_early_stopping_continues_to_count_after_a_resume(tmp_path: Path) -> None:
    config = {**SMALL, "optimizer": {"learning_rate": 2.0}}
    stopping = {"patience": 2, "metric": "val_loss"}
    config["training"] = {**SMALL["training"], "epochs": 40, "early_stopping": stopping}
    assert train(begin(tmp_path / "whole", config)) == "stopped_early"
    epochs = len(Run(tmp_path / "whole").history)
    assert epochs > 3
    for boundary in range(epochs - 3, epochs):
        directory = tmp_path / f"from-{boundary}"
        assert train(begin(directory, config), boundary * EVENTS_AN_EPOCH) == "interrupted"
        assert train(resume(directory)) == "stopped_early"
        assert outcome(tmp_path / "whole") == outcome(directory)


def test_more_epochs_extend_a_finished_run(directory: Path, undisturbed: Any) -> None:
    train(begin(directory, changed({"training.epochs": 2})))
    run = Run.open(directory)
    assert train(TrainingRun.resume(run, MINI, epochs=4)) == "finished"
    assert undisturbed == outcome(directory)
    assert run.config.training.epochs == 4


def test_resuming_a_finished_run_changes_nothing(finished: Path, undisturbed: Any) -> None:
    training = resume(finished)
    assert not any(isinstance(event, EpochDone) for event in training.events(lambda: False))
    assert undisturbed == outcome(finished)


def test_other_changes_are_refused_with_a_list(finished: Path) -> None:
    run = Run.open(finished)
    requested = replaced(run.config, {"optimizer.learning_rate": 0.2, "network.layers.0.units": 21})
    with pytest.raises(UsageError) as caught:
        TrainingRun.resume(run, MINI, requested)
    assert "optimizer.learning_rate: 0.05 in the run, 0.2 requested" in caught.value.message
    assert "network.layers.0.units: 20 in the run, 21 requested" in caught.value.message


def test_fewer_epochs_than_are_done_are_refused(directory: Path) -> None:
    train(begin(directory), stop_after=2 * EVENTS_AN_EPOCH)
    before = contents(directory)
    with pytest.raises(UsageError, match="already has 2 complete epochs"):
        TrainingRun.resume(Run.open(directory), MINI, epochs=1)
    assert before == contents(directory)


def test_a_dataset_that_changed_is_refused(directory: Path) -> None:
    training = begin(directory)
    hashes = {"train-images-idx3-ubyte.gz": "another"}
    training.dataset = training.dataset.model_copy(update={"hashes": hashes})
    train(training, stop_after=1)
    with pytest.raises(DataError, match="have changed since"):
        resume(directory)
