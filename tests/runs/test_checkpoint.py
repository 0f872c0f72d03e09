"""Checkpoints hold what was written, or are refused as damaged; nothing in them is executed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import signal
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl import files
from nnctl.analysis.evaluation import evaluate
from nnctl.analysis.inspection import inspect_run, trained_network
from nnctl.config import from_mapping, replaced, to_mapping
from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DamagedFileError, DataError, NnctlError
from nnctl.files import write_atomically
from nnctl.nn.state import Best, Progress
from nnctl.runs import checkpoint as checkpoints
from nnctl.runs import run as run_module
from nnctl.runs.checkpoint import Checkpoint, DatasetRecord, load_checkpoint, save_checkpoint
from nnctl.runs.run import Run
from tests.runs.helpers import EVENTS_AN_EPOCH, SMALL, begin, ignore, resume, train
from tests.torture.hostile import read_checkpoint, write_checkpoint

SAVED = Checkpoint(
    parameters=np.linspace(0, 7, 50, dtype=np.float32),
    optimizer_state=np.linspace(0, 3, 50, dtype=np.float32),
    average=np.linspace(1, 2, 50, dtype=np.float32),
    statistics=np.linspace(3, 4, 6, dtype=np.float32),
    progress=Progress(
        rng_state=dict(np.random.default_rng(2**63).bit_generator.state),
        epoch=3,
        batch=17,
        loss_sum=0.1 + 0.2,
        correct=99,
        seconds=1.5,
        best=Best(2, 0.9, 0.3),
        best_score=0.9,
        wait=1,
    ),
    config=from_mapping(SMALL, "test"),
    dataset=DatasetRecord(name="x", training=9, validation=0, pixels=4, hashes={}),
    seconds=12.5,
)
"""A value in every field."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A checkpoint file."""
    save_checkpoint(tmp_path / "last.npz", SAVED)
    return tmp_path / "last.npz"


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run interrupted after its third epoch."""
    directory = tmp_path_factory.mktemp("interrupted") / "run"
    train(begin(directory), stop_after=3 * EVENTS_AN_EPOCH)
    return directory


@pytest.fixture
def run(interrupted: Path, tmp_path: Path) -> Run:
    """A copy of `interrupted`."""
    return Run.open(Path(shutil.copytree(interrupted, tmp_path / "run")))


def assert_same(expected: Checkpoint, actual: Checkpoint) -> None:
    assert expected.parameters.tobytes() == actual.parameters.tobytes()
    assert expected.optimizer_state.tobytes() == actual.optimizer_state.tobytes()
    assert expected.statistics is not None
    assert actual.statistics is not None
    assert expected.statistics.tobytes() == actual.statistics.tobytes()
    assert expected.progress == actual.progress
    assert (expected.config, expected.dataset) == (actual.config, actual.dataset)
    assert expected.seconds == actual.seconds


# The file ---------------------------------------------------------------------------------------


def test_a_checkpoint_reads_back_as_it_was_written(path: Path) -> None:
    assert_same(SAVED, load_checkpoint(path))


def test_the_largest_counts_are_read_back(path: Path) -> None:
    most = replace(SAVED.progress, epoch=MAX_WHOLE, wait=MAX_WHOLE)
    save_checkpoint(path, replace(SAVED, progress=most))
    assert most == load_checkpoint(path).progress


def test_the_state_is_readable_by_any_tool(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        state = str(np.load(io.BytesIO(archive.read("state.npy")), allow_pickle=False)[()])
    assert json.loads(state)["progress"]["epoch"] == 3


def test_any_flipped_bit_is_detected_or_changes_nothing(path: Path) -> None:
    content = path.read_bytes()
    positions = range(0, len(content), 5)  # all bits of a byte, and all members
    damaged = 0
    for position in positions:
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        try:
            assert_same(SAVED, load_checkpoint(path))
        except DataError:
            damaged += 1
    assert damaged > 0.8 * len(positions)


class _Bomb:
    """An object that creates a folder when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def truncate(share: float, path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])


def rewrite(changed: dict[str, Any], path: Path, save: Any = np.savez) -> None:
    """Rewrite a checkpoint with some members changed."""
    with np.load(path) as file:
        members = {name: file[name] for name in file.files}
    save(path, **members | {name: np.asarray(value) for name, value in changed.items()})


def compress(path: Path) -> None:
    rewrite({"parameters": np.zeros(10**6, np.float32)}, path, np.savez_compressed)


