"""Finds the configurations that come with nnctl by name, describes and copies them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path, PurePath
from typing import Any

from nnctl.errors import ConfigError, UsageError, storage_errors
from nnctl.files import exists, expand_home, write_atomically
from nnctl.text import nearest, quoted, shell_command

SUFFIXES = (".yaml", ".yml")
_SCHEMA = re.compile(r"(?<=\$schema=)(?:\.\./)*((?:sweep-)?schema\.json)")
_ACCURACY = re.compile(r"^# Test accuracy: ([\d.]+) %", re.MULTILINE)
_TIME = re.compile(r"^# (?:Test accuracy: .*; t|T)ime: ([\d.]+) (s|min|h) on", re.MULTILINE)
_SECONDS = {"s": 1, "min": 60, "h": 3600}


@dataclass(frozen=True)
class Preset:
    """A configuration that comes with nnctl.

    Parameters
    ----------
    name : str
        Path of the file below the folder of the presets, without ``.yaml``.
    path : Path
        Path of the file.
    """

    name: str
    path: Path

    @property
    def text(self) -> str:
        """The content of the file."""
        return self.path.read_text("utf-8")

    @property
    def is_sweep(self) -> bool:
        """Whether the file is a sweep file."""
        return "$schema=sweep-schema.json" in self.text

    @property
    def summary(self) -> str:
        """The first sentence of the comment."""
        _, paragraph, *_ = re.split(r"^#$\n", self.text, maxsplit=2, flags=re.MULTILINE)
        words = " ".join(line.removeprefix("# ") for line in paragraph.splitlines())
        return re.split(r"(?<=[.?])\s", words, maxsplit=1)[0].removesuffix(".")

    @property
    def test_accuracy(self) -> float | None:
        """The test accuracy in the comment, from 0 to 1, or None."""
        found = _ACCURACY.search(self.text)
        return round(float(found[1]) / 100, 6) if found else None

    @property
    def time(self) -> str:
        """The time to train on two cores, such as ``13 s``, or an empty text."""
        found = _TIME.search(self.text)
        return f"{found[1]} {found[2]}" if found else ""

    def to_json(self) -> dict[str, Any]:
        """Return the name and the figures as JSON-compatible values."""
        amount, _, unit = self.time.partition(" ")
        return {
            "name": self.name,
            "kind": "sweep" if self.is_sweep else "training",
            "summary": self.summary,
            "test_accuracy": self.test_accuracy,
            "seconds": round(float(amount) * _SECONDS[unit], 3) if amount else None,
        }


def presets_folder() -> Path:
    """Return the folder of the presets: in the package, or in the repository next to it."""
    package = Path(str(files("nnctl")))
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def presets() -> list[Preset]:
    """Return all presets: those of the top folder, then those of the folders in it, by name."""
    folder = presets_folder()
    paths = sorted(folder.rglob("*.yaml"), key=lambda path: (path.parent, path.name))
    return [Preset(path.relative_to(folder).with_suffix("").as_posix(), path) for path in paths]


def _presets_by_name() -> dict[str, Preset]:
    return {preset.name: preset for preset in presets()}


def is_preset(name: Path) -> bool:
    """Return whether a preset has this name."""
    return name.as_posix() in _presets_by_name()


def find_preset(name: str) -> Preset:
    """Return the preset with a name.

    Raises
    ------
    UsageError
        The preset does not exist; the message suggests one.
    """
    if preset := _presets_by_name().get(name):
        return preset
    meant = _meant(PurePath(name), Path(), with_files=False)
    raise UsageError(
        f"unknown preset {quoted(name)}{meant}", hint="List the presets with: nnctl presets"
    )


def is_path(name: Path) -> bool:
    """Return whether a CONFIG is a path: an existing file, or anything that ends in .yaml."""
    return name.suffix.lower() in SUFFIXES or (exists(name) and not name.is_dir())


def locate_config(name: Path, folder: Path | None = None) -> tuple[Path, str]:
    """Return the path of a CONFIG, and its name in messages.

    Parameters
    ----------
    name : Path
        Path of a file, or name of a preset.
    folder : Path, optional
        Folder of the sweep file that names its base; paths are relative to it.

    Raises
    ------
    ConfigError
        The file or the preset does not exist; the message suggests others.
    """
    path = expand_home(name) if folder is None else folder / expand_home(name)
    if is_path(path):
        if not exists(path):
            mistake = f"{path}: file not found{_meant(path, path.parent)}"
            raise ConfigError(str(path), [mistake], hint=_listed(path.parent))
        named = {preset.path: f"preset {preset.name}" for preset in presets() if folder}
        return path, named.get(path, str(path))
    if preset := _presets_by_name().get(name.as_posix()):
        return preset.path, f"preset {preset.name}"
    mistake = f"{name}: neither a file nor a preset has this name{_meant(name, path.parent)}"
    raise ConfigError(str(name), [mistake], hint="List the presets with: nnctl presets")


def _meant(name: PurePath, folder: Path, *, with_files: bool = True) -> str:
    """Return a suggestion among the presets and the files of a folder, or an empty text."""
    meanings: dict[str, str] = {}
    for preset in presets():
        meanings[preset.name.rpartition("/")[2]] = meanings[preset.name] = preset.name
    for path in _yaml_files(folder) if with_files else ():
        meanings[str(path.with_suffix(""))] = meanings[str(path)] = str(path)
    meant = nearest(str(name), meanings) or nearest(name.stem, meanings)
    return f"; did you mean '{meanings[meant]}'?" if meant else ""


def _listed(folder: Path) -> str:
    """Return the hint for a missing file: the files in its folder, or the presets."""
    names = ", ".join(str(path) for path in _yaml_files(folder)[:10])
    return f"Available files: {names}" if names else "List the presets with: nnctl presets"


def _yaml_files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    except (OSError, ValueError):
        return []


def copy_preset(name: str, target: Path | None) -> list[Path]:
    """Copy a preset, the base of a sweep and the schema that editors use; return the new files.

    Parameters
    ----------
    name : str
        Name of the preset.
    target : Path, optional
        New file, or an existing folder; by default, a file in the working directory.

    Raises
    ------
    UsageError
        The preset does not exist, or a file exists and would be overwritten.
    StorageError
        A file cannot be written.
    """
    preset = find_preset(name)
    default = f"{preset.path.stem}.yaml"
    target = target or Path(default)
    target = target / default if target.is_dir() else target
    if target.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"{target}: the name of a configuration ends in .yaml or .yml",
            hint=f"Use: {shell_command('nnctl', 'presets', 'copy', name, f'{target}.yaml')}",
        )
    copies = dict(_copies(preset, target))
    for path in copies:
        if path.is_symlink() or exists(path):
            raise UsageError(
                f"{path} exists and is not overwritten",
                hint=f"Use another folder or name: nnctl presets copy {name} FOLDER/{target.name}",
            )
    for copied in list(copies):
        schema = _SCHEMA.search(copies[copied].partition("\n")[0])
        if schema:  # a copy of the schema is found offline, wherever nnctl is installed
            content = (presets_folder() / schema[1]).read_text("utf-8")
            copies = {copied.parent / f"nnctl-{schema[1]}": content, **copies}
            copies[copied] = _SCHEMA.sub(r"nnctl-\1", copies[copied], count=1)
    for path, text in copies.items():
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, text.encode())
    return list(copies)


def _copies(preset: Preset, target: Path) -> Iterator[tuple[Path, str]]:
    """Yield the configurations to write; the commands in the comment name the copy."""
    if preset.is_sweep:
        (base,) = re.findall(r"^base: +(\S+)", preset.text, re.MULTILINE)
        below = PurePath(preset.name).with_name(base).with_suffix("").as_posix()
        yield from _copies(find_preset(below), target.with_name(base))
    command = rf"^(# +nnctl \w+ ){re.escape(preset.name)}(?=\s|$)"
    shown = shell_command(target)
    yield (
        target,
        re.sub(command, lambda match: match[1] + shown, preset.text, flags=re.MULTILINE),
    )
