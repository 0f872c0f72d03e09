"""Results are added to the summary page of a GitHub Actions step."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import Nnctl


def test_train_eval_and_sweep_add_tables_to_the_summary(nnctl: Nnctl) -> None:
    env = {"GITHUB_STEP_SUMMARY": "summary.md"}
    Path("summary.md").write_text("# Before\n", encoding="utf-8")
    lesson = ("train", "lessons/vanishing-gradients", "--epochs", 1, "--name", "deep")
    done = nnctl(*lesson, "--quiet", env=env)
    assert done.stdout == f"{Path('runs/deep')}\n"  # --quiet prints one line
    accuracy = nnctl("eval", "latest", env=env).stdout.partition("accuracy ")[2].split(" %")[0]
    nnctl("sweep", "smoke", "-p", "training.seed=1,2", "--epochs", 1, env=env)
    text = Path("summary.md").read_text("utf-8")
    assert text.startswith("# Before\n### Training of deep\n")
    assert "- **vanishing gradients**: " in text
    assert f"| {accuracy} % |" in text.partition("test split")[2]
    assert "| trial | validation accuracy | validation loss | training.seed |" in text


def test_a_training_without_validation_or_a_complete_epoch_has_a_summary(nnctl: Nnctl) -> None:
    env = {"GITHUB_STEP_SUMMARY": "summary.md"}
    nnctl("train", "gates/xor", "--epochs", 1, env=env)
    nnctl("train", "smoke", "--lr", 1e30, code=4, env=env)
    gate, diverged = Path("summary.md").read_text("utf-8").split("### Training of ")[1:]
    assert "| training accuracy | training loss | best epoch |" in gate
    assert re.search(r"\n\| \d+\.\d\d % \| \d\.\d{4} \| 1 \| 1 \|", gate)
    assert "\n| - | - | - | 0 |" in diverged
    assert "diverged |" in diverged
    assert "- **divergence**: " in diverged


def test_a_summary_that_cannot_be_written_is_a_warning(nnctl: Nnctl) -> None:
    env = {"GITHUB_STEP_SUMMARY": str(Path("no-such-folder") / "summary.md")}
    done = nnctl("train", "smoke", "--epochs", 1, env=env)
    assert "Warning: GITHUB_STEP_SUMMARY" in done.stderr
