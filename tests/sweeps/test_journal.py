"""The journal of a sweep: complete lines are read, and damage is reported."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnctl.config import json_schema
from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DamagedFileError, DataError, NnctlError, StorageError, UsageError
from nnctl.sweeps import events
from nnctl.sweeps.events import FORMAT_VERSION, Event
from nnctl.sweeps.journal import NAME, Journal
from nnctl.sweeps.plan import TrialFactory, read_plan
from nnctl.sweeps.scheduler import Sweep
from nnctl.sweeps.state import SweepState
from tests.conftest import CONFIGS
from tests.runs.helpers import ignore

PLAN: dict[str, Any] = {"sweep": {"parameters": {"ü": [[1]]}}, "base": {}, "source": "base.yaml"}
CREATED = events.Created(plan=PLAN)
PLANNED = events.Planned(
    trial=1,
    id="a1",
    point=1,
    seed=3,
    parameters={"ü": [1]},
    suggestion=None,
    config={"training": {"epochs": 1}},
)
STARTED = events.Started(trial=1)
ENDED = events.Ended(
    trial=1,
    id="a1",
    status="failed",
    reason="a\nb",
    val_accuracy=None,
    val_loss=None,
    best_epoch=None,
    epochs=0,
    seconds=0.5,
    seed=3,
    parameters={"ü": [1]},
)
EVENTS = [CREATED, PLANNED, STARTED, ENDED]


def repeated(point: int, trial: int = 1) -> events.Repeated:
    """Return the event of a suggestion that repeats a trial."""
    return events.Repeated(point=point, trial=trial, suggestion={})


def changed(event: events.Planned | events.Started | events.Ended, **values: Any) -> Event:
    """Return an event with other values."""
    return event.model_copy(update=values)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal of four lines."""
    made = Journal(tmp_path)
    made.append([CREATED, PLANNED, STARTED])
    made.append([ENDED])
    return made


def test_events_are_read_in_the_order_in_which_they_were_appended(journal: Journal) -> None:
    assert list(journal.read()) == EVENTS
    lines = journal.path.read_bytes().splitlines()
    assert [next(iter(json.loads(line))) for line in lines] == ["event"] * 4
    journal.append([])
    assert list(Journal(journal.path.parent).read()) == EVENTS


@pytest.mark.parametrize("torn", [b"{", b'{"event": "ended", "trial": 2}', b"\xff", b"\0" * 3])
def test_an_incomplete_last_line_is_skipped_and_removed_by_repair(
    journal: Journal, torn: bytes
) -> None:
    before = journal.path.read_bytes()
    os.utime(journal.path, (1, 1))
    journal.repair()
    assert (journal.path.read_bytes(), journal.path.stat().st_mtime) == (before, 1)
    with journal.path.open("ab") as file:
        file.write(torn)
    assert list(journal.read()) == EVENTS
    journal.repair()
    journal.append([STARTED])
    assert list(journal.read()) == [*EVENTS, STARTED]


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"nonsense",
        b"\xff\xfe",
        b"[]",
        b"3",
        b"null",
        b'"event"',
        b'{"trial": 1}',
        b'{"event": "sweep", "format_version": 1, "plan": {}}',
        b'{"event": "started"}',
        b'{"event": "ended", "trial": 1}',
        b'{"event": "planned", "trial": 1}',
        b'{"event": "repeated", "point": 1}',
        b'{"event": "begun", "trial": 1}',
        b'{"event": ["ended"], "trial": 1}',
        b'{"event": "started", "trial": 1}',
        b'{"event": "started", "trial": "1"}',
        b'{"event": "complete", "note": "\\ud800"}',
        b'{"event": "complete", "trials": 1e400}',
        b'{"event": "complete", "trials": NaN}',
        b"[" * 100_000,
        json.dumps({**PLANNED.model_dump(), "config": {"training": {}}}).encode(),
        json.dumps({**PLANNED.model_dump(), "parameters": {"other": [1]}}).encode(),
    ],
    ids=lambda damage: damage[:30].decode(errors="replace"),
)
def test_a_damaged_line_is_reported_with_its_number(journal: Journal, damage: bytes) -> None:
    lines = journal.path.read_bytes().split(b"\n")
    lines[1] = damage
    journal.path.write_bytes(b"\n".join(lines))
    with pytest.raises(DamagedFileError, match=f"{NAME}:2 is damaged"):
        SweepState.read(journal.path.parent)


