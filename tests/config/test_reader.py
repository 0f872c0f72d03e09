"""YAML 1.2, the position of each value, and harmful input."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnctl.config import read_config, reader
from nnctl.config.reader import MAX_BYTES, read, read_file
from nnctl.errors import ConfigError


def value_of(text: str) -> Any:
    return read(f"a: {text}", "c.yaml").data["a"]


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(text, "c.yaml")
    return list(caught.value.mistakes)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        (0.001, "1e-3"),
        (1000.0, "1E+3"),
        (0.5, ".5"),
        (1.0, "1."),
        (1, "+1"),
        (10, "010"),
        (8, "0o10"),
        (31, "0x1F"),
        (True, "True"),
        (None, "~"),
        (None, "Null"),
        (None, ""),
        ("no", "no"),
        ("yes", "yes"),
        ("on", "on"),
        ("tRUE", "tRUE"),
        ("1_000", "1_000"),
        ("0b1", "0b1"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("1", "'1'"),
        ("null", '"null"'),
        ("3", "!!str 3"),
        (3, "!!int '3'"),
        ("٣", "٣"),
    ],
)
def test_a_scalar_has_the_type_of_yaml_1_2(expected: object, text: str) -> None:
    actual = value_of(text)
    assert (type(expected), expected) == (type(actual), actual)


@pytest.mark.parametrize("text", [".nan", ".inf", "-.INF", "1e999", "-1e999", "1" + "0" * 5000])
def test_a_number_that_is_not_finite_or_too_large_is_rejected(text: str) -> None:
    shown = text.rpartition(" ")[2][:40]
    assert [f"c.yaml:1:4: expected a finite number of at most 64 bits, got {shown}"] == mistakes(
        f"a: {text}"
    )


def test_the_error_for_a_duplicate_key_has_both_positions() -> None:
    assert mistakes('a:\n  b: 1\n  c: 2\n  "b": 3\na: 1') == [
        "c.yaml:4:3: duplicate key 'b' (first defined at 2:3)",
        "c.yaml:5:1: duplicate key 'a' (first defined at 1:1)",
    ]


@pytest.mark.parametrize("key", ["1", "~", "true", "0.5", "? [x]\n", "!foo x", "!!int x"])
def test_a_key_that_is_not_text_is_rejected(key: str) -> None:
    column = 3 if key.startswith("?") else 1
    assert [f"c.yaml:1:{column}: a key must be text"] == mistakes(f"{key}: x")


@pytest.mark.parametrize(
    ("tag", "value"),
    [
        ("!foo", "x"),
        ("tag:yaml.org,2002:python/object:os.system", "{}"),
        ("tag:yaml.org,2002:python/object/apply:os.system", "[exit]"),
        ("tag:yaml.org,2002:binary", "aGk="),
        ("tag:yaml.org,2002:set", "{x}"),
    ],
)
def test_a_tag_that_would_create_an_object_is_rejected(tag: str, value: str) -> None:
    written = tag.replace("tag:yaml.org,2002:", "!!")
    assert [f"c.yaml:1:4: the YAML tag {tag} is not allowed here"] == mistakes(
        f"a: {written} {value}"
    )


@pytest.mark.parametrize(
    "text",
    ["!!bool yes", "!!bool x", "!!null x", "!!int 1_0", "!!int 0o8", "!!float x", "!!int [1]"],
)
def test_a_tag_that_does_not_fit_its_value_is_rejected(text: str) -> None:
    assert [mistake[:10] for mistake in mistakes(f"a: {text}")] == ["c.yaml:1:4"]


@pytest.mark.parametrize("text", ["\ta: 1", "a:\n\tb: 1", "a:\n  b: 1\n\tc: 1"])
def test_a_tab_for_indentation_is_rejected(text: str) -> None:
    line = text[: text.index("\t")].count("\n") + 1
    assert [f"c.yaml:{line}:1: YAML does not allow tabs for indentation; use spaces"] == mistakes(
        text
    )


@pytest.mark.parametrize(
    ("position", "text"),
    [
        ("c.yaml:1:17", 'a: "unterminated'),
        ("c.yaml:1:5", "a: b: c"),
        ("c.yaml:2:2", "a: [1, 2\nb: 3"),
        ("c.yaml:1:4", "a: *unknown"),
        ("c.yaml:2:1", "a: 1\n---\nb: 2"),
        ("c.yaml:1:4", "a: @x"),
        ("c.yaml", "a: b\0c"),
    ],
)
def test_invalid_yaml_is_rejected_with_its_position(position: str, text: str) -> None:
    (mistake,) = mistakes(text)
    assert mistake.startswith(f"{position}: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "{}"])
def test_an_empty_file_is_an_empty_mapping(text: str) -> None:
    assert read(text, "c.yaml").data == {}


@pytest.mark.parametrize("text", ["[1]", "- a", "x", "1", "false"])
def test_a_top_level_that_is_not_a_mapping_is_rejected(text: str) -> None:
    assert mistakes(text) == ["c.yaml: the top level must be a mapping (key: value)"]


def test_a_merge_key_has_no_special_meaning() -> None:
    data = read("x: &x {a: 1}\ny:\n  <<: *x", "c.yaml").data
    assert data == {"x": {"a": 1}, "y": {"<<": {"a": 1}}}


BOMB = "\n".join(
    ["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    + [f"{k}: &{k} [{', '.join(f'*{chr(ord(k) - 1)}' for _ in range(10))}]" for k in "bcdefghi"]
)


@pytest.mark.parametrize(
    ("expected", "text"),
    [
        ("nested too deeply", "[" * 600),
        ("nested too deeply", "a: " + "[" * 600 + "]" * 600),
        ("nested too deeply", "a: " + "{b: " * 600),
        ("nested too deeply", "- " * 600),
        ("nested too deeply", "a: " + "[" * 101 + "]" * 101),
        ("nested too deeply", "a: &a [*a]"),
        ("nested too deeply", "a: &a {b: *a}"),
        ("too many values", BOMB),
    ],
    ids=["open", "lists", "mappings", "dashes", "hundred", "itself", "in-itself", "billion"],
)
def test_excessive_nesting_and_repetition_are_rejected_quickly(expected: str, text: str) -> None:
    (mistake,) = mistakes(text)  # within the CPU time of a test
    assert mistake.endswith(f": {expected}")


def test_the_limits_themselves_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert value_of("[" * 100 + "]" * 100)
    monkeypatch.setattr(reader, "MAX_VALUES", 4)  # the mapping, the list and its items
    assert value_of("[1, 2]") == [1, 2]
    assert mistakes("a: [1, 2, 3]") == ["c.yaml:1:11: too many values"]


def test_keys_and_values_have_positions() -> None:
    document = read("é: 1\nb:\n  - {c: 2,   d: x}\n  -   3\n", "c.yaml")
    assert document.keys == {
        ("é",): "c.yaml:1:1",
        ("b",): "c.yaml:2:1",
        ("b", 0, "c"): "c.yaml:3:6",
        ("b", 0, "d"): "c.yaml:3:14",
    }
    assert document.values == {
        (): "c.yaml:1:1",
        ("é",): "c.yaml:1:4",
        ("b",): "c.yaml:3:3",
        ("b", 0): "c.yaml:3:5",
        ("b", 0, "c"): "c.yaml:3:9",
        ("b", 0, "d"): "c.yaml:3:17",
        ("b", 1): "c.yaml:4:7",
    }


def test_a_missing_key_has_the_position_of_its_parent() -> None:
    document = read("# first\na:\n  b: {c: 1}\n", "c.yaml")
    assert document.position(("a", "b", "missing", 0)) == "c.yaml:3:6"
    assert document.position(("missing",)) == "c.yaml:2:1"
    assert document.position(("a", "b", "c"), of_key=True) == "c.yaml:3:7"
    assert document.position(("a", "b", "c")) == "c.yaml:3:10"


@settings(max_examples=60)
@given(text=st.text() | st.text(alphabet="ab01:-#&*!|>'\"%@`{}[],?. \n\t~<="))
def test_any_text_is_a_mapping_or_a_configuration_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(read(text, "c.yaml").data, dict)


# Files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"a: 1\n", b"\xef\xbb\xbfa: 1\n", b"a: 1\r\n", b"a: 1"])
def test_a_file_may_begin_with_a_bom_and_have_any_line_endings(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    assert read_file(path).data == {"a": 1}


@pytest.mark.parametrize(
    ("line", "content"), [(1, "a: é".encode("utf-16")), (2, "a: b\nc: é\n".encode("latin-1"))]
)
def test_a_file_that_is_not_utf_8_is_rejected(tmp_path: Path, line: int, content: bytes) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_file(path)
    assert (f"{path}:{line}: not UTF-8 text",) == caught.value.mistakes
    assert caught.value.hint == "Save the file as UTF-8."


@pytest.mark.skipif(os.name == "nt", reason="needs a device file")
def test_a_device_is_read_only_if_pipes_are_allowed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("a: 1")
    assert read_file(path, pipes=False).data == {"a": 1}
    assert read_file(Path(os.devnull)).data == {}
    with pytest.raises(ConfigError):
        read_file(Path(os.devnull), pipes=False)


def test_a_file_that_is_too_large_is_rejected_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(b"a: " + b"[" * MAX_BYTES)
    with pytest.raises(ConfigError, match="larger than 1,000,000 bytes"):
        read_file(path)


def test_the_error_for_a_missing_file_lists_the_available_files(tmp_path: Path) -> None:
    for name in ("relu.yaml", "tanh.yaml", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "rleu.yaml")
    expected = f"{tmp_path / 'rleu.yaml'}: file not found; did you mean"
    assert caught.value.message.startswith(expected)
    assert (
        f"Available files: {tmp_path / 'relu.yaml'}, {tmp_path / 'tanh.yaml'}" == caught.value.hint
    )


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 300])
def test_an_invalid_file_name_is_a_configuration_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError):
        read_file(tmp_path / name)
