"""Checkpoints hold what was written, or are refused as damaged; nothing in them is executed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnctl import files
from nnctl.config import from_mapping, replaced, to_mapping
from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DamagedFileError, DataError, NnctlError
from nnctl.files import write_atomically
from nnctl.nn.training import Best, Progress
from nnctl.runs import checkpoint as checkpoints
from nnctl.runs import directory as directories
from nnctl.runs.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from nnctl.runs.directory import Run
from nnctl.runs.evaluation import evaluate
from nnctl.runs.inspection import inspect_run, trained_network
from tests.runs.helpers import EVENTS_AN_EPOCH, SMALL, begin, ignore, resume, train


@pytest.fixture
def saved() -> Checkpoint:
    """A checkpoint with a value in every field."""
    return Checkpoint(
        parameters=np.linspace(0, 7, 50, dtype=np.float32),
        velocity=np.linspace(0, 3, 50, dtype=np.float32),
        progress=Progress(
            shuffling=dict(np.random.default_rng(2**63).bit_generator.state),
            epoch=3,
            batch=17,
            loss_sum=0.1 + 0.2,
            correct=99,
            seconds=1.5,
            best=Best(2, 0.9, 0.3),
            patience_best=0.9,
            patience_used=1,
        ),
        config={"loss": "cross_entropy"},
        dataset={"name": "x", "hashes": {}, "pixels": 4, "training": 9, "validation": 0},
        seconds=12.5,
    )


def test_a_checkpoint_reads_back_as_it_was_written(tmp_path: Path, saved: Checkpoint) -> None:
    save_checkpoint(tmp_path / "last.npz", saved)
    loaded = load_checkpoint(tmp_path / "last.npz")
    assert saved.parameters.tobytes() == loaded.parameters.tobytes()
    assert saved.velocity.tobytes() == loaded.velocity.tobytes()
    assert saved.progress == loaded.progress
    assert (saved.config, saved.dataset) == (loaded.config, loaded.dataset)
    assert saved.seconds == loaded.seconds


def test_the_largest_numbers_that_a_training_can_come_to_are_read_back(
    tmp_path: Path, saved: Checkpoint
) -> None:
    most = replace(saved.progress, epoch=MAX_WHOLE, patience_used=MAX_WHOLE)
    save_checkpoint(tmp_path / "last.npz", replace(saved, progress=most))
    assert most == load_checkpoint(tmp_path / "last.npz").progress


def test_a_flipped_bit_anywhere_is_noticed_or_changes_nothing(
    tmp_path: Path, saved: Checkpoint
) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, saved)
    content = path.read_bytes()
    noticed = 0
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        try:
            loaded = load_checkpoint(path)
        except DataError:
            noticed += 1
        else:
            assert saved.parameters.tobytes() == loaded.parameters.tobytes()
            assert saved.velocity.tobytes() == loaded.velocity.tobytes()
            assert saved.progress == loaded.progress
    assert noticed > 0.8 * len(content)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_damaged(tmp_path: Path, saved: Checkpoint, share: float) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, saved)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DamagedFileError, match=r"last\.npz is damaged"):
        load_checkpoint(path)


class _Bomb:
    """Pickled, it would make a folder when it is read."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, ("executed",)


def _rewritten(path: Path, **changed: object) -> None:
    """Write the members of a checkpoint again, some of them changed."""
    with np.load(path) as file:
        members = {name: file[name] for name in file.files}
    members |= {name: np.asarray(value) for name, value in changed.items()}
    np.savez(path, allow_pickle=True, **members)


def test_a_pickle_inside_is_never_executed(scratch: Path, saved: Checkpoint) -> None:
    path = scratch / "last.npz"
    save_checkpoint(path, saved)
    _rewritten(path, velocity=np.array([_Bomb()], dtype=object))
    with pytest.raises(DamagedFileError):
        load_checkpoint(path)
    assert not Path("executed").exists()
    pickle.loads(pickle.dumps(_Bomb()))
    assert Path("executed").exists()  # so it would have been noticed


def test_a_compressed_bomb_is_not_unpacked(tmp_path: Path, saved: Checkpoint) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, saved)
    with np.load(path) as file:
        members = {name: file[name] for name in file.files}
    members["parameters"] = np.zeros(50_000_000, np.float32)
    np.savez_compressed(path, **members)
    assert path.stat().st_size < 1_000_000
    with pytest.raises(DamagedFileError):
        load_checkpoint(path)


def test_members_that_do_not_belong_there_are_damage(tmp_path: Path, saved: Checkpoint) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, saved)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../outside.npy", b"")
    with pytest.raises(DamagedFileError):
        load_checkpoint(path)
    assert not (tmp_path.parent / "outside.npy").exists()


