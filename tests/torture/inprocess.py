"""The commands without a process of their own, of which thousands of cases need thousands."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from click.testing import CliRunner, Result

from nnctl.cli import main

_OBEYED = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f]")
REFUSED = (2, 3)
"""How a command ends that was given something wrong."""


def carry_out(
    *arguments: object, codes: Collection[int] = (0, *REFUSED), env: Mapping[str, str] | None = None
) -> Result:
    """Carry out a command; it ends in one of the codes, and prints nothing a terminal obeys."""
    result = CliRunner().invoke(main, [*map(str, arguments)], env=env)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in codes, result.output
    assert not _OBEYED.search(result.output), result.output
    return result
