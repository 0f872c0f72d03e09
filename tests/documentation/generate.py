"""Updates the generated parts of the documentation: keys, tables, presets, plots and command help.

    python -m tests.documentation.generate

The parts are between ``<!-- begin: NAME -->`` and ``<!-- end: NAME -->``; a test checks that they
are up to date.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from click.testing import CliRunner

from nnctl.cli import main
from nnctl.config import json_schema
from nnctl.config.presets import Preset, presets
from nnctl.config.words import ANSWERS, Answer
from nnctl.nn.activations import ACTIVATIONS
from nnctl.nn.initializers import INITIALIZERS
from nnctl.nn.schedules import SCHEDULES
from nnctl.text import percent, short_value
from tests.documentation import activation_plots
from tests.helpers import load_commands
from tests.processes import ROOT

PAGES = [
    ROOT / "README.md",
    ROOT / "README.ko.md",
    *sorted((ROOT / "docs" / "pages").rglob("*.md")),
]
"""The README and the pages of the website."""
TABLES: dict[str, Mapping[str, type[Any]]] = {
    "activation": ACTIVATIONS,
    "initializer": INITIALIZERS,
    "schedule": SCHEDULES,
}
"""Tables of the names that are allowed for a kind of configuration value."""

_MARKED = re.compile(r"(<!-- begin: ([\w -]+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
_MAX_PRINTED_BOUND = 1000  # larger bounds are not printed
_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
_PLACES = {"hidden": " Hidden layers only.", "output": " The last layer only."}
_BOUNDS = {
    "minimum": "from",
    "exclusiveMinimum": "above",
    "maximum": "to",
    "exclusiveMaximum": "below",
}


def renew(text: str) -> str:
    """Return the text of a page with its generated parts updated."""
    return _MARKED.sub(lambda match: f"{match[1]}{generate(match[2])}{match[3]}", text)


def generate(name: str) -> str:
    """Return the generated part with a name."""
    if name == "keys":
        return "".join(_tables_of_keys())
    if name == "words":
        return "".join(_tables_of_words())
    if name in TABLES:
        return _table_of_choices(TABLES[name])
    if name.startswith("presets"):
        listed = [preset for preset in presets() if name == "presets all" or _is_main(preset)]
        return _table_of_presets(listed)
    _, _, command = name.partition(" ")
    return f"```text\n{help_of(command)}```\n"


def help_of(command: str) -> str:
    """Return the help of a command, or of nnctl itself, for a terminal of 80 columns."""
    words = command.split()
    context = {"terminal_width": 78}  # click leaves two columns of the terminal free
    result = CliRunner().invoke(main, [*words, "--help"], prog_name="nnctl", **context)  # type: ignore[arg-type]
    return result.output


def names_of_help() -> Iterator[str]:
    """Yield the names of all parts with help texts."""
    yield "help"
    for name, command in load_commands().items():
        yield f"help {name}"
        if isinstance(command, click.Group):
            yield from (f"help {name} {below}" for below in command.commands)


def _is_main(preset: Preset) -> bool:
    return "/" not in preset.name and not preset.is_sweep


def _table_of_presets(listed: Iterable[Preset]) -> str:
    """Return a Markdown table of presets, in the order of their names within each folder."""
    rows = ["| preset | | test accuracy | time |\n|---|---|---|---|\n"]
    for preset in listed:
        accuracy = "" if preset.test_accuracy is None else percent(preset.test_accuracy)
        rows.append(
            f"| `{preset.name}` | {_escape(preset.summary)} | {accuracy} | {preset.time} |\n"
        )
    return "".join(rows)


def _tables_of_words() -> Iterator[str]:
    """Yield one table per kind of words of the books, with the keys and values of nnctl."""
    for kind, answers in ANSWERS.items():
        yield f"## {kind}\n\n| word | in nnctl |\n|---|---|\n"
        for words, text in answers.items():
            listed = ", ".join(f"`{word}`" for word in words.split())
            answer = Answer.parse(text)
            settings = " and ".join(
                f"`{key}`" if value is None else f"`{key}: {short_value(value)}`"
                for key, value in answer.settings.items()
            )
            comma = ", " if settings and answer.note else ""
            yield f"| {listed} | {settings}{comma}{_escape(answer.note)} |\n"
        yield "\n"


def _tables_of_keys() -> Iterator[str]:
    """Yield one table per section: its keys with values, defaults and meanings."""
    schema = json_schema()
    yield from _section("", schema, schema["$defs"])


def _section(path: str, section: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[str]:
    below = []
    rows = []
    required = section.get("required", [])
    for name, key in section["properties"].items():
        meaning = _escape(key.get("description", ""))
        inner, suffix = _inner(key, known)
        if inner is not None and (
            name != "init" or path == "network."
        ):  # the same keys for a layer
            below.append((f"{path}{name}{suffix}", inner))
        if name in required:
            default = "**required**"
        else:
            whole = inner is not None and key.get("default") is not None
            default = "" if whole else f"`{_default(key)}`"
        values = _values(key, known)
        rows.append(f"| `{name}` | {values} | {default} | {meaning} |\n")
    title = f"`{path.rstrip('.')}`" if path else "The file"
    yield f"## {title}\n\n{_escape(section.get('description', ''))}\n\n"
    yield "| key | value | default | meaning |\n|---|---|---|---|\n"
    yield from rows
    yield "\n"
    for place, inner in below:
        yield from _section(f"{place}.", inner, known)


def _default(key: Mapping[str, Any]) -> str:
    """Return the default of a key; for an activation, initializer or schedule, its name."""
    default = key.get("default")
    if isinstance(default, dict):
        names = next(option["enum"] for option in key["anyOf"] if "enum" in option)
        return str(names[0])
    return _yaml(default)


def _inner(
    key: Mapping[str, Any], known: Mapping[str, Any]
) -> tuple[Mapping[str, Any] | None, str]:
    """Return the section in a key, if any, and ``[]`` if the key is a list of sections."""
    if key.get("type") == "array":
        section, _ = _inner(key["items"], known)
        return section, "[]"
    for option in (key, *key.get("anyOf", [])):
        name = option.get("$ref", "").rpartition("/")[2]
        target = known.get(name, {})
        if name.endswith("Config"):
            for form in (target, *target.get("anyOf", [])):
                if "properties" in form:
                    return form, ""
    return None, ""


def _values(key: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return the allowed values of a key as text."""
    if key.get("type") == "array":
        return "list"
    options = key.get("anyOf", [key])
    names = [option["enum"] for option in options if "enum" in option]
    for kind, table in TABLES.items():
        if any(list(table) == listed for listed in names):
            page = "activations.md" if kind == "activation" else f"#{kind}s"
            return f"[{kind}]({page})"
    words = [word for option in options if (word := _value(option, known))]
    return ", ".join(dict.fromkeys(words))


