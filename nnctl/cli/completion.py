"""``nnctl completion``: print the script that completes words in a shell."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command(
    epilog="Example: nnctl completion bash",
    help="""Print a script for SHELL that completes words when you press Tab.

    It completes commands, options, runs, presets and the keys of --set. To use it, add this line to
    ~/.bashrc or ~/.zshrc:

    eval "$(nnctl completion bash)"  (or zsh)

    For fish, write it to a file:

    nnctl completion fish > ~/.config/fish/completions/nnctl.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    from nnctl.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "nnctl", "_NNCTL_COMPLETE").source())
