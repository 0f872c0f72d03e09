"""``nnctl download``: its messages, options and exit codes, over real HTTP on loopback."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nnctl.data.dataset import MINI_DIRECTORY
from nnctl.data.download import find, import_files
from nnctl.data.registry import DATASETS, MINI, MNIST, NAMES
from tests.conftest import Nnctl
from tests.data.conftest import snapshot
from tests.data.mirrors import MakeMirror, closed_port, contents

GZIP_NAMES = [f"{name}.gz" for name in NAMES]
FILES = {name: (MINI_DIRECTORY / name).read_bytes() for name in GZIP_NAMES}


@pytest.fixture(autouse=True)
def _small_mnist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the bundled digits as MNIST: they download quickly."""
    monkeypatch.setitem(
        DATASETS, "mnist", replace(MINI, name="mnist", title="MNIST", mirrors=MNIST.mirrors)
    )


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with all files in it."""
    import_files(tmp_path / "data" / "mnist", MINI_DIRECTORY, MINI)
    return tmp_path / "data"


def test_the_files_are_downloaded_into_the_cache_once(
    nnctl: Nnctl, mirror: MakeMirror, tmp_path: Path
) -> None:
    good = mirror(FILES)
    folder = tmp_path / "data" / "mnist"
    command = ("download", "--mirror", good.url, "--data-dir", folder.parent)
    done = nnctl(*command)
    assert done.stdout == f"MNIST is in {folder}\n"
    lines = done.stderr.splitlines()
    assert list(NAMES) == [line.split()[0] for line in lines]
    assert [good.url + name for name in GZIP_NAMES] == [line.split()[-1] for line in lines]
    assert contents(folder) == FILES

    before = snapshot(folder)
    again = nnctl(*command)
    assert [
        f"{name} is already downloaded and correct" for name in NAMES
    ] == again.stderr.splitlines()
    assert [f"/{name}" for name in GZIP_NAMES] == good.requests
    assert before == snapshot(folder)
    assert nnctl(*command, "--quiet").stderr == ""


def test_mirrors_and_the_cache_may_be_set_in_the_environment(
    nnctl: Nnctl, mirror: MakeMirror, tmp_path: Path
) -> None:
    halves = [mirror({n: FILES[n] for n in some}) for some in (GZIP_NAMES[:2], GZIP_NAMES[2:])]
    folder = tmp_path / "there" / "mnist"
    mirrors = " ".join(half.url for half in halves)
    env = {"NNCTL_MIRROR": mirrors, "NNCTL_DATA_DIR": str(folder.parent)}
    states = dict.fromkeys(NAMES, "right")
    record = {"dataset": "mnist", "directory": str(folder), "files": states}
    assert record == json.loads(nnctl("download", "--json", env=env).stdout)
    assert contents(folder) == FILES


def test_a_correct_cache_is_never_written(nnctl: Nnctl, data_dir: Path, mirror: MakeMirror) -> None:
    folder, good = data_dir / "mnist", mirror({})
    before = (snapshot(folder), folder.stat().st_mtime_ns)
    folder.chmod(0o555)
    for flags in ([], ["--verify"]):
        nnctl("download", "--mirror", good.url, "--data-dir", data_dir, *flags)
    folder.chmod(0o755)
    assert before == (snapshot(folder), folder.stat().st_mtime_ns)
    assert good.requests == []


def test_force_downloads_again_and_loses_nothing(
    nnctl: Nnctl, mirror: MakeMirror, data_dir: Path
) -> None:
    good = mirror(FILES)
    command = ("download", "--force", "--data-dir", data_dir, "--mirror")
    nnctl(*command, good.url)
    assert [f"/{name}" for name in GZIP_NAMES] == good.requests
    before = snapshot(data_dir)
    assert "404 Not Found" in nnctl(*command, mirror({}).url, code=3).stderr
    assert before == snapshot(data_dir)


def test_failed_addresses_are_printed_once_with_the_reasons(
    nnctl: Nnctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, proxy)
    dead, why = f"http://127.0.0.1:{closed_port()}/", os.strerror(errno.ECONNREFUSED)
    done = nnctl("download", "--mirror", dead, code=3)
    first, *failures, hint = done.stderr.splitlines()
    assert first == f"Error: no mirror served {GZIP_NAMES[0]}:"
    assert failures == [
        f"  {dead}{GZIP_NAMES[0]} cannot be reached: {why}",
        *(
            f"  {url}{GZIP_NAMES[0]} cannot be reached through the proxy: {why}"
            for url in MNIST.mirrors
        ),
    ]
    assert "nnctl download mnist --from DIR" in hint
    assert done.stdout == ""
    assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("url", ["ftp://x/", "nonsense"])
def test_an_address_that_is_not_a_mirror_is_refused(nnctl: Nnctl, url: str) -> None:
    assert f"not '{url}'" in nnctl("download", "--mirror", url, code=2).stderr


@pytest.mark.parametrize("compressed", [True, False])
def test_local_files_can_be_imported(
    nnctl: Nnctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compressed: bool
) -> None:
    def strict_new(name: str, data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        if name == "md5" and usedforsecurity:
            raise ValueError("[digital envelope routines] unsupported")
        return new(name, data, usedforsecurity=usedforsecurity)

    new = hashlib.new
    monkeypatch.setattr(hashlib, "new", strict_new)  # as on a system with FIPS mode
    source, folder = tmp_path / "source", tmp_path / "cache" / "mnist"
    source.mkdir()
    for name, content in FILES.items():
        path = source / (name if compressed else Path(name).stem)
        path.write_bytes(content if compressed else gzip.decompress(content))
    before = snapshot(source)
    assert nnctl("download", "--from", source).stdout == f"MNIST is in {folder}\n"
    assert all(find(folder, file) for file in MINI.files)
    assert contents(source) == contents(folder)
    assert before == snapshot(source)
    nnctl("download", "--verify")


def test_an_import_with_missing_files_names_them_and_copies_nothing(
    nnctl: Nnctl, data_dir: Path, tmp_path: Path
) -> None:
    source = data_dir / "mnist"
    (source / GZIP_NAMES[1]).unlink()
    with (source / GZIP_NAMES[2]).open("r+b") as file:
        file.write(b"?")
    done = nnctl("download", "--from", source, code=3)
    assert f"Error: {source} does not contain MNIST:" in done.stderr
    assert f"  {NAMES[1]}[.gz] is missing\n" in done.stderr
    assert f"{GZIP_NAMES[2]} is not an IDX file of images: it begins with 3f8b" in done.stderr
    assert "Hint: Replace it by the file of the dataset." in done.stderr
    assert "--dataset" not in done.stderr  # it could not read the files either
    assert not (tmp_path / "cache").exists()


def test_verify_prints_the_state_of_each_file_and_contacts_no_mirror(
    nnctl: Nnctl, data_dir: Path, mirror: MakeMirror
) -> None:
    good, folder = mirror(FILES), data_dir / "mnist"
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

    warning = f"Warning: {folder / GZIP_NAMES[1]} is damaged; downloading it again"
    assert warning in nnctl(*command).stderr.splitlines()
    assert [f"/{name}" for name in GZIP_NAMES[:2]] == good.requests
    assert contents(folder) == FILES


def test_the_password_of_a_mirror_is_not_shown(nnctl: Nnctl, mirror: MakeMirror) -> None:
    url = mirror(FILES).url
    bad = "http://me:secret@127.0.0.1:9/"
    good = url.replace("http://", "http://me:secret@")
    done = nnctl("download", "--mirror", bad, "--mirror", good)
    assert "secret" not in done.stdout + done.stderr
    assert f"from {url.replace('//', '//***@')}" in done.stderr
