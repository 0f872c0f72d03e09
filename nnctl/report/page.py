"""Rendering of the page from ``page.html``. The only module that imports Jinja."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import nnctl
from nnctl.nn.metrics import expected_calibration_error
from nnctl.report import sections
from nnctl.report.charts import COLORS, Chart, Line, draw_calibration, draw_lines
from nnctl.report.comparison import compare
from nnctl.report.run_report import PROBED, Portrait
from nnctl.report.sprites import Sheet
from nnctl.report.sweep_report import Study
from nnctl.report.weights import describe_network, rounding
from nnctl.sweep.space import short_keys

GENERATOR = "nnctl report"
"""Name in the page's generator tag, which identifies pages of nnctl."""

_SCRIPTS = ("network.js", "handwriting.js", "page.js")


def render(ranked: Sequence[Portrait], studies: Sequence[Study]) -> str:
    """Return the page of one or several runs.

    Parameters
    ----------
    ranked : sequence of Portrait
        The runs, the best first; the page shows the first one in full.
    studies : sequence of Study
        The sweeps that the runs belong to.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("nnctl", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": _percent,
        "chance": _chance,
        "duration": _duration,
        "short": short_keys,
    }
    files = resources.files("nnctl.report")
    names = _names(ranked)
    several = len(ranked) > 1
    return environment.get_template("page.html").render(
        title=_title(ranked, studies),
        generator=f"{GENERATOR} {nnctl.__version__}",
        style=files.joinpath("page.css").read_text("utf-8"),
        scripts=[files.joinpath(name).read_text("utf-8") for name in _SCRIPTS],
        names=names,
        comparison=compare(ranked) if several else None,
        overlaid=_overlay(ranked, names) if several else [],
        studies=studies,
        **_context_of(ranked[0]),
    )


def _title(ranked: Sequence[Portrait], studies: Sequence[Study]) -> str:
    if len(ranked) == 1:
        return ranked[0].name
    return ", ".join(study.name for study in studies) or f"{len(ranked)} runs"


def _names(portraits: Sequence[Portrait]) -> dict[Path, str]:
    """Return a name per run: its directory name, or its path if two names are equal."""
    short = [portrait.name for portrait in portraits]
    directories = [portrait.run.directory for portrait in portraits]
    return {
        directory: name if short.count(name) == 1 else str(directory)
        for directory, name in zip(directories, short, strict=True)
    }


def _overlay(ranked: Sequence[Portrait], names: dict[Path, str]) -> list[Chart]:
    """Return charts with the curves of all runs; the best ones are colored."""

    def lines(key: str) -> list[Line]:
        return [
            Line(
                names[portrait.run.directory],
                portrait.epochs,
                portrait.series(key),
                position,
                "line" if position < COLORS else "faint",
            )
            for position, portrait in enumerate(ranked)
        ]

    drawn = [
        draw_lines("Validation accuracy", lines("val_accuracy"), percent=True),
        draw_lines("Validation loss", lines("val_loss")),
        draw_lines("Training loss", lines("train_loss")),
    ]
    charts = [chart for chart in drawn if chart]
    # All charts have the same legend: only the first one shows it.
    return [*charts[:1], *(replace(chart, legend=()) for chart in charts[1:])]


def _context_of(portrait: Portrait) -> dict[str, Any]:
    """Return the template variables for one run."""
    description = describe_network(portrait.network) if portrait.network and portrait.side else None
    sheet = Sheet(portrait.side) if portrait.side else None
    bins = portrait.calibration
    confusion = sections.confusion_cells(portrait, sheet)
    return {
        "portrait": portrait,
        "configuration": portrait.run.config_path.read_text("utf-8"),
        "curves": sections.draw_curves(portrait),
        "confusion": confusion,
        "cells": {
            f"{i}-{j}": asdict(cell)
            for i, row in enumerate(confusion)
            for j, cell in enumerate(row)
            if cell.specimens
        },
        "worst": sections.worst_mistakes(portrait, sheet),
        "calibration": draw_calibration("Accuracy by confidence", bins) if bins else None,
        "calibration_error": expected_calibration_error(bins),
        "corruptions": sections.draw_corruptions(portrait),
        "health": sections.draw_health(portrait),
        "distributions": sections.draw_distributions(portrait),
        "probed": PROBED,
        "weights": sections.draw_weights(portrait),
        "network": description,
        "rounding": (
            rounding(portrait.network, description["dtype"], portrait.images())
            if portrait.network and description
            else 0.0
        ),
        "sheet": sheet,
    }


def _percent(share: float | None, digits: int = 2) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _chance(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"
