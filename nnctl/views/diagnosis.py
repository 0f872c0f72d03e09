"""Prints why a network does not learn."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from nnctl.diagnosis.base import Diagnosis
from nnctl.views.console import GREEN, ORANGE, say

WHY = "Problems found:"
_WIDTH = 100  # characters; longer lines are hard to read


def show_diagnoses(console: Console, title: str, diagnoses: Sequence[Diagnosis]) -> None:
    """Print the evidence, the reason and the remedy of each diagnosis; nothing if there is none."""
    if not diagnoses:
        return
    say(console, Text(title, f"bold {ORANGE}"))
    for diagnosis in diagnoses:
        _paragraph(console, Text.assemble((f"{diagnosis.title}: ", "bold"), diagnosis.evidence), 2)
        _paragraph(console, Text(f"{_capitalized(diagnosis.reason)}."), 4)
        _paragraph(console, Text.assemble(("Try: ", GREEN), f"{diagnosis.cure}."), 4)


def _paragraph(console: Console, text: Text, indent: int) -> None:
    """Print a paragraph; in a file it is a single line, so that it can be searched."""
    if console.is_terminal:
        width = min(console.width, _WIDTH)
        console.print(Padding(text, (0, 0, 0, indent)), width=width)
    else:
        say(console, Text.assemble(" " * indent, text))


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]
