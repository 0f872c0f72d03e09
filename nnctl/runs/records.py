"""Base of the models of all files that nnctl writes and reads back.

A checksum detects damage, but not a file that was written by hand: its author can compute the
checksum, too. So the type and the range of every value are checked before it is used.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json

from nnctl.config.schema import MAX_WHOLE
from nnctl.errors import DamagedFileError, DataError
from nnctl.files import read_bytes

FORMAT_VERSION = 1
"""Format version of a run directory, stored in its records."""
_LARGEST = 1e100  # far more than any quotient of two 32-bit floats

Count = Annotated[int, Field(ge=0, le=MAX_WHOLE)]
PositiveCount = Annotated[int, Field(ge=1, le=MAX_WHOLE)]
Number = Annotated[float, Field(ge=-_LARGEST, le=_LARGEST)]
Share = Annotated[float, Field(ge=0, le=1)]


class Record(BaseModel):
    """Base of the models: rejects wrong types and infinite numbers, and ignores unknown keys."""

    model_config = ConfigDict(strict=True, frozen=True, allow_inf_nan=False)


class FileRecord(Record):
    """Base of the models that are a whole file, as opposed to a line or a part of one."""

    format_version: int = FORMAT_VERSION

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values."""
        return self.model_dump()


_Kind = TypeVar("_Kind", bound=FileRecord)


def read_record(path: Path, kind: type[_Kind]) -> _Kind | None:
    """Read a file of a run; return None if it does not exist.

    Raises
    ------
    DataError
        The file is damaged or was written by a later version.
    """
    try:
        content = json.loads(read_bytes(path))
        if not isinstance(content, dict):
            raise ValueError("it is not a JSON object")
        if "format_version" in content:  # the first versions wrote none
            check_version(path, content["format_version"], FORMAT_VERSION)
        # Pydantic rejects lone surrogates, which the name of a folder may have.
        text = json.dumps(content, ensure_ascii=False).encode(errors="replace")
        return kind.model_validate_json(text)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DamagedFileError(f"{path} is damaged: {error.strerror or error}") from None
    except ValidationError as error:
        raise DamagedFileError(f"{path} is damaged: {first_problem(error)}") from None
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}") from None


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
