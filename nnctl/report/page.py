"""Rendering of the page from ``page.html``. The only module that imports Jinja."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib import resources
from pathlib import Path
from typing import Any

import nnctl
from nnctl.nn.events import EpochMetrics
from nnctl.nn.metrics import expected_calibration_error
from nnctl.report import findings, sections
from nnctl.report.charts import COLORS, Chart, Line, draw_calibration, draw_lines
from nnctl.report.ranking import Comparison, compare
from nnctl.report.run_report import RunReport
from nnctl.report.sprites import SpriteSheet
from nnctl.report.sweep_report import SweepReport
from nnctl.report.weights import describe_network
from nnctl.sweeps.space import short_keys
from nnctl.text import duration, p_value, percent

GENERATOR = "nnctl report"
"""Name in the page's generator tag, which identifies pages of nnctl."""

_MAX_LABELED = 3  # keys in the label of a curve
_SCRIPTS = ("network.js", "handwriting.js", "units.js", "steps.js", "page.js")


def render(ranked: Sequence[RunReport], sweeps: Sequence[SweepReport]) -> str:
    """Return the page of one or several runs.

    Parameters
    ----------
    ranked : sequence of RunReport
        The runs, the best first; the page shows the first one in full.
    sweeps : sequence of SweepReport
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
        "percent": percent,
        "p_value": p_value,
        "duration": duration,
        "short": short_keys,
    }
    files = resources.files("nnctl.report")
    names = _names(ranked)
    comparison = compare(ranked) if len(ranked) > 1 else None
    return environment.get_template("page.html").render(
        title=_title(ranked, sweeps),
        generator=f"{GENERATOR} {nnctl.__version__}",
        style=files.joinpath("page.css").read_text("utf-8"),
        scripts=[files.joinpath(name).read_text("utf-8") for name in _SCRIPTS],
        names=names,
        comparison=comparison,
        overlaid=_overlay(ranked, _labels(comparison, names)) if comparison else [],
        sweeps=sweeps,
        **_context_of(ranked[0]),
    )


def _title(ranked: Sequence[RunReport], sweeps: Sequence[SweepReport]) -> str:
    if len(ranked) == 1:
        return ranked[0].name
    return ", ".join(sweep.name for sweep in sweeps) or f"{len(ranked)} runs"


def _names(reports: Sequence[RunReport]) -> dict[Path, str]:
    """Return a name per run: that of its directory, with its parents' where two names are equal."""
    short = [run_report.name for run_report in reports]
    directories = [run_report.run.directory for run_report in reports]
    paths = [directory.resolve() for directory in directories]
    common = _common_parent(paths)
    return {
        directory: name if short.count(name) == 1 else str(path.relative_to(common))
        for directory, path, name in zip(directories, paths, short, strict=True)
    }


def _common_parent(paths: Sequence[Path]) -> Path:
    """Return the innermost folder that contains all paths; the empty path if there is none."""
    try:
        return Path(os.path.commonpath([path.parent for path in paths]))
    except ValueError:  # on different drives of Windows
        return Path()


def _labels(comparison: Comparison, names: dict[Path, str]) -> list[str]:
    """Return the values that differ as the label of each run, or its name if they are many."""
    if not 0 < len(comparison.keys) <= _MAX_LABELED:
        return [names[row.run_report.run.directory] for row in comparison.rows]
    return [
        ", ".join(
            f"{key}={row.run_report.without_paths(value)}"
            for key, value in zip(short_keys(comparison.keys), row.values, strict=True)
        )
        for row in comparison.rows
    ]


def _overlay(ranked: Sequence[RunReport], labels: Sequence[str]) -> list[Chart]:
    """Return charts with the curves of all runs; the best ones are colored."""

    def lines(metric: Callable[[EpochMetrics], float | None]) -> list[Line]:
        return [
            run_report.line(name, metric, position, thin=position >= COLORS)
            for position, (name, run_report) in enumerate(zip(labels, ranked, strict=True))
        ]

    best = ranked[0].best
    finding = (
        f"{percent(best.val_accuracy)} with {labels[0]}" if best and len({*labels}) > 1 else ""
    )
    drawn = [
        draw_lines(
            "Validation accuracy",
            lines(lambda epoch: epoch.val_accuracy),
            percent=True,
            finding=finding,
        ),
        draw_lines("Validation loss", lines(lambda epoch: epoch.val_loss)),
        draw_lines("Training loss", lines(lambda epoch: epoch.train_loss)),
    ]
    charts = [chart for chart in drawn if chart]
    # All charts have the same legend: only the first one shows it.
    return [*charts[:1], *(replace(chart, legend=()) for chart in charts[1:])]


def _context_of(run_report: RunReport) -> dict[str, Any]:
    """Return the template variables for one run."""
    network, evaluation, side = run_report.network, run_report.evaluation, run_report.side
    description = describe_network(network) if network and side else None
    sheet = SpriteSheet(side) if side else None
    # The first images on the sheet are the samples, in the order of the test set.
    samples = sections.samples(run_report, sheet) if description else []
    bins = run_report.calibration
    confusion = sections.confusion_cells(run_report, sheet)
    weights, weighted_units = sections.draw_weights(run_report)
    return {
        "run_report": run_report,
        "configuration": run_report.without_paths(run_report.run.config_path.read_text("utf-8")),
        "curves": sections.draw_curves(run_report),
        "confusion": confusion,
        "confused": findings.about_confusion(evaluation.classes, evaluation.confusion)
        if evaluation
        else "",
        "cells": {
            f"{i}-{j}": asdict(cell)
            for i, row in enumerate(confusion)
            for j, cell in enumerate(row)
            if cell.examples
        },
        "worst": sections.worst_mistakes(run_report, sheet),
        "calibration": draw_calibration(
            "Accuracy by confidence", bins, findings.about_calibration(bins)
        ),
        "calibration_error": expected_calibration_error(bins),
        "corruptions": sections.draw_corruptions(run_report),
        "health": sections.draw_health(run_report),
        "distributions": sections.draw_distributions(run_report),
        "measured": len(run_report.images()),
        "weights": weights,
        "weighted_units": weighted_units,
        "samples": sections.first_of_each_class(samples),
        "sample_data": [
            {"position": sample.position, "title": f"test image, true {sample.caption}"}
            for sample in samples
        ],
        "network": description,
        "sheet": sheet,
    }
