"""``python -m nnctl`` and the command ``nnctl``: signals are heard before anything slow begins."""

import os
import sys

import nnctl

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` imports from the current directory first, and somebody else may have written what
    # is there. Python itself has imported some modules by now; nothing later comes from there,
    # unless it is where nnctl is.
    home = os.path.dirname(os.path.dirname(nnctl.__file__))  # noqa: PTH120
    try:
        if sys.path[0] == os.getcwd() != home:  # noqa: PTH109
            del sys.path[0]
    except OSError:  # the directory is gone, and Python has not added it
        pass

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
