"""Random configurations, overrides and sweep files are read, or rejected with an error."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl import system
from nnctl.config import json_schema
from nnctl.config.reader import read_file
from nnctl.config.sweeps import SweepConfig
from tests.config.helpers import load
from tests.conftest import CONFIGS
from tests.torture.conftest import Torture
from tests.torture.faults import Fault, Nursery
from tests.torture.hostile import PATIENCE, REFUSED, run_command, some_of
from tests.torture.schemas import ANYTHING, EDGES, TINY_AND_HUGE, Strategy, fitting, spoiled

SMALL: dict[str, Any] = {
    "data": {"dataset": "mini"},
    "network": {
        "layers": [{"units": 5, "activation": "relu"}, {"units": 10, "activation": "softmax"}]
    },
    "optimizer": {"learning_rate": 0.1},
}
SHIPPED = [read_file(path).data for path in sorted(CONFIGS.rglob("*.yaml"))]
TRAININGS: Strategy = st.sampled_from([data for data in SHIPPED if "network" in data])
SWEEPS: Strategy = st.sampled_from([data for data in SHIPPED if "network" not in data])
MADE_UP, MADE_UP_SWEEPS = fitting(json_schema()), fitting(json_schema(SweepConfig))
assert settings.default is not None
LONG = settings(max_examples=settings.default.max_examples // 4)
"""For properties that take longer than reading a file."""

pytestmark = PATIENCE


@pytest.fixture(scope="module", autouse=True)
def _folder_and_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Write all examples to one folder, and pretend that 700 MB of memory are available."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("configurations"))
        patch.setattr(system, "memory_there", lambda: 700_000_000)
        yield


def written(data: Any, name: str = "c.yaml") -> Path:
    """Write a value as JSON, which is valid YAML and faster to write."""
    path = Path(name)
    text = json.dumps(data, ensure_ascii=False)
    path.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    return path


def check(path: Path) -> None:
    """Check that a configuration is rejected, or unchanged by writing and reading it."""
    shown = run_command("train", path, "--dry-run")
    if shown.exit_code == 0:
        again = Path("again.yaml")
        again.write_text(shown.stdout, encoding="utf-8", newline="\n")
        assert shown.stdout == run_command("train", again, "--dry-run", codes=[0]).stdout
        assert load(path) == load(again)


# Structures --------------------------------------------------------------------------------------


@LONG
@given(data=MADE_UP | spoiled(MADE_UP) | ANYTHING)
def test_a_generated_configuration_is_rejected_or_survives_a_round_trip(
    data: Any, torture: Torture
) -> None:
    check(written(data))
    torture.tried("configurations made up from the schema, read, written and read again")


@LONG
@given(data=spoiled(TRAININGS))
def test_a_damaged_preset_is_rejected_or_survives_a_round_trip(data: Any, torture: Torture) -> None:
    path = written(data)
    check(path)
    assert run_command("train", path, "--dry-run").exit_code == (
        run_command("check", path, "--json").exit_code
    )
    torture.tried("shipped configurations with values replaced, removed, renamed, repeated")


# Texts -------------------------------------------------------------------------------------------

PIECES = (
    *("!!python/object/apply:os.system [touch hacked] ", "!!binary ", "!!set ", "!x ", "!!float "),
    *("&a ", "*a ", "<<: ", "? ", "- ", ": ", "| ", ">-\n", "--- ", "...\n", "%YAML 1.1\n", "#"),
    *("\t", "\0", "\ufeff", "\x85", "\u2028", "\r", "\n", '"', "'", '"\\ud800"', '"\\e[2J"'),
    *("1e400 ", "-1e400 ", "1" + "0" * 5000, "0x" + "f" * 5000, "0o" + "7" * 50, "-0 ", "-0.0 "),
    *(".nan ", "-.inf ", "1e-400 ", "[" * 200, "{a: " * 200, "]", "}", "unіts: 3\n", "ｕnits: 3\n"),
    "👩‍👩‍👧",
)
ENCODINGS = ("utf-8",) * 8 + ("utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "cp1252")


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Generate the content of a file: a preset with text inserted."""
    text = yaml.safe_dump(draw(TRAININGS), sort_keys=False, default_flow_style=None)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        end = at + draw(st.sampled_from((0, 0, 1, 5, 50)))
        piece = draw(st.sampled_from(PIECES) | st.text(max_size=5))
        text = text[:at] + piece + text[end:]
    content = text.encode(draw(st.sampled_from(ENCODINGS)), errors="replace")
    cut = draw(st.sampled_from((0, 0, 0, 1, 30)))
    return content[: len(content) - cut]


