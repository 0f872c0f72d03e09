"""``python -m nnctl`` and the command ``nnctl``: signals are heard before anything slow begins."""

from nnctl.runs.stopping import end_at_once, end_on_what_nobody_catches, hear, ignore_signals


def run() -> None:
    """Carry out a command, and exit."""
    hear(end_at_once)
    end_on_what_nobody_catches()
    from nnctl.cli import main

    try:
        main(prog_name="nnctl")
    finally:
        ignore_signals()


if __name__ == "__main__":
    run()
