"""Runs a sweep on a Dask cluster of this machine: ``python -m tests.sweeps.cluster_demo``.

It starts one Dask scheduler and two workers, and stops them at the end. Their output and the sweep
are in a temporary folder.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.conftest import CONFIGS
from tests.processes import nnctl_command
from tests.sweeps.clusters import dask

RATES = "optimizer.learning_rate=0.02,0.05,0.1,0.2"


def main() -> int:
    """Run the sweep; return its exit code."""
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        dask(Path(folder, "cluster"), "one", "two") as cluster,
    ):
        shown = f"nnctl sweep configs/smoke.yaml -p {RATES} --scheduler {cluster.address}"
        sys.stderr.write(f"$ {shown}\n")
        words = ("sweep", CONFIGS / "smoke.yaml", "-p", RATES, "--scheduler", cluster.address)
        sweep = subprocess.Popen(nnctl_command(*words), cwd=folder)
        with contextlib.suppress(KeyboardInterrupt):  # the sweep gets it too, and saves its trials
            return sweep.wait()
        return sweep.wait()


if __name__ == "__main__":
    sys.exit(main())
