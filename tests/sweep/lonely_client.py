"""A client that trains a trial, to be killed: ``python -m tests.sweep.lonely_client ADDR DIR``."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.sweep import stubs
from tests.sweep.clusters import wait_until

if __name__ == "__main__":
    from nnctl.sweep.cluster.cluster import Cluster
    from tests.sweep.test_cluster import FOREVER, make_trial

    with Cluster(sys.argv[1]) as workers:
        wait_until(lambda: workers.free() > 0)
        trial = make_trial(Path(sys.argv[2]), epochs=FOREVER)
        workers.submit(stubs.train_slowly, trial).result()