def add_member(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.npy", b"")


def make_infinite(path: Path) -> None:
    parameters = SAVED.parameters.copy()
    parameters[7] = np.nan
    save_checkpoint(path, replace(SAVED, parameters=parameters))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        *[(partial(truncate, share), "complete") for share in (0.0, 0.1, 0.5, 0.9, 0.999)],
        (partial(rewrite, {"velocity": np.array([_Bomb()])}), "complete"),
        (partial(rewrite, {"parameters": np.zeros((5, 10), np.float32)}), "complete"),
        (partial(rewrite, {"parameters": np.zeros(50, np.float64)}), "complete"),
        (partial(rewrite, {"velocity": np.ones(50, np.float32)}), "checksum"),
        (partial(rewrite, {"state": "{}"}), "complete"),
        (partial(rewrite, {"state": "not JSON"}), "complete"),
        (partial(rewrite, {"digest": "0"}), "checksum"),
        (compress, "complete"),
        (add_member, "complete"),
        (make_infinite, "not finite"),
    ],
    ids=lambda value: str(getattr(value, "args", getattr(value, "__name__", value)))[:40],
)
def test_a_damaged_checkpoint_is_refused_and_nothing_in_it_is_executed(
    scratch: Path, path: Path, damage: Callable[[Path], None], message: str
) -> None:
    damage(path)
    with pytest.raises(DamagedFileError, match=rf"last\.npz is damaged: .*{message}"):
        load_checkpoint(path)
    assert not (scratch / "executed").exists()
    assert not (path.parent.parent / "outside.npy").exists()


@pytest.mark.usefixtures("scratch")
def test_executing_the_pickle_of_the_test_above_would_be_noticed() -> None:
    pickle.loads(pickle.dumps(_Bomb()))
    assert Path("executed").exists()


def test_a_later_format_version_is_not_reported_as_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    save_checkpoint(path, SAVED)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format version 2; this nnctl reads 1"):
        load_checkpoint(path)


# Checkpoints that do not fit their run ----------------------------------------------------------


def test_a_checkpoint_that_does_not_fit_its_configuration_is_damaged(run: Run) -> None:
    loaded = run.checkpoint("best")
    save_checkpoint(run.checkpoint_path("best"), replace(loaded, parameters=loaded.parameters[:-1]))
    with pytest.raises(DamagedFileError, match="do not fit its configuration"):
        run.network("best")


def test_a_checkpoint_of_another_optimizer_is_not_resumed(run: Run) -> None:
    loaded = run.checkpoint("last")
    save_checkpoint(
        run.checkpoint_path("last"), replace(loaded, optimizer_state=loaded.optimizer_state[:1])
    )
    with pytest.raises(DataError, match="does not fit"):
        resume(run.directory)