@given(content=texts() | st.binary(max_size=50))
def test_a_file_with_unexpected_yaml_is_rejected_or_survives_a_round_trip(
    content: bytes, torture: Torture
) -> None:
    Path("c.yaml").write_bytes(content)
    check(Path("c.yaml"))
    assert not Path("hacked").exists()
    torture.tried("files with pieces of YAML, of other encodings, cut off")


def _bomb(open_: str, close: str, join: str) -> str:
    names = "abcdefghijklmnop"
    below = [f"{name}: &{name} {open_}{{}}{close}" for name in names]
    parts = ["1"] + [join.join(f"*{name}" for _ in range(9)) for name in names]
    return "\n".join(line.format(part) for line, part in zip(below, parts, strict=False))


HOSTILE: dict[str, str] = {
    "aliases of aliases": _bomb("[", "]", ", "),
    "aliases in mappings": "x: &x {a: 1, b: 2}\n" + "".join(
        f"k{i}: {{<<: *x, c: *x}}\n" for i in range(25_000)
    ),
    "10 MB": "a: " + "x" * 10_000_000,
    "1 MB of brackets": "a: " + "[" * 900_000,
    "1 MB of questions": "? " * 450_000,
    "1 MB of a key": "? " + "k" * 900_000 + "\n: 1\n",
    "1 MB of digits": "a: " + "9" * 900_000,
    "1 MB of hexadecimal digits": "a: 0x" + "f" * 900_000,
    "1 MB of a comment": "#" * 900_000,
    "1 MB of empty lines": "\n" * 900_000,
    "1 MB of anchors": "".join(f"a{i}: &a{i} x\n" for i in range(50_000)),
    "45,000 unknown keys": "".join(f"key{i}: 1\n" for i in range(45_000)),
    "45,000 keys in a section": f"training: {{{', '.join(f'epoch{i}: 1' for i in range(45_000))}}}",
    "45,000 keys that are not strings": "".join(f"{i}: 1\n" for i in range(45_000)),
    "45,000 tags": f"a: [{', '.join(['!x 1'] * 45_000)}]",
    "90,000 layers": f"network: {{layers: [{', '.join(['{}'] * 90_000)}]}}",
    "1,000 layers of nothing known": "network: {layers: ["
    + "{units: x, activation: rulu}, " * 1000 + "]}",
    "95,000 values of a sweep": f"base: c.yaml\nparameters: {{a: [{', '.join('1' * 95_000)}]}}",
    "a sweep's choices in choices": "base: c.yaml\nparameters: {a: "
    + "{values: [" * 40 + "1" + "]}" * 40 + "}",
}  # fmt: skip


@pytest.mark.skipif(sys.platform == "win32", reason="forks processes")
def test_a_file_that_expands_too_much_is_rejected_within_a_gigabyte(
    torture: Torture, nursery: Nursery
) -> None:
    for name in some_of(torture, [*HOSTILE], 2):
        Path("h.yaml").write_text(HOSTILE[name], encoding="utf-8", newline="\n")
        command = "sweep" if "base" in HOSTILE[name] else "train"
        done = nursery.run(Fault(".", memory=10**9), command, "h.yaml", "--dry-run")
        output = f"{name}: {done.stderr[:500]}"
        assert done.returncode in REFUSED, output
        assert "Traceback" not in done.stderr, output
        assert len(done.stderr) < 250_000, output
        torture.tried("files of up to 10 MB that expand too much")


# Numbers -----------------------------------------------------------------------------------------