@pytest.mark.parametrize(
    "event",
    [
        PLANNED,
        changed(PLANNED, trial=3),
        changed(PLANNED, trial=2, point=0),
        changed(STARTED, trial=2),
        changed(ENDED, trial=2),
        changed(ENDED, parameters={"ü": [2]}),
        repeated(2, trial=2),
        repeated(1),
        events.Impossible(point=1, suggestion={}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_line_that_contradicts_earlier_lines_is_damage(journal: Journal, event: Event) -> None:
    journal.append([event])
    with pytest.raises(DamagedFileError, match=f"{NAME}:5 is damaged"):
        SweepState.read(journal.path.parent)


def test_several_suggestions_in_a_row_may_be_repetitions(journal: Journal) -> None:
    impossible = events.Impossible(point=4, suggestion={})
    journal.append(
        [repeated(2), repeated(3), impossible, changed(PLANNED, trial=2, id="a2", point=5)]
    )
    assert SweepState.read(journal.path.parent).last_point == 5


@pytest.mark.skipif(sys.platform == "win32", reason="links are not for everybody there")
def test_nothing_is_appended_through_a_link(journal: Journal, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    torn = journal.path.read_bytes() + b"torn"
    elsewhere.write_bytes(torn)
    journal.path.unlink()
    journal.path.symlink_to(elsewhere)
    for attempt in (journal.repair, lambda: journal.append([STARTED])):
        with pytest.raises(StorageError, match="cannot be written: it is a link"):
            attempt()
    assert torn == elsewhere.read_bytes()


def test_a_journal_that_was_removed_is_not_created_again(journal: Journal) -> None:
    journal.path.unlink()
    with pytest.raises(StorageError, match="cannot be written: No such file"):
        journal.append([ENDED])
    assert not journal.path.exists()


@pytest.mark.parametrize(
    "first",
    [
        b'{"event": "started", "trial": 1}',
        b'{"event": "sweep", "plan": {}}',
        b'{"event": "sweep", "format_version": 1}',
        b"{}",
    ],
)
def test_a_journal_begins_with_its_plan(journal: Journal, first: bytes) -> None:
    journal.path.write_bytes(first + b"\n")
    with pytest.raises(DamagedFileError, match=f"{NAME}:1 is damaged"):
        list(journal.read())


@pytest.mark.parametrize("version", [FORMAT_VERSION + 1, "2", None])
def test_a_journal_of_a_later_version_is_not_read(journal: Journal, version: Any) -> None:
    header = {"event": "sweep", "format_version": version, "something": "new"}
    journal.path.write_text(f"{json.dumps(header)}\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"format version {version}; this nnctl reads") as caught:
        list(journal.read())
    assert not isinstance(caught.value, DamagedFileError)
    assert caught.value.hint == "Install the version of nnctl that wrote it."


def test_a_journal_that_cannot_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / NAME).mkdir()
    journal = Journal(tmp_path)
    with pytest.raises(DataError, match=f"{NAME} cannot be read: it is a folder"):
        list(journal.read())
    for attempt in (journal.repair, lambda: journal.append([STARTED])):
        with pytest.raises(StorageError, match=f"{NAME} cannot be written"):
            attempt()
    missing = Journal(tmp_path / "runs")
    missing.repair()
    with pytest.raises(UsageError, match=f"is not a sweep directory: it has no {NAME}"):
        list(missing.read())


def test_a_number_that_json_does_not_have_is_not_written(journal: Journal) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append([STARTED, changed(ENDED, val_loss=float("nan"))])
    assert list(journal.read()) == EVENTS


def largest() -> Iterator[tuple[str, int]]:
    """Yield the key of each integer of a configuration, and the largest allowed value."""
    sections = json_schema()["$defs"]
    for section, place in (("Training", ""), ("EarlyStopping", "early_stopping.")):
        definition = sections[f"{section}Config"]
        long_form = definition.get("anyOf", [definition])[-1]
        for name, key in long_form["properties"].items():
            for option in (key, *key.get("anyOf", ())):
                if option.get("type") == "integer":
                    yield f"training.{place}{name}", option["maximum"]


@pytest.mark.parametrize(
    "values",
    [*({key: most} for key, most in largest()), {k: m for k, m in largest() if "epochs" not in k}],
    ids=lambda values: ", ".join(values),
)
def test_the_largest_numbers_that_a_configuration_may_hold_are_read_back(
    tmp_path: Path, values: dict[str, int]
) -> None:
    plan = read_plan(CONFIGS / "smoke.yaml", [f"{key}={value}" for key, value in values.items()])
    factory = TrialFactory(ignore)
    with Sweep.create(tmp_path, plan, plan.checked_points(), factory):
        planned = SweepState.read(tmp_path).planned[1]
    assert factory.make(tmp_path, planned).point == values
    most = {"epochs": MAX_WHOLE, "best_epoch": MAX_WHOLE, "seed": MAX_WHOLE}
    Journal(tmp_path).append([STARTED, changed(ENDED, parameters=values, **most)])
    assert most.items() <= SweepState.read(tmp_path).results[1].to_json().items()


def test_every_damage_to_a_journal_raises_an_nnctl_error(journal: Journal) -> None:
    content = journal.path.read_bytes()
    for place in range(0, len(content), 3):
        journal.path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
        try:
            SweepState.read(journal.path.parent)
        except NnctlError:
            continue
