"""``nnctl completion``: print the script that completes words in a shell."""

from __future__ import annotations

from typing import Any

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    add_completion_class,
    get_completion_class,
)

_BASH = r"""%(complete_func)s() {
    local IFS=$'\n' word=${COMP_WORDS[COMP_CWORD]} files=() type value
    COMPREPLY=()
    while IFS=, read -r type value; do
        case $type in
            dir) files=($(compgen -d -- "$word")) ;;
            file) files=($(compgen -f -- "$word")) ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \
             %(complete_var)s=bash_complete "$1")
    if ((${#COMPREPLY[@]} == 0)); then
        compopt -o filenames
    elif [[ ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
    COMPREPLY+=("${files[@]}")
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


@add_completion_class
class _Bash(BashComplete):
    """Completion for bash, which splits words at ``=``.

    The script of click offers only files where both files and other words are possible.
    """

    source_template = _BASH
    _before = ""  # beginning of the word, which bash has completed already

    def get_completion_args(self) -> tuple[list[str], str]:
        """Return the words before the incomplete one, and that, each with its ``=``."""
        args, incomplete = super().get_completion_args()
        words = [*args, incomplete]
        while "=" in words[1:]:
            i = words.index("=", 1)
            words[i - 1 : i + 2] = ["".join(words[i - 1 : i + 2])]
        *args, whole = words
        before = whole.removesuffix(incomplete.removeprefix("="))
        self._before = before.partition("=")[2] if before.startswith("--") else before
        return args, whole

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """Return the type of a completion, and what follows the part that is completed already."""
        return f"{item.type},{item.value.removeprefix(self._before)}"


@click.command(
    epilog="Example: nnctl completion bash",
    help="""Print a script that completes words in SHELL.

    With this script, the Tab key completes commands, options, runs, presets, datasets, and the
    keys and values of --set. For bash, version 4.4 or later, add this line to ~/.bashrc:

    \b
        eval "$(nnctl completion bash)"

    For zsh, add this line to ~/.zshrc, after compinit:

    \b
        eval "$(nnctl completion zsh)"

    For fish, write the script to a file:

    \b
        nnctl completion fish > ~/.config/fish/completions/nnctl.fish
    """,
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    from nnctl.cli import main

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(main, {}, "nnctl", "_NNCTL_COMPLETE").source())
