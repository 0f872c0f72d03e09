"""``nnctl export``: the command, its output and its errors."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from nnctl import api as face
from nnctl.errors import UsageError
from nnctl.export.formats import export
from tests.conftest import Nnctl

pytest.importorskip("onnx")
pytest.importorskip("safetensors")


@pytest.fixture
def run(copied_run: Path) -> Path:
    return copied_run


def test_the_last_line_is_the_file(nnctl: Nnctl, run: Path) -> None:
    for file_format in ("onnx", "safetensors"):
        lines = nnctl("export", run, "--format", file_format).stdout.splitlines()
        assert Path(lines[-1]) == run / f"model.{file_format}"
        assert Path(lines[-1]).stat().st_size > 200_000
        assert any("divided by 255" in line for line in lines[:-1])
        quiet = nnctl(
            "export", run, "--format", file_format, "-q", "-o", f"other-{file_format}"
        ).stdout
        assert quiet == f"other-{file_format}\n"
        assert Path(quiet.strip()).read_bytes()[-1000:] == Path(lines[-1]).read_bytes()[-1000:]
    nnctl("eval", run)  # the run is unchanged
    nnctl("train", "--resume", run, "--epochs", "3")


def test_an_export_replaces_only_a_file_with_the_suffix_of_its_format(
    nnctl: Nnctl, run: Path, scratch: Path
) -> None:
    for file_format in ("onnx", "safetensors", "onnx"):
        nnctl("export", run, "--format", file_format, "-o", f"mine.{file_format}")
    others = ("journal.jsonl", "notes", "last.npz", "mine.safetensors")
    for name in others:
        Path(name).write_bytes(b"content")
        done = nnctl("export", run, "--format", "onnx", "-o", name, code=2)
        assert f"{name} exists and its name does not end with .onnx" in done.stderr
        assert "--output" in done.stderr
        assert Path(name).read_bytes() == b"content"
    assert {path.name for path in scratch.iterdir()} == {*others, "mine.onnx", "run"}


@pytest.mark.skipif(sys.platform == "win32", reason="has no such pipes")
def test_exporting_to_a_pipe_neither_blocks_nor_replaces_it(
    nnctl: Nnctl, run: Path, scratch: Path
) -> None:
    os.mkfifo(scratch / "pipe")
    (scratch / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        done = nnctl("export", run, "--format", "onnx", "-o", name, code=2)
        assert "is a folder, a pipe or a device" in done.stderr
        assert (scratch / name).is_fifo()


@pytest.mark.skipif(sys.platform == "win32", reason="has no such error")
@pytest.mark.parametrize("length", [250, 5000])  # 250 leaves no room for a temporary suffix
def test_an_impossible_file_name_is_a_usage_error(nnctl: Nnctl, run: Path, length: int) -> None:
    done = nnctl("export", run, "--format", "onnx", "-o", "x" * length, code=2)
    assert f"{'x' * length} cannot be written" in done.stderr


def test_json_is_an_object(nnctl: Nnctl, run: Path) -> None:
    done = nnctl("export", run, "--format", "safetensors", "--checkpoint", "last", "--json")
    result = json.loads(done.stdout)
    usage = result.pop("usage")
    assert "torch.nn.Sequential(" in usage
    file = run / "model.safetensors"
    assert result == {
        "file": str(file),
        "format": "safetensors",
        "bytes": file.stat().st_size,
        "checkpoint": "last",
        "run_dir": str(run),
    }


def test_a_network_that_cannot_be_exported_is_an_error(nnctl: Nnctl, run: Path) -> None:
    before = {path.name for path in run.iterdir()}
    assert "Missing option '--format'" in nnctl("export", run, code=2).stderr
    assert "'onxx' is not one of" in nnctl("export", run, "--format", "onxx", code=2).stderr
    nowhere = nnctl("export", "nowhere", "--format", "onnx", code=2)
    assert "nowhere: run directory not found" in nowhere.stderr
    into = nnctl("export", run, "--format", "onnx", "-o", "no/such/folder/m.onnx", code=1)
    assert "cannot be written" in into.stderr
    own = nnctl("export", run, "--format", "onnx", "-o", run / "best.npz", code=2)
    assert "best.npz exists and its name does not end with .onnx" in own.stderr
    checkpoint = run / "best.npz"
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    damaged = nnctl("export", run, "--format", "onnx", code=3)
    assert "best.npz is damaged" in damaged.stderr
    checkpoint.unlink()
    assert "--checkpoint last" in nnctl("export", run, "--format", "onnx", code=3).stderr
    assert {path.name for path in run.iterdir()} == before - {"best.npz"}


@pytest.mark.parametrize(
    ("file_format", "library"), [("onnx", "onnx"), ("safetensors", "safetensors.numpy")]
)
def test_without_the_library_the_error_explains_how_to_install_it(
    nnctl: Nnctl, run: Path, file_format: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    done = nnctl("export", run, "--format", file_format, code=2)
    assert f"--format {file_format} requires the {file_format} package" in done.stderr
    assert '[export]"' in done.stderr
    assert not (run / f"model.{file_format}").exists()


def test_an_unknown_format_or_checkpoint_is_an_error_in_the_python_api(run: Path) -> None:
    with pytest.raises(UsageError, match="unknown format 'pickle'; choose from onnx, safetensors"):
        export(face.load(run), "pickle")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="unknown checkpoint 'first'"):
        export(face.load(run), "onnx", checkpoint="first")  # type: ignore[arg-type]
