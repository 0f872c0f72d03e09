"""Base of the models of all files that nnctl writes and reads back.

A checksum detects damage, but not a file that was written by hand: its author can compute the
checksum, too. So the type and the range of every value are checked before it is used.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DataError

_LARGEST = 1e100  # far more than any quotient of two 32-bit floats

Count = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Base of the models: rejects wrong types and infinite numbers, and ignores unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


def parse_json(text: bytes | str) -> Any:
    """Return the value of a JSON text, for `Record.model_validate`.

    Raises
    ------
    ValueError
        The text is not JSON, or is nested too deeply, or contains a lone surrogate or an integer
        with thousands of digits.
    """
    return from_json(text)


def first_problem(error: ValidationError) -> str:
    """Return the first problem of a record with its location, as in ``best.epoch: ...``."""
    problem = error.errors(include_url=False, include_input=False)[0]
    location = ".".join(map(str, problem["loc"]))
    return f"{location}: {problem['msg'].lower()}" if location else problem["msg"].lower()


def check_version(path: object, version: Any, known: int) -> None:
    """Check that a file has the format version that this program reads.

    Raises
    ------
    DataError
        The version is different or missing.
    """
    if version != known or type(version) is not int:
        raise DataError(
            f"{path} has format version {str(version)[:20]}; this nnctl reads {known}",
            hint="Install the version of nnctl that wrote it.",
        )
