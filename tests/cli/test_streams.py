"""What a command does when it can tell nobody what it has to say."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.conftest import CONFIGS, nnctl_command

SMOKE = str(CONFIGS / "smoke.yaml")
FULL = Path("/dev/full")

pytestmark = [
    pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full"),
    pytest.mark.usefixtures("scratch"),
]


def streamed(*arguments: str, full: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Carry out a command some of whose streams are files on a full disk."""
    with FULL.open("w", encoding="utf-8") as nowhere:
        return subprocess.run(
            nnctl_command(*arguments),
            stdout=nowhere if "stdout" in full else subprocess.PIPE,
            stderr=nowhere if "stderr" in full else subprocess.PIPE,
            encoding="utf-8",
            timeout=300,
            check=False,
        )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--help",),
        ("--version",),
        ("train", "--help"),
        ("check", SMOKE),
        ("check", SMOKE, "--json"),
        ("train", SMOKE, "--dry-run"),
        ("sweep", SMOKE, "-p", "training.seed=1,2", "--dry-run"),
    ],
    ids=" ".join,
)
def test_a_full_disk_behind_stdout_is_told_in_a_sentence(arguments: tuple[str, ...]) -> None:
    done = streamed(*arguments, full=("stdout",))
    assert (done.returncode, done.stderr) == (1, "Error: No space left on device\n")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ("check", SMOKE)),
        (0, ("train", SMOKE, "--epochs", "1", "--run-dir", "run")),
        (2, ("check", "nowhere.yaml")),
        (2, ("chekc",)),
        (2, ("check", SMOKE, "--set", "training.epochs=many")),
        (2, ("check",)),
        (3, ("train", SMOKE, "--dataset", "mnist", "--run-dir", "run")),
        (5, ("train", SMOKE, "--epochs", "1", "--fail-under", "1")),
    ],
    ids=str,
)
def test_a_full_disk_behind_stderr_changes_no_exit_code(
    code: int, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    assert code == streamed(*arguments, full=("stderr",)).returncode


def test_a_full_disk_behind_both_still_says_by_its_code_that_something_failed() -> None:
    arguments = ("train", SMOKE, "--epochs", "1", "--run-dir", "run")
    assert streamed(*arguments, full=("stdout", "stderr")).returncode == 1
    assert Path("run/summary.json").exists()