@st.composite
def trainable(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a configuration for the bundled digits with extreme values."""
    data: dict[str, Any] = draw(MADE_UP)
    data["data"] = {**data.get("data", {}), "dataset": "mini", "validation": 20, "subset": 30}
    data["data"].pop("positive_digit", None)
    layers = data["network"]["layers"]
    for layer in layers:
        layer["units"] = min(layer["units"], 50)
    layers[-1] |= {"units": 10, "activation": draw(st.sampled_from(("softmax", "sigmoid")))}
    layers[-1].pop("dropout", None)
    if draw(st.booleans()):
        data["optimizer"]["learning_rate"] = draw(st.sampled_from((1e-8, 0.1, 1e4)))
        data["optimizer"].pop("weight_decay", None)
    if draw(st.booleans()):
        data["optimizer"] |= {"name": "sgd", "momentum": 0.9}
    training = data.setdefault("training", {})
    training["threads"] = draw(st.sampled_from((1, 2, "auto")))
    return data


@LONG
@given(data=trainable())
def test_a_training_with_extreme_numbers_finishes_or_diverges(
    data: dict[str, Any], torture: Torture
) -> None:
    path = written(data)
    if run_command("train", path, "--dry-run").exit_code:
        torture.tried("extreme configurations, refused")
        return
    epochs = data["training"].get("epochs")
    options = ("--epochs", 1) if isinstance(epochs, int) else ()
    steps = () if options else ("--set", "training.steps=2")
    ended = run_command("train", path, *options, *steps, "--quiet", "--json", codes=[0, 4])
    assert {0: ("finished", "stopped_early"), 4: ("diverged",)}[ended.exit_code].count(
        json.loads(ended.stdout)["status"]
    )
    torture.tried("extreme configurations, trained for an epoch")
    torture.tried("extreme configurations, of these diverged", ended.exit_code == 4)


# Overrides ---------------------------------------------------------------------------------------

STEPS = st.sampled_from(
    (
        *("data", "network", "layers", "optimizer", "training", "schedule", "units", "activation"),
        *("init", "name", "0", "1", "-1", "2", "99999999999999999999", "٠", "²", "", " ", "unіts"),
    )
)
DOTTED = st.lists(STEPS | st.text(max_size=4), min_size=1, max_size=5).map(".".join)
"""Keys, most of which do not exist."""
YAML_VALUES = st.one_of(
    ANYTHING.map(lambda value: yaml.safe_dump(value, default_flow_style=True).strip()),
    st.sampled_from(PIECES),
    st.text(max_size=10),
)
TYPED = (st.tuples(DOTTED, YAML_VALUES).map("=".join) | st.text(max_size=10)).filter(
    lambda text: "\0" not in text  # a command line cannot contain it
)


@given(typed=st.lists(TYPED, min_size=1, max_size=3))
def test_any_override_is_applied_or_rejected(typed: list[str], torture: Torture) -> None:
    path = written(SMALL)
    options = [f"--set={text}" for text in typed]
    shown = run_command("train", path, *options, "--dry-run")
    if shown.exit_code == 0:
        path.write_text(shown.stdout, encoding="utf-8", newline="\n")
        check(path)
    torture.tried("overrides of any text (--set)")


# Sweeps ------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from(
    [*map(str, EDGES), *map(str, TINY_AND_HUGE), "nan", "inf", "-inf", "1e400", "", "x", "9" * 5000]
)
RANGES = st.tuples(
    st.sampled_from(("log:", "lin:", "int:", "xyz:")),
    st.lists(NUMBERS, min_size=1, max_size=4).map(":".join),
).map("".join)
VARIED = st.tuples(
    DOTTED | st.sampled_from(("optimizer.learning_rate", "training.batch_size", "data.subset")),
    st.lists(RANGES | YAML_VALUES, min_size=1, max_size=3).map(",".join),
).map("=".join)


@given(
    varied=st.lists(VARIED.filter(lambda text: "\0" not in text), min_size=1, max_size=2),
    trials=st.sampled_from([(), ("--trials", 3), ("--trials", 10**50)]),
)
def test_any_parameter_is_varied_or_rejected_without_being_expanded(
    varied: list[str], trials: tuple[object, ...], torture: Torture
) -> None:
    options = [f"-p{text}" for text in varied]
    run_command("sweep", written(SMALL), *options, *trials, "--dry-run", "--json")
    torture.tried("parameters of any text (sweep -p)")


@LONG
@given(data=MADE_UP_SWEEPS | spoiled(MADE_UP_SWEEPS) | spoiled(SWEEPS))
def test_a_sweep_file_of_any_structure_is_planned_or_rejected(data: Any, torture: Torture) -> None:
    base = written(SMALL)
    path = written(data, "s.yaml")
    run_command("sweep", path, "--base", base, "--trials", 3, "--dry-run", "--json")
    torture.tried("sweep files made up from the schema, and shipped ones with faults")
