"""``python -m nnctl``."""

from nnctl.cli import main

main(prog_name="nnctl")
