"""Content of files is never executed, and no write leaves its directory."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import stat
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import nnctl as package
from nnctl.files import write_atomically
from tests.torture.conftest import Torture
from tests.torture.hostile import KEPT_RUN, KEPT_SWEEP, PATIENCE, REFUSED, run_command

pytestmark = PATIENCE

PACKAGE = Path(package.__file__).parent

FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib"}
READS_PICKLES = PACKAGE / "data" / "readers.py"
"""The only module that imports pickle: its unpickler creates arrays of numbers only."""
FORBIDDEN_CALLS = {
    *("pickle.load", "pickle.loads", "pickle.Unpickler"),
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "tempfile.mktemp"),
    *("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "runpy.run_path"),
    *("subprocess.getoutput", "subprocess.getstatusoutput", "torch.load"),
    *("subprocess.run", "subprocess.Popen", "subprocess.call", "subprocess.check_output"),
}


def modules() -> Iterator[tuple[Path, ast.Module]]:
    """Yield every module of nnctl with its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def test_no_module_can_execute_data(torture: Torture) -> None:
    count = 0
    for path, tree in modules():
        count += 1
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [str(node.module)]
            forbidden = FORBIDDEN_MODULES & {name.split(".")[0] for name in names}
            assert forbidden <= ({"pickle"} if path == READS_PICKLES else set()), path
            if isinstance(node, ast.Call):
                _check_call(path, node)
    torture.tried("modules of nnctl, searched for calls that execute data", count)
    assert count > 80


def _check_call(path: Path, call: ast.Call) -> None:
    name, where = ast.unparse(call.func), f"{path}:{call.lineno}"
    assert name not in FORBIDDEN_CALLS, f"{where} calls {name}"
    given = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    assert given.get("shell", "False") == "False", f"{where} starts a shell"
    if name in ("np.load", "numpy.load"):
        assert given.get("allow_pickle") == "False", f"{where} may unpickle"
    if name.startswith("yaml.") and name.endswith("load"):
        raise AssertionError(f"{where} calls {name}")
    if name == "yaml.compose":
        assert ast.unparse(call.args[1]) == "_Loader", where
    if name.endswith("Environment"):
        assert given.get("autoescape") == "True", f"{where} does not escape"
    assert not name.endswith("Markup"), f"{where} marks text as safe"


def test_the_yaml_loader_is_safe() -> None:
    import yaml

    from nnctl.config import reader

    assert issubclass(reader._Loader, yaml.SafeLoader)
    constructors = reader._Loader.yaml_constructors
    assert not any("python" in str(tag) for tag in constructors)


def test_only_html_that_nnctl_generates_is_unescaped_in_a_report() -> None:
    template = (PACKAGE / "report" / "page.html").read_text("utf-8")
    unescaped = set(re.findall(r"{{\s*([^}|]+?)\s*\|\s*safe\s*}}", template))
    assert unescaped == {"style", "chart.svg", "script"}
    assert len(re.findall(r"\|\s*safe\b", template)) == 3
    assert "autoescape" not in template


EVIL = """<script>alert(1)</script></script><img src=x onerror=alert(2)>"'>]]>--><svg/onload=x>"""
LINK = "javascript:alert(3)"
CSS = "</style><style>*{background:url(//evil)}"


class _Elements(HTMLParser):
    """Counts the elements of a page, and collects attributes that may run scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.count: dict[str, int] = {}
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count an element."""
        self.count[tag] = self.count.get(tag, 0) + 1
        for name, value in attrs:
            address = name in ("src", "href") and not str(value).startswith("#")
            if name.startswith("on") or address or "javascript:" in str(value):
                self.handlers.append(f"{tag} {name}={value}")


def elements(file: Path) -> _Elements:
    """Return the elements of a page."""
    reader = _Elements()
    reader.feed(file.read_text("utf-8"))
    return reader


_POSIX = pytest.mark.skipif(sys.platform == "win32", reason="other names and links of files")


@_POSIX
@pytest.mark.usefixtures("sketched_in_few")
def test_a_report_contains_only_elements_that_nnctl_generates(
    torture: Torture, scratch: Path
) -> None:
    plain = Path(shutil.copytree(KEPT_RUN, scratch / "plain"))
    run_command("report", plain, plain, "-o", "plain.html", codes=[0])
    expected = elements(scratch / "plain.html")
    assert expected.handlers == []
    names = [EVIL, LINK, CSS, "{{ 1234 * 1234 }}", "&lt;", "\ud800"]
    for evil in names if torture.full else names[::5]:
        name = evil.replace("/", "⁄")[:80] if evil != "\ud800" else os.fsdecode(b"\xff")
        run = Path(shutil.copytree(KEPT_RUN, scratch / name))
        config = (run / "config.yaml").read_text("utf-8")
        comment = evil if evil != "\ud800" else ""
        (run / "config.yaml").write_text(f"# {comment}\n{config}", "utf-8")
        summary = json.loads((run / "summary.json").read_text("utf-8"))
        if comment:
            summary["dataset"] |= {"name": evil, "hashes": {evil: evil}}
            summary |= {"versions": {evil: evil}, "blas": {"name": evil}}
            (run / "summary.json").write_text(json.dumps(summary), "utf-8")
        run_command("report", run, "-o", "page.html", codes=[0])
        found = elements(scratch / "page.html")
        assert found.handlers == []
        unlike = {tag for tag in found.count if tag not in expected.count}
        assert unlike == set(), evil
        for tag in ("script", "style", "img", "a", "svg", "iframe"):
            assert found.count.get(tag) == expected.count.get(tag), (tag, evil)
        assert str(1234 * 1234) not in (scratch / "page.html").read_text("utf-8")
        torture.tried("hostile names and values in a page")


