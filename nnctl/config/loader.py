"""Returns the checked `Config` of a file and overrides, reports all mistakes, and writes YAML."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import re
import sys
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticSerializationError

from nnctl.config.checks import CHECKS, Check, Problem
from nnctl.config.overrides import Override, apply_overrides
from nnctl.config.reader import Document, Dumper, KeyPath
from nnctl.config.schema import Config
from nnctl.config.tables import TableEntry
from nnctl.config.words import Answer, find_answer, normalized, suggest_value
from nnctl.errors import MAX_LISTED, ConfigError
from nnctl.nn.optimizers import OPTIMIZERS
from nnctl.text import nearest, quoted, short_value, variable_advice

Model = TypeVar("Model", bound=BaseModel)

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "string_unicode": "text that can be encoded as UTF-8",
    "list_type": "a list",
    "model_type": "a mapping (key: value)",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "dict_type": "a mapping (key: value)",
    "finite_number": "a finite number",
    "too_short": "{min_length} or more items",
    "too_long": "{max_length} or fewer items",
    "string_too_short": "text that is not empty",
    "literal_error": "{expected}",
}
"""Expected value, by the type of pydantic's error."""

_PLACEHOLDERS: dict[str | int, Any] = {
    "units": 1,
    "activation": "linear",
    "learning_rate": 1e-9,
    "patience": 1,
}
"""Valid values for required keys: they replace wrong ones, so that more mistakes can be found."""


def resolve(
    document: Document, overrides: Sequence[Override] = (), checks: Iterable[Check] = ()
) -> Config:
    """Apply overrides to a document, and return the checked configuration.

    Parameters
    ----------
    document : Document
        Parsed file; the overrides are written into it.
    overrides : sequence of Override
        Values to set, in order; the last one for a key wins.
    checks : iterable of Check
        Checks in addition to those of the configuration alone.

    Raises
    ------
    ConfigError
        The configuration is invalid. Lists every mistake with its position.
    """
    apply_overrides(document, overrides)
    return validate(Config, document, (*CHECKS, *checks))


def validate(
    model: type[Model], document: Document, checks: Iterable[Callable[[Model], Iterator[Problem]]]
) -> Model:
    """Return the content of a document as a model, or raise a `ConfigError` with all mistakes."""
    value, problems = _validate(model, document.data)
    if value:
        wrong = [path for problem in problems for path in (problem.path, *problem.related)]
        others = [problem for check in checks for problem in check(value)]
        problems += [problem for problem in others if not _depends_on(problem, wrong)]
    if problems:
        mistakes = [_describe(problem, document) for problem in problems]
        raise ConfigError(document.source, sorted(mistakes, key=_line_and_column))
    assert value is not None
    return value


def to_mapping(config: BaseModel, *, defaults: bool = True) -> dict[str, Any]:
    """Return a configuration as plain values, with or without the keys that were not set."""
    try:
        return config.model_dump(mode="json", exclude_unset=not defaults)
    except PydanticSerializationError as error:
        # Pydantic wraps an interrupt in our serializers; in nested ones it drops the cause.
        if ": KeyboardInterrupt: " in str(error):
            raise KeyboardInterrupt from None
        raise


def to_yaml(mapping: Mapping[str, Any], comment: str = "") -> str:
    """Return plain values as YAML that reads back as the same values."""
    lines = "".join(f"# {line}\n" for line in comment.splitlines())
    return lines + yaml.dump(
        dict(mapping),
        Dumper=Dumper,
        sort_keys=False,
        default_flow_style=None,
        allow_unicode=True,
        width=100,
    )


def possible_settings(model: type[BaseModel] = Config) -> Iterator[tuple[str, list[str]]]:
    """Yield the dotted keys of a configuration, with 0 as the number of a layer.

    Each key comes with the words that are its values, for example the names of the optimizers.
    """
    for key, field in _keys(model):
        if field.annotation not in [*_sections(field.annotation)]:  # no option sets a section
            yield _full_key(key), [*itertools.chain(*_tables(field)), *_words(field.annotation)]


def _words(annotation: Any) -> Iterator[str]:
    """Yield the strings and truth values that a type allows."""
    if annotation is bool:
        yield from ("true", "false")
    elif typing.get_origin(annotation) is Literal:
        yield from typing.get_args(annotation)
    else:
        for argument in typing.get_args(annotation):
            yield from _words(argument)


def from_mapping(mapping: Mapping[str, Any], source: str) -> Config:
    """Return the checked configuration of plain values, such as a checkpoint's; see `resolve`."""
    return resolve(Document(source, copy.deepcopy(dict(mapping))))


def replaced(config: Config, values: Mapping[str, Any]) -> Config:
    """Return a copy of a configuration with new values for the given dotted keys."""
    overrides = [Override(key, value, key) for key, value in values.items()]
    return resolve(Document("the configuration", to_mapping(config)), overrides)


