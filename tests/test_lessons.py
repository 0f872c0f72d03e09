"""Every lesson causes the problem it is about, and every cure that it lists solves it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from nnctl.diagnosis.base import TITLES
from tests.conftest import CONFIGS, Nnctl

LESSONS = CONFIGS / "lessons"

KINDS = {
    "bias-shift": "shifted activations",
    "dead-relu": "dead units",
    "divergence": "divergence",
    "exploding-gradients": "exploding gradients",
    "flat-loss": "flat loss",
    "linear-collapse": "linear collapse",
    "overfitting": "overfitting",
    "saturation": "saturation",
    "step": "step",
    "vanishing-gradients": "vanishing gradients",
}
LABELS = {
    "bias-shift": "shifted",
    "dead-relu": r"\d\d % dead",
    "exploding-gradients": "exploding",
    "flat-loss": "tiny act.",
    "saturation": r"\d\d % sat\.",
    "vanishing-gradients": "vanishing",
}
"""Content of the column "health" in each epoch; the other lessons show "ok"."""
PREDICTED = {"step", "linear-collapse", "vanishing-gradients"}
"""Lessons whose problem is reported before the training begins."""


def commands(name: str) -> list[list[str]]:
    """Return the arguments after ``nnctl train FILE`` of the commands in a lesson's comment."""
    text = (LESSONS / f"{name}.yaml").read_text("utf-8").replace("\\\n#", "")
    words = [shlex.split(line) for line in re.findall(r"^#   (nnctl [^(\n]*)", text, re.MULTILINE)]
    file = ["nnctl", "train", f"lessons/{name}"]
    assert all(file == command[:3] for command in words)
    return [command[3:] for command in words]


def summary_of(directory: Path) -> dict[str, Any]:
    """Return the summary of a run."""
    summary: dict[str, Any] = json.loads((directory / "summary.json").read_text("utf-8"))
    return summary


def test_every_lesson_is_tested() -> None:
    assert sorted(KINDS) == sorted(path.stem for path in LESSONS.glob("*.yaml"))
    assert len(KINDS) == len(set(KINDS.values()))


@pytest.mark.parametrize("name", KINDS)
def test_a_lesson_leads_to_its_diagnosis(nnctl: Nnctl, scratch: Path, name: str) -> None:
    diverges = name == "divergence"
    trained = nnctl(
        "train", LESSONS / f"{name}.yaml", "--run-dir", "run", code=4 if diverges else 0
    )
    diagnoses = {it["kind"]: it for it in summary_of(scratch / "run")["diagnoses"]}
    diagnosis = diagnoses[KINDS[name]]
    title = TITLES.get(KINDS[name], KINDS[name])
    lines = [
        f"  {title}: {diagnosis['evidence']}",
        f"    {diagnosis['reason'][0].upper()}{diagnosis['reason'][1:]}.",
        f"    Try: {diagnosis['cure']}.",
    ]
    assert "\n".join(lines) in nnctl("check", "run").stdout
    checked = json.loads(nnctl("check", "run", "--json").stdout)
    assert list(diagnoses.values()) == checked["diagnoses"]
    if diverges:
        assert "training diverged in epoch 1" in trained.stderr
        return
    before, table = trained.stderr.split(" epoch  train loss")
    rows = re.findall(r"^[ *] +\d+  .*", table, re.MULTILINE)
    end = table[table.rindex(rows[-1]) + len(rows[-1]) :]
    assert "\n".join(lines) in (before if name == "step" else end)
    assert (name in PREDICTED) == ("Warnings before training:" in before)
    assert (name in PREDICTED) == (f"  {title}: " in before)
    label = LABELS.get(name, "ok")
    assert all(re.search(rf"\d  {label}$", row) for row in rows), rows
    assert max(map(len, rows)) <= 80


@pytest.mark.parametrize("name", KINDS)
def test_a_lesson_lists_its_own_command_and_then_its_cures(name: str) -> None:
    itself, *cures = commands(name)
    assert itself == []
    assert cures
    assert all("--set" in cure for cure in cures)


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        pytest.param(
            name,
            cure,
            id=f"{name}: {cure[1]}",
            marks=[pytest.mark.slow] if cure[1].startswith("data.subset") else [],
        )
        for name in KINDS
        for cure in commands(name)[1:]
    ],
)
def test_a_cure_solves_the_problem(nnctl: Nnctl, name: str, cure: list[str]) -> None:
    done = nnctl("train", LESSONS / f"{name}.yaml", *cure, "--json", "--quiet")
    summary = json.loads(done.stdout)
    assert KINDS[name] not in [diagnosis["kind"] for diagnosis in summary["diagnoses"]]
    assert summary["best_val_accuracy"] > 0.75


@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh", "mixed"])
def test_presets_have_no_problems_on_the_mini_dataset(nnctl: Nnctl, name: str) -> None:
    done = nnctl("train", CONFIGS / f"{name}.yaml", "--epochs", 12, "--json")
    summary = json.loads(done.stdout)
    assert (summary["dataset"]["name"], summary["diagnoses"]) == ("mini", [])
    assert "Try: " not in done.stderr
    printed = nnctl("check", summary["run_dir"]).stdout
    assert "No problems found after " in printed


@pytest.mark.slow
@pytest.mark.usefixtures("with_mnist")
def test_perceptrons_learn_digits_with_the_surrogate_derivative_of_a_sigmoid(nnctl: Nnctl) -> None:
    (cure,) = commands("step")[1:]
    more = ("--dataset", "mnist", "--set", "network.layers.0.units=100", "--epochs", 5)
    done = nnctl("train", LESSONS / "step.yaml", *cure, *more, "--json", "--quiet")
    summary = json.loads(done.stdout)
    assert (summary["dataset"]["name"], summary["diagnoses"]) == ("mnist", [])
    evaluation = json.loads(nnctl("eval", summary["run_dir"], "--json").stdout)
    assert evaluation["accuracy"] > 0.90