@_POSIX
@pytest.mark.usefixtures("sketched_in_few")
def test_a_sweep_report_contains_only_elements_that_nnctl_generates(
    torture: Torture, scratch: Path
) -> None:
    names = (EVIL, CSS, "$x^2$ \\alpha [/red][bold]", "\x00\x1b[2J")
    for evil in names if torture.full else names[:1]:
        sweep = Path(shutil.copytree(KEPT_SWEEP, scratch / "sweep"))
        text = (sweep / "journal.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in text.splitlines()]
        for line in lines:
            if "parameters" in line:
                line["parameters"] = {"optimizer.learning_rate": evil}
            if "reason" in line:
                line["reason"] = evil
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (sweep / "journal.jsonl").write_text(text, "utf-8")
        run_command("report", sweep, "-o", "sweep.html", codes=[0])
        found = elements(scratch / "sweep.html")
        assert found.handlers == []
        assert found.count.get("img") is None
        assert found.count["style"] == 2  # the second one is for browsers without JavaScript
        run_command("sweep", "--show", sweep, codes=[0])
        shutil.rmtree(sweep)
        torture.tried("hostile values of a sweep in a page")


@_POSIX
@pytest.mark.usefixtures("sketched_in_few")
def test_no_write_follows_a_link_out_of_a_run(torture: Torture, scratch: Path) -> None:
    victim = scratch / "victim"
    for name in ("best.npz", "last.npz", "metrics.jsonl", "summary.json", "config.yaml", ".lock"):
        same = (KEPT_RUN / name).read_bytes() if name != ".lock" else b"locked"
        for content in (same, b"precious") if torture.full else (same,):
            run = Path(shutil.copytree(KEPT_RUN, scratch / "run"))
            victim.write_bytes(content)
            (run / name).unlink(missing_ok=True)
            (run / name).symlink_to(victim)
            run_command("train", "--resume", run, "--epochs", 3, codes=[0, 1, *REFUSED])
            for file_format in ("onnx", "safetensors")[: torture.cases(1, full=2)]:
                (run / f"model.{file_format}").symlink_to(victim)
                run_command("export", run, "--format", file_format)
            assert content == victim.read_bytes(), name
            shutil.rmtree(run)
            torture.tried("links from a run to a victim")
    page = b'<meta name="generator" content="nnctl report 0.1.0">'
    victim.write_bytes(page)
    (scratch / "page.html").symlink_to(victim)
    run_command("report", KEPT_RUN, "-o", "page.html", codes=[0])
    assert victim.read_bytes() == page


def unfinished_sweep(folder: Path, torn: bytes = b"") -> Path:
    """Copy a sweep whose last trial has not ended."""
    sweep = Path(shutil.copytree(KEPT_SWEEP, folder / "sweep"))
    text = (KEPT_SWEEP / "journal.jsonl").read_bytes()
    (sweep / "journal.jsonl").write_bytes(text[: text.rstrip().rindex(b"\n") + 1] + torn)
    return sweep


@_POSIX
def test_no_write_follows_a_link_out_of_a_sweep(torture: Torture, scratch: Path) -> None:
    victim = scratch / "victim"
    names = ["journal.jsonl", "results.jsonl", "results.csv", ".lock", "trial-002/log.txt"]
    for name in names if torture.full else names[:1]:
        sweep = unfinished_sweep(scratch, b'{"torn')
        journal = (sweep / "journal.jsonl").read_bytes()
        content = journal if name == "journal.jsonl" else b"precious"
        victim.write_bytes(content)
        (sweep / name).unlink(missing_ok=True)
        (sweep / name).symlink_to(victim)
        resume = ("sweep", "--resume", sweep, "--workers", 1, "--quiet")
        run_command(*resume, codes=[0, 1, *REFUSED])
        assert content == victim.read_bytes(), name
        shutil.rmtree(sweep)
        torture.tried("links from a sweep to a victim")


@_POSIX
def test_no_trial_is_written_through_a_link(torture: Torture, scratch: Path) -> None:
    elsewhere = Path(shutil.copytree(KEPT_RUN, scratch / "precious"))
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    sweep = unfinished_sweep(scratch)
    shutil.rmtree(sweep / "trial-002")
    (sweep / "trial-002").symlink_to(elsewhere)
    done = run_command("sweep", "--resume", sweep, "--workers", 1, "--quiet", codes=[3])
    assert "trial-002 is a symbolic link" in done.output
    assert before == {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    torture.tried("links from a sweep to a victim")


@_POSIX
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_temporary_files_are_new_unpredictable_and_writable_only_by_their_owner(
    torture: Torture, scratch: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    seen: list[str] = []
    replace = Path.replace

    def note(self: Path, target: Path) -> Path:
        seen.append(self.name)
        assert stat.S_IMODE(self.stat().st_mode) & umask == 0
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", note)
    before = os.umask(umask)
    try:
        for _ in range(50):
            write_atomically(scratch / "file", b"content")
    finally:
        os.umask(before)
    assert len(set(seen)) == 50
    assert [scratch / "file"] == [*scratch.iterdir()]
    torture.tried("temporary files", 50)


@_POSIX
def test_a_link_with_the_name_of_a_temporary_file_is_not_followed(
    scratch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda _: "00000000")
    (scratch / ".file.00000000.nnctl-tmp").symlink_to(scratch / "victim")
    with pytest.raises(FileExistsError):
        write_atomically(scratch / "file", b"content")
    assert not (scratch / "victim").exists()
    assert not (scratch / "file").exists()
