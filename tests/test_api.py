"""The Python API: progress, callbacks and resuming; predictions; tables in a notebook."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import nnctl as api
from nnctl.data.dataset import open_dataset
from nnctl.errors import DataError, UsageError
from nnctl.runs.run import Run
from tests.conftest import CONFIGS, Nnctl

SMOKE = CONFIGS / "smoke.yaml"
DIGITS = open_dataset("mini", notify=lambda _: None).test


def test_progress_prints_what_the_command_line_prints(
    nnctl: Nnctl, capsys: pytest.CaptureFixture[str]
) -> None:
    done = nnctl("train", SMOKE, "--epochs", 1, "--run-dir", "command")
    api.train(SMOKE, epochs=1, run_dir="silent")
    assert capsys.readouterr() == ("", "")
    api.train(SMOKE, epochs=1, run_dir="command2", progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    seconds = re.compile(r" +\d+\.\d\d  ")
    assert seconds.sub("", printed.err).replace("command2", "command") == seconds.sub(
        "", done.stderr
    )


@pytest.mark.usefixtures("scratch")
def test_a_training_that_a_callback_ended_is_resumed_to_the_same_bits() -> None:
    whole = api.train(SMOKE, epochs=3, run_dir="whole")
    events: list[Any] = []

    def fail_in_epoch_2(event: object) -> None:
        events.append(event)
        if isinstance(event, api.BatchesDone) and event.epoch == 2:
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        api.train(SMOKE, epochs=3, run_dir="runs/begun", callback=fail_in_epoch_2)
    assert [event.epoch for event in events if isinstance(event, api.EpochDone)] == [1]
    resumed = api.train(resume="latest", callback=events.append)
    assert isinstance(events[-1], api.Finished)
    assert resumed.directory == Path("runs/begun")
    one, other = (run.network("last").parameters.vector for run in (whole, resumed))
    np.testing.assert_array_equal(one, other)
    assert len(api.train(SMOKE, epochs=4, resume=whole).history) == 4


@pytest.mark.usefixtures("scratch")
@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("expected a configuration, such as 'sigmoid', or resume=RUN", {}),
        ("cannot be combined with resume", {"resume": "run", "name": "x"}),
        ("cannot be combined with resume", {"resume": "run", "run_dir": "x"}),
        ("missing: run directory not found", {"resume": "missing"}),
        ("no run found in runs", {"resume": "latest"}),
        ("training.seed: 0 in the run, 3 requested", {"resume": "run", "seed": 3}),
        ("already has 2 complete epochs", {"resume": "run", "epochs": 1}),
    ],
)
def test_a_run_that_cannot_be_resumed_is_refused(
    copied_run: Path, message: str, arguments: dict[str, Any]
) -> None:
    before = (copied_run / "last.npz").read_bytes()
    with pytest.raises(UsageError, match=re.escape(message)):
        api.train(**arguments)
    assert (copied_run / "last.npz").read_bytes() == before


def test_an_evaluation_is_recorded_as_by_the_command(copied_run: Path, nnctl: Nnctl) -> None:
    nnctl("eval", copied_run)
    written = (copied_run / "evaluation.json").read_bytes()
    (copied_run / "evaluation.json").unlink()
    api.evaluate(copied_run, split="validation")
    api.evaluate(copied_run, checkpoint="last")
    assert api.load(copied_run).test_result is None
    api.evaluate(copied_run)
    assert (copied_run / "evaluation.json").read_bytes() == written


def test_a_network_and_its_run_classify_one_image_like_many(trained_run: Path) -> None:
    run = api.load(trained_run)
    network, images = run.network(), DIGITS.inputs[:20]
    classes = network.predict(images)
    np.testing.assert_array_equal(classes, run.predict(images).argmax(axis=1))
    for one in (images[0], images[0].reshape(28, 28), images[0] / 255, images[0].tolist()):
        outputs = run.predict(one)
        assert outputs.shape == (10,)
        np.testing.assert_allclose(outputs, run.predict(images)[0], atol=1e-5)
    for same in (images, images / 255, images.reshape(-1, 28, 28), (images / 255).tolist()):
        np.testing.assert_array_equal(network.predict(same), classes)
    assert np.ndim(network.predict(images[0])) == 0
    column = images[0].reshape(784, 1)  # as in Nielsen's book
    assert network.predict(column) == network.predict(images[0]) == network.predict(images[:1])


def test_the_inputs_of_a_gate_are_numbers_and_not_pixels() -> None:
    gate = api.Network.from_arrays([[[1.0], [1.0]]], [[-1.5]], ["step"])
    np.testing.assert_array_equal(gate.predict([[0, 1], [1, 1]]), [0, 1])
    assert gate.predict([True, True]) == 1
    pixels = np.array([[255, 255], [0, 255]], np.uint8)
    np.testing.assert_array_equal(gate.predict(pixels), [1, 0])


SHAPES = "expected one example of shape (784,) or (28, 28), or n examples of shape (n, 784), got "
NOT_FINITE = "the inputs contain numbers that are not finite"


@pytest.mark.parametrize(
    ("message", "images"),
    [
        (SHAPES + "(0,)", []),
        (SHAPES + "(1, 2)", [[1, 2]]),
        (SHAPES + "()", 3),
        (SHAPES + "(0, 784)", np.zeros((0, 784))),
        (SHAPES + "(28, 28, 1)", np.zeros((28, 28, 1))),
        (SHAPES + "(1, 1, 28, 28)", np.zeros((1, 1, 28, 28))),
        (NOT_FINITE, np.full((28, 28), np.nan)),
        (NOT_FINITE, np.full(784, 1e300)),
        ("must be an array of numbers, got text", "photo.png"),
        ("must be an array of numbers, got objects", None),
        ("must be an array of numbers, got complex128", np.zeros(784, complex)),
        ("not an array: their rows have different lengths", [[1], [1, 2]]),
    ],
)
def test_inputs_that_are_not_images_are_explained(
    trained_run: Path, message: str, images: Any
) -> None:
    run = api.load(trained_run)
    for predict in (run.predict, run.network().predict):
        with pytest.raises(UsageError, match=re.escape(message)):
            predict(images)


@pytest.mark.parametrize(
    ("message", "image"),
    [
        ("floats must be from 0 to 1, got 0 to 255", np.eye(28) * 255),
        ("integer pixels must be from 0 to 255, got -1 to 0", np.eye(28, dtype=int) * -1),
    ],
)
def test_pixels_on_another_scale_are_explained(trained_run: Path, message: str, image: Any) -> None:
    with pytest.raises(UsageError, match=message):
        api.load(trained_run).predict(image)


def cells(shown: str) -> list[list[str]]:
    """Return the text of the cells of an HTML table, without the caption."""
    return [[str(cell.text) for cell in row] for row in ElementTree.fromstring(shown).iter("tr")]


def test_a_notebook_shows_a_run_and_an_evaluation_as_tables(copied_run: Path) -> None:
    run = api.load(copied_run)
    evaluation = api.evaluate(run)
    facts = dict(cells(run._repr_html_()))
    assert facts["network"] == "64 relu, 10 softmax"
    assert facts["test accuracy"] == f"{100 * evaluation.accuracy:.2f} %"
    shown = evaluation._repr_html_()
    assert cells(shown)[0] == ["class", "examples", "precision", "recall", "F1"]
    assert [row[0] for row in cells(shown)[1:]] == list("0123456789")
    assert "style" not in shown
    (copied_run / "summary.json").write_text("{}", encoding="utf-8")
    assert "is damaged" in dict(cells(run._repr_html_()))["problem"]
    hostile = Run(Path("<script>"))
    assert "<script>" not in hostile._repr_html_()
    gate = api.evaluate(api.train(CONFIGS / "gates/xor.yaml", run_dir="gate"))
    assert [row[:2] for row in cells(gate._repr_html_())[1:]] == [
        ["0, 0", "0"],
        ["0, 1", "1"],
        ["1, 0", "1"],
        ["1, 1", "0"],
    ]


def test_a_missing_checkpoint_is_a_data_error(copied_run: Path) -> None:
    (copied_run / "best.npz").unlink()
    with pytest.raises(DataError, match=r"best\.npz: file not found"):
        api.load(copied_run).predict(DIGITS.inputs[0])


def test_a_time_limit_that_is_no_number_is_a_usage_error(scratch: Path) -> None:
    with pytest.raises(UsageError, match="max_time must be a number of seconds, got '1s'"):
        api.train(SMOKE, max_time="1s", run_dir=scratch / "run")  # type: ignore[arg-type]
    assert not (scratch / "run").exists()
