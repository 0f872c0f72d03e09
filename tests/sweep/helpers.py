"""What the tests of whole sweeps share."""

from __future__ import annotations

import csv
from pathlib import Path


def table(directory: Path | str) -> list[dict[str, str]]:
    """Return the results of a sweep without what a clock, a place or a process number is in."""
    with Path(directory, "results.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [
        {key: row[key] for key in row if key not in ("seconds", "run_dir", "log")} for row in rows
    ]
