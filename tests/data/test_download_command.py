"""``nnctl download``: the real command, the whole MNIST, over real HTTP on loopback."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nnctl.data.download import find
from nnctl.data.registry import MIRRORS, MNIST, NAMES
from tests.conftest import Nnctl, nnctl_command
from tests.data.conftest import MakeMirror, closed_port, snapshot

GZIP_NAMES = [f"{name}.gz" for name in NAMES]


@pytest.fixture(scope="session")
def mnist(mnist_folder: Path) -> dict[str, bytes]:
    """MNIST's four files, as a mirror serves them."""
    return {name: (mnist_folder / name).read_bytes() for name in GZIP_NAMES}


@pytest.fixture
def data_dir(mnist_cache: Path, tmp_path: Path) -> Path:
    """A data directory of this test alone, with MNIST in it."""
    return shutil.copytree(mnist_cache, tmp_path / "copy")


def contents(folder: Path) -> dict[str, bytes]:
    """Return all the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_mnist_comes_into_the_cache(
    nnctl: Nnctl, mirror: MakeMirror, mnist: dict[str, bytes], tmp_path: Path
) -> None:
    good = mirror(mnist)
    folder = tmp_path / "data" / "mnist"
    command = ("download", "--mirror", good.url, "--data-dir", folder.parent)
    done = nnctl(*command)
    assert done.stdout == f"MNIST is in {folder}\n"
    lines = done.stderr.splitlines()
    assert list(NAMES) == [line.split()[0] for line in lines]
    assert [good.url + name for name in GZIP_NAMES] == [line.split()[-1] for line in lines]
    assert mnist == contents(folder)

    before = snapshot(folder)
    again = nnctl(*command)
    assert [f"{name} is there and right" for name in NAMES] == again.stderr.splitlines()
    assert [f"/{name}" for name in GZIP_NAMES] == good.requests
    assert before == snapshot(folder)
    assert nnctl(*command, "--quiet").stderr == ""


def test_mirrors_and_the_cache_may_be_named_by_the_environment(
    nnctl: Nnctl, mirror: MakeMirror, mnist: dict[str, bytes], tmp_path: Path
) -> None:
    halves = [mirror({n: mnist[n] for n in some}) for some in (GZIP_NAMES[:2], GZIP_NAMES[2:])]
    folder = tmp_path / "there" / "mnist"
    mirrors = " ".join(half.url for half in halves)
    env = {"NNCTL_MIRROR": mirrors, "NNCTL_DATA_DIR": str(folder.parent)}
    states = dict.fromkeys(NAMES, "right")
    record = {"dataset": "mnist", "directory": str(folder), "files": states}
    assert record == json.loads(nnctl("download", "--json", env=env).stdout)
    assert mnist == contents(folder)


def test_a_cache_that_is_right_is_never_written(
    nnctl: Nnctl, data_dir: Path, mirror: MakeMirror
) -> None:
    folder, good = data_dir / "mnist", mirror({})
    before = (snapshot(folder), folder.stat().st_mtime_ns)
    folder.chmod(0o555)
    for flags in ([], ["--verify"]):
        nnctl("download", "--mirror", good.url, "--data-dir", data_dir, *flags)
    folder.chmod(0o755)
    assert before == (snapshot(folder), folder.stat().st_mtime_ns)
    assert good.requests == []


def test_eight_downloads_at_once_do_not_disturb_each_other(
    mirror: MakeMirror, mnist: dict[str, bytes], tmp_path: Path
) -> None:
    folder = tmp_path / "data" / "mnist"
    options = ("--mirror", mirror(mnist).url, "--data-dir", folder.parent)
    command = nnctl_command("download", *options)
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(8)
    ]
    ended = [(process.communicate(timeout=120), process.returncode) for process in running]
    assert [code for _, code in ended] == [0] * 8, ended
    assert mnist == contents(folder)
    if sys.platform != "win32":
        assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}


def test_force_fetches_again_and_loses_nothing(
    nnctl: Nnctl, mirror: MakeMirror, mnist: dict[str, bytes], data_dir: Path
) -> None:
    good = mirror(mnist)
    command = ("download", "--force", "--data-dir", data_dir, "--mirror")
    nnctl(*command, good.url)
    assert [f"/{name}" for name in GZIP_NAMES] == good.requests
    before = snapshot(data_dir)
    assert "404 Not Found" in nnctl(*command, mirror({}).url, code=3).stderr
    assert before == snapshot(data_dir)


def test_the_addresses_that_failed_are_told_and_why(nnctl: Nnctl, tmp_path: Path) -> None:
    dead, why = f"http://127.0.0.1:{closed_port()}/", os.strerror(errno.ECONNREFUSED)
    done = nnctl("download", "--mirror", dead, code=3)
    lines = done.stderr.splitlines()
    assert lines[0] == f"{dead}{GZIP_NAMES[0]} cannot be reached: {why}"
    assert lines[1 : 1 + len(MIRRORS)] == [
        f"{url}{GZIP_NAMES[0]} the proxy does not lead there: {why}" for url in MIRRORS
    ]
    assert f"Error: no mirror served {GZIP_NAMES[0]}:" in lines
    assert "nnctl download --from DIR" in lines[-1]
    assert done.stdout == ""
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("url", ["ftp://x/", "nonsense"])
def test_a_mirror_that_is_none_is_refused(nnctl: Nnctl, url: str) -> None:
    assert f"not '{url}'" in nnctl("download", "--mirror", url, code=2).stderr


@pytest.mark.parametrize("compressed", [True, False])
def test_files_of_this_machine_can_be_imported(
    nnctl: Nnctl, mnist: dict[str, bytes], tmp_path: Path, compressed: bool
) -> None:
    source, folder = tmp_path / "source", tmp_path / "cache" / "mnist"
    source.mkdir()
    for name, content in mnist.items():
        path = source / (name if compressed else Path(name).stem)
        path.write_bytes(content if compressed else gzip.decompress(content))
    before = snapshot(source)
    assert nnctl("download", "--from", source).stdout == f"MNIST is in {folder}\n"
    assert all(find(folder, file) for file in MNIST.values())
    assert contents(source) == contents(folder)
    assert before == snapshot(source)
    nnctl("download", "--verify")


def test_an_import_that_lacks_files_names_them_and_copies_nothing(
    nnctl: Nnctl, data_dir: Path, tmp_path: Path
) -> None:
    source = data_dir / "mnist"
    (source / GZIP_NAMES[1]).unlink()
    with (source / GZIP_NAMES[2]).open("r+b") as file:
        file.write(b"?")
    done = nnctl("download", "--from", source, code=3)
    assert f"Error: {source} lacks, or has wrong: {NAMES[1]}, {NAMES[2]}\n" in done.stderr
    assert not (tmp_path / "cache").exists()


def test_verify_tells_the_state_of_each_file_and_asks_no_mirror(
    nnctl: Nnctl, data_dir: Path, mirror: MakeMirror, mnist: dict[str, bytes]
) -> None:
    good, folder = mirror(mnist), data_dir / "mnist"
    command = ("download", "--data-dir", data_dir, "--mirror", good.url)
    verified = nnctl(*command, "--verify")
    assert [f"{name}: right" for name in NAMES] == verified.stdout.splitlines()

    (folder / GZIP_NAMES[0]).unlink()
    with (folder / GZIP_NAMES[1]).open("ab") as file:
        file.write(b"x")
    states = dict(zip(NAMES, ("missing", "damaged", "right", "right"), strict=True))
    verified = nnctl(*command, "--verify", code=3)
    assert [f"{name}: {state}" for name, state in states.items()] == verified.stdout.splitlines()
    assert f"{NAMES[0]} is missing, {NAMES[1]} is damaged" in verified.stderr
    assert states == json.loads(nnctl(*command, "--verify", "--json", code=3).stdout)["files"]
    assert good.requests == []

    warning = f"Warning: {folder / GZIP_NAMES[1]} is damaged; it is fetched again"
    assert warning in nnctl(*command).stderr.splitlines()
    assert [f"/{name}" for name in GZIP_NAMES[:2]] == good.requests
    assert mnist == contents(folder)


def test_the_password_of_a_mirror_is_not_shown(
    nnctl: Nnctl, serve: Callable[[Path], str], mnist_folder: Path
) -> None:
    good = serve(mnist_folder).replace("http://", "http://me:secret@")
    bad = "http://me:secret@127.0.0.1:9/"
    done = nnctl("download", "--mirror", bad, "--mirror", good)
    assert "secret" not in done.stdout + done.stderr
    assert f"from {good.replace('me:secret@', '')}" in done.stderr
