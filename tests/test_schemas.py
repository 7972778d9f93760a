import json
from pathlib import Path

import pytest

from scanner.cli.schemas import MODELS, render

FOLDER = Path(__file__).parents[1] / "schemas"


@pytest.mark.parametrize("name", MODELS)
def test_schema_is_that_of_the_model(name):
    file = FOLDER / f"{name}.schema.json"
    assert file.read_text(encoding="utf-8") == render(name), "run `make schemas`"


def test_there_are_no_others():
    assert {file.name for file in FOLDER.iterdir()} == {f"{name}.schema.json" for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_schemas_are_closed(name):
    schema = json.loads(render(name))
    for definition in [schema, *schema.get("$defs", {}).values()]:
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False or "properties" not in definition