def _value(option: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    if "$ref" in option:
        target = known[option["$ref"].rpartition("/")[2]]
        short = [form for form in target.get("anyOf", []) if "properties" not in form]
        words = [
            _value(form, known) if "type" in form else "[initializer](#initializers)"
            for form in short
        ]
        return ", ".join([*words, "mapping"])
    if "enum" in option:
        return ", ".join(f"`{_yaml(value)}`" for value in option["enum"])
    if "const" in option:
        return f"`{_yaml(option['const'])}`"
    if option.get("type") == "null":
        return "`null`"
    bounds = [
        f"{word} {_yaml(option[key])}"
        for key, word in _BOUNDS.items()
        if key in option and option[key] < _MAX_PRINTED_BOUND
    ]
    return " ".join([_TYPES[option["type"]], *bounds])


def _table_of_choices(table: Mapping[str, type[Any]]) -> str:
    """Return a Markdown table of names, parameters, defaults and meanings."""
    rows = ["| name | parameters | |\n|---|---|---|\n"]
    for kind in dict.fromkeys(table.values()):
        names = [name for name, other in table.items() if other is kind]
        names.sort(key=lambda name: name != kind.name)
        hints = get_type_hints(kind)
        parameters = ", ".join(
            _parameter(field.name, field.default, hints[field.name])
            for field in dataclasses.fields(kind)
        )
        meaning = _escape(inspect.getdoc(kind).partition("\n")[0])  # type: ignore[union-attr]
        meaning += _PLACES.get(getattr(kind, "place", ""), "")
        rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {parameters} | {meaning} |\n")
    return "".join(rows)


def _parameter(name: str, default: Any, hint: Any) -> str:
    """Return a parameter with its default and its other allowed values, if there is a list."""
    others = [
        f"`{_yaml(value)}`"
        for option in (get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,))
        if get_origin(option) is Literal
        for value in get_args(option)
        if value != default
    ]
    return " or ".join([f"`{name}: {_yaml(default)}`", *others])


def _yaml(value: Any) -> str:
    """Return a plain value in YAML syntax."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value).replace('"', "")


def _escape(text: str) -> str:
    """Escape characters that have a meaning in Markdown tables."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(renew(page.read_text("utf-8")), encoding="utf-8", newline="\n")
    activation_plots.FILE.write_text(activation_plots.draw_all(), encoding="utf-8", newline="\n")