def _validate(model: type[Model], data: dict[str, Any]) -> tuple[Model | None, list[Problem]]:
    """Return the model with wrong values replaced, None if still invalid, and the mistakes.

    A misspelled key is renamed and its value is validated again, so that all mistakes are found.
    """
    problems: list[Problem] = []
    renamed: dict[KeyPath, KeyPath] = {}
    while True:
        try:
            return model.model_validate(data), problems
        except ValidationError as error:
            found = list(_problems(model, error.errors(include_url=False), data))
        data, before = copy.deepcopy(data), {*renamed}
        for problem in [one for one in found if one.of_key]:
            _repair(data, problem, renamed)
        missing = renamed.keys() - before  # the same mistakes as their wrong names
        found = [one for one in found if one.path not in missing]
        for problem in [one for one in found if not one.of_key]:
            _repair(data, problem, renamed)
        new = [dataclasses.replace(one, path=_written(one.path, renamed)) for one in found]
        if problems:  # only mistakes below renamed keys are new ones of the user
            below = [one for one, old in zip(new, found, strict=True) if one.path != old.path]
            new = [one for one in below if one not in problems]
        if not new:
            return None, problems
        problems += new


def _written(path: KeyPath, renamed: Mapping[KeyPath, KeyPath]) -> KeyPath:
    """Return a path as the user wrote it, with misspelled keys."""
    for new, old in reversed(list(renamed.items())):
        if path[: len(new)] == new:
            return old + path[len(new) :]
    return path


def _problems(
    model: type[BaseModel], errors: Sequence[ErrorDetails], data: dict[str, Any]
) -> Iterator[Problem]:
    """Yield pydantic's errors as problems, one for each value."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for error in errors:
        by_path.setdefault(_path(error, data), []).append(error)
    for number, (path, alternatives) in enumerate(by_path.items()):
        error = alternatives[0]
        match error["type"]:
            case "missing":
                yield Problem(path, f"'{path[-1]}' is missing")
            case "extra_forbidden":
                if number < MAX_LISTED:
                    yield _unknown_key(model, error["loc"], path, error["input"])
                else:  # finding suggestions is slow
                    yield Problem(path, "unknown key", of_key=True)
            case "value_error":
                yield Problem(path, f"{error['ctx']['error']}{variable_advice(error['input'])}")
            case _:
                expected = " or ".join(dict.fromkeys(map(_expectation, alternatives)))
                got = error["input"]
                suggestion = variable_advice(got)
                suggestion = suggestion or _suggest_value(model, got, alternatives, path)
                yield Problem(path, f"expected {expected}, got {_shown(got)}{suggestion}")


def _path(error: ErrorDetails, data: Any) -> KeyPath:
    """Return the path of an error in the data, without pydantic's names of union members."""
    path: list[str | int] = []
    *parents, last = error["loc"] or ("",)
    for step in parents:
        if _has(data, step):
            path.append(step)
            data = data[step]
    if _has(data, last) or error["type"] == "missing":
        path.append(last)
    return tuple(path)


def _has(data: Any, step: str | int) -> bool:
    """Check whether a value is a mapping with a key, or a list with an index."""
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


def _expectation(error: ErrorDetails) -> str:
    return _EXPECTED.get(error["type"], error["msg"]).format(**error.get("ctx", {}))


def _shown(value: Any) -> str:
    match value:
        case dict():
            return "a mapping"
        case list():
            return f"a list of length {len(value)}"
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case str():
            return f"the text {quoted(value[:40])}"
    return str(value)[:40]


def _suggest_value(
    model: type[BaseModel], value: Any, errors: Sequence[ErrorDetails], path: KeyPath
) -> str:
    if isinstance(value, float) and path in (("data", "validation"), ("data", "subset")):
        return "; write a number of examples, not a fraction"
    if not isinstance(value, str):
        return ""
    if path == ("optimizer",):  # its name in place of the section
        name = value.lower()
        return f"; use optimizer.name: {name}" if name in OPTIMIZERS else suggest_value(value, ())
    if errors[0]["type"] == "list_type":  # its items in place of the list
        known = dict(possible_settings(model)).get(".".join(map(str, path)), [])
        items = re.split(r"[\s,]+", value.strip())
        return f"; use {short_value(items)}" if {*items} <= {*known} else suggest_value(value, ())
    known = [
        word
        for error in errors
        for word in error.get("ctx", {}).get("expected", "").split("'")[1::2]
    ]
    return suggest_value(value, known)


