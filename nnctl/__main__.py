"""``python -m nnctl`` and the command ``nnctl``: signals are heard before anything slow begins."""

import os

from nnctl.runs.stopping import end_at_once, end_on_what_nobody_catches, hear, ignore_signals


def run() -> None:
    """Carry out a command, and exit."""
    hear(end_at_once)
    end_on_what_nobody_catches()
    # All that is slow uses BLAS on one thread. Where OpenBLAS cannot start the threads that it
    # would start otherwise, it sends this process a SIGINT.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from nnctl.cli import main

    try:
        main(prog_name="nnctl")
    finally:
        ignore_signals()


if __name__ == "__main__":
    run()
