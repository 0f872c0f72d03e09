"""Runs nnctl with another work for its sweeps.

Usage: ``python -m tests.sweeps.nnctl_with WORK ARGUMENTS``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # not in the worker processes, which import this module as well
    from concurrent.futures import Future

    from nnctl.cli import main
    from nnctl.sweeps import pool
    from nnctl.sweeps.trials import Trial, TrialResult
    from nnctl.sweeps.workers import TrainTrial
    from tests.sweeps import stubs

    chosen: TrainTrial = getattr(stubs, sys.argv.pop(1))

    class Pool(pool.LocalPool):
        """Runs the chosen work."""

        def submit(self, work: TrainTrial, trial: Trial) -> Future[TrialResult]:
            """Start the chosen work instead of a training."""
            return super().submit(chosen, trial)

    pool.LocalPool = Pool  # type: ignore[misc]
    main()