@pytest.mark.parametrize(
    "changed",
    [
        {"parameters": np.zeros((5, 10), np.float32)},
        {"parameters": np.zeros(50, np.float64)},
        {"velocity": np.ones(50, np.float32)},
        {"state": "{}"},
        {"state": "not JSON"},
        {"digest": "0"},
    ],
    ids=str,
)
def test_members_of_another_kind_are_damage(
    tmp_path: Path, saved: Checkpoint, changed: dict[str, object]
) -> None:
    path = tmp_path / "last.npz"
    save_checkpoint(path, saved)
    _rewritten(path, **changed)
    with pytest.raises(DamagedFileError):
        load_checkpoint(path)


def test_weights_that_are_not_finite_are_damage(tmp_path: Path, saved: Checkpoint) -> None:
    weights = saved.parameters.copy()
    weights[7] = np.nan
    save_checkpoint(tmp_path / "last.npz", replace(saved, parameters=weights))
    with pytest.raises(DamagedFileError, match="not finite"):
        load_checkpoint(tmp_path / "last.npz")


def test_a_later_format_version_is_told_apart_from_damage(
    tmp_path: Path, saved: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT_VERSION", 2)
    save_checkpoint(tmp_path / "last.npz", saved)
    monkeypatch.undo()
    with pytest.raises(DataError, match="format version 2; this nnctl reads 1"):
        load_checkpoint(tmp_path / "last.npz")


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize(("refusals", "left"), [(2, b"new"), (3, b"old")])
def test_a_reader_that_keeps_a_file_from_being_replaced_is_waited_for(
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


def test_a_full_disk_ends_a_training_with_a_sentence_and_a_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = begin(tmp_path / "run")
    train(training, stop_after=2 * EVENTS_AN_EPOCH)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NnctlError, match="cannot be written: No space left") as caught:
        train(training)
    assert caught.value.exit_code == 1
    assert "--resume" in str(caught.value.hint)
    assert Run(tmp_path / "run").checkpoint("last").progress.epoch == 2


def test_a_summary_that_cannot_be_written_is_told_with_how_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    training = begin(tmp_path / "run")
    train(training, stop_after=4 * EVENTS_AN_EPOCH)
    training = resume(tmp_path / "run")
    monkeypatch.setattr(directories, "write_atomically", full)
    with pytest.raises(NnctlError, match=r"summary\.json cannot be written: No space") as caught:
        train(training)
    assert "go on with: nnctl train --resume" in str(caught.value.hint)


def test_a_run_that_is_removed_while_it_is_trained_is_not_said_to_be_intact(tmp_path: Path) -> None:
    training = begin(tmp_path / "run")

    def remove() -> bool:
        shutil.rmtree(tmp_path / "run", ignore_errors=True)
        return False

    with pytest.raises(NnctlError, match="cannot be written") as caught:
        for _ in training.events(remove):
            pass
    assert "begin it again" in str(caught.value.hint)


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"garbage",
        lambda _: b"[]",
        lambda _: b"\xff",
        lambda line: line.replace(b'"epoch": 2', b'"epoch": 1'),
        lambda line: line.replace(b'"epoch": 2', b'"epoch": "2"'),
        lambda line: line.replace(b'"train_loss": ', b'"train_loss": 1e400, "x": '),
        lambda line: line.replace(b'"health": [', b'"health": [{}, '),
        lambda line: line.replace(b'"dead": ', b'"alive": '),
        lambda line: line.replace(b'"val_loss": ', b'"val_loss": null, "x": '),
        lambda _: b"[" * 100_000,
    ],
    ids=[
        "text",
        "list",
        "bytes",
        "twice",
        "type",
        "infinity",
        "a layer more",
        "a key less",
        "half",
        "depth",
    ],
)
def test_damaged_metrics_are_told_by_their_line(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    train(begin(tmp_path / "run"), stop_after=3 * EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    first, second, third = run.metrics_path.read_bytes().splitlines()
    run.metrics_path.write_bytes(b"\n".join([first, damage(second), third, b""]))
    with pytest.raises(DamagedFileError, match=r"metrics\.jsonl:2 is damaged"):
        _ = run.metrics


@pytest.mark.parametrize("content", ["garbage", "[]", "{}", '{"status": 3}', "[" * 100_000])
def test_a_damaged_summary_is_told_by_its_name(tmp_path: Path, content: str) -> None:
    run = Run(tmp_path)
    run.summary_path.write_text(content, encoding="utf-8")
    with pytest.raises(DamagedFileError, match=r"summary\.json is damaged"):
        _ = run.summary


@pytest.mark.parametrize("what", ["outputs", "gradient"])
def test_a_summary_of_a_layer_that_is_not_there_is_damaged(tmp_path: Path, what: str) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    told = json.loads(run.summary_path.read_text("utf-8"))
    where = {"epoch": 1, "batch": 1, "what": what, "last_finite_loss": None}
    for layer in (2, 3):
        diverged = {"status": "diverged", "divergence": {**where, "layer": layer}}
        run.summary_path.write_text(json.dumps(told | diverged), "utf-8")
        if layer == 2:
            assert inspect_run(run, None).diagnoses
        else:
            with pytest.raises(DamagedFileError, match=r"summary\.json .* layer 3, which"):
                inspect_run(run, None)


def test_a_summary_tells_its_format_version(tmp_path: Path) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    told = json.loads(run.summary_path.read_text("utf-8"))
    assert told["format_version"] == 1
    for version in (2, "1", None, True, -1):
        run.summary_path.write_text(json.dumps(told | {"format_version": version}), "utf-8")
        with pytest.raises(DataError, match=r"format version .*; this nnctl reads 1") as caught:
            _ = run.summary
        assert caught.value.hint == "Install the version of nnctl that wrote it."
        with pytest.raises(DataError, match="format version"):
            resume(tmp_path / "run")
    del told["format_version"]
    run.summary_path.write_text(json.dumps(told), "utf-8")
    assert told == run.summary


def test_a_checkpoint_that_does_not_fit_its_configuration_is_damaged(tmp_path: Path) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    loaded = run.checkpoint("best")
    save_checkpoint(run.checkpoint_path("best"), replace(loaded, parameters=loaded.parameters[:-1]))
    with pytest.raises(DamagedFileError, match="do not fit its configuration"):
        run.network("best")


def test_a_checkpoint_of_another_optimizer_is_not_resumed(tmp_path: Path) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    path = tmp_path / "run" / "last.npz"
    loaded = load_checkpoint(path)
    save_checkpoint(path, replace(loaded, velocity=loaded.velocity[:1]))
    with pytest.raises(DataError, match="does not fit"):
        resume(tmp_path / "run")


def test_the_state_is_readable_by_any_tool(tmp_path: Path, saved: Checkpoint) -> None:
    save_checkpoint(tmp_path / "last.npz", saved)
    with zipfile.ZipFile(tmp_path / "last.npz") as archive:
        state = str(np.load(io.BytesIO(archive.read("state.npy")), allow_pickle=False)[()])
    assert json.loads(state)["progress"]["epoch"] == 3


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("data.validation", "auto", "a run has a number here, not auto"),
        ("data.validation", 9000, "cannot be held out of the 5,000"),
        ("network.layers", [], "is damaged"),
    ],
)
def test_a_checkpoint_s_configuration_is_checked_as_any_other(
    tmp_path: Path, key: str, value: Any, expected: str
) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    loaded = run.checkpoint("best")
    config: Any = json.loads(json.dumps(loaded.config))
    section, name = key.split(".")
    config[section][name] = value
    save_checkpoint(run.checkpoint_path("best"), replace(loaded, config=config))
    with pytest.raises(DataError, match=expected):
        evaluate(run, split_name="validation", notify=ignore)