def _unknown_key(model: type[BaseModel], loc: KeyPath, path: KeyPath, value: Any) -> Problem:
    """Return the problem of an unknown key, with the key that was probably meant."""
    key, parent = str(path[-1]), path[:-1]
    siblings, keys = _valid_keys(model, loc[:-1]), [dotted for dotted, _ in _keys(model)]
    elsewhere: dict[str, str] = {}
    section = ".".join(step for step in parent if isinstance(step, str))
    if section in {dotted.rpartition(".")[0] for dotted in keys}:
        keys.sort(key=lambda dotted: -dotted.count("."))  # the shortest key of a name comes last
        elsewhere = {dotted.rpartition(".")[2]: dotted for dotted in keys}
    related: tuple[KeyPath, ...] = ()
    if key == "<<":
        advice = " (a merge key), which YAML 1.2 does not have; write the merged keys out"
    elif key in elsewhere:
        *_, above, _ = ("", *elsewhere[key].split("."))
        nested = above in siblings  # network.layers.2.weights: init is a key of each layer too
        full = ".".join(map(str, (*parent, above, key))) if nested else _full_key(elsewhere[key])
        advice = f" here; use {full}"
    elif answer := _answer(model, path, siblings, value):
        advice = f"; {answer.below(parent, siblings).text()}"
        same = answer.key.rpartition(".")[2]
        # A value may be a word of the answer as well, as in ``regularization: l2``.
        is_word = isinstance(value, str) and find_answer(value) == answer
        related = ((*parent, same),) if same in siblings and not is_word else ()
    elif meant := nearest(key, siblings):
        advice, related = f"; did you mean '{meant}'?", ((*parent, meant),)
    else:
        known = (
            f"; valid keys: {', '.join(siblings)}" if siblings else "; no other keys are allowed"
        )
        meant = nearest(key, elsewhere)
        advice = f"; did you mean '{_full_key(elsewhere[meant])}'?" if meant else known
    return Problem(path, f"unknown key {quoted(key)}{advice}", related, of_key=True)


def _answer(
    model: type[BaseModel], path: KeyPath, siblings: Sequence[str], value: Any
) -> Answer | None:
    """Return the answer for a key with the name in a book, unless it is only written otherwise.

    A value may say more than its key, as in ``regularization: l1``.
    """
    key = str(path[-1])
    if model is not Config or normalized(key) in map(normalized, siblings):
        return None
    answer = find_answer(".".join(map(str, path[-2:]))) or find_answer(key)
    of_value = find_answer(value) if answer and isinstance(value, str) else None
    if answer and of_value and of_value.settings.keys() != answer.settings.keys():
        return of_value
    return answer


def _full_key(key: str) -> str:
    """Return a key with the number of the first layer, which `key` may lack."""
    return re.sub(r"^network\.layers\.(?!0\.)", "network.layers.0.", key)


def _valid_keys(model: type[Any], loc: KeyPath) -> list[str]:
    """Return the valid keys of a mapping, which may be a member of a union."""
    members: dict[str, type[Any]] = {"": model}
    for step in map(str, loc):
        below = [item for member in members.values() for item in _members(member, step).items()]
        members = {"": members[step]} if step in members else dict(below) or members
    member = next(iter(members.values()))
    if issubclass(member, BaseModel):
        return list(member.model_fields)
    return [field.name for field in dataclasses.fields(member)]


def _members(model: type[Any], key: str) -> dict[str, type[Any]]:
    """Return the sections or the table entries that a key may have, by their names in pydantic."""
    if not issubclass(model, BaseModel) or key not in model.model_fields:
        return {}
    field = model.model_fields[key]
    members: dict[str, type[Any]] = {part.__name__: part for part in _sections(field.annotation)}
    for table in _tables(field):
        members |= table
    return members


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield the dotted keys of a model and of its sections, each with its field."""
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}", field
        for section in _sections(field.annotation):
            yield from _keys(section, f"{prefix}{name}.")


def _tables(field: FieldInfo) -> list[Mapping[str, type[Any]]]:
    """Return the table whose entries a field may have, if there is one."""
    return [item.table for item in field.metadata if isinstance(item, TableEntry)]


def _sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from _sections(argument)


def _repair(data: Any, problem: Problem, renamed: dict[KeyPath, KeyPath]) -> None:
    """Rename a misspelled key, or replace a wrong value by the default or a valid placeholder."""
    *parents, last = problem.path or ("",)
    for step in parents:
        if not _has(data, step):
            return
        data = data[step]
    if isinstance(data, list):  # the only list in the schema holds the layers
        data[int(last)] = {"units": 1, "activation": "linear"}
    elif isinstance(data, dict):
        value = data.pop(last, None)
        if problem.of_key:
            for meant in problem.related:
                if meant[-1] not in data:
                    data[meant[-1]] = value
                    renamed[meant] = _written(problem.path, renamed)
        elif last in _PLACEHOLDERS:
            data[last] = _PLACEHOLDERS[last]


def _depends_on(problem: Problem, wrong: Iterable[KeyPath]) -> bool:
    """Check whether a problem may be caused by a wrong value that was replaced."""
    return any(
        all(step == other for step, other in zip(path, bad, strict=False))
        for path in (problem.path, *problem.related)
        for bad in wrong
    )


def _describe(problem: Problem, document: Document) -> str:
    """Return a problem as text: its position, its dotted key and its message."""
    position = document.position(problem.path, of_key=problem.of_key)
    dotted = ".".join(map(str, problem.path))
    return f"{position}: {dotted + ': ' if dotted else ''}{problem.message}"


def _line_and_column(mistake: str) -> tuple[int, int]:
    """Return the sort key of a mistake: its position in the file; those in options come last."""
    match = re.match(r".*?:(\d{1,9}):(\d{1,9}): ", mistake)
    return (int(match[1]), int(match[2])) if match else (sys.maxsize, 0)
