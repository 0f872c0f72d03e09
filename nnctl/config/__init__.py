"""Reads and checks YAML configurations. The only package that handles YAML."""

from nnctl.config.checks import Check, Problem
from nnctl.config.loader import (
    from_mapping,
    possible_settings,
    replaced,
    resolve,
    to_mapping,
    to_yaml,
)
from nnctl.config.overrides import Override, apply_overrides
from nnctl.config.reader import Document, read_config, read_file
from nnctl.config.schema import Config, json_schema

__all__ = [
    "Check",
    "Config",
    "Document",
    "Override",
    "Problem",
    "apply_overrides",
    "from_mapping",
    "json_schema",
    "possible_settings",
    "read_config",
    "read_file",
    "replaced",
    "resolve",
    "to_mapping",
    "to_yaml",
]
