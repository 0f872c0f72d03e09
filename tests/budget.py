"""Lists tests that take more CPU time than a test without the marker ``slow`` should.

The list is for authors of tests; on a slow or busy machine it is longer, and no test fails because
of it. CPU time of the process and of its children counts. Fixtures shared by several tests
(of a module or a session) do not count.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

SECONDS = 2.0
_START = pytest.StashKey[float]()
_COST = pytest.StashKey[float]()
_PROPERTY = "cpu_seconds"
_shared = 0.0
"""CPU seconds spent in shared fixtures so far."""


def cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any) -> Generator[None, object, object]:
    """Measure shared fixtures, so that the first test that needs one does not pay for it."""
    global _shared
    if fixturedef.scope == "function":
        return (yield)
    before, nested = cpu_seconds(), _shared
    try:
        return (yield)
    finally:
        _shared = nested + cpu_seconds() - before  # shared fixtures may use others


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the CPU time at the start of a test."""
    item.stash[_START] = cpu_seconds() - _shared
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(
    item: pytest.Item, nextitem: pytest.Item | None
) -> Generator[None, object, object]:
    """Measure a test with its teardown, in which its processes end.

    The last test of a module is measured without it: shared fixtures are torn down there.
    """
    item.stash[_COST] = cpu_seconds() - _shared - item.stash[_START]
    result = yield
    if nextitem is not None and nextitem.path == item.path:
        item.stash[_COST] = cpu_seconds() - _shared - item.stash[_START]
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the CPU time to the report of a test that should have taken less."""
    report = yield
    cost = item.stash.get(_COST, 0.0)
    if call.when == "teardown" and cost > SECONDS and not _may_be_slow(item):
        report.user_properties.append((_PROPERTY, cost))
    return report


def _may_be_slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None or bool(
        item.config.getoption("--torture", default=False)
    )


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List the tests above the budget, the most expensive first."""
    costs = {
        report.nodeid: dict(report.user_properties)[_PROPERTY]
        for reports in terminalreporter.stats.values()
        for report in reports
        if _PROPERTY in dict(getattr(report, "user_properties", ()))
    }
    if costs:
        terminalreporter.section(f"tests with more than {SECONDS:g} s of CPU time")
        terminalreporter.line("Share what they train in a fixture, or mark them as slow.")
    for test, cost in sorted(costs.items(), key=lambda item: -item[1]):
        terminalreporter.line(f"{cost:.1f} s  {test}")
