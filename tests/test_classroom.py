"""The notebook, the leaderboard and the worksheets for teachers; the problems in Korean."""

from __future__ import annotations

import ast
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nnctl.diagnosis.base import TITLES
from tests.conftest import CONFIGS, Nnctl
from tests.processes import ROOT

PAGES = ROOT / "docs" / "pages"
NOTEBOOK = PAGES / "tutorial" / "first-digits.ipynb"


def run_code(code: str, scope: dict[str, Any]) -> None:
    """Run code of the documentation, which is text of this repository."""
    exec(compile(code, "the documentation", "exec"), scope)


@pytest.mark.slow
@pytest.mark.usefixtures("scratch")
def test_the_cells_of_the_notebook_run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    pyplot = pytest.importorskip("matplotlib.pyplot")
    notebook = json.loads(NOTEBOOK.read_text("utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    scope: dict[str, Any] = {}
    try:
        for cell in cells:
            run_code(cell, scope)
    finally:
        pyplot.close("all")
    printed = capsys.readouterr().out
    assert "The network reads a 1" in printed
    assert "dead units: layer 1" in printed
    assert scope["evaluation"].accuracy > 0.9
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "clear the outputs"


def test_the_leaderboard_shows_the_best_run_of_each_student(
    nnctl: Nnctl, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for student, epochs in (("kim", 1), ("kim", 3), ("lee", 2)):
        runs = Path("class", student, "runs")
        nnctl("train", "smoke", "--epochs", epochs, "--subset", 600, "--runs-dir", runs)
    (code,) = re.findall(
        r"```python\n(.*?)```", (PAGES / "how-to/classroom.md").read_text("utf-8"), re.DOTALL
    )
    monkeypatch.setattr(subprocess, "run", lambda words, **_: nnctl(*words[1:]))
    run_code(code, {})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [line[1] for line in lines] == ["kim", "lee"]
    assert float(lines[0][0].strip("%")) > float(lines[1][0].strip("%"))


def test_there_is_a_worksheet_with_answers_for_each_lesson() -> None:
    sheets, answers = (PAGES / "how-to/worksheets.md").read_text("utf-8").split("## Answers")
    lessons = {path.stem for path in (CONFIGS / "lessons").glob("*.yaml")}
    assert set(re.findall(r"lessons/([\w-]+)", sheets)) == lessons
    assert set(re.findall(r"### \d+\. `([\w-]+)`", answers)) == lessons
    for asked, answered in zip(
        re.split(r"^## ", sheets, flags=re.MULTILINE)[1:],
        re.split(r"^### ", answers, flags=re.MULTILINE)[1:],
        strict=True,
    ):
        title = answered.splitlines()[0]
        questions, replies = (
            re.findall(r"^\d\.", part.partition("\n")[2], re.MULTILINE)
            for part in (asked, answered)
        )
        assert questions == replies, title


def test_the_korean_page_explains_every_problem() -> None:
    page = (PAGES / "ko" / "problems.md").read_text("utf-8")
    kinds = {
        node.args[0].value
        for path in (ROOT / "nnctl" / "diagnosis").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id == "Diagnosis" and isinstance(node.args[0], ast.Constant)
    }
    explained = re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE)
    assert sorted(explained) == sorted(TITLES.get(str(kind), str(kind)) for kind in kinds)
