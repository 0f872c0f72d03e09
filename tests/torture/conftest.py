"""How hard to try, from which seed, and a table of what was tried.

All tests together try a few cases of each fault, always the same. ``make torture``, which is
``pytest tests/torture --torture``, tries all of them, from a seed that it prints and that
``--torture-seed`` takes.
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

from tests.torture.faults import Nursery

FUZZED = 3000
"""The examples of each property, where all are tried."""


@dataclass(frozen=True)
class Torture:
    """How hard a test tries.

    Parameters
    ----------
    full : bool
        All cases, or a few.
    seed : int
        Of all that is random.
    """

    full: bool
    seed: int
    tally: Counter[str] = field(default_factory=Counter)

    def cases(self, few: int, *, full: int) -> int:
        """Return how many cases to try."""
        return full if self.full else few

    def random(self, *name: object) -> random.Random:
        """Return the random numbers of a test that names itself."""
        return random.Random(repr((self.seed, *name)))

    def tried(self, what: str, cases: int = 1) -> None:
        """Let the table at the end say that so many more cases were tried."""
        self.tally[what] += cases


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take how hard to try."""
    parser.addoption("--torture", action="store_true", help="try all cases, not a few of them")
    parser.addoption("--torture-seed", type=int, metavar="N", help="seed of what is random")


@pytest.hookimpl(tryfirst=True)  # before Hypothesis looks for its seed
def pytest_configure(config: pytest.Config) -> None:
    """Choose the seed, or take that of the process that conducts the workers."""
    if not config.getoption("--torture", default=False):
        settings.register_profile("few", deadline=None, database=None, derandomize=True)
        settings.load_profile("few")
        return
    settings.register_profile(
        "torture",
        max_examples=FUZZED,
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
    """Tell a worker of pytest-xdist the seed."""
    node.workerinput["torture_seed"] = node.config.getoption("--torture-seed")


def pytest_report_header(config: pytest.Config) -> str | None:
    """Print the seed."""
    seed = config.getoption("--torture-seed", default=None)
    return None if seed is None else f"torture seed: {seed}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tried, and how often."""
    reports = terminalreporter.getreports("")  # of what comes after a test
    tried: Counter[str] = Counter()
    for report in reports:
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
    """How hard to try."""
    full = request.config.getoption("--torture", default=False)
    seed = request.config.getoption("--torture-seed", default=None)
    return Torture(full, seed or 0)


@pytest.fixture(autouse=True)
def _tell(torture: Torture, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Put what a test has tried into its report."""
    torture.tally.clear()
    yield
    for what, cases in torture.tally.items():
        record_property("tried", [what, cases])


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    """Where processes come from that have imported all of nnctl, and to which something happens."""
    with Nursery(tmp_path_factory.mktemp("nursery")) as nursery:
        yield nursery