@pytest.mark.parametrize(
    "changed",
    [
        {"epoch": -1},
        {"batch": 10**6},
        {"correct": 10**6},
        {"shuffling": {}},
        {"best": Best(1, None, None)},
        {"loss_sum": "0"},
    ],
    ids=str,
)
def test_a_state_in_which_this_training_cannot_be_is_damage(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    path = tmp_path / "run" / "last.npz"
    loaded = load_checkpoint(path)
    save_checkpoint(path, replace(loaded, progress=replace(loaded.progress, **changed)))
    with pytest.raises(DamagedFileError, match="state"):
        resume(tmp_path / "run")


def test_a_run_whose_checkpoint_does_not_fit_its_configuration_is_not_explained(
    tmp_path: Path,
) -> None:
    train(begin(tmp_path / "run"), stop_after=EVENTS_AN_EPOCH)
    run = Run(tmp_path / "run")
    text = run.config_path.read_text("utf-8")
    run.config_path.write_text(text.replace("units: 20", "units: 21"), "utf-8")
    with pytest.raises(DataError, match="does not fit"):
        trained_network(run)


def test_what_is_kept_as_the_best_are_the_mean_weights_that_were_validated(
    tmp_path: Path,
) -> None:
    values = {"training.average": 0.99, "training.epochs": 1}
    config = to_mapping(replaced(from_mapping(SMALL, "small"), values))
    train(begin(tmp_path / "run", config))
    run = Run(tmp_path / "run")
    best = evaluate(run, split_name="validation", notify=ignore)
    (row,) = run.metrics
    assert best.accuracy == row["val_accuracy"]
    assert best.loss == pytest.approx(row["val_loss"], rel=1e-5)
    validated = run.network("best").parameters.vector
    assert np.array_equal(run.checkpoint("best").parameters, validated)
    assert not np.allclose(run.checkpoint("last").parameters, validated, rtol=1e-2)
