"""``python -m nnctl.config`` prints the JSON Schema: ``make schema`` writes it to ``configs``."""

import json

import click

from nnctl.config.schema import json_schema

click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
