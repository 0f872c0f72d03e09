"""Measures how many faults the tests detect: ``make mutants``.

A mutant is the program with one small fault: an operator, a number or a decorator changed by
Cosmic Ray. A seeded sample of places is drawn from the packages below. For each mutant the tests
of ``make test`` that execute the changed line are run, those of the same package first, until one
fails. The mutants that no test kills are printed as diffs: each is a missing test or no fault.
"""

from __future__ import annotations

import argparse
import ast
import difflib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.processes import ROOT, Processes

PACKAGES = ("nn", "data", "config", "runs", "sweeps")
SECONDS_PER_TEST = 60
SECONDS_PER_MUTANT = 900


@dataclass(frozen=True)
class Place:
    """A place in the code that one or more operators can change."""

    module: str
    line: int
    column: int
    operators: tuple[tuple[str, int], ...]
    """Name and occurrence, as Cosmic Ray counts them, of each operator that fits."""


@dataclass(frozen=True)
class Mutant:
    """A module with one change."""

    place: Place
    operator: str
    code: str

    def diff(self) -> str:
        """Return the change as a diff without context."""
        before = (ROOT / self.place.module).read_text("utf-8").splitlines()
        lines = difflib.unified_diff(before, self.code.splitlines(), lineterm="", n=0)
        changed = "\n".join(line for line in list(lines)[2:] if not line.startswith("@@"))
        return f"{self.place.module}:{self.place.line} ({self.operator})\n{changed}"


