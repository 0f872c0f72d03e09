"""Values generated from a JSON Schema, many at the limits that it allows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

Strategy = st.SearchStrategy[Any]

EDGES = (0, 1, -1, 2, 9, 10, 255, 1000, 10**6, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1)
TINY_AND_HUGE = (5e-324, 1e-300, 1e-45, 1e-8, 0.1, 0.5, 0.99, 1.0, 3.0, 1e4, 1e38, 1e300, 1.7e308)
WORDS = ("", "auto", "mini", "and", "relu", "softmax", "sgd", "unіts", "\x1b[2J", "\ud800", "a\0b")

SCALARS: Strategy = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from(EDGES),
    st.sampled_from(TINY_AND_HUGE),
    st.sampled_from(WORDS),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
)
ANYTHING: Strategy = st.recursive(
    SCALARS,
    lambda nested: st.lists(nested, max_size=3) | st.dictionaries(st.text(max_size=8), nested),
    max_leaves=6,
)


def fitting(schema: dict[str, Any]) -> Strategy:
    """Return a strategy for values that a JSON Schema of nnctl allows."""
    definitions: dict[str, Strategy] = {}
    known = schema.get("$defs", {})

    def of(part: dict[str, Any]) -> Strategy:
        match part:
            case {"$ref": str(ref)}:
                name = ref.rpartition("/")[2]
                if name not in definitions:
                    definitions[name] = st.deferred(lambda: made[name])
                    made[name] = of(known[name])
                return definitions[name]
            case {"enum": names}:
                return st.sampled_from(names)
            case {"const": value}:
                return st.just(value)
            case {"anyOf": parts} | {"oneOf": parts} if "properties" not in part:
                return st.one_of([of(one) for one in parts])
            case {"type": kind}:
                return _TYPES[kind](part, of)
        return ANYTHING

    made: dict[str, Strategy] = {}
    return of(schema)


def _object(part: dict[str, Any], of: Callable[[dict[str, Any]], Strategy]) -> Strategy:
    properties = part.get("properties", {})
    if not properties:
        nested = of(part.get("additionalProperties", {}))
        return st.dictionaries(st.sampled_from(WORDS), nested, min_size=1, max_size=3)
    required = part.get("required", [])
    return st.fixed_dictionaries(
        {name: of(properties[name]) for name in required},
        optional={name: of(nested) for name, nested in properties.items() if name not in required},
    )


def _array(part: dict[str, Any], of: Callable[[dict[str, Any]], Strategy]) -> Strategy:
    return st.lists(of(part.get("items", {})), min_size=part.get("minItems", 0), max_size=4)


def _number(part: dict[str, Any], _: object) -> Strategy:
    low = part.get("minimum", part.get("exclusiveMinimum", -math.inf))
    high = part.get("maximum", part.get("exclusiveMaximum", math.inf))
    return st.one_of(
        st.sampled_from([edge for edge in (*TINY_AND_HUGE, 0.0) if low <= edge <= high]),
        st.floats(low, high, allow_nan=False, allow_infinity=False),
    )


def _integer(part: dict[str, Any], _: object) -> Strategy:
    low, high = part.get("minimum"), part.get("maximum")
    fit = [edge for edge in EDGES if (low or 0) <= edge <= (high or math.inf)]
    return st.one_of(st.sampled_from(fit), st.integers(low, high))


_TYPES: dict[str, Callable[..., Strategy]] = {
    "object": _object,
    "array": _array,
    "number": _number,
    "integer": _integer,
    "boolean": lambda *_: st.booleans(),
    "string": lambda *_: st.sampled_from(WORDS) | st.text(max_size=8),
    "null": lambda *_: st.none(),
}


@st.composite
def spoiled(draw: st.DrawFn, values: Strategy) -> Any:
    """Generate a value, and replace, remove or repeat a few parts of it."""
    value = {"": copy.deepcopy(draw(values))}
    for _ in range(draw(st.integers(1, 3))):
        container = draw(st.sampled_from(list(_containers(value))))
        steps = list(container) if isinstance(container, dict) else list(range(len(container)))
        if not steps:
            continue
        step = draw(st.sampled_from(steps))
        match draw(st.sampled_from(("replace", "replace", "remove", "repeat", "rename"))):
            case "replace":
                container[step] = draw(ANYTHING)
            case "remove" if container is not value:
                del container[step]
            case "repeat" if isinstance(container, list):
                container.extend(copy.deepcopy(container[step]) for _ in range(2))
            case "rename" if isinstance(container, dict) and container is not value:
                container[draw(st.text(max_size=8))] = container.pop(step)
            case _:
                other = draw(st.sampled_from(steps))
                container[step] = copy.deepcopy(container[other])
    return value[""]


def _containers(value: Any) -> Iterator[Any]:
    if isinstance(value, dict | list):
        if value:
            yield value
        for nested in value.values() if isinstance(value, dict) else value:
            yield from _containers(nested)
