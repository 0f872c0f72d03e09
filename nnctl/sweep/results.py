"""The results of a sweep as files: ``results.jsonl`` and ``results.csv``, a row a trial."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

from nnctl.errors import NnctlError
from nnctl.files import write_atomically
from nnctl.sweep.trials import TrialResult


def write_results(directory: Path, results: list[TrialResult]) -> None:
    """Write both files anew, in the order of the trials.

    Raises
    ------
    NnctlError
        The directory cannot be written.
    """
    rows = sorted(results, key=lambda result: result.number)
    lines = "".join(f"{json.dumps(row.to_json())}\n" for row in rows)
    try:
        write_atomically(directory / "results.jsonl", lines.encode())
        write_atomically(directory / "results.csv", _csv(rows).encode())
    except OSError as error:
        raise NnctlError(f"{directory} cannot be written: {error.strerror or error}") from None


def _csv(rows: list[TrialResult]) -> str:
    """Return the rows as a table with a column for each key that varies."""
    text = io.StringIO(newline="")
    keys = list(rows[0].point) if rows else []
    plain = [key for key in rows[0].to_json() if key != "parameters"] if rows else []
    writer = csv.DictWriter(text, [*plain, *keys], lineterminator="\n")
    writer.writeheader()
    for row in rows:
        cells = row.to_json()
        del cells["parameters"]
        values = {
            key: value if isinstance(value, str | int | float) else json.dumps(value)
            for key, value in row.point.items()
        }
        writer.writerow(cells | values)
    return text.getvalue()
