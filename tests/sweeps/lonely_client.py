"""Client that trains a trial until it is killed.

Usage: ``python -m tests.sweeps.lonely_client ADDRESS``.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from nnctl.sweeps.dask_cluster import DaskPool
    from tests.sweeps import stubs
    from tests.sweeps.helpers import make_trial, wait_until

    with DaskPool(sys.argv[1], seconds=0.2) as workers:
        wait_until(lambda: workers.free() > 0)
        workers.submit(stubs.hold_after_two_epochs, make_trial(1)).result()