def test_a_run_whose_checkpoint_does_not_fit_its_configuration_is_not_diagnosed(run: Run) -> None:
    text = run.config_path.read_text("utf-8")
    run.config_path.write_text(text.replace("units: 20", "units: 21"), "utf-8")
    with pytest.raises(DataError, match=r"units: 20 in last\.npz, 21 in config\.yaml"):
        trained_network(run)


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data.validation", "auto", "a run needs a number here, not auto"),
        ("data.validation", 9000, "data.validation: 9000 in best.npz, 500 in config.yaml"),
        ("network.layers", [], "is damaged"),
    ],
)
def test_the_configuration_of_a_checkpoint_is_checked(
    run: Run, key: str, value: Any, expected: str
) -> None:
    path = run.checkpoint_path("best")
    members = read_checkpoint(path)
    section, name = key.split(".")
    members["state"]["config"][section][name] = value
    write_checkpoint(path, members)
    with pytest.raises(DataError, match=expected):
        evaluate(run, split_name="validation", notify=ignore)


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": -1},
        {"batch": 10**6},
        {"correct": 10**6},
        {"rng_state": {}},
        {"best": Best(1, None, None)},
        {"best": {"epoch": 1, "val_accuracy": 0.9, "val_loss": 0.3, "unknown": 0}},
        {"loss_sum": "0"},
    ],
    ids=str,
)
def test_an_impossible_training_state_is_damage(run: Run, changed: dict[str, Any]) -> None:
    loaded = run.checkpoint("last")
    progress = replace(loaded.progress, **changed)
    save_checkpoint(run.checkpoint_path("last"), replace(loaded, progress=progress))
    with pytest.raises(
        DamagedFileError, match=r"training state|not the checkpoint of the best epoch"
    ):
        resume(run.directory)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_best_checkpoint_holds_the_averaged_weights_that_were_validated(
    tmp_path: Path, batch_norm: bool
) -> None:
    values = {
        "training.average": 0.99,
        "training.epochs": 1,
        "network.layers.0.batch_norm": batch_norm,
    }
    config = to_mapping(replaced(from_mapping(SMALL, "small"), values))
    train(begin(tmp_path / "run", config))
    run = Run(tmp_path / "run")
    best = evaluate(run, split_name="validation", notify=ignore)
    (row,) = run.history
    assert best.accuracy == row.val_accuracy
    assert best.loss == pytest.approx(row.val_loss, rel=1e-5)
    validated = run.network("best").parameters.vector
    assert np.array_equal(run.checkpoint("best").parameters, validated)
    assert not np.allclose(run.checkpoint("last").parameters, validated, rtol=1e-2)


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        (None, "running statistics do not fit"),
        (np.ones(39), "running statistics do not fit"),
        (np.linspace(1, -1, 40), "a running variance is negative"),
    ],
    ids=["missing", "too few", "negative"],
)
def test_running_statistics_that_are_impossible_are_damage(
    tmp_path: Path, statistics: Any, message: str
) -> None:
    values = {"training.epochs": 1, "network.layers.0.batch_norm": {"position": "after"}}
    config = to_mapping(replaced(from_mapping(SMALL, "small"), values))
    train(begin(tmp_path / "run", config))
    run = Run(tmp_path / "run")
    saved = run.checkpoint("last")
    assert saved.statistics is not None
    assert saved.statistics.shape == (40,)
    wrong = statistics if statistics is None else statistics.astype(np.float32)
    save_checkpoint(run.checkpoint_path("last"), replace(saved, statistics=wrong))
    for use in (lambda: run.network("last"), lambda: resume(run.directory)):
        with pytest.raises(DamagedFileError, match=message):
            use()


@pytest.mark.parametrize(("batch_size", "is_mean"), [(900, False), (700, True)])
def test_the_last_network_has_mean_weights_after_eight_steps(
    tmp_path: Path, batch_size: int, is_mean: bool
) -> None:
    settings = {"average": 0.99, "epochs": 2, "batch_size": batch_size}  # 6 or 8 steps
    train(begin(tmp_path / "run", {**SMALL, "training": {**SMALL["training"], **settings}}))
    run = Run(tmp_path / "run")
    last, best = run.network("last").parameters.vector, run.network("best").parameters.vector
    assert is_mean != np.array_equal(run.checkpoint("last").parameters, last)
    assert last.any()
    assert best.any()


# Metrics and summary ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"garbage",
        lambda _: b"[]",
        lambda _: b"\xff",
        lambda _: b"[" * 100_000,
        lambda line: line.replace(b'"epoch": 2', b'"epoch": 1'),
        lambda line: line.replace(b'"epoch": 2', b'"epoch": "2"'),
        lambda line: line.replace(b'"train_loss": ', b'"train_loss": 1e400, "x": '),
        lambda line: line.replace(b'"health": [', b'"health": [{}, '),
        lambda line: line.replace(b'"dead": ', b'"alive": '),
        lambda line: line.replace(b'"val_loss": ', b'"val_loss": null, "x": '),
    ],
    ids=[
        *("text", "list", "bytes", "depth", "epoch twice", "type", "infinity", "another layer"),
        *("missing key", "half a validation"),
    ],
)
def test_damaged_metrics_are_reported_with_their_line(
    run: Run, damage: Callable[[bytes], bytes]
) -> None:
    first, second, third = run.metrics_path.read_bytes().splitlines()
    run.metrics_path.write_bytes(b"\n".join([first, damage(second), third, b""]))
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl:2 is damaged"):
        _ = run.history


def test_the_health_of_early_versions_is_omitted(run: Run) -> None:
    lines = [json.loads(line) for line in run.metrics_path.read_text("utf-8").splitlines()]
    for line in lines:
        line["health"] = [{"mean": 0.1, "std": 0.2, "dead": 0.0, "saturated": 0.0}] * 2
    run.metrics_path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), "utf-8")
    assert [(epoch.epoch, epoch.health) for epoch in run.history] == [(1, []), (2, []), (3, [])]
    assert inspect_run(run, None).epochs_done == 3


