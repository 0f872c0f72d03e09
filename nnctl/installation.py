"""How nnctl was installed, for hints that name the command to install optional libraries."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import shutil
import sys
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from nnctl.text import shell_command


def install_command(extra: str) -> str:
    """Return the command that installs an extra of nnctl in the environment that runs."""
    wanted = f"nnctl[{extra}]"
    parts = [part.lower() for part in Path(sys.prefix).parts]
    if "pipx" in parts:
        return f'pipx install --force "{wanted}"'
    if "uv" in parts and "tools" in parts:
        return f'uv tool install "{wanted}"'
    if importlib.util.find_spec("pip") is None:  # an environment that uv created
        return f'uv pip install --python {shell_command(sys.executable)} "{wanted}"'
    if clone := _editable_clone():
        return f'{_python()} -m pip install -e "{clone}[{extra}]"'
    return f'{_python()} -m pip install "{wanted}"'


def _python() -> str:
    """Return the shortest command that runs this Python: another one may be first in PATH."""
    for name in ("python", "python3"):
        found = shutil.which(name)
        if found and Path(found).absolute() == Path(sys.executable).absolute():
            return name
    return shell_command(sys.executable)


def _editable_clone() -> str | None:
    """Return the clone from which nnctl was installed with ``pip install -e``, if any."""
    try:
        text = importlib.metadata.distribution("nnctl").read_text("direct_url.json")
        origin = json.loads(text or "{}")
        if not origin.get("dir_info", {}).get("editable"):
            return None
        clone = Path(url2pathname(urlparse(origin["url"]).path))
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        return None
    return "." if clone == Path.cwd() else str(clone)
