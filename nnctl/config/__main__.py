"""``python -m nnctl.config FOLDER`` writes the JSON Schemas to FOLDER; see ``make schema``."""

import json
import sys
from pathlib import Path

from nnctl.config.schema import Config, json_schema
from nnctl.config.sweeps import SweepConfig

for name, model in (("schema.json", Config), ("sweep-schema.json", SweepConfig)):
    text = json.dumps(json_schema(model), indent=2, ensure_ascii=False) + "\n"
    Path(sys.argv[1], name).write_text(text, encoding="utf-8", newline="\n")