@pytest.mark.parametrize("content", ["garbage", "[]", "null", "{}", '{"status": 3}', "[" * 100_000])
def test_a_damaged_summary_is_reported_with_its_name(tmp_path: Path, content: str) -> None:
    run = Run(tmp_path)
    run.summary_path.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"summary\.json is damaged"):
        _ = run.summary


@pytest.mark.parametrize("what", ["outputs", "gradient"])
def test_a_summary_of_a_layer_that_the_network_does_not_have_is_damaged(
    run: Run, what: str
) -> None:
    summary = json.loads(run.summary_path.read_text("utf-8"))
    where = {"epoch": 1, "batch": 1, "what": what, "last_finite_loss": None}
    for layer in (2, 3):
        diverged = {"status": "diverged", "divergence": {**where, "layer": layer}}
        run.summary_path.write_text(json.dumps(summary | diverged), "utf-8")
        if layer == 2:
            assert inspect_run(run, None).diagnoses
        else:
            with pytest.raises(DamagedFileError, match=r"summary\.json .* layer 3, which"):
                inspect_run(run, None)


def test_a_summary_has_a_format_version(run: Run) -> None:
    summary = json.loads(run.summary_path.read_text("utf-8"))
    assert summary["format_version"] == 1
    for version in (2, "1", None, True, -1):
        run.summary_path.write_text(json.dumps(summary | {"format_version": version}), "utf-8")
        with pytest.raises(DataError, match=r"format version .*; this nnctl reads 1") as caught:
            _ = run.summary
        assert caught.value.hint == "Install the version of nnctl that wrote it."
    with pytest.raises(DataError, match="format version"):
        resume(run.directory)
    del summary["format_version"]
    run.summary_path.write_text(json.dumps(summary), "utf-8")
    assert run.summary
    assert run.summary.to_json() == {**summary, "format_version": 1}


# Writes that fail -------------------------------------------------------------------------------


def raise_disk_full(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_write_that_fails_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("refusals", "left"), [(2, b"new"), (3, b"old")])
def test_a_write_waits_for_a_reader_that_blocks_the_replacement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusals: int, left: bytes
) -> None:
    path, replace_it = tmp_path / "file", Path.replace
    write_atomically(path, b"old")
    refused: list[object] = []

    def busy(self: Path, target: Path) -> Path:
        if len(refused) < refusals:
            refused.append(target)
            raise PermissionError(13, "Permission denied")
        return replace_it(self, target)

    monkeypatch.setattr(files, "_PAUSES", (0, 0))
    monkeypatch.setattr(Path, "replace", busy)
    with pytest.raises(PermissionError) if refusals > 2 else contextlib.nullcontext():
        write_atomically(path, b"new")
    assert path.read_bytes() == left
    assert [path] == list(tmp_path.iterdir())


def test_a_full_disk_ends_a_training_with_an_error_and_a_good_checkpoint(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = resume(run.directory)
    monkeypatch.setattr(os, "fsync", raise_disk_full)
    with pytest.raises(NnctlError, match="cannot be written: No space left") as caught:
        train(training)
    assert caught.value.exit_code == 1
    assert "--resume" in str(caught.value.hint)
    assert run.checkpoint("last").progress.epoch == 3


def test_an_interrupt_while_a_checkpoint_is_written_takes_effect_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    savez, written = np.savez, list[str]()

    def interrupt_and_save(file: Any, **arrays: Any) -> None:
        signal.raise_signal(signal.SIGINT)
        savez(file, **arrays)
        written.extend(arrays)

    monkeypatch.setattr(np, "savez", interrupt_and_save)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path / "last.npz", SAVED)
    assert written == ["parameters", "velocity", "average", "statistics", "state", "digest"]
    assert not list(tmp_path.iterdir())


def test_a_summary_that_cannot_be_written_is_an_error_with_a_hint_to_resume(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(resume(run.directory))
    training = resume(run.directory)
    monkeypatch.setattr(run_module, "write_atomically", raise_disk_full)
    with pytest.raises(NnctlError, match=r"summary\.json cannot be written: No space") as caught:
        train(training)
    assert "resume with: nnctl train --resume" in str(caught.value.hint)


def test_the_hint_for_a_run_that_is_removed_during_its_training_is_to_start_a_new_one(
    run: Run,
) -> None:
    training = resume(run.directory)

    def remove() -> bool:
        shutil.rmtree(run.directory, ignore_errors=True)
        return False

    with pytest.raises(NnctlError, match="cannot be written") as caught:
        for _ in training.events(remove):
            pass
    assert "start a new run" in str(caught.value.hint)
