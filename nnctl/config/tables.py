"""Reads and writes activations, initializers and schedules: a name, or a mapping with parameters.

Both ``relu`` and ``{name: leaky_relu, negative_slope: 0.1}`` are checked against the fields of the
dataclasses in the table, so that a new entry in a table needs no code here.
"""

from __future__ import annotations

import dataclasses
import functools
import operator
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler, create_model
from pydantic_core import CoreSchema, core_schema

from nnctl.config.words import suggest_value
from nnctl.text import quoted


@dataclasses.dataclass(frozen=True)
class TableEntry:
    """Annotation of a field that holds an entry of a table: ``Annotated[Activation, OneOf(...)]``.

    Parameters
    ----------
    kind : str
        Name of such an entry in messages, for example ``activation``.
    table : mapping of str to dataclass
        Entries by name. A class may have several names; its attribute ``name`` is the one written.
    """

    kind: str
    table: Mapping[str, type[Any]]

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        models = tuple(_model(kind, self.table) for kind in dict.fromkeys(self.table.values()))
        union = functools.reduce(operator.or_, models)
        tagged = handler.generate_schema(
            Annotated[union, Field(discriminator="name")] if len(models) > 1 else union
        )
        built = core_schema.no_info_after_validator_function(self._build, tagged)
        return core_schema.no_info_before_validator_function(
            self._expand,
            built,
            serialization=core_schema.plain_serializer_function_ser_schema(write),
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        lines = "\n".join(f"{name}: {_summary(kind)}" for name, kind in self.table.items())
        names = {"enum": list(self.table), "description": lines}
        return {"anyOf": [names, handler(schema)]}

    def _expand(self, value: Any) -> Any:
        """Turn a name into a mapping; raise an error for other values and for unknown names."""
        if isinstance(value, tuple(set(self.table.values()))):
            value = write(value)
        if isinstance(value, str):
            value = {"name": value}
        if not isinstance(value, dict) or not isinstance(value.get("name"), str):
            raise ValueError(f"expected the name of a known {self.kind}")
        name = value["name"]
        if name not in self.table:
            suggestion = suggest_value(name, self.table)
            known = suggestion or f"; choose from: {', '.join(self.table)}"
            raise ValueError(f"unknown {self.kind} {quoted(name)}{known}")
        return value

    def _build(self, model: BaseModel) -> Any:
        parameters = dict(model)
        return self.table[parameters.pop("name")](**parameters)


def write(entry: Any) -> str | dict[str, Any]:
    """Return an entry as plain values: its name alone if all its parameters are the defaults."""
    parameters = dataclasses.asdict(entry)
    if entry == type(entry)():
        return str(entry.name)
    return {"name": entry.name, **parameters}


def _model(kind: type[Any], table: Mapping[str, type[Any]]) -> type[BaseModel]:
    """Return a pydantic model of a dataclass, with all its names in the table."""
    names = tuple(name for name, entry in table.items() if entry is kind)
    hints = get_type_hints(kind)
    parameters: dict[str, Any] = {"name": (Literal[names], ...)}
    for field in dataclasses.fields(kind):
        parameters[field.name] = (hints[field.name], field.default)
    return create_model(
        kind.__name__,
        __config__=ConfigDict(extra="forbid", strict=True, allow_inf_nan=False),
        __doc__=_summary(kind),
        **parameters,
    )


def _summary(kind: type[Any]) -> str:
    return (kind.__doc__ or "").strip().splitlines()[0]
