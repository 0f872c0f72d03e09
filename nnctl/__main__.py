"""Entry point of ``nnctl`` and ``python -m nnctl``; handles signals before any slow import."""

import os
import sys

import nnctl

if __name__ == "__main__" and not sys.flags.safe_path:
    # `python -m` imports from the current directory first, which may contain files of another user.
    # Python has already imported some modules, but no later import uses this directory, unless
    # nnctl itself is there.
    home = os.path.dirname(os.path.dirname(nnctl.__file__))  # noqa: PTH120
    try:
        if sys.path[0] == os.getcwd() != home:  # noqa: PTH109
            del sys.path[0]
    except OSError:  # the directory was deleted, so Python did not add it
        pass

from nnctl.signals import exit_immediately, ignore_signals, install_handlers


def run() -> None:
    """Run a command and exit."""
    install_handlers(exit_immediately)
    # nnctl calls BLAS on one thread. If OpenBLAS tries to start more threads and fails, it sends
    # this process a SIGINT. The BLAS of macOS (VECLIB) cannot be limited later.
    for name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
        os.environ.setdefault(name, "1")
    from nnctl.cli import main

    try:
        main(prog_name="nnctl")
    finally:
        ignore_signals()


if __name__ == "__main__":
    run()
