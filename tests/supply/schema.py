#!/usr/bin/env python3
"""Holds bills of materials against CycloneDX's own JSON schema: schema.py FILE... (needs requirements.txt's packages)."""

import importlib.util
import json
import pathlib
import sys

from jsonschema import Draft7Validator, FormatChecker, RefResolver

# The schemas alone: the library around them would need many packages more.
folder = pathlib.Path(importlib.util.find_spec("cyclonedx").origin).parent / "schema" / "_res"
schemas = {path.name: json.loads(path.read_text()) for path in folder.glob("*.SNAPSHOT.schema.json")}
main = schemas["bom-1.5.SNAPSHOT.schema.json"]
base = main["$id"].rsplit("/", 1)[0]
resolver = RefResolver.from_schema(main, store={f"{base}/{name}": schema for name, schema in schemas.items()})
validator = Draft7Validator(main, resolver=resolver, format_checker=FormatChecker())

failed = 0
for path in sys.argv[1:]:
    errors = list(validator.iter_errors(json.loads(pathlib.Path(path).read_text())))
    for error in errors:
        print(f"{path}: {'/'.join(map(str, error.path))}: {error.message[:300]}")
    failed += bool(errors)
print(f"{len(sys.argv) - 1 - failed} passed, {failed} failed")
sys.exit(1 if failed or len(sys.argv) < 2 else 0)
