"""Overrides, ``KEY=VALUE``, of a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from nnctl.config import Document, Override
from nnctl.config.overrides import apply_overrides
from nnctl.config.reader import read
from nnctl.errors import ConfigError, UsageError

TEXT = "a: {b: 1, c: [2, {d: 3}]}\ne:\nf: 4\n"


def overridden(*settings: str) -> Document:
    """Return the document above with settings applied to it."""
    document = read(TEXT, "c.yaml")
    apply_overrides(document, [Override.parse(setting) for setting in settings])
    return document


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        (("optimizer", "momentum"), 0.9, "optimizer.momentum=0.9"),
        (("network", "layers", 0, "units"), 100, "network.layers.0.units=100"),
        (("a",), 0.001, " a =1e-3"),
        (("a",), "no", "a=no"),
        (("a",), None, "a="),
        (("a",), "b=c", "a=b=c"),
        (("a",), [1, "x"], "a=[1, x]"),
        (("a",), {"name": "normal", "std": 0.5}, "a={name: normal, std: .5}"),
        (("a",), "1", "a='1'"),
    ],
)
def test_a_setting_is_a_dotted_key_and_a_yaml_value(
    path: tuple[str | int, ...], value: object, text: str
) -> None:
    override = Override.parse(text)
    assert (path, value, f"--set {text}") == (override.path, override.value, override.source)


@pytest.mark.parametrize("text", ["", "x", "=3", "  =3", "="])
def test_a_setting_without_a_key_or_a_value_is_a_usage_error(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Override.parse(text, "-p")
    assert f"-p {text}: expected KEY=VALUE" == caught.value.message
    assert caught.value.hint == "Example: -p optimizer.learning_rate=0.1"


@pytest.mark.parametrize("value", ["[1", "!foo x", ".nan", "{b: 1, b: 2}", "b: c: d", "*x"])
def test_a_value_that_is_not_valid_yaml_is_a_configuration_error(value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Override.parse(f"a={value}")
    (mistake,) = caught.value.mistakes
    assert mistake.startswith(f"--set a={value}: ")


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        ({"a": {"b": 5, "c": [2, {"d": 3}]}, "e": None, "f": 4}, ["a.b=5"]),
        ({"a": {"b": 1, "c": [2, {"d": 5}]}, "e": None, "f": 4}, ["a.c.1.d=5"]),
        ({"a": {"b": 1, "c": [None, {"d": 3}]}, "e": None, "f": 4}, ["a.c.0="]),
        ({"a": {"b": 1, "c": [2, {"d": 3}, 1]}, "e": None, "f": 4}, ["a.c.2=1"]),
        (
            {"a": {"b": 1, "c": [2, {"d": 3}, {"x": 1, "y": 2}]}, "e": None, "f": 4},
            ["a.c.2.x=1", "a.c.2.y=2"],
        ),
        ({"a": {"x": [7, 8]}, "e": None, "f": 4}, ["a={x: [7, 0]}", "a.x.1=8"]),
        ({"a": 1, "e": {"x": {"y": 5}}, "f": 4}, ["a=1", "e.x.y=5"]),
        ({"a": 1, "e": None, "f": 4, "n": {"x": 5, "y": 6}}, ["a=1", "n.x=5", "n.y=6"]),
        ({"a": 1, "e": None, "f": 6}, ["a=1", "f=5", "f=6"]),
        ({"a": 1, "e": None, "f": {"x": 6}}, ["a=1", "f={}", "f.x=6"]),
        ({"a": {"x": 5}, "e": {"x": 6}, "f": 4}, ["a=true", "a.x=5", "e=false", "e.x=6"]),
    ],
)
def test_settings_are_applied_to_a_document_in_order(
    expected: dict[str, Any], settings: list[str]
) -> None:
    assert expected == overridden(*settings).data


@pytest.mark.parametrize(
    ("expected", "setting"),
    [
        *(
            (
                f"a.c is a list without an item '{item}'; valid indices are 0 to 1, and 2 adds an "
                "item",
                f"a.c.{item}=1",
            )
            for item in ("3", "x", "-1", "٠", "1234567890")
        ),
        ("nested too deeply", ".".join("a" * 101) + "=1"),
        ("f is not a mapping and has no key 'x'; its value is 4", "f.x=1"),
        ("f is not a mapping and has no key '0'; its value is 4", "f.0=1"),
        ("a.c.0 is not a mapping and has no key 'x'; its value is 2", "a.c.0.x.y=1"),
    ],
)
def test_a_key_that_does_not_fit_the_document_is_a_configuration_error(
    expected: str, setting: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(setting)
    assert (f"--set {setting}: {expected}",) == caught.value.mistakes


@pytest.mark.parametrize(
    ("expected", "settings"),
    [
        (["--set a.0.x=1"], ["a.0.x=1"]),
        (["--set 0.x=1"], ["0.x=1"]),
        (["--set a.c.1=1"], ["a.c=[]", "a.c.1=1"]),
        (["--set f.x=1", "--set a.c.9=1"], ["f.x=1", "a.b=2", "a.c.9=1"]),
    ],
)
def test_all_keys_that_do_not_fit_the_document_are_reported(
    expected: list[str], settings: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        overridden(*settings)
    assert expected == [mistake.split(":")[0] for mistake in caught.value.mistakes]
    assert " to -1" not in caught.value.message  # an empty list has no items


def test_the_position_of_a_replaced_value_is_the_override() -> None:
    document = overridden("a.c=[{d: 5}]")
    assert document.position(("a", "c")) == "--set a.c=[{d: 5}]"
    assert document.position(("a", "c", 0, "d")) == "--set a.c=[{d: 5}]"
    assert document.position(("a", "c"), of_key=True) == "--set a.c=[{d: 5}]"
    assert document.position(("a", "b")) == "c.yaml:1:8"
    assert document.position(("f",)) == "c.yaml:3:4"


def test_the_position_of_a_section_that_an_override_creates_is_the_override() -> None:
    document = overridden("n.x.y=5")
    for path in (("n",), ("n", "x")):
        assert document.position(path, of_key=True) == "--set n.x.y=5"
        assert document.position((*path, "missing")) == "--set n.x.y=5"
    assert overridden(".".join("n" * 100) + "=1")  # as deep as a file may be