def places(module: str) -> list[Place]:
    """Return all places of a module."""
    from cosmic_ray.ast import ast_nodes, get_ast
    from cosmic_ray.plugins import get_operator, operator_names

    found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
    nodes = list(ast_nodes(get_ast((ROOT / module).read_text("utf-8"))))
    for name in operator_names():
        if get_operator(name).arguments():
            continue  # it replaces variables by others that are to be named
        operator = get_operator(name)()
        positions = [at for node in nodes for at in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(positions):
            found[start].append((name, occurrence))
    return [Place(module, *start, tuple(fitting)) for start, fitting in sorted(found.items())]


def mutate(place: Place, rng: random.Random) -> Mutant | None:
    """Return a mutant of a place; None if the change means nothing or is not valid Python."""
    from cosmic_ray.mutating import mutate_code
    from cosmic_ray.plugins import get_operator

    name, occurrence = rng.choice(place.operators)
    before = (ROOT / place.module).read_text("utf-8")
    try:
        code = mutate_code(before, get_operator(name)(), occurrence)
        if code is None or meaning(code) == meaning(before):
            return None
    except (SyntaxError, AttributeError):  # Cosmic Ray cannot change `except module.Error`
        return None
    return Mutant(place, name.removeprefix("core/"), code)


def meaning(code: str) -> str:
    """Return the syntax tree of a module without its annotations."""
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            node.annotation = None
        elif isinstance(node, ast.FunctionDef):
            node.returns = None
    return ast.dump(tree)


def sample(count: int, seed: int) -> list[Mutant]:
    """Return the given number of mutants, at places drawn at random."""
    rng = random.Random(seed)
    folders = [ROOT / "nnctl" / package for package in PACKAGES]
    modules = sorted(path for folder in folders for path in folder.rglob("*.py"))
    everywhere = [place for path in modules for place in places(str(path.relative_to(ROOT)))]
    rng.shuffle(everywhere)
    mutants = (mutate(place, rng) for place in everywhere)
    return [mutant for mutant, _ in zip(filter(None, mutants), range(count), strict=False)]


class Copy:
    """A copy of the project in which one module after the other is changed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
        )
        for name in filter(None, listed.stdout.split("\0")):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)

    def pytest(self, *arguments: str) -> int | None:
        """Run pytest in the copy; return its exit code, or None if it does not end."""
        words = [sys.executable, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider"]
        mnist = os.environ.get("NNCTL_TEST_MNIST") or str(ROOT.parent / "shared" / "mnist")
        env = {
            **os.environ,
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NNCTL_TEST_MNIST": mnist,
        }
        with Processes() as processes, (self.folder / "output.txt").open("wb") as output:
            process = processes.start(
                [*words, *arguments], cwd=self.folder, env=env, stdout=output, stderr=output
            )
            try:
                return process.wait(SECONDS_PER_MUTANT)
            except subprocess.TimeoutExpired:
                return None

    def tests_of_lines(self, workers: int) -> dict[tuple[str, int], list[str]]:
        """Run all tests; return, for each line of the program, the tests that execute it."""
        from coverage import CoverageData

        # Processes of tests are not measured: some run where no file can be written.
        (self.folder / "coverage.ini").write_text("[run]\nparallel = true\n", encoding="utf-8")
        code = self.pytest(
            *("-n", str(workers), "--dist", "loadgroup"),
            *("--cov=nnctl", "--cov-context=test", "--cov-report=", "--cov-config=coverage.ini"),
        )
        if code != 0:
            output = (self.folder / "output.txt").read_text("utf-8", errors="replace")
            sys.exit(f"the tests fail without a mutant:\n{output[-5000:]}")
        data = CoverageData(str(self.folder / ".coverage"))
        data.read()
        tests: dict[tuple[str, int], list[str]] = {}
        for file in data.measured_files():
            module = Path(file).relative_to(self.folder).as_posix()
            for line, contexts in data.contexts_by_lineno(file).items():
                names = {context.rpartition("|")[0] for context in contexts if context}
                tests[module, line] = sorted(names)
        return tests

    def is_killed(self, mutant: Mutant, tests: list[str]) -> bool:
        """Say whether a test fails with a mutant."""
        module = self.folder / mutant.place.module
        original = module.read_text("utf-8")
        chosen = self.folder / "tests.txt"
        chosen.write_text("\n".join(tests), encoding="utf-8")
        module.write_text(mutant.code, encoding="utf-8")
        try:
            code = self.pytest("-x", "-n", "0", f"--timeout={SECONDS_PER_TEST}", f"@{chosen}")
        finally:
            module.write_text(original, encoding="utf-8")
        return code != 0


def order(mutant: Mutant, covering: dict[tuple[str, int], list[str]]) -> list[str]:
    """Return the tests to run: the package's own first.

    A line that is executed when its module is imported may matter to all tests. A line that is
    never executed in this process may be executed by a worker of a sweep.
    """
    package = f"tests/{Path(mutant.place.module).parts[1]}/"
    name = f"test_{Path(mutant.place.module).stem}"
    tests = covering.get((mutant.place.module, mutant.place.line))
    if not tests:
        return [package] if tests is None else [package, "tests"]
    return sorted(tests, key=lambda test: (name not in test, not test.startswith(package), test))


def run(mutants: list[Mutant], workers: int) -> Iterator[tuple[Mutant, bool]]:
    """Yield each mutant, and whether it was killed."""
    with tempfile.TemporaryDirectory() as folder:
        free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(workers):
            free.put(Copy(Path(folder, str(number))))
        first = free.get()
        print("finding which tests execute which lines", flush=True)
        covering = first.tests_of_lines(workers)
        free.put(first)

        def predict_validation(mutant: Mutant) -> tuple[Mutant, bool]:
            copy = free.get()
            try:
                return mutant, copy.is_killed(mutant, order(mutant, covering))
            finally:
                free.put(copy)

        with ThreadPoolExecutor(workers) as pool:
            yield from pool.map(predict_validation, mutants)


def main() -> None:
    """Print the share of killed mutants, and the survivors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--places", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    mutants = sample(options.places, options.seed)
    started, survivors = time.monotonic(), []
    for number, (mutant, killed) in enumerate(run(mutants, options.workers), start=1):
        if not killed:
            survivors.append(mutant)
            print(f"survived: {mutant.diff()}", flush=True)
        if number % 10 == 0:
            print(f"{number} of {len(mutants)}, {len(survivors)} survived", flush=True)
    share = 1 - len(survivors) / len(mutants)
    minutes = (time.monotonic() - started) / 60
    print(f"seed {options.seed}: {len(mutants) - len(survivors)} of {len(mutants)} killed")
    print(f"({share:.1%}) in {minutes:.0f} minutes")


if __name__ == "__main__":
    main()
