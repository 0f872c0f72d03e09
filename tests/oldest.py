"""The lowest versions that pyproject.toml allows, as constraints for pip.

Of what nnctl needs and of its extras; the tools of its developers may be new. It runs before
anything is installed.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("plot", "export", "sweep")


def lowest() -> list[str]:
    """Return ``name==version`` of each requirement.

    Raises
    ------
    ValueError
        One has no lowest version.
    """
    text = (Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8")
    project = tomllib.loads(text)["project"]
    wanted = list(project["dependencies"])
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    found = [re.fullmatch(r"([\w.-]+)>=([\d.]+)", requirement) for requirement in wanted]
    if None in found:
        raise ValueError(f"{wanted[found.index(None)]} has no lowest version")
    return [f"{match[1]}=={match[2]}" for match in found if match]


if __name__ == "__main__":
    sys.stdout.write("".join(f"{constraint}\n" for constraint in lowest()))
