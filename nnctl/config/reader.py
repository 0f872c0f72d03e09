"""Reads YAML 1.2 into plain values, with the line and column of each.

PyYAML parses the text; this module decides the types of scalars. PyYAML itself follows YAML 1.1,
where ``no`` is false and ``1e-3`` is text; the core schema of YAML 1.2 does neither.
"""

from __future__ import annotations

import errno
import math
import re
import stat
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nnctl.config.presets import locate_config
from nnctl.errors import ConfigError, limit_hint

KeyPath = tuple[str | int, ...]
"""Path of a value in a document: the keys and indices that lead to it."""

STDIN = "-"
"""Name of standard input as a configuration."""

MAX_BYTES = 1_000_000
MAX_DEPTH = 100  # functions that visit the values are recursive
MAX_VALUES = 100_000  # each use of an alias counts: a few lines could expand to billions

_CORE_SCHEMA = {
    "tag:yaml.org,2002:null": r"~|null|Null|NULL|",
    "tag:yaml.org,2002:bool": r"true|True|TRUE|false|False|FALSE",
    "tag:yaml.org,2002:int": r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+",
    "tag:yaml.org,2002:float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
    ),
}
_TEXT = "tag:yaml.org,2002:str"
_LIST = "tag:yaml.org,2002:seq"
_MAPPING = "tag:yaml.org,2002:map"


class _Loader(yaml.SafeLoader):
    """PyYAML's parser with the resolvers of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it


class Dumper(yaml.SafeDumper):
    """PyYAML's emitter with the same resolvers: quotes text that `read` would not read as text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - as PyYAML declares it


def _represent_text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """Quote text with Unicode's own line breaks, so that they do not break the line in the file."""
    style = '"' if re.search("[\x85\u2028\u2029]", text) else None
    return dumper.represent_scalar(_TEXT, text, style)


Dumper.add_representer(str, _represent_text)

for _tag, _pattern in _CORE_SCHEMA.items():
    for _class in (_Loader, Dumper):
        _class.add_implicit_resolver(_tag, re.compile(rf"^(?:{_pattern})$"), None)


@dataclass
class Document:
    """A parsed YAML file: plain values, and the position of each in the file.

    Parameters
    ----------
    source : str
        Name of the document for messages, usually the path of the file.
    data : dict
        Mappings, lists, text, numbers, booleans and None.
    keys, values : dict
        Positions (``configs/x.yaml:7:9``) of the keys and of the values, by path.
    folder : Path, optional
        Folder of the file; relative paths in it are searched there first.
    """

    source: str
    data: dict[str, Any]
    keys: dict[KeyPath, str] = field(default_factory=dict)
    values: dict[KeyPath, str] = field(default_factory=dict)
    folder: Path | None = None

    def position(self, path: KeyPath, *, of_key: bool = False) -> str:
        """Return the position of a value or of its key; of a missing value, that of its parent."""
        if of_key and path in self.keys:
            return self.keys[path]
        while path and path not in self.values:
            path = path[:-1]
        return self.values.get(path, self.source)


def read_config(name: Path, *, sweep_file: Document | None = None, pipes: bool = True) -> Document:
    """Read the YAML file that a user names: a path, a preset, or ``-`` for standard input.

    Parameters
    ----------
    name : Path
        Path or name of the configuration.
    sweep_file : Document, optional
        Sweep file with this base; paths are relative to its folder.
    pipes : bool
        Whether the file may be a pipe or a device; see `read_file`.

    Raises
    ------
    ConfigError
        The file or preset does not exist, cannot be read or is not valid YAML.
    """
    if sweep_file is None and str(name) == STDIN:
        content = sys.stdin.buffer.read(MAX_BYTES + 1)
        return _parse(content, "<stdin>")
    path, source = locate_config(name, sweep_file.folder if sweep_file else None)
    return read_file(path, pipes=pipes, source=source)


