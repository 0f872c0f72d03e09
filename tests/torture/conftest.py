"""Options, seed and summary of the torture tests.

In a normal test run they try a few fixed cases of each fault. ``make torture``, which runs
``pytest tests/torture --torture``, tries all cases, with a random seed that it prints and that
``--torture-seed`` sets.
"""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.processes import Processes
from tests.torture.faults import Nursery

FEW, FULL = 50, 3000
"""Examples of each property."""


@dataclass(frozen=True)
class Torture:
    """Whether to try all cases or a few, the random seed, and the number of tried cases."""

    full: bool
    seed: int
    tally: Counter[str] = field(default_factory=Counter)

    def cases(self, few: int, *, full: int) -> int:
        """Return the number of cases to try."""
        return full if self.full else few

    def random(self, *name: object) -> random.Random:
        """Return the random number generator of a test."""
        return random.Random(repr((self.seed, *name)))

    def tried(self, what: str, cases: int = 1) -> None:
        """Add cases to the summary at the end."""
        self.tally[what] += cases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    parser.addoption("--torture", action="store_true", help="try all cases, not a few of them")
    parser.addoption("--torture-seed", type=int, metavar="N", help="random seed")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis looks for its seed
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, or use that of the process that controls the workers."""
    if not config.getoption("--torture", default=False):
        settings.register_profile(
            "few", max_examples=FEW, deadline=None, database=None, derandomize=True
        )
        settings.load_profile("few")
        return
    settings.register_profile(
        "torture",
        max_examples=FULL,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("torture")
    chosen = getattr(config, "workerinput", {}).get("torture_seed")
    if chosen is not None:
        config.option.torture_seed = chosen
    elif config.option.torture_seed is None:
        config.option.torture_seed = secrets.randbelow(2**31)
    config.option.hypothesis_seed = str(config.option.torture_seed)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Pass the seed to a worker of pytest-xdist."""
    node.workerinput["torture_seed"] = node.config.getoption("--torture-seed")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Print the seed."""
    seed = config.getoption("--torture-seed", default=None)
    return None if seed is None else f"torture seed: {seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the numbers of cases that were tried."""
    tried: Counter[str] = Counter()
    for report in terminalreporter.getreports(""):
        for key, value in report.user_properties:
            if key == "tried":
                what, cases = value
                tried[what] += cases
    if tried:
        terminalreporter.section("tried")
        for what, cases in sorted(tried.items()):
            terminalreporter.write_line(f"{cases:>9,}  {what}")


@pytest.fixture(scope="session")
def torture(request: pytest.FixtureRequest) -> Torture:
    """Whether to try all cases, and the seed."""
    full = request.config.getoption("--torture", default=False)
    seed = request.config.getoption("--torture-seed", default=None)
    return Torture(full, seed or 0)


@pytest.fixture(autouse=True)
def _count(torture: Torture, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Put the numbers of cases into the report of a test."""
    torture.tally.clear()
    yield
    for what, cases in torture.tally.items():
        record_property("tried", [what, cases])


@pytest.fixture(scope="session")
def full_only(torture: Torture) -> None:
    """Skip a test unless all cases are tried."""
    if not torture.full:
        pytest.skip("tried by make torture")


@pytest.fixture
def sketched_in_few(torture: Torture, request: pytest.FixtureRequest) -> None:
    """Draw charts only if all cases are tried."""
    if not torture.full:
        request.getfixturevalue("sketched_reports")


@pytest.fixture(scope="session")
def nurseries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """A process that has imported nnctl, and forks processes with injected faults."""
    with Processes() as processes:
        yield Nursery(processes, tmp_path_factory.mktemp("nursery"))


@pytest.fixture
def nursery(nurseries: Nursery) -> Iterator[Nursery]:
    """A nursery whose child is killed when the test ends."""
    with nurseries:
        yield nurseries