def read_file(path: Path, *, pipes: bool = True, source: str | None = None) -> Document:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        Path of the file.
    pipes : bool
        Whether the file may be a pipe or a device. Reading a pipe waits for its writer, so this is
        for files that the user names on the command line.
    source : str, optional
        Name of the file in messages; by default its path.

    Raises
    ------
    ConfigError
        The file cannot be read or is not valid YAML. Lists every mistake found.
    """
    hint = None
    try:
        if not pipes and not stat.S_ISREG(path.stat().st_mode):
            raise OSError(errno.EINVAL, "it is a directory, a pipe or a device")
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        mistake = f"{path}: file not found"
    except OSError as error:
        mistake, hint = f"{path}: cannot read: {error.strerror}", limit_hint(error)
    except ValueError as error:  # a NUL in the name
        mistake = f"{str(path)!r}: invalid file name: {error}"
    else:
        document = _parse(content, source or str(path))
        document.folder = path.parent
        return document
    raise ConfigError(str(path), [mistake], hint=hint)


def _parse(content: bytes, source: str) -> Document:
    """Parse the bytes of a file, whose size and encoding are checked."""
    if len(content) > MAX_BYTES:
        raise ConfigError(source, [f"{source}: file is larger than {MAX_BYTES:,} bytes"])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        mistake = f"{source}:{line}: not UTF-8 text"
        raise ConfigError(source, [mistake], hint="Save the file as UTF-8.") from None
    return read(text, source)


def read(text: str, source: str) -> Document:
    """Parse YAML text whose top level is a mapping; see `read_file`."""
    builder = _Builder(source)
    data = builder.build(text)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise ConfigError(source, [f"{source}: the top level must be a mapping (key: value)"])
    return Document(source, data, builder.keys, builder.values)


def read_value(text: str, source: str) -> Any:
    """Parse one YAML value from the command line."""
    return _Builder(source, with_lines=False).build(text)


class _Builder:
    """Converts PyYAML's nodes to plain values and collects mistakes."""

    def __init__(self, source: str, *, with_lines: bool = True) -> None:
        self.source = source
        self.with_lines = with_lines
        self.keys: dict[KeyPath, str] = {}
        self.values: dict[KeyPath, str] = {}
        self.mistakes: list[str] = []
        self.count = 0

    def build(self, text: str) -> Any:
        try:
            node = yaml.compose(text, _Loader)
            value = None if node is None else self._value(node, ())
        except yaml.MarkedYAMLError as error:
            what = error.problem or error.context or "invalid YAML"
            if "\\t" in what:
                what = "YAML does not allow tabs for indentation; use spaces"
            mark = error.problem_mark or error.context_mark
            raise ConfigError(self.source, [f"{self._position(mark)}: {what}"]) from None
        except yaml.YAMLError as error:
            problem = str(error).splitlines()[0]
            raise ConfigError(self.source, [f"{self.source}: {problem}"]) from None
        except RecursionError:
            raise ConfigError(self.source, [f"{self.source}: nested too deeply"]) from None
        if self.mistakes:
            raise ConfigError(self.source, self.mistakes)
        return value

    def _position(self, mark: yaml.Mark | None) -> str:
        if mark is None or not self.with_lines:
            return self.source
        return f"{self.source}:{mark.line + 1}:{mark.column + 1}"

    def _report(self, node: yaml.Node, problem: str) -> None:
        self.mistakes.append(f"{self._position(node.start_mark)}: {problem}")

    def _value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        if self.count > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem="too many values", problem_mark=node.start_mark)
        if len(path) > MAX_DEPTH:
            raise yaml.MarkedYAMLError(problem="nested too deeply", problem_mark=node.start_mark)
        self.values[path] = self._position(node.start_mark)
        if not _matches_tag(node):
            self._report(node, f"the YAML tag {node.tag} is not allowed here")
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self._value(item, (*path, i)) for i, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag != _TEXT or not isinstance(key_node, yaml.ScalarNode):
                self._report(key_node, "a key must be text")
            elif (key := self._text(key_node)) is None:
                continue
            elif key in mapping:
                first = self.keys[(*path, key)].removeprefix(f"{self.source}:")
                self._report(key_node, f"duplicate key '{key}' (first defined at {first})")
            else:
                self.keys[(*path, key)] = self._position(key_node.start_mark)
                mapping[key] = self._value(value_node, (*path, key))
        return mapping

    def _scalar(self, node: yaml.Node) -> Any:
        text, kind = node.value, node.tag.rpartition(":")[2]
        match kind:
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int" | "float":
                number = _number(text, kind)
                if number is None:
                    problem = f"expected a finite number of at most 64 bits, got {text[:40]}"
                    self._report(node, problem)
                return number
        return self._text(node)

    def _text(self, node: yaml.Node) -> str | None:
        """Return the text of a scalar. YAML escapes can produce surrogates, but UTF-8 cannot."""
        text = str(node.value)
        if not re.search("[\ud800-\udfff]", text):
            return text
        self._report(node, "text cannot be encoded as UTF-8")
        return None


def _number(text: str, kind: str) -> float | None:
    """Return a number, or None if it is not finite or has more than 64 bits."""
    try:
        if kind == "int":
            whole = int(text, 8 if text.startswith("0o") else 16 if "x" in text else 10)
            return whole if abs(whole) < 2**64 else None
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _matches_tag(node: yaml.Node) -> bool:
    """Check that a node's tag is in the core schema, and that the value matches the tag."""
    if isinstance(node, yaml.SequenceNode):
        return node.tag == _LIST
    if isinstance(node, yaml.MappingNode):
        return node.tag == _MAPPING
    pattern = _CORE_SCHEMA.get(node.tag)
    return node.tag == _TEXT or (pattern is not None and bool(re.fullmatch(pattern, node.value)))
